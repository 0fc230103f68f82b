"""What there is to say about each operation of a float network or an integer graph."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bnnmcu.graph import ALWAYS, GE, LE, NEVER, Graph, Node, TensorSpec, infer
from bnnmcu.graph import nodes as integer
from bnnmcu.graph.convs import Conv, IntegerConv, StochasticConv
from bnnmcu.network import Network, ops, shapes

__all__ = ["Description", "Row", "describe"]


@dataclass(frozen=True)
class Row:
    """One operation.

    Attributes:
        name: of the layer.
        operation: its kind, e.g. ``BinaryConv``.
        detail: its plain attributes, for people.
        reads: names of the values it takes.
        shape: of its value: (H, W, C) in a graph, (C, H, W) in a float network.
        kind: ``float``, ``u8``, ``bit`` or ``int``.
        low, high: bounds of the value; None for floats.
        parameters: numbers it carries.
        macs: multiply-accumulates for one input, padding taps included.
    """

    name: str
    operation: str
    detail: str
    reads: tuple[str, ...]
    shape: tuple[int, int, int]
    kind: str
    low: int | None
    high: int | None
    parameters: int
    macs: int


@dataclass(frozen=True)
class Description:
    """A whole network.

    Attributes:
        model: its name.
        stage: ``float network`` or ``integer graph``.
        layout: what the numbers of a shape are: ``CxHxW`` or ``HxWxC``.
        image: the input, as a row without an operation.
        rows: in the order of the network.
    """

    model: str
    stage: str
    layout: str
    image: Row
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Of all layers."""
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        """Of all layers."""
        return sum(row.macs for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"parameters": self.parameters, "macs": self.macs}


def describe(network: Network | Graph) -> Description:
    """Every operation with its attributes, shape, range and size."""
    return _of_graph(network) if isinstance(network, Graph) else _of_network(network)


def _side(pair: tuple[int, int]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]},{pair[1]}"


def _window(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, ...],
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> str:
    parts = [f"{kernel[0]}x{kernel[1]}"]
    if stride != (1, 1):
        parts.append(f"stride {_side(stride)}")
    if any(padding):
        same = len(set(padding)) == 1
        parts.append(f"pad {padding[0] if same else ','.join(map(str, padding))}")
    if dilation != (1, 1):
        parts.append(f"dilation {_side(dilation)}")
    if groups != 1:
        parts.append(f"groups {groups}")
    return " ".join(parts)


def _numbers(item: object) -> int:
    """Numbers in the arrays of a dataclass, surrogates left out."""
    assert dataclasses.is_dataclass(item)
    values = (getattr(item, field.name) for field in dataclasses.fields(item))
    return sum(value.size for value in values if isinstance(value, np.ndarray))


def _decisions(node: integer.Threshold) -> str:
    counts = {
        ">=": int((node.kind == GE).sum()),
        "<=": int((node.kind == LE).sum()),
        "always": int((node.kind == ALWAYS).sum()),
        "never": int((node.kind == NEVER).sum()),
    }
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def _node_detail(node: Node) -> str:
    if isinstance(node, Conv):
        kernel = node.window.kernel
        text = _window(kernel, node.stride, node.padding, node.dilation, node.groups)
        if isinstance(node, IntegerConv):
            return f"{text}, {node.bits} bits"
        return f"{text}, {node.planes} planes" if isinstance(node, StochasticConv) else text
    if isinstance(node, integer.Pool):
        window = node.window
        text = _window(window.kernel, window.stride, window.padding, window.dilation)
        falling = isinstance(node, integer.MaxPool) and node.minimum is not None
        return f"{text}, some minima" if falling else text
    if isinstance(node, integer.Threshold):
        return _decisions(node)
    if isinstance(node, integer.Affine):
        return f">> {node.shift}" + ("" if node.neg is None else ", kinked at 0")
    if isinstance(node, integer.Clamp):
        return f"{node.low:,} to {node.high:,}"
    if isinstance(node, integer.Dense):
        return "" if node.bias is None else "bias"
    return ""


def _node_macs(node: Node, source: TensorSpec) -> int:
    if isinstance(node, Conv):
        return node.macs(source.shape)
    return int(node.weights.size) if isinstance(node, integer.Dense) else 0


def _of_graph(graph: Graph) -> Description:
    specs = infer(graph)

    def row(name: str, operation: str, detail: str, node: Node | None) -> Row:
        spec = specs[name]
        return Row(
            name,
            operation,
            detail,
            node.sources if node else (),
            spec.shape,
            spec.kind,
            spec.low,
            spec.high,
            _numbers(node) if node else 0,
            _node_macs(node, specs[node.source]) if node else 0,
        )

    rows = tuple(row(n.name, type(n).__name__, _node_detail(n), n) for n in graph.nodes)
    return Description(graph.name, "integer graph", "HxWxC", row("input", "", "", None), rows)


def _bound(value: float) -> str:
    return ("inf" if value > 0 else "-inf") if math.isinf(value) else f"{value:g}"


def _clamp(op: ops.Clamp) -> str:
    if op.low == 0 and math.isinf(op.high):
        return "ReLU"
    return f"{_bound(op.low)} to {_bound(op.high)}"


_OP_DETAILS: dict[type[ops.Op], Callable[[Any], str]] = {
    ops.Conv: lambda op: (
        _window(op.weights.shape[2:], op.stride, op.padding, op.dilation, op.groups)
        + (", drawn" if op.drawn else "")
        + (", bias" if op.bias is not None else "")
    ),
    ops.Linear: lambda op: ", ".join(
        text for text, there in (("drawn", op.drawn), ("bias", op.bias is not None)) if there
    ),
    ops.MaxPool: lambda op: _window(op.kernel, op.stride, op.padding, op.dilation),
    ops.AvgPool: lambda op: (
        _window(op.kernel, op.stride, op.padding)
        + (f", sum / {op.divisor}" if op.divisor is not None else "")
    ),
    ops.Sign: lambda op: f"zero gives {op.zero:+d}" if op.zero else "zero gives 0",
    ops.Clamp: _clamp,
    ops.PRelu: lambda op: f"slope {op.slope.min():g} to {op.slope.max():g}",
    ops.Pad: lambda op: f"{','.join(map(str, op.padding))} of {op.value:g}",
    ops.Decide: lambda op: (
        "after " + ", ".join(type(step).__name__ for step in op.steps) if op.steps else ""
    ),
}


def _op_numbers(op: ops.Op) -> int:
    steps = op.steps if isinstance(op, ops.Decide) else ()
    return _numbers(op) + sum(_numbers(step) for step in steps)


def _op_macs(op: ops.Op, shape: tuple[int, int, int]) -> int:
    if isinstance(op, ops.Conv | ops.Linear):
        return int(op.weights.size) * shape[1] * shape[2]
    return 0


def _of_network(network: Network) -> Description:
    known = shapes(network)
    rows = tuple(
        Row(
            op.name,
            type(op).__name__,
            _OP_DETAILS.get(type(op), lambda _: "")(op),
            op.sources,
            known[op.name],
            "float",
            None,
            None,
            _op_numbers(op),
            _op_macs(op, known[op.name]),
        )
        for op in network.ops
    )
    image = Row(ops.INPUT, "", "", (), network.input_shape, "float", None, None, 0, 0)
    return Description(network.name, "float network", "CxHxW", image, rows)
