"""Sign convolutions with one output position for Helium: lanes are 128 output channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.kernels.base import Constant, Fields, Kernel, Option, Site, table, value_words
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.backend.kernels.single import inside
from bnnmcu.backend.kernels.thresholds import normal_form
from bnnmcu.graph import BinaryConv, Relu, Threshold
from bnnmcu.packing import LANES, pack_bits, words_for

__all__ = ["single"]

Array = npt.NDArray[Any]

#: Rows of one turn of the kernel's loop, and words of a row.
_BLOCK, _WORDS = 16, 4
#: Planes that the kernel keeps at least, and BNN_SINGLE_MVE_PLANES of bnn_single_mve.h.
_FEWEST_PLANES, _MOST_PLANES = 6, 24


def _bound(tail: Threshold, inputs: int, lanes: int, planes: int) -> Array:
    """The most mismatches with which a threshold is met, in planes: (vectors, planes, 4)."""
    threshold, _ = normal_form(tail)
    # Lanes without a channel: never.
    bound = np.full(lanes, -1, dtype=np.int64)
    # sum >= t is mismatches <= bound.
    bound[: len(threshold)] = np.clip((inputs - threshold.astype(np.int64)) // 2, -1, inputs)
    rows = np.stack([pack_bits(bound >> plane & 1) for plane in range(planes)])
    return rows.reshape(planes, -1, _WORDS).transpose(1, 0, 2)


def single(site: Site) -> Iterator[Option]:
    """One output position, no groups; what lies in the padding has no rows."""
    node = site.node
    assert isinstance(node, BinaryConv)
    if site.out.shape[:2] != (1, 1) or node.groups != 1:
        return
    rows, cols = inside(node, site.sources[0].shape)
    taps = node.weights[:, rows, cols]
    outputs, channels = len(taps), taps.shape[3]
    taps = taps.reshape(outputs, -1, channels)
    count = taps.shape[1]
    inputs = count * channels
    planes = max(_FEWEST_PLANES, inputs.bit_length() + 1)
    if not count or planes > _MOST_PLANES:
        return
    vectors = -(-words_for(outputs) // _WORDS)
    lanes = vectors * _WORDS * LANES
    padded = -(-channels // _BLOCK) * _BLOCK
    blocks = count * padded // _BLOCK
    bits = np.zeros((count * padded, lanes), dtype=np.uint8)
    bits.reshape(count, padded, lanes)[:, :channels, :outputs] = taps.transpose(1, 2, 0)
    packed = pack_bits(bits).reshape(len(bits), vectors, _WORDS)
    tables: tuple[Constant, ...] = (table("rows", packed.transpose(1, 0, 2)),)
    if isinstance(site.tail, Threshold):
        _, flip = normal_form(site.tail)
        tables += (
            table("bound", _bound(site.tail, inputs, lanes, planes)),
            table("flip", pack_bits(flip.astype(np.uint8))),
        )
    fields: Fields = {
        "shape": shape_fields(node.window, site.sources[0], site.out),
        **{t.role: t.role for t in tables},
        "inputs": inputs,
        "blocks": blocks,
        "planes": planes,
        "relu": int(isinstance(site.tail, Relu)),
    }
    kernel = Kernel(
        function="bnn_single_vectors",
        struct="bnn_single_mve_t",
        fields=fields,
        constants=tables,
        result_words=value_words(site.out),
        scratch_words=_WORDS * (blocks + planes) + LANES,
        macs=node.macs(site.sources[0].shape),
        header="bnn_single_mve.h",
    )
    kept = 0 if isinstance(site.tail, Threshold) else words_for(outputs)
    work = {
        "call": 1.0,
        "block": float(blocks * vectors),
        "group": float(vectors),
        "sum": float(LANES * kept),
    }
    yield Option("masked-vectors", kernel, work)
