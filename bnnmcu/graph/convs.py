"""The convolutions: integer, binary and stochastic weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bnnmcu.errors import GraphError
from bnnmcu.graph.nodes import Node
from bnnmcu.graph.values import (
    MAX_PLANES,
    MAX_SIDE,
    MIN_PLANES,
    Array,
    Padding,
    Window,
    frozen_array,
    whole,
)

__all__ = ["BinaryConv", "Conv", "IntegerConv", "StochasticConv"]


@dataclass(frozen=True, eq=False)
class Conv(Node):
    """Geometry shared by the convolutions.

    Attributes:
        weights: shape (O, KH, KW, I / groups); the dtype is the subclass's.
        stride, padding, dilation: as in :class:`bnnmcu.graph.values.Window`.
        groups: of channels that do not mix.
    """

    weights: Array
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    #: Of the weights; the base class itself is no operation.
    _dtype: ClassVar[type[np.generic]] = np.uint8

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", frozen_array(self.weights, self._dtype, self.name))
        if self.weights.ndim != 4 or 0 in self.weights.shape:
            raise GraphError(f"weights of shape {self.weights.shape}", where=self.name)
        outputs, *kernel, _ = (int(n) for n in self.weights.shape)
        window = Window.checked(tuple(kernel), self.stride, self.padding, self.dilation, self.name)
        for field in ("stride", "padding", "dilation"):
            object.__setattr__(self, field, getattr(window, field))
        groups = whole(self.groups, 1, MAX_SIDE, "groups", self.name)
        object.__setattr__(self, "groups", groups)
        if outputs % groups:
            raise GraphError(f"{outputs} filters in {groups} groups", where=self.name)

    @property
    def window(self) -> Window:
        """Where its windows lie."""
        _, kh, kw, _ = self.weights.shape
        return Window((int(kh), int(kw)), self.stride, self.padding, self.dilation)

    @property
    def inputs(self) -> int:
        """Channels it takes."""
        return int(self.weights.shape[3]) * self.groups

    def output_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(H, W, C) out for (H, W, C) in.

        Raises:
            GraphError: the channels differ or the kernel is larger than the input.
        """
        if shape[2] != self.inputs:
            raise GraphError(f"takes {self.inputs} channels, gets {shape[2]}", where=self.name)
        return *self.window.output_side(shape, self.name), int(self.weights.shape[0])

    def macs(self, shape: tuple[int, int, int]) -> int:
        """Multiply-accumulates for one input of this shape, padding taps included."""
        rows, cols, outputs = self.output_shape(shape)
        return rows * cols * outputs * int(np.prod(self.weights.shape[1:]))


@dataclass(frozen=True, eq=False)
class IntegerConv(Conv):
    """int16 weights on pixels, integers or signs.

    Attributes:
        bits: width the weights were quantised to.
        fill: uint8, shape (I,): the pixel that padding stands for, on pixels
            only; None for 0.
    """

    bits: int = 14
    fill: Array | None = None

    _dtype: ClassVar[type[np.generic]] = np.int16

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "bits", whole(self.bits, 2, 16, "bits", self.name))
        if int(np.abs(self.weights.astype(np.int32)).max()) >= 1 << (self.bits - 1):
            raise GraphError(f"weights do not fit {self.bits} bits", where=self.name)
        if self.fill is not None:
            object.__setattr__(self, "fill", frozen_array(self.fill, np.uint8, self.name))
            if self.fill.shape != (self.inputs,):
                raise GraphError(f"fill of shape {self.fill.shape}", where=self.name)


@dataclass(frozen=True, eq=False)
class BinaryConv(Conv):
    """Weights in {0, 1} (uint8), standing for -1 and +1, on bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.max() > 1:
            raise GraphError("binary weights must be 0 or 1", where=self.name)


@dataclass(frozen=True, eq=False)
class StochasticConv(Conv):
    """Levels of ``planes`` bits (uint8) from which weights are drawn, on bits."""

    planes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        planes = whole(self.planes, MIN_PLANES, MAX_PLANES, "bit-planes", self.name)
        object.__setattr__(self, "planes", planes)
        if int(self.weights.max()) >= 1 << self.planes:
            raise GraphError(f"levels do not fit {self.planes} bits", where=self.name)
