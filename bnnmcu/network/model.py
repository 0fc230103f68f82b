"""A whole float network, and the shapes in it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from bnnmcu.errors import GraphError
from bnnmcu.network.ops import (
    INPUT,
    Add,
    Affine,
    AvgPool,
    Conv,
    Decide,
    Flatten,
    Floats,
    Linear,
    MaxPool,
    Op,
    Pad,
    Padding,
    PRelu,
    floats,
)

__all__ = ["Network", "Shape", "shape_of", "shapes"]

Shape = tuple[int, int, int]
"""(C, H, W)."""


@dataclass(frozen=True, eq=False)
class Network:
    """A float network.

    Attributes:
        name: for people, e.g. ``S64``; 1 to 31 plain characters.
        input_shape: (C, H, W).
        ops: in an order in which they can be executed; the last one gives the
            logits, shape (classes, 1, 1).
        input_scale, input_offset: (C,): a pixel p, 0 to 255, stands for
            scale * p + offset.
    """

    name: str
    input_shape: Shape
    ops: tuple[Op, ...]
    input_scale: Floats
    input_offset: Floats

    def __post_init__(self) -> None:
        if not re.match(r"[A-Za-z0-9_.+*-]{1,31}\Z", self.name):
            raise GraphError(f"{self.name!r} is no name for a network (1 to 31 plain characters)")
        for field in ("input_scale", "input_offset"):
            value = floats(getattr(self, field), f"{self.name}: {field}", 1)
            object.__setattr__(self, field, value)
            if value.shape != self.input_shape[:1]:
                raise GraphError(f"{field} of {value.size} channels", where=self.name)
        shapes(self)

    @property
    def classes(self) -> int:
        """Logits."""
        return shapes(self)[self.ops[-1].name][0]


def _side(op: Op, size: Shape, kernel: tuple[int, int], stride: tuple[int, int],
          padding: Padding, dilation: tuple[int, int]) -> tuple[int, int]:  # fmt: skip
    top, left, bottom, right = padding
    out = []
    for n, pads, k, s, d in (
        (size[1], top + bottom, kernel[0], stride[0], dilation[0]),
        (size[2], left + right, kernel[1], stride[1], dilation[1]),
    ):
        room = n + pads - ((k - 1) * d + 1)
        if room < 0:
            raise GraphError(
                f"kernel {kernel} with dilation {dilation} on an input of {size[1]}x{size[2]}",
                where=op.name,
            )
        out.append(room // s + 1)
    return out[0], out[1]


def shape_of(op: Op, known: dict[str, Shape]) -> Shape:
    """(C, H, W) that an operation gives, from the shapes of its sources.

    Raises:
        GraphError: its parameters do not fit its input.
    """
    shape = known[op.source]
    if isinstance(op, Conv):
        _, inputs, kh, kw = op.weights.shape
        if inputs * op.groups != shape[0]:
            raise GraphError(f"takes {inputs * op.groups} channels, gets {shape[0]}", where=op.name)
        side = _side(op, shape, (kh, kw), op.stride, op.padding, op.dilation)
        return len(op.weights), *side
    if isinstance(op, Linear):
        if shape != (op.weights.shape[1], 1, 1):
            raise GraphError(
                f"takes {op.weights.shape[1]} features, gets shape {shape}", where=op.name
            )
        return len(op.weights), 1, 1
    if isinstance(op, MaxPool):
        return shape[0], *_side(op, shape, op.kernel, op.stride, op.padding, op.dilation)
    if isinstance(op, AvgPool):
        return shape[0], *_side(op, shape, op.kernel, op.stride, op.padding, (1, 1))
    if isinstance(op, Affine | PRelu):
        channels = (op.scale if isinstance(op, Affine) else op.slope).size
        if channels != shape[0]:
            raise GraphError(f"{channels} parameters for {shape[0]} channels", where=op.name)
        return shape
    if isinstance(op, Decide):
        for step in op.steps:
            shape_of(replace(step, source=op.source), known)
        return shape
    if isinstance(op, Add):
        if known[op.other] != shape:
            raise GraphError(f"adds {known[op.other]} to {shape}", where=op.name)
        return shape
    if isinstance(op, Flatten):
        return math.prod(shape), 1, 1
    if isinstance(op, Pad):
        top, left, bottom, right = op.padding
        return shape[0], shape[1] + top + bottom, shape[2] + left + right
    return shape


def shapes(network: Network) -> dict[str, Shape]:
    """(C, H, W) of every value; checks the whole network on the way.

    Raises:
        GraphError: it is not well formed.
    """
    if len(network.input_shape) != 3 or min(network.input_shape) < 1:
        raise GraphError(f"input shape {network.input_shape}", where=network.name)
    known: dict[str, Shape] = {INPUT: network.input_shape}
    for op in network.ops:
        if op.name in known:
            raise GraphError("two layers of this name", where=op.name)
        for source in op.sources:
            if source not in known:
                raise GraphError(f"its source {source!r} does not come before it", where=op.name)
        known[op.name] = shape_of(op, known)
    if not network.ops:
        raise GraphError("a network without layers", where=network.name)
    last = known[network.ops[-1].name]
    if last[1:] != (1, 1):
        raise GraphError(
            f"the last layer gives shape {last}, not one number for each class",
            where=network.ops[-1].name,
            hint="flatten or pool before the classifier",
        )
    return known
