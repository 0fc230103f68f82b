"""The end of a network: integer logits with one scale."""

from __future__ import annotations

import numpy as np

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import Dense
from bnnmcu.network import Network, ops
from bnnmcu.passes.lower.builder import Builder, Tap, graph_name
from bnnmcu.passes.lower.convs import absorb, per_input
from bnnmcu.passes.lower.fold import quantize_dense, signs_of
from bnnmcu.passes.lower.streams import materialize
from bnnmcu.passes.lower.value import Value
from bnnmcu.passes.options import LayerError

__all__ = ["classifier", "dense", "finish"]


def classifier(network: Network, shapes: dict[str, tuple[int, int, int]]) -> int | None:
    """Index of the convolution that can be the dense layer; only lines may follow it."""
    readers: dict[str, int] = {}
    for op in network.ops:
        for source in op.sources:
            readers[source] = readers.get(source, 0) + 1
    at = len(network.ops) - 1
    while at >= 0 and isinstance(network.ops[at], ops.Affine):
        at -= 1
        if at < 0 or network.ops[at + 1].source != network.ops[at].name:
            return None
        if readers[network.ops[at].name] != 1:
            return None
    op = network.ops[at]
    if not isinstance(op, ops.Conv) or op.drawn or op.groups != 1 or any(op.padding):
        return None
    if shapes[op.name][1:] != (1, 1) or op.weights.shape[2:] != shapes[op.source][1:]:
        return None
    return at


def dense(builder: Builder, op: ops.Conv, after: tuple[ops.Affine, ...], value: Value) -> bool:
    """Lower the classifier and the lines behind it to a Dense node.

    Returns:
        False if it is a binary layer, which is better kept as one.
    """
    line = value.chain.line
    on_signs = value.spec.kind == "bit" and line is not None and bool(np.all(line[1] == 0))
    if on_signs and line is not None and signs_of(op.weights * per_input(op, line[0])) is not None:
        return False
    value = absorb(builder, op, value)
    line = value.chain.line
    assert line is not None
    weights = op.weights * per_input(op, line[0])
    bias = (op.weights * per_input(op, line[1])).sum(axis=(1, 2, 3))
    if op.bias is not None:
        bias = bias + op.bias
    for affine in after:
        weights = affine.scale.reshape(-1, 1, 1, 1) * weights
        bias = affine.scale * bias + affine.offset
    # torch flattens (C, H, W); the graph flattens (H, W, C).
    ordered = np.asarray(weights.transpose(0, 2, 3, 1).reshape(len(weights), -1), np.float64)
    integers, scale = quantize_dense(ordered)
    builder.errors.append(
        LayerError.of(op.name, 16, ordered, np.asarray(integers * scale, np.float64))
    )
    steps = np.rint(bias / scale)
    if np.abs(steps).max() >= 2.0**62:
        raise UnsupportedModelError(
            "its bias is out of all proportion to its weights",
            where=op.name,
            hint="check the batch norm behind it for a variance near zero",
        )
    node = builder.emit(
        op.name,
        Dense(
            graph_name(op.name),
            value.node,
            integers,
            bias=steps.astype(np.int64) if steps.any() else None,
        ),
    )
    builder.logit_scale = scale
    _tap(builder, after[-1].name if after else op.name, node.name, scale)
    return True


def finish(builder: Builder, value: Value) -> None:
    """Give the last value one scale for all classes."""
    uniform = value.uniform
    last = bool(builder.nodes) and builder.nodes[-1].name == value.node
    if last and value.spec.kind == "int" and uniform is not None and uniform > 0:
        builder.logit_scale = uniform
        _tap(builder, value.op, value.node, uniform)
        return
    final, scale = materialize(builder, value, _fresh_scale(value))
    builder.logit_scale = scale
    _tap(builder, value.op, final.node, scale)


def _fresh_scale(value: Value) -> float:
    """A scale other than the value's own, so that a node is made even for a value read twice."""
    lows, highs = value.bounds()
    reach = float(max(np.abs(lows).max(), np.abs(highs).max())) or 1.0
    return reach / 2.0**24


def _tap(builder: Builder, op: str, node: str, scale: float) -> None:
    channels = builder.specs[node].shape[2]
    builder.taps = [tap for tap in builder.taps if tap.op != op]
    builder.taps.append(
        Tap(
            op,
            node,
            np.full(channels, scale),
            np.zeros(channels),
            np.arange(channels, dtype=np.int64),
        )
    )
