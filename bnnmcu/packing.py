"""Bits in 32-bit words: the layout that graphs' executors and the C share.

Channel c of a position stands in word c // 32, bit c % 32; positions follow
each other in (row, column) order.  Lanes beyond the last channel are zero on
both sides of an XOR, so they never count as mismatches.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LANES", "pack_bits", "pack_planes", "unpack_bits", "words_for"]

LANES = 32


def words_for(channels: int) -> int:
    """Words that hold one bit for each channel."""
    return -(-channels // LANES)


def pack_bits(bits: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Pack the last axis: (..., C) of {0, 1} to (..., ceil(C / 32)) words."""
    channels = bits.shape[-1]
    padding = words_for(channels) * LANES - channels
    padded = np.pad(bits.astype(np.uint8), [(0, 0)] * (bits.ndim - 1) + [(0, padding)])
    octets = np.packbits(padded, axis=-1, bitorder="little")
    return np.ascontiguousarray(octets).view("<u4").astype(np.uint32)


def unpack_bits(words: npt.NDArray[np.uint32], channels: int) -> npt.NDArray[np.uint8]:
    """The inverse of :func:`pack_bits`: (..., W) words to (..., channels) of {0, 1}."""
    octets = np.ascontiguousarray(words.astype("<u4")).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little")[..., :channels]


def pack_planes(levels: npt.NDArray[np.uint8], planes: int) -> npt.NDArray[np.uint32]:
    """k-bit levels (O, KH, KW, I) to (W, k) words, plane 0 least significant.

    W runs over filter, kernel row, kernel column, channel word: the order in
    which weights are drawn.
    """
    packed = [pack_bits((levels >> j) & 1).reshape(-1) for j in range(planes)]
    return np.ascontiguousarray(np.stack(packed, axis=1))
