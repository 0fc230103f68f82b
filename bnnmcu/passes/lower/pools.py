"""Pools: on the integers themselves, with the chain behind them."""

from __future__ import annotations

import numpy as np

from bnnmcu.graph import INT32_MAX, MaxPool, SumPool
from bnnmcu.network import ops
from bnnmcu.passes.lower.builder import Builder, graph_name
from bnnmcu.passes.lower.chain import Chain, Line
from bnnmcu.passes.lower.streams import coarser, materialize, rectified
from bnnmcu.passes.lower.value import Value

__all__ = ["average_pool", "max_pool"]


def max_pool(builder: Builder, op: ops.MaxPool, value: Value) -> Value:
    """The largest of f(x) is f of the largest x, or of the smallest where f falls."""
    direction = value.chain.direction
    if direction is None:
        value, _ = materialize(builder, value)
        direction = value.chain.direction
        assert direction is not None
    falling = (direction < 0).astype(np.uint8)
    node = builder.emit(
        op.name,
        MaxPool(
            graph_name(op.name),
            value.node,
            op.kernel,
            op.stride,
            op.padding,
            dilation=op.dilation,
            minimum=falling if falling.any() else None,
        ),
    )
    return Value(op.name, node.name, builder.specs[node.name], value.chain)


def average_pool(builder: Builder, op: ops.AvgPool, value: Value) -> Value:
    """A sum; the divisor goes into the chain."""
    value = rectified(builder, value)
    line = value.chain.line
    if line is None or (any(op.padding) and np.any(line[1] != 0)):
        value, _ = materialize(builder, value)
        line = value.chain.line
        assert line is not None
    taps = op.kernel[0] * op.kernel[1]
    height, width, _ = value.spec.shape
    most = min(op.kernel[0], height) * min(op.kernel[1], width)
    value, factor = coarser(builder, value, INT32_MAX // most)
    divisor = taps if op.divisor is None else op.divisor
    node = builder.emit(
        op.name, SumPool(graph_name(op.name), value.node, op.kernel, op.stride, op.padding)
    )
    # Every tap has the offset; without padding all of them are inside.
    behind = Line(op.name, line[0] * factor / divisor, line[1] * taps / divisor)
    chain = Chain(value.chain.channels).then(behind)
    return Value(op.name, node.name, builder.specs[node.name], chain)
