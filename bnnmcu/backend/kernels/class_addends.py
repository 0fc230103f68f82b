"""What is added to m - 2 M in ``bnn_classes.h``: thresholds, and what padding takes away."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.kernels.base import Constant, Site, table
from bnnmcu.backend.kernels.thresholds import normal_form
from bnnmcu.graph import BinaryConv, Threshold
from bnnmcu.packing import LANES, pack_bits

__all__ = ["addend_tables"]

Array = npt.NDArray[Any]


def _inside(site: Site) -> Array:
    """bool (positions, taps): whether a tap lies inside the input."""
    node = site.node
    assert isinstance(node, BinaryConv)
    window = node.window
    axes = []
    for axis in range(2):
        at = np.arange(site.out.shape[axis])[:, None] * window.stride[axis]
        at = at + np.arange(window.kernel[axis]) * window.dilation[axis] - window.padding[axis]
        axes.append((at >= 0) & (at < site.sources[0].shape[axis]))
    rows, cols = axes
    both = rows[:, None, :, None] & cols[None, :, None, :]
    inside: Array = both.reshape(len(rows) * len(cols), -1)
    return inside


def _addends(site: Site, sizes: list[int]) -> Array:
    """int64 (positions, filters): what is added to m - 2 M."""
    node = site.node
    assert isinstance(node, BinaryConv)
    outputs, kh, kw, channels = node.weights.shape
    taps = node.weights.reshape(outputs, kh * kw, channels).astype(np.int64)
    starts = np.cumsum([0, *sizes[:-1]])
    firsts = taps[np.repeat(starts, sizes)]
    differing = (taps ^ firsts).sum(axis=2)
    inside = _inside(site).astype(np.int64)
    disagreeing: Array = inside @ differing.T
    if not isinstance(site.tail, Threshold):
        return disagreeing
    threshold, _ = normal_form(site.tail)
    there = inside.sum(axis=1)[:, None] * channels
    # n - 2 m >= t is m <= (n - t) / 2; -1 and n stand for never and always.
    most = np.clip((there - threshold.astype(np.int64)) >> 1, -1, there)
    addends: Array = disagreeing - most - 1
    return addends


def addend_tables(site: Site, sizes: list[int], planes: int) -> tuple[Constant, ...] | None:
    """One number a filter, or bit-planes over the lanes of each kind of group; None: too many."""
    addends = _addends(site, sizes)
    if (addends == addends[0]).all():
        return (table("addend", addends[0].astype(np.int16)),)
    positions, outputs = addends.shape
    groups = -(-positions // LANES)
    padded = np.zeros((groups * LANES, outputs), dtype=np.int64)
    padded[:positions] = addends
    kinds, edge = np.unique(padded.reshape(groups, LANES, outputs), axis=0, return_inverse=True)
    if len(kinds) > 256:
        return None
    bits = (kinds[..., None] >> np.arange(planes)) & 1
    edges = pack_bits(bits.transpose(0, 2, 3, 1).astype(np.uint8))
    return (table("edges", edges), table("edge", edge.reshape(-1).astype(np.uint8)))
