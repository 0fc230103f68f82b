"""The operations of a float network."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import GraphError

__all__ = [
    "INPUT",
    "Add",
    "Affine",
    "AvgPool",
    "Clamp",
    "Conv",
    "Decide",
    "Flatten",
    "Floats",
    "Linear",
    "MaxPool",
    "Op",
    "PRelu",
    "Pad",
    "Padding",
    "Sign",
    "floats",
]

#: Name under which operations refer to the image.
INPUT = "input"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}\Z")
_MAX_SIDE = 65_535

Floats = npt.NDArray[np.float64]
Padding = tuple[int, int, int, int]
"""Top, left, bottom, right."""


def floats(values: Any, where: str, ndim: int | None = None) -> Floats:
    """A private, read-only float64 copy without NaN or infinity.

    Raises:
        GraphError: it has such values, no values, or another number of axes.
    """
    copy = np.array(values, dtype=np.float64, order="C")
    if copy.size == 0 or (ndim is not None and copy.ndim != ndim):
        raise GraphError(f"parameters of shape {copy.shape}", where=where)
    if not np.isfinite(copy).all():
        raise GraphError(
            f"{np.count_nonzero(~np.isfinite(copy))} of {copy.size} parameters are NaN or infinite",
            where=where,
            hint="the training diverged: train again with a lower learning rate",
        )
    copy.setflags(write=False)
    return copy


def _window(where: str, *values: tuple[int, ...], least: int) -> None:
    for value in values:
        if not all(type(n) is int and least <= n <= _MAX_SIDE for n in value):
            raise GraphError(f"stride, padding, dilation or kernel {value}", where=where)


@dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    Attributes:
        name: the layer's qualified name, as the user knows it; unique.
        source: the operation whose value it takes.
    """

    name: str
    source: str

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or self.name == INPUT:
            raise GraphError(f"{self.name!r} is no name for a layer")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all values it takes."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """Convolution; zeros stand in the padding.

    Attributes:
        weights: (O, I / groups, KH, KW).  If ``drawn``, each is P(weight = +1)
            in [0, 1], drawn once per forward pass.
        bias: (O,) or None.
        stride, dilation: (vertical, horizontal).
        padding: top, left, bottom, right.
    """

    weights: Floats
    bias: Floats | None = None
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    drawn: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights(self, 4)
        _window(self.name, self.stride, self.dilation, least=1)
        _window(self.name, self.padding, least=0)
        if type(self.groups) is not int or self.groups < 1 or len(self.weights) % self.groups:
            raise GraphError(
                f"{len(self.weights)} filters in {self.groups} groups", where=self.name
            )


@dataclass(frozen=True, eq=False)
class Linear(Op):
    """Fully connected: weights (O, I), or P(weight = +1) if ``drawn``; bias (O,) or None."""

    weights: Floats
    bias: Floats | None = None
    drawn: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weights(self, 2)


def _check_weights(op: Conv | Linear, ndim: int) -> None:
    object.__setattr__(op, "weights", floats(op.weights, op.name, ndim))
    if op.bias is not None:
        object.__setattr__(op, "bias", floats(op.bias, op.name, 1))
        if op.bias.shape != op.weights.shape[:1]:
            raise GraphError(f"bias of shape {op.bias.shape}", where=op.name)
    if op.drawn and (op.weights.min() < 0 or op.weights.max() > 1):
        raise GraphError("probabilities outside [0, 1]", where=op.name)


@dataclass(frozen=True, eq=False)
class Affine(Op):
    """scale * x + offset per channel, both (C,): batch norm, channel scale, constants."""

    scale: Floats
    offset: Floats

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("scale", "offset"):
            object.__setattr__(self, field, floats(getattr(self, field), self.name, 1))
        if self.scale.shape != self.offset.shape:
            raise GraphError("scale and offset differ in length", where=self.name)


@dataclass(frozen=True, eq=False)
class Sign(Op):
    """-1 below zero, +1 above; ``zero``: what zero gives (torch.sign: 0)."""

    zero: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zero not in (-1, 0, 1):
            raise GraphError(f"sign(0) = {self.zero}", where=self.name)


@dataclass(frozen=True, eq=False)
class Clamp(Op):
    """min(max(x, low), high); ReLU is [0, inf), hardtanh [-1, 1]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        super().__post_init__()
        # NaN compares false; two infinite ends on one side leave no number in between.
        if not (self.low <= self.high and self.low < math.inf and self.high > -math.inf):
            raise GraphError(f"clamp to [{self.low}, {self.high}]", where=self.name)


@dataclass(frozen=True, eq=False)
class PRelu(Op):
    """x where x >= 0, else slope * x; slope (C,)."""

    slope: Floats

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "slope", floats(self.slope, self.name, 1))


@dataclass(frozen=True, eq=False)
class Add(Op):
    """x + y, of one shape.  ``other`` names the second value."""

    other: str

    @property
    def sources(self) -> tuple[str, ...]:
        return self.source, self.other


@dataclass(frozen=True, eq=False)
class MaxPool(Op):
    """The largest value of each window; padding is ignored."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        _window(self.name, self.kernel, self.stride, self.dilation, least=1)
        _window(self.name, self.padding, least=0)


@dataclass(frozen=True, eq=False)
class AvgPool(Op):
    """Sum of each window, zeros in the padding, divided by ``divisor`` (kernel size if None)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding = (0, 0, 0, 0)
    divisor: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _window(self.name, self.kernel, self.stride, least=1)
        _window(self.name, self.padding, least=0)
        if self.divisor is not None and (
            type(self.divisor) is not int or not 1 <= self.divisor <= _MAX_SIDE**2
        ):
            raise GraphError(f"divisor {self.divisor}", where=self.name)


@dataclass(frozen=True, eq=False)
class Flatten(Op):
    """(C, H, W) to (C * H * W, 1, 1)."""


@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Rows and columns of a constant around the input."""

    padding: Padding
    value: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _window(self.name, self.padding, least=0)
        if not math.isfinite(self.value):
            raise GraphError(f"padding with {self.value}", where=self.name)


@dataclass(frozen=True, eq=False)
class Decide(Op):
    """A sign together with what stands before it: made by a pass, not by frontends.

    Attributes:
        steps: :class:`Affine`, :class:`Clamp` and :class:`PRelu` operations,
            applied one after the other; their sources have no meaning here.
        zero: as in :class:`Sign`.
    """

    steps: tuple[Op, ...]
    zero: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(isinstance(step, Affine | Clamp | PRelu) for step in self.steps):
            raise GraphError("only operations on single values can be decided on", where=self.name)
