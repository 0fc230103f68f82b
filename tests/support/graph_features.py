"""What a network contains, as words: to see that random ones still cover everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from bnnmcu.graph import (
    ALWAYS,
    GE,
    INPUT,
    INT32_MAX,
    LE,
    NEVER,
    Add,
    Affine,
    Clamp,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    StochasticConv,
    SumPool,
    TensorSpec,
    Threshold,
    infer,
)

__all__ = ["WANTED", "features"]

_CONVS = ("IntegerConv", "BinaryConv", "StochasticConv")
_SIDES = (1, 31, 32, 33, 63, 64, 65)
_WINDOW = ("1-D", "stride > kernel", "padding > kernel", "uneven padding", "kernel > input")

#: Every operation on every kind it takes, and every turn that each of them can take.
WANTED = frozenset(
    {
        *(f"IntegerConv on {kind}" for kind in ("u8", "bit", "int")),
        *("BinaryConv on bit", "StochasticConv on bit"),
        *(f"Threshold on {kind}" for kind in ("u8", "int")),
        *(f"{name} on int" for name in ("Relu", "Clamp", "Add")),
        *(f"{name} on {kind}" for name in ("Affine", "MaxPool", "SumPool", "Dense")
          for kind in ("u8", "bit", "int")),
        *(f"{name}: {turn}" for name in (*_CONVS, "MaxPool", "SumPool") for turn in _WINDOW),
        *(f"{name}: {turn}" for name in _CONVS
          for turn in ("groups", "depthwise", "multiplier", "1x1", "empty window", "dilation")),
        *(f"{name} takes {side} bits" for name in ("BinaryConv", "StochasticConv")
          for side in (*_SIDES, "32 < n")),
        *(f"bits of {side}" for side in _SIDES),
        *("MaxPool: dilation", "MaxPool: minimum on u8", "MaxPool: minimum on bit"),
        *("MaxPool: minimum on int", "SumPool: empty window"),
        *("IntegerConv: fill", "IntegerConv: fill that is seen", "IntegerConv: 16 bits"),
        "IntegerConv: fill of groups",
        *("Affine: neg", "Affine: shift 0", "Affine: shift 31", "Affine: add beyond int32"),
        *("Affine: product beyond int32", "Clamp: lowest", "Clamp: highest", "Clamp: one point"),
        *(f"Threshold: {kind}" for kind in ("GE", "LE", "ALWAYS", "NEVER")),
        *("Threshold: LE highest", "Threshold: GE lowest", "Threshold: LE lowest"),
        *("Add: itself", "Add: other later", "Dense: bias", "Dense: no bias", "Dense: -32768"),
        *("logits of 4 bytes", "logits of 8 bytes", "bias beyond int32", "last is not dense"),
        *("end of int32 in the bounds", "signal", "image", "value read twice", "dead node"),
        *("nothing drawn", "one layer drawn", "several layers drawn", "one node"),
        *("read before and after the first draw", "drawn, and beside it not"),
        *("image read twice", "dot in a name", "long name"),
    }
)  # fmt: skip


def _of_window(node: Conv | MaxPool | SumPool, source: TensorSpec) -> Iterator[str]:
    window, shape = node.window, source.shape
    padding = window.padding
    if shape[0] == 1 and window.kernel[1] > 1:
        yield "1-D"
    if any(s > k for s, k in zip(window.stride, window.kernel, strict=True)):
        yield "stride > kernel"
    if any(p >= e for p, e in zip(padding, window.extent * 2, strict=True)):
        yield "padding > kernel"
    if padding[0] != padding[2] or padding[1] != padding[3]:
        yield "uneven padding"
    if any(e > n for e, n in zip(window.extent, shape[:2], strict=True)):
        yield "kernel > input"
    if any(d > 1 and k > 1 for d, k in zip(window.dilation, window.kernel, strict=True)):
        yield "dilation"
    if any(taps.min() == 0 for taps in window.taps_inside(shape, node.name)):
        yield "empty window"


def _of_conv(node: Conv) -> Iterator[str]:
    outputs, kh, kw, per_group = node.weights.shape
    if 1 < node.groups < node.inputs:
        yield "groups"
    if node.groups > 1 and per_group == 1:
        yield "depthwise" if outputs == node.groups else "multiplier"
    if kh == kw == 1:
        yield "1x1"
    if isinstance(node, IntegerConv):
        if node.fill is not None:
            yield "fill"
            if any(node.padding) and node.fill.any():
                yield "fill that is seen"
                yield from ["fill of groups"] * (node.groups > 1)
        if node.bits == 16:
            yield "16 bits"


def _of_values(node: Node, source: TensorSpec) -> Iterator[str]:
    lowest = -INT32_MAX - 1
    if isinstance(node, Affine):
        yield from ["neg"] * (node.neg is not None)
        yield f"shift {node.shift}"
        if np.abs(node.add).max() > INT32_MAX:
            yield "add beyond int32"
        if int(np.abs(node.mul.astype(np.int64)).max()) * max(source.bounds) > INT32_MAX:
            yield "product beyond int32"
    elif isinstance(node, Clamp):
        yield from ["lowest"] * (node.low == lowest)
        yield from ["highest"] * (node.high == INT32_MAX)
        yield from ["one point"] * (node.low == node.high)
    elif isinstance(node, Threshold):
        for word, kind in (("GE", GE), ("LE", LE), ("ALWAYS", ALWAYS), ("NEVER", NEVER)):
            yield from [word] * bool((node.kind == kind).any())
            yield from [f"{word} lowest"] * bool(
                ((node.kind == kind) & (node.value == lowest)).any()
            )
            highest = (node.kind == kind) & (node.value == INT32_MAX)
            yield from [f"{word} highest"] * bool(highest.any())
    elif isinstance(node, MaxPool) and node.minimum is not None:
        yield f"minimum on {source.kind}"
    elif isinstance(node, Dense):
        yield "no bias" if node.bias is None else "bias"
        yield from ["-32768"] * bool((node.weights == -32_768).any())


def _of_node(node: Node, specs: dict[str, TensorSpec], order: dict[str, int]) -> Iterator[str]:
    kind, source = type(node).__name__, specs[node.source]
    yield f"{kind} on {source.kind}"
    if isinstance(node, (Conv, MaxPool, SumPool)):
        yield from (f"{kind}: {word}" for word in _of_window(node, source))
    if isinstance(node, Conv):
        yield from (f"{kind}: {word}" for word in _of_conv(node))
        if kind != "IntegerConv":
            channels = int(node.weights.shape[3])
            yield f"{kind} takes {channels if channels in _SIDES else 'other'} bits"
            if channels > 32:
                yield f"{kind} takes 32 < n bits"
    yield from (f"{kind}: {word}" for word in _of_values(node, source))
    if isinstance(node, Add):
        yield from ["Add: itself"] * (node.source == node.other)
        yield from ["Add: other later"] * (order[node.other] > order[node.source])
    if isinstance(node, Threshold) and source.shape[2] in _SIDES:
        yield f"bits of {source.shape[2]}"


def _of_draws(graph: Graph) -> Iterator[str]:
    drawn: set[str] = set()
    first = next((i for i, n in enumerate(graph.nodes) if isinstance(n, StochasticConv)), None)
    order = {INPUT: -1} | {node.name: i for i, node in enumerate(graph.nodes)}
    for i, node in enumerate(graph.nodes):
        if isinstance(node, StochasticConv) or drawn & set(node.sources):
            drawn.add(node.name)
            if any(n not in drawn for n in node.sources) and len(set(node.sources)) == 2:
                yield "drawn, and beside it not"
        if first is not None and i > first and any(order[n] < first for n in node.sources):
            yield "read before and after the first draw"
    count = len(graph.stochastic)
    yield ("nothing drawn", "one layer drawn", "several layers drawn")[min(count, 2)]


def features(graph: Graph) -> set[str]:
    """The words of :data:`WANTED`, and others, that are true of a network."""
    specs = infer(graph)
    order = {INPUT: -1} | {node.name: i for i, node in enumerate(graph.nodes)}
    found = {word for node in graph.nodes for word in _of_node(node, specs, order)}
    found |= set(_of_draws(graph))
    reads = Counter(source for node in graph.nodes for source in set(node.sources))
    last = graph.nodes[-1]
    found.add("signal" if graph.input_shape[0] == 1 else "image")
    found.add("logits of 8 bytes" if max(-specs[last.name].low, specs[last.name].high) > INT32_MAX
              else "logits of 4 bytes")  # fmt: skip
    if isinstance(last, Dense):
        if last.bias is not None and np.abs(last.bias).max() > INT32_MAX:
            found.add("bias beyond int32")
    else:
        found.add("last is not dense")
    true = {
        "end of int32 in the bounds": any(
            spec.kind == "int" and spec.high == INT32_MAX
            for name, spec in specs.items()
            if name != last.name
        ),
        "value read twice": any(reads[node.name] > 1 for node in graph.nodes),
        "image read twice": reads[INPUT] > 1,
        "dead node": any(reads[node.name] == 0 for node in graph.nodes[:-1]),
        "one node": len(graph.nodes) == 1,
        "dot in a name": any("." in node.name for node in graph.nodes),
        "long name": any(len(node.name) == 48 for node in graph.nodes),
    }
    return found | {word for word, holds in true.items() if holds}
