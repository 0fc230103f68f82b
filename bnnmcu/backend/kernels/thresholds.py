"""Thresholds of every kind as the one comparison that the kernels make."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.kernels.base import Constant, table
from bnnmcu.graph import ALWAYS, GE, INT32_MAX, LE, NEVER, Threshold
from bnnmcu.packing import LANES, pack_bits, words_for

__all__ = ["lane_tables", "normal_form", "threshold_tables"]

Array = npt.NDArray[Any]


def normal_form(node: Threshold) -> tuple[Array, Array]:
    """``(value >= threshold) XOR flip``: int32 and bool, shape (C,)."""
    value = node.value.astype(np.int64)
    lowest = -INT32_MAX - 1
    # sum <= v is not (sum >= v + 1); with the largest int32 as v it is always true.
    top = (node.kind == LE) & (value == INT32_MAX)
    threshold = np.select(
        [top, node.kind == GE, node.kind == LE], [lowest, value, value + 1], default=lowest
    )
    flip = ((node.kind == LE) & ~top) | (node.kind == NEVER)
    assert not np.any(flip & (node.kind == ALWAYS))
    return threshold.astype(np.int32), flip


def _flip_tables(flip: Array) -> tuple[Constant, ...]:
    return (table("flip", pack_bits(flip.astype(np.uint8))),) if flip.any() else ()


def threshold_tables(node: Threshold) -> tuple[Constant, ...]:
    """``threshold``, and ``flip`` where any bit is flipped."""
    threshold, flip = normal_form(node)
    return (table("threshold", threshold), *_flip_tables(flip))


def lane_tables(node: Threshold, taps: int, planes: int) -> tuple[Constant, ...]:
    """``limit`` and ``flip`` of ``bnn_conv_lanes_t``, whose counts are taps - sum.

    A limit that no count can pass stands for always, and flipped for never;
    lanes without a channel never, so that unused bits are zero.
    """
    threshold, flip = normal_form(node)
    most = (1 << planes) - 1
    lanes = words_for(len(threshold)) * LANES
    limit = np.full(lanes, most, dtype=np.int64)
    flipped = np.ones(lanes, dtype=bool)
    room = taps - threshold.astype(np.int64)
    limit[: len(room)] = np.where(room < 0, most, np.minimum(room, most))
    flipped[: len(room)] = flip ^ (room < 0)
    rows = [pack_bits(limit >> plane & 1) for plane in range(planes)]
    return (table("limit", np.stack(rows, axis=1)), *_flip_tables(flipped))
