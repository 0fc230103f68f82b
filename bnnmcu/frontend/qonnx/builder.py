"""The network as it grows while the nodes of a file are read in order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnmcu.errors import GraphError
from bnnmcu.frontend.qonnx.nodes import Node
from bnnmcu.frontend.qonnx.parse import MAX_ELEMENTS, OnnxFile
from bnnmcu.frontend.qonnx.tensors import Array
from bnnmcu.network import Affine, Op
from bnnmcu.network.model import Shape, shape_of
from bnnmcu.network.ops import INPUT, Floats

__all__ = ["Builder", "Tensor", "Truth", "Value", "internal"]


@dataclass(frozen=True)
class Value:
    """A tensor of the file that depends on the image.

    Attributes:
        op: the network's operation that computes it.
        dims: its shape in the file, without the batch.  The elements lie in the
            order of the operation's (C, H, W), and ``dims[0]`` is C.
    """

    op: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Truth:
    """Booleans.

    Attributes:
        value: what they were computed from.
        dims: as in :class:`Value`.
        sign: the operation that is +1 where they are true and -1 where not;
            None for "the value is exactly zero".
        flipped: true and false change places.
    """

    value: Value
    dims: tuple[int, ...]
    sign: str | None
    flipped: bool = False


Tensor = Value | Truth | Array


def internal(dims: tuple[int, ...]) -> Shape | None:
    """(C, H, W) of a shape in the file, as a network keeps it; None for other ranks."""
    if len(dims) == 1:
        return dims[0], 1, 1
    if len(dims) == 2:
        return dims[0], 1, dims[1]
    return (dims[0], dims[1], dims[2]) if len(dims) == 3 else None


class Builder:
    """Operations so far, and what every tensor of the file is.

    Attributes:
        file: what is being read.
        tensors: by name.
        ops: in executable order.
        known: (C, H, W) of every operation.
        differences: of a value, what was subtracted from what, for a - b + b.
        pixel_scale, pixel_offset: (C,): what a pixel stands for.
    """

    def __init__(self, file: OnnxFile, pixel_scale: Floats, pixel_offset: Floats) -> None:
        shape = internal(file.input_dims)
        assert shape is not None
        self.file = file
        self.pixel_scale, self.pixel_offset = pixel_scale, pixel_offset
        self.tensors: dict[str, Tensor] = {
            **file.constants,
            file.input: Value(INPUT, file.input_dims),
        }
        self.ops: list[Op] = []
        self.known: dict[str, Shape] = {INPUT: shape}
        self.by_name: dict[str, Op] = {}
        self.differences: dict[str, tuple[Value, Value]] = {}

    def _unique(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self.known:
            count += 1
            candidate = f"{name}.{count}"
        return candidate

    def emit(
        self, node: Node, kind: type[Op], source: Value, suffix: str = "", **fields: Any
    ) -> Value:
        """Append an operation; the result has as many axes as its source.

        Raises:
            ModelFileError: its parameters do not fit its input.
            UnsupportedModelError: it gives more than a microcontroller holds.
        """
        name = self._unique(f"{node.name}{suffix}")
        constructor: Any = kind
        try:
            op: Op = constructor(name=name, source=source.op, **fields)
            shape = shape_of(op, self.known)
        except GraphError as error:
            raise node.broken(error.what) from error
        if math.prod(shape) > MAX_ELEMENTS:
            raise node.unsupported(
                f"it gives {shape[0]}x{shape[1]}x{shape[2]} values",
                f"no microcontroller holds more than {MAX_ELEMENTS}: use a smaller image, "
                "stride or channel count",
            )
        self.known[name] = shape
        self.by_name[name] = op
        self.ops.append(op)
        rank = len(source.dims)
        if rank == 3:
            dims: tuple[int, ...] = shape
        else:
            dims = (shape[0],) if rank == 1 else (shape[0], shape[1] * shape[2])
        return Value(name, dims)

    def affine(self, node: Node, source: Value, scale: Any, offset: Any, suffix: str = "") -> Value:
        """scale * x + offset, per channel or for all; nothing at all if that is x."""
        channels = source.dims[0]
        both = [np.broadcast_to(np.asarray(part, np.float64), channels) for part in (scale, offset)]
        if np.all(both[0] == 1) and not np.any(both[1]):
            return source
        made = self.emit(node, Affine, source, suffix, scale=both[0], offset=both[1])
        return Value(made.op, source.dims)

    def value(self, node: Node, index: int) -> Value:
        """An input that depends on the image.

        Raises:
            ModelFileError: it is left out, or made of booleans.
            UnsupportedModelError: it is constant.
        """
        tensor = self.optional(node, index)
        if tensor is None or isinstance(tensor, Truth):
            raise node.broken(f"input {index} is not a tensor of numbers")
        if not isinstance(tensor, Value):
            raise node.unsupported(
                f"input {index} of {node.op} is constant, and another one is not",
                "put the layer's weights in its weight input: nn.Conv2d, nn.Linear",
            )
        return tensor

    def optional(self, node: Node, index: int) -> Tensor | None:
        """An input, or None where it is left out."""
        if index >= len(node.inputs) or not node.inputs[index]:
            return None
        return self.tensors[node.inputs[index]]

    def constant(self, node: Node, index: int, what: str) -> Array | None:
        """A constant input, or None where it is left out.

        Raises:
            UnsupportedModelError: it depends on the image.
        """
        tensor = self.optional(node, index)
        if isinstance(tensor, Value | Truth):
            raise node.unsupported(
                f"{what} depends on the input image",
                f"let {what} be a parameter or a constant of the layer",
            )
        return tensor

    def needed(self, node: Node, index: int, what: str) -> Array:
        """A constant input that must be there."""
        array = self.constant(node, index, what)
        if array is None:
            raise node.broken(f"{what} is missing")
        return array

    def per_channel(self, node: Node, array: Array, value: Value, what: str) -> Floats:
        """A constant that is broadcast against a value, as one number per channel.

        Raises:
            UnsupportedModelError: it differs from place to place, or makes the value larger.
        """
        rank = len(value.dims) + 1
        if array.ndim > rank:
            raise node.unsupported(
                f"{what} has shape {list(array.shape)}, more axes than the value {value.dims} has",
                "give it one number, or one per channel: shape (C, 1, 1)",
            )
        shape = (1,) * (rank - array.ndim) + array.shape
        limits = (1, *value.dims)
        for size, limit in zip(shape, limits, strict=True):
            if size not in (1, limit) or not size:
                raise node.unsupported(
                    f"{what} of shape {list(array.shape)} does not fit a value of {value.dims}",
                    "give it one number, or one per channel: shape (C, 1, 1)",
                )
        rows = array.reshape(shape[1], -1).astype(np.float64)
        first = rows[:, 0]
        if not np.array_equal(rows, np.broadcast_to(rows[:, :1], rows.shape), equal_nan=True):
            raise node.unsupported(
                f"{what} of shape {list(array.shape)} differs from place to place within a channel",
                "use one number per channel, shape (C, 1, 1)",
            )
        return np.broadcast_to(first, value.dims[0])

    def scalar(self, node: Node, array: Array, what: str) -> float:
        """A constant that is one number, whatever its shape.

        Raises:
            UnsupportedModelError: it is several.
        """
        flat = array.reshape(-1)
        if not flat.size or not np.all(flat == flat[0]):
            raise node.unsupported(
                f"{what} has {flat.size} different values", f"use one number as {what}"
            )
        return float(flat[0])

    def geometry(self, node: Node, value: Value) -> Shape:
        """(C, H, W) of a value with spatial axes.

        Raises:
            UnsupportedModelError: its axes were merged or moved, or it is a vector.
        """
        shape = self.known[value.op]
        if internal(value.dims) != shape or len(value.dims) < 2:
            raise node.unsupported(
                f"its input has shape {list(value.dims)} without the batch, where "
                "(channels, length) or (channels, height, width) is supported",
                "keep the image's axes until the last pooling, then flatten once",
            )
        return shape
