"""From a float network to integer nodes: one rule for each kind of operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import INPUT as GRAPH_INPUT
from bnnmcu.graph import Graph, TensorSpec
from bnnmcu.network import Network, ops, shapes
from bnnmcu.network.ops import INPUT, Op
from bnnmcu.passes.lower import convs, logits, pools, signs, streams
from bnnmcu.passes.lower.builder import Builder
from bnnmcu.passes.lower.chain import Chain, Kink, Limit, Line
from bnnmcu.passes.lower.value import Value
from bnnmcu.passes.options import Quantization

__all__ = ["lower_network"]


def _limit(builder: Builder, op: ops.Clamp, value: Value) -> Value:
    return value.then(op.name, Limit(op.name, op.low, op.high))


def _line(builder: Builder, op: ops.Affine, value: Value) -> Value:
    return value.then(op.name, Line(op.name, op.scale, op.offset))


def _kink(builder: Builder, op: ops.PRelu, value: Value) -> Value:
    return value.then(op.name, Kink(op.name, op.slope))


def _decide(builder: Builder, op: ops.Decide, value: Value) -> Value:
    for step in op.steps:
        value = _RULES[type(step)](builder, step, value)
    return signs.sign(builder, op, value)


_RULES: dict[type[Op], Callable[[Builder, Any, Value], Value]] = {
    ops.Conv: convs.convolve,
    ops.Sign: signs.sign,
    ops.Decide: _decide,
    ops.MaxPool: pools.max_pool,
    ops.AvgPool: pools.average_pool,
    ops.Clamp: _limit,
    ops.Affine: _line,
    ops.PRelu: _kink,
}
_REWRITES = {
    ops.Flatten: "flatten right before a linear layer only",
    ops.Linear: "flatten the maps before a linear layer",
    ops.Pad: "pad with zeros inside the convolution: Conv2d(..., padding=...)",
}


def lower_network(
    network: Network, options: Quantization, calibration: npt.NDArray[np.uint8] | None = None
) -> tuple[Graph, Builder]:
    """Quantise a canonical network.

    Raises:
        UnsupportedModelError: an operation cannot be expressed in integers.
    """
    channels, height, width = network.input_shape
    spec = TensorSpec((height, width, channels), "u8", 0, 255)
    builder = Builder(options, {GRAPH_INPUT: spec}, network, calibration)
    start = Line(INPUT, network.input_scale, network.input_offset)
    builder.values[INPUT] = Value(INPUT, GRAPH_INPUT, spec, Chain(channels).then(start))
    last_conv = logits.classifier(network, shapes(network))
    for i, op in enumerate(network.ops):
        source = builder.values[op.source]
        if i == last_conv:
            conv, after = network.ops[i], network.ops[i + 1 :]
            assert isinstance(conv, ops.Conv)
            lines = tuple(line for line in after if isinstance(line, ops.Affine))
            if logits.dense(builder, conv, lines, source):
                break
        if isinstance(op, ops.Add):
            value = streams.add(builder, op.name, source, builder.values[op.other])
        else:
            rule = _RULES.get(type(op))
            if rule is None:
                raise UnsupportedModelError(
                    f"{type(op).__name__.lower()} cannot stand here",
                    where=op.name,
                    hint=_REWRITES.get(type(op)),
                )
            value = rule(builder, op, source)
        builder.values[op.name] = value
        if not isinstance(op, ops.Sign | ops.Decide):
            builder.tap(value)
    else:
        logits.finish(builder, builder.values[network.ops[-1].name])
    graph = Graph(
        name=network.name,
        input_shape=(height, width, channels),
        nodes=tuple(builder.nodes),
        logit_scale=builder.logit_scale,
        generator=options.generator,
    )
    return graph, builder
