"""The operations on single values: comparisons, arithmetic, pools, and the dense layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import GraphError
from bnnmcu.graph.values import (
    INPUT,
    INT32_MAX,
    NAME,
    NEVER,
    Array,
    Padding,
    Window,
    frozen_array,
    whole,
    wholes,
)

__all__ = [
    "Add",
    "Affine",
    "Clamp",
    "Dense",
    "MaxPool",
    "Node",
    "Pool",
    "Relu",
    "SumPool",
    "Surrogate",
    "Threshold",
]

_MAX_SHIFT = 31


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.  ``source`` names the node whose value it takes."""

    name: str
    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.match(self.name) or self.name == INPUT:
            raise GraphError(
                f"{self.name!r} is no name for a layer",
                hint="use 1 to 48 letters, digits, dots and underscores, a letter first",
            )
        for source in self.sources:
            if not isinstance(source, str):
                raise GraphError(f"{source!r} is no name of a source", where=self.name)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all values it takes."""
        return (self.source,)


@dataclass(frozen=True, eq=False)
class Surrogate:
    """What a threshold stood for in the float network, for gradients only.

    The float value whose sign the bit is:
    ``slope * (max(sum, 0) if rectified else sum) + offset``; float64, shape (C,).
    Where the float network clips in between, the clipping is left out.
    """

    slope: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    rectified: bool

    def __post_init__(self) -> None:
        for field in ("slope", "offset"):
            value = frozen_array(getattr(self, field), np.float64, f"surrogate {field}")
            object.__setattr__(self, field, value)
            if not np.isfinite(value).all():
                raise GraphError(f"surrogate {field} is not finite")
        if not isinstance(self.rectified, (bool, np.bool_)):
            raise GraphError(f"surrogate rectified is {self.rectified!r}, not a truth value")
        object.__setattr__(self, "rectified", bool(self.rectified))


@dataclass(frozen=True, eq=False)
class Threshold(Node):
    """Pixels or sums to bits, per channel.

    Attributes:
        value: int32, shape (C,).
        kind: uint8, shape (C,): GE, LE, ALWAYS, NEVER.
        surrogate: for differentiable twins; not part of what the device computes.
    """

    value: Array
    kind: Array
    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", frozen_array(self.value, np.int32, self.name))
        object.__setattr__(self, "kind", frozen_array(self.kind, np.uint8, self.name))
        if self.value.ndim != 1 or self.value.shape != self.kind.shape:
            raise GraphError("value and kind must be vectors of one length", where=self.name)
        if self.kind.size and self.kind.max() > NEVER:
            raise GraphError("unknown threshold kind", where=self.name)
        if self.surrogate is not None and (
            self.surrogate.slope.shape != self.value.shape
            or self.surrogate.offset.shape != self.value.shape
        ):
            raise GraphError("surrogate of another length", where=self.name)


@dataclass(frozen=True, eq=False)
class Relu(Node):
    """max(x, 0)."""


@dataclass(frozen=True, eq=False)
class Clamp(Node):
    """min(max(x, low), high)."""

    low: int
    high: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("low", "high"):
            bound = whole(getattr(self, field), -INT32_MAX - 1, INT32_MAX, field, self.name)
            object.__setattr__(self, field, bound)
        if self.low > self.high:
            raise GraphError(f"clamp to [{self.low}, {self.high}]", where=self.name)


@dataclass(frozen=True, eq=False)
class Affine(Node):
    """floor((m * x + add) / 2**shift), m = mul where x >= 0, else neg; per channel.

    Attributes:
        mul: int32, shape (C,).
        add: int64, shape (C,).
        shift: 0 to 31.
        neg: int32, shape (C,); None if it is mul (no kink at zero).
    """

    mul: Array
    add: Array
    shift: int = 0
    neg: Array | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mul", frozen_array(self.mul, np.int32, self.name))
        object.__setattr__(self, "add", frozen_array(self.add, np.int64, self.name))
        if self.neg is not None:
            object.__setattr__(self, "neg", frozen_array(self.neg, np.int32, self.name))
        shapes = {a.shape for a in (self.mul, self.add, self.neg) if a is not None}
        if self.mul.ndim != 1 or len(shapes) != 1:
            raise GraphError("mul, neg and add must be vectors of one length", where=self.name)
        object.__setattr__(self, "shift", whole(self.shift, 0, _MAX_SHIFT, "shift", self.name))


@dataclass(frozen=True, eq=False)
class Add(Node):
    """x + y, of one shape.  ``other`` names the second value."""

    other: str

    @property
    def sources(self) -> tuple[str, ...]:
        return self.source, self.other


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """Geometry shared by the pools: as in :class:`bnnmcu.graph.values.Window`."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Padding = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        window = Window.checked(
            self.kernel, self.stride, self.padding, self.window.dilation, self.name
        )
        for field in ("kernel", "stride", "padding"):
            object.__setattr__(self, field, getattr(window, field))

    @property
    def window(self) -> Window:
        """Where its windows lie."""
        return Window(self.kernel, self.stride, self.padding)


@dataclass(frozen=True, eq=False)
class MaxPool(Pool):
    """The largest value of each window; the smallest in channels where ``minimum`` is 1.

    Attributes:
        dilation: (vertical, horizontal).
        minimum: uint8 in {0, 1}, shape (C,); None for the largest everywhere.
    """

    dilation: tuple[int, int] = (1, 1)
    minimum: Array | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        vertical, horizontal = wholes(self.dilation, 2, 1, "dilation", self.name)
        object.__setattr__(self, "dilation", (vertical, horizontal))
        if self.minimum is not None:
            object.__setattr__(self, "minimum", frozen_array(self.minimum, np.uint8, self.name))
            if self.minimum.ndim != 1 or self.minimum.size == 0 or self.minimum.max() > 1:
                raise GraphError("minimum must be a vector of 0 and 1", where=self.name)

    @property
    def window(self) -> Window:
        return Window(self.kernel, self.stride, self.padding, self.dilation)


@dataclass(frozen=True, eq=False)
class SumPool(Pool):
    """The sum of each window's values."""


@dataclass(frozen=True, eq=False)
class Dense(Node):
    """int16 weights, shape (outputs, H * W * C), and a bias; gives the logits.

    Attributes:
        bias: int64, shape (outputs,); None for none.
    """

    weights: Array
    bias: Array | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", frozen_array(self.weights, np.int16, self.name))
        if self.weights.ndim != 2 or 0 in self.weights.shape:
            raise GraphError(f"weights of shape {self.weights.shape}", where=self.name)
        if self.bias is not None:
            object.__setattr__(self, "bias", frozen_array(self.bias, np.int64, self.name))
            if self.bias.shape != self.weights.shape[:1]:
                raise GraphError(
                    f"bias of shape {self.bias.shape} for {len(self.weights)} outputs",
                    where=self.name,
                )
