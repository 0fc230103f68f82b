"""Shapes, kinds and ranges of every value: what makes a graph sound."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bnnmcu.errors import GraphError
from bnnmcu.graph.convs import BinaryConv, Conv, IntegerConv, StochasticConv
from bnnmcu.graph.nodes import (
    Add,
    Affine,
    Clamp,
    Dense,
    MaxPool,
    Node,
    Pool,
    Relu,
    SumPool,
    Threshold,
)
from bnnmcu.graph.values import INPUT, INT32_MAX, INT64_MAX, MAX_SIDE, TensorSpec

if TYPE_CHECKING:
    from bnnmcu.graph.model import Graph

__all__ = ["infer", "infer_node"]

#: All there are; a subclass of one of them is something else.
_OPERATIONS = (
    *(IntegerConv, BinaryConv, StochasticConv, Threshold, Relu, Clamp),
    *(Affine, Add, MaxPool, SumPool, Dense),
)


def _product_range(weights: np.ndarray, low: int, high: int) -> list[tuple[int, int]]:
    """Bounds of each row of weights (O, n) times values in [low, high].

    Zero belongs to the values: partial sums begin there, and padding may add nothing.  So
    every sum of some of the products is bounded too, in whatever order they are added.
    Python integers: the bound itself may not fit any machine type.
    """
    low, high = min(low, 0), max(high, 0)
    flat = weights.reshape(len(weights), -1)
    positive = np.where(flat > 0, flat, 0).astype(np.int64).sum(axis=1).tolist()
    negative = np.where(flat < 0, flat, 0).astype(np.int64).sum(axis=1).tolist()
    return [
        (p * low + n * high, p * high + n * low) for p, n in zip(positive, negative, strict=True)
    ]


def _conv(node: Conv, source: TensorSpec) -> TensorSpec:
    shape = node.output_shape(source.shape)
    if not isinstance(node, IntegerConv):
        taps = int(np.prod(node.weights.shape[1:]))
        return TensorSpec(shape, "int", -taps, taps)
    if node.fill is not None and source.kind != "u8":
        raise GraphError("only padding around pixels can stand for a pixel", where=node.name)
    pairs = _product_range(node.weights, *source.bounds)
    return TensorSpec(shape, "int", min(p[0] for p in pairs), max(p[1] for p in pairs))


def _affine(node: Affine, source: TensorSpec) -> TensorSpec:
    if node.mul.shape != (source.shape[2],):
        raise GraphError(f"{node.mul.size} factors for {source.shape[2]} channels", where=node.name)
    low, high = source.bounds
    negative = node.mul if node.neg is None else node.neg
    values = []
    for mul, neg, add in zip(node.mul.tolist(), negative.tolist(), node.add.tolist(), strict=True):
        # Linear on either side of zero, so that its extremes lie at these points.
        points = {low, high} | ({-1, 0} if low < 0 <= high else set())
        values += [(mul if x >= 0 else neg) * x + add for x in points]
    if max(-min(values), max(values)) > INT64_MAX:
        raise GraphError("a product can leave 64 bits", where=node.name)
    return TensorSpec(source.shape, "int", min(values) >> node.shift, max(values) >> node.shift)


def _pool(node: Pool, source: TensorSpec) -> TensorSpec:
    rows, cols = node.window.output_side(source.shape, node.name)
    shape = (rows, cols, source.shape[2])
    down, across = node.window.taps_inside(source.shape, node.name)
    least, most = int(down.min()) * int(across.min()), int(down.max()) * int(across.max())
    if isinstance(node, SumPool):
        low, high = source.bounds
        return TensorSpec(
            shape, "int", min(low * most, low * least), max(high * most, high * least)
        )
    assert isinstance(node, MaxPool)
    if least == 0:
        raise GraphError(
            "a window lies in the padding alone, and has no largest value", where=node.name
        )
    if node.minimum is not None and node.minimum.shape != (source.shape[2],):
        raise GraphError(
            f"minimum for {node.minimum.size} of {source.shape[2]} channels", where=node.name
        )
    return TensorSpec(shape, source.kind, source.low, source.high)


def _dense(node: Dense, source: TensorSpec) -> TensorSpec:
    if node.weights.shape[1] != source.size:
        raise GraphError(
            f"takes {node.weights.shape[1]} values, gets {source.size}", where=node.name
        )
    pairs = _product_range(node.weights, *source.bounds)
    bias = [0] * len(pairs) if node.bias is None else node.bias.tolist()
    # With and without the bias: executors may add it first or last.
    lows = [low + min(b, 0) for (low, _), b in zip(pairs, bias, strict=True)]
    highs = [high + max(b, 0) for (_, high), b in zip(pairs, bias, strict=True)]
    return TensorSpec((1, 1, int(node.weights.shape[0])), "int", min(lows), max(highs))


def _value_of(node: Node, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    if type(node) not in _OPERATIONS:
        raise GraphError(f"unknown operation {type(node).__name__}", where=node.name)
    source = specs[node.source]

    def expects(*kinds: str) -> None:
        if source.kind not in kinds:
            raise GraphError(
                f"takes {' or '.join(kinds)} values, gets {source.kind}", where=node.name
            )

    if isinstance(node, Conv):
        expects(*(("u8", "int", "bit") if isinstance(node, IntegerConv) else ("bit",)))
        return _conv(node, source)
    if isinstance(node, Threshold):
        expects("u8", "int")
        if node.value.shape != (source.shape[2],):
            raise GraphError(
                f"{node.value.size} thresholds for {source.shape[2]} channels", where=node.name
            )
        return TensorSpec(source.shape, "bit", 0, 1)
    if isinstance(node, Relu):
        expects("int")
        return TensorSpec(source.shape, "int", max(source.low, 0), max(source.high, 0))
    if isinstance(node, Clamp):
        expects("int")
        low, high = (min(max(bound, node.low), node.high) for bound in source.bounds)
        return TensorSpec(source.shape, "int", low, high)
    if isinstance(node, Affine):
        return _affine(node, source)
    if isinstance(node, Add):
        expects("int")
        other = specs[node.other]
        if other.kind != "int" or other.shape != source.shape:
            raise GraphError(
                f"adds {other.kind} values of shape {other.shape} to {source.shape}",
                where=node.name,
            )
        return TensorSpec(source.shape, "int", source.low + other.low, source.high + other.high)
    if isinstance(node, Pool):
        return _pool(node, source)
    assert isinstance(node, Dense)
    return _dense(node, source)


def infer_node(node: Node, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    """Shape, kind and bounds of one node's value, given those of the values before it.

    Raises:
        GraphError: the node does not fit its sources, or its value could overflow.
    """
    for source in node.sources:
        if source not in specs:
            raise GraphError(f"its source {source!r} does not come before it", where=node.name)
    spec = _value_of(node, specs)
    limit = INT64_MAX if isinstance(node, Dense) else INT32_MAX
    if max(-spec.low, spec.high) > limit:
        raise GraphError(
            f"a sum can reach {max(-spec.low, spec.high)}, more than {limit}",
            where=node.name,
            hint="use fewer bits for its weights, or a smaller kernel",
        )
    if max(spec.shape) > MAX_SIDE:
        raise GraphError(
            f"its output has shape {spec.shape}; {MAX_SIDE} each way are possible", where=node.name
        )
    return spec


def infer(graph: Graph) -> dict[str, TensorSpec]:
    """Shape, kind and bounds of every value; checks the whole graph on the way.

    Raises:
        GraphError: the graph is not well formed, or a value could overflow.
    """
    specs = {INPUT: TensorSpec(graph.input_shape, "u8", 0, 255)}
    for i, node in enumerate(graph.nodes):
        if node.name in specs:
            raise GraphError("two layers of this name", where=node.name)
        if isinstance(node, Dense) and i != len(graph.nodes) - 1:
            # Its sums may need 64 bits, which no other operation takes.
            raise GraphError("only the last layer can be dense", where=node.name)
        specs[node.name] = infer_node(node, specs)
    if not graph.nodes:
        raise GraphError("a network without layers")
    logits = specs[graph.nodes[-1].name]
    if logits.kind != "int" or logits.shape[:2] != (1, 1):
        raise GraphError(
            f"the last layer must give one integer for each class, not {logits.kind} values "
            f"of shape {logits.shape}",
            where=graph.nodes[-1].name,
        )
    return specs
