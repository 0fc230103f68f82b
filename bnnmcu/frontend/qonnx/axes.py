"""Operators that arrange the axes of a value and leave its elements in their order."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bnnmcu.frontend.qonnx.builder import Builder, Tensor, Value
from bnnmcu.frontend.qonnx.fold import axes_of, reshaped
from bnnmcu.frontend.qonnx.nodes import Node
from bnnmcu.network import Flatten

__all__ = ["HANDLERS"]


def _arrange(b: Builder, node: Node, source: Value, dims: tuple[int, ...]) -> Value:
    """Other axes for the same elements in the same order."""
    shape = b.known[source.op]
    if dims == source.dims:
        return source
    if dims and dims[0] == shape[0]:
        return Value(source.op, dims)
    if dims and math.prod(dims[1:]) == 1:
        made = b.emit(node, Flatten, source)
        return Value(made.op, dims)
    raise node.unsupported(
        f"it arranges {list(source.dims)} as {list(dims)}, without the batch; supported are "
        "flattening everything, and axes that leave the channels alone",
        "flatten once, before the first dense layer: x.flatten(1)",
    )


def _full(b: Builder, source: Value) -> tuple[int, ...]:
    return (b.file.batch, *source.dims)


def _batched(b: Builder, node: Node, source: Value, shape: tuple[int, ...]) -> Value:
    """As :func:`_arrange`, of a shape that begins with the batch."""
    if not shape or shape[0] != b.file.batch:
        raise node.unsupported(
            f"shape {list(shape)}: its first axis is no longer the batch of {b.file.batch}",
            "keep the batch: x.flatten(1), x.view(x.shape[0], -1)",
        )
    return _arrange(b, node, source, shape[1:])


def _reshape(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    wanted = b.needed(node, 1, "the new shape")
    return _batched(b, node, source, reshaped(node, _full(b, source), wanted))


def _flatten(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    axis = node.integer("axis", 1)
    if axis not in (1, -len(source.dims)):
        raise node.unsupported(f"flatten from axis {axis}", "flatten from axis 1: x.flatten(1)")
    return _arrange(b, node, source, (math.prod(source.dims),))


def _squeeze(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    inputs = [b.optional(node, index) for index in range(len(node.inputs))]
    full = _full(b, source)
    if node.op == "Squeeze":
        axes = axes_of(node, inputs, len(full))
        if axes is None:
            raise node.unsupported(
                "it leaves out every axis of size 1, the batch as well",
                "name the axes: x.squeeze(2)",
            )
        if any(full[axis] != 1 for axis in axes):
            raise node.broken(f"axes {list(axes)} of {list(full)}")
        if 0 in axes:
            return _batched(b, node, source, ())
        shape = tuple(n for axis, n in enumerate(full) if axis not in axes)
        return _batched(b, node, source, shape)
    given = node.integers("axes") if len(inputs) < 2 else None
    listed = inputs[1] if len(inputs) > 1 else None
    count = len(given or ()) + (listed.size if isinstance(listed, np.ndarray) else 0)
    axes = axes_of(node, inputs, len(full) + count) if count <= 4 else None
    if axes is None:
        raise node.broken("axes are missing, or too many")
    sizes = iter(full)
    shape = tuple(1 if axis in axes else next(sizes) for axis in range(len(full) + len(axes)))
    if 0 in axes:
        raise node.unsupported("a new axis before the batch", "unsqueeze behind the channels")
    return _batched(b, node, source, shape)


def _transpose(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    full = _full(b, source)
    perm = node.integers("perm") or tuple(reversed(range(len(full))))
    if sorted(perm) != list(range(len(full))):
        raise node.broken(f"perm {list(perm)[:9]} of {len(full)} axes")
    # Moving axes of size 1 leaves the elements in their order.
    moved = [axis for axis in perm if axis == 0 or full[axis] != 1]
    if moved != sorted(moved):
        raise node.unsupported(
            f"it moves axes of {list(full)} by {list(perm)}",
            "let the network take and keep (N, channels, height, width)",
        )
    return _batched(b, node, source, tuple(full[axis] for axis in perm))


def _shape(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    full = np.array(_full(b, source), dtype=np.int64)
    return full[node.integer("start", 0) : node.integer("end", len(full))]


HANDLERS: dict[str, Callable[[Builder, Node], Tensor]] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Shape": _shape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _squeeze,
}
