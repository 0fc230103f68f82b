"""Fast kernels for sign convolutions with one output position: lanes are output channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.kernels.base import (
    Constant,
    Fields,
    Kernel,
    Offer,
    Option,
    Site,
    table,
    value_words,
)
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.backend.kernels.thresholds import normal_form
from bnnmcu.graph import BinaryConv, Node, Relu, Threshold
from bnnmcu.packing import LANES, pack_bits, words_for

__all__ = ["OFFERS", "inside"]

Array = npt.NDArray[Any]

#: Rows of one turn of the kernels' loops.
_BLOCK = 16
#: BNN_SINGLE_PLANES of bnn_single.h.
_MOST_PLANES = 24
_HEADER = "bnn_single.h"


def inside(node: BinaryConv, shape: tuple[int, int, int]) -> tuple[slice, slice]:
    """The rows and columns of the first window's taps that lie in the input."""
    parts = []
    for axis in range(2):
        start, step = -node.window.padding[axis], node.window.dilation[axis]
        first = -(start // step)
        last = min(node.window.kernel[axis], (shape[axis] - 1 - start) // step + 1)
        parts.append(slice(min(first, max(last, 0)), max(last, 0)))
    return parts[0], parts[1]


def _planes(values: Array, count: int) -> npt.NDArray[np.uint32]:
    """Two's complement of values (lanes,) as bit-planes (words, count)."""
    rows = [pack_bits(values >> plane & 1) for plane in range(count)]
    return np.stack(rows, axis=1)


def _lanes(values: Array, rest: int) -> Array:
    """Values of channels, filled up with ``rest`` to whole words."""
    filled = np.full(words_for(len(values)) * LANES, rest, dtype=np.int64)
    filled[: len(values)] = values
    return filled


def _fields(site: Site, work: Mapping[str, int], tables: tuple[Constant, ...]) -> Fields:
    node = site.node
    assert isinstance(node, BinaryConv)
    return {
        "shape": shape_fields(node.window, site.sources[0], site.out),
        **work,
        **{t.role: t.role for t in tables},
        "relu": 1 if isinstance(site.tail, Relu) else 0,
    }


def _order(channels: int, inputs: int) -> Array:
    """Inputs in the order of their rows: bits 0, 8, 16, 24, 1, 9, ... of every whole word."""
    word = np.arange(LANES).reshape(4, 8).T.reshape(-1)
    order = np.arange(channels)
    for start in range(0, channels - LANES + 1, LANES):
        order[start : start + LANES] = start + word
    return (np.arange(0, inputs, channels)[:, np.newaxis] + order).reshape(-1)


def _rows(site: Site, node: BinaryConv, weights: Array) -> Iterator[Option]:
    """Rows of active inputs: the same number of them always, or as many as there are."""
    outputs, inputs = weights.shape
    groups = words_for(outputs)
    blocks = max(1, -(-(inputs // 2) // _BLOCK))
    most = blocks * _BLOCK
    planes = max(5, (most + 1).bit_length() + 1)
    if planes > _MOST_PLANES:
        return
    rows = np.zeros((inputs + 1, groups), dtype=np.uint32)
    rows[:inputs] = pack_bits(weights.T[_order(site.sources[0].shape[2], inputs)])
    # Without regard to the input: the sum less 4 for each active weight that is set, ...
    base = inputs - 2 * weights.astype(np.int64).sum(axis=1)
    tables: tuple[Constant, ...] = (table("rows", rows),)
    if isinstance(site.tail, Threshold):
        threshold, flip = normal_form(site.tail)
        bounds = []
        # ... and its negative if the others are added up.
        for wanted in (threshold.astype(np.int64), 1 - threshold.astype(np.int64)):
            half = np.clip(-((base - wanted) // 2) - 1, -most - 1, most)
            bounds.append(_planes(_lanes(half, -most - 1), planes + 1))
        # The sign of (count - bound) is taken as it is: that is the reverse for the others.
        turned = [_lanes(~flip, 0), _lanes(flip, 0)]
        tables += (
            table("bound", np.stack(bounds)),
            table("flip", np.stack([pack_bits(t) for t in turned])),
        )
    else:
        tables += (table("base", base.astype(np.int32)),)
    work = {"inputs": inputs, "blocks": blocks, "planes": planes}
    kernel = Kernel(
        function="bnn_single_padded",
        struct="bnn_single_t",
        fields=_fields(site, work, tables),
        constants=tables,
        result_words=value_words(site.out),
        scratch_words=most + 1 + blocks,
        macs=node.macs(site.sources[0].shape),
        header=_HEADER,
    )
    yield Option("rows", kernel, _work(site, inputs, blocks * groups), "count")
    yield Option(
        "rows-active",
        Kernel(**{**vars(kernel), "function": "bnn_single_active"}),
        _work(site, inputs, blocks * groups),
        "none",
    )


def _work(site: Site, inputs: int, blocks: int) -> dict[str, float]:
    outputs = site.out.shape[2]
    kept = 0 if isinstance(site.tail, Threshold) else outputs
    return {"call": 1, "input": inputs, "block": blocks, "group": words_for(outputs), "sum": kept}


def _dense(site: Site, node: BinaryConv, taps: Array) -> Iterator[Option]:
    """All rows, masked: taps (outputs, taps inside, channels)."""
    outputs, count, channels = taps.shape
    inputs, groups = count * channels, words_for(outputs)
    padded = -(-channels // _BLOCK) * _BLOCK
    blocks = count * padded // _BLOCK
    planes = max(5, inputs.bit_length() + 1)
    if planes > _MOST_PLANES:
        return
    rows = np.zeros((count, padded, groups), dtype=np.uint32)
    rows[:, :channels] = pack_bits(taps.transpose(1, 2, 0))
    tables: tuple[Constant, ...] = (table("rows", rows.transpose(2, 0, 1)),)
    if isinstance(site.tail, Threshold):
        threshold, flip = normal_form(site.tail)
        # sum >= t is mismatches <= bound.
        bound = np.clip((inputs - threshold.astype(np.int64)) // 2, -1, inputs)
        tables += (
            table("bound", _planes(_lanes(bound, -1), planes)),
            table("flip", pack_bits(flip.astype(np.uint8))),
        )
    else:
        tables += (table("base", np.full(outputs, inputs, dtype=np.int32)),)
    work = {"inputs": inputs, "blocks": blocks, "planes": planes}
    kernel = Kernel(
        function="bnn_single_dense",
        struct="bnn_single_t",
        fields=_fields(site, work, tables),
        constants=tables,
        result_words=value_words(site.out),
        scratch_words=blocks,
        macs=node.macs(site.sources[0].shape),
        header=_HEADER,
    )
    yield Option("masked", kernel, _work(site, 0, blocks * groups), "time")


def single(site: Site) -> Iterator[Option]:
    """One output position, no groups; what lies in the padding has no rows."""
    node = site.node
    assert isinstance(node, BinaryConv)
    if site.out.shape[:2] != (1, 1) or node.groups != 1:
        return
    rows, cols = inside(node, site.sources[0].shape)
    taps = node.weights[:, rows, cols]
    taps = taps.reshape(len(taps), -1, taps.shape[3])
    if not taps.shape[1]:
        return
    yield from _rows(site, node, taps.reshape(len(taps), -1))
    yield from _dense(site, node, taps)


OFFERS: dict[type[Node], tuple[Offer, ...]] = {BinaryConv: (single,)}
