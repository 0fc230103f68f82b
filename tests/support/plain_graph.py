"""A second executor, in loops over Python integers, from the docstring of bnnmcu.graph alone.

Slow and without a thought of speed: it shares no line with ``bnnmcu.reference``,
and Python's integers cannot overflow.  Bits are 0 and 1, as on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.graph import (
    ALWAYS,
    GE,
    INPUT,
    LE,
    Add,
    Affine,
    BinaryConv,
    Clamp,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    SumPool,
    TensorSpec,
    Threshold,
    infer,
)

__all__ = ["plain_evaluate", "plain_run"]

#: Rows of columns of channels.
Image = list[list[list[int]]]
Array = npt.NDArray[Any]


def _signed(value: Image, spec: TensorSpec) -> Image:
    if spec.kind != "bit":
        return value
    return [[[1 if bit == 1 else -1 for bit in pixel] for pixel in row] for row in value]


def _each(value: Image, change: Callable[[int, int], int]) -> Image:
    """Every value by ``change(value, channel)``."""
    return [[[change(x, c) for c, x in enumerate(pixel)] for pixel in row] for row in value]


def _positions(size: int, extent: int, before: int, after: int, stride: int) -> range:
    """First row (or column) of every window; negative ones lie in the padding."""
    count = math.floor((size + before + after - extent) / stride) + 1
    return range(-before, -before + count * stride, stride)


def _windows(node: Conv | MaxPool | SumPool, value: Image) -> Iterator[Iterator[list[Any]]]:
    """For each row and column out: its taps as (i, j, pixel or None outside)."""
    if isinstance(node, Conv):
        kh, kw = node.weights.shape[1:3]
    else:
        kh, kw = node.kernel
    dy, dx = node.dilation if not isinstance(node, SumPool) else (1, 1)
    top, left, bottom, right = node.padding
    height, width = len(value), len(value[0])

    def taps(y: int, x: int) -> list[Any]:
        found = []
        for i in range(kh):
            for j in range(kw):
                row, col = y + i * dy, x + j * dx
                inside = 0 <= row < height and 0 <= col < width
                found.append((i, j, value[row][col] if inside else None))
        return found

    for y in _positions(height, (kh - 1) * dy + 1, top, bottom, node.stride[0]):
        cols = _positions(width, (kw - 1) * dx + 1, left, right, node.stride[1])
        yield (taps(y, x) for x in cols)


def _conv(node: Conv, value: Image, weights: list[Any]) -> Image:
    outputs, per_group = len(weights), int(node.weights.shape[3])
    fill = None
    if isinstance(node, IntegerConv) and node.fill is not None:
        fill = [int(pixel) for pixel in node.fill]

    def total(o: int, taps: list[Any]) -> int:
        first = o // (outputs // node.groups) * per_group
        sum_ = 0
        for i, j, pixel in taps:
            pixel = fill if pixel is None else pixel
            if pixel is None:
                continue
            for c in range(per_group):
                w = int(weights[o][i][j][c])
                if not isinstance(node, IntegerConv):
                    w = 1 if w == 1 else -1
                sum_ += w * pixel[first + c]
        return sum_

    return [
        [[total(o, taps) for o in range(outputs)] for taps in row] for row in _windows(node, value)
    ]


def _pool(node: MaxPool | SumPool, value: Image) -> Image:
    def pooled(taps: list[Any], c: int) -> int:
        inside = [pixel[c] for _, _, pixel in taps if pixel is not None]
        if isinstance(node, SumPool):
            return sum(inside)
        smallest = node.minimum is not None and int(node.minimum[c]) == 1
        return min(inside) if smallest else max(inside)

    channels = range(len(value[0][0]))
    return [[[pooled(taps, c) for c in channels] for taps in row] for row in _windows(node, value)]


def _threshold(node: Threshold, x: int, c: int) -> int:
    value, kind = int(node.value[c]), int(node.kind[c])
    if kind == GE:
        return int(x >= value)
    return int(x <= value) if kind == LE else int(kind == ALWAYS)


def _affine(node: Affine, x: int, c: int) -> int:
    factors = node.mul if x >= 0 or node.neg is None else node.neg
    product = int(factors[c]) * x + int(node.add[c])
    assert -(2**63) <= product < 2**63
    return product // 2**node.shift


def plain_evaluate(
    node: Node, values: Mapping[str, Image], spec: TensorSpec, drawn: Array | None = None
) -> Image:
    """One node's value for one image; a dense layer gives one position.

    Args:
        values: of the nodes it takes.
        spec: of its first source.
        drawn: weights {0, 1} of a stochastic convolution, shape (O, KH, KW, I / groups).
    """
    value = values[node.source]
    if isinstance(node, MaxPool):
        return _pool(node, value)
    value = _signed(value, spec)
    if isinstance(node, SumPool):
        return _pool(node, value)
    if isinstance(node, (IntegerConv, BinaryConv)):
        return _conv(node, value, node.weights.tolist())
    if isinstance(node, Conv):
        assert drawn is not None
        return _conv(node, value, drawn.tolist())
    if isinstance(node, Threshold):
        return _each(value, lambda x, c: _threshold(node, x, c))
    if isinstance(node, Relu):
        return _each(value, lambda x, c: x if x > 0 else 0)
    if isinstance(node, Clamp):
        return _each(value, lambda x, c: min(max(x, node.low), node.high))
    if isinstance(node, Affine):
        return _each(value, lambda x, c: _affine(node, x, c))
    if isinstance(node, Add):
        pairs = zip(value, values[node.other], strict=True)
        return [
            [[a + b for a, b in zip(*p, strict=True)] for p in zip(*r, strict=True)] for r in pairs
        ]
    assert isinstance(node, Dense)
    flat = [x for row in value for pixel in row for x in pixel]
    bias = [0] * len(node.weights) if node.bias is None else node.bias.tolist()
    rows = zip(node.weights.tolist(), bias, strict=True)
    return [[[sum(w * x for w, x in zip(row, flat, strict=True)) + b for row, b in rows]]]


def plain_run(graph: Graph, image: Array, drawn: Mapping[str, Array]) -> dict[str, Image]:
    """Every value for one image (H, W, C) and one draw of the weights, by name."""
    specs = infer(graph)
    values: dict[str, Image] = {INPUT: image.astype(np.int64).tolist()}
    for node in graph.nodes:
        spec = specs[node.source]
        values[node.name] = plain_evaluate(node, values, spec, drawn.get(node.name))
    return values
