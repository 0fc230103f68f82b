"""What stands between nodes: names, kinds, bounds, and the geometry of windows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import GraphError

__all__ = [
    "ALWAYS",
    "GE",
    "INPUT",
    "INT32_MAX",
    "INT64_MAX",
    "LE",
    "MAX_PLANES",
    "MAX_SIDE",
    "MIN_PLANES",
    "NAME",
    "NEVER",
    "Array",
    "Padding",
    "TensorSpec",
    "Window",
    "frozen_array",
    "whole",
    "wholes",
]

#: Name under which nodes refer to the image.
INPUT = "input"
#: Threshold kinds.
GE, LE, ALWAYS, NEVER = 0, 1, 2, 3
#: Bit-planes a stochastic layer may have.
MIN_PLANES, MAX_PLANES = 2, 8

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,47}\Z")
#: Largest height, width, channel count, stride, kernel side, dilation and padding.
MAX_SIDE = 65_535

Array = npt.NDArray[Any]
Padding = tuple[int, int, int, int]
"""Top, left, bottom, right."""


@dataclass(frozen=True)
class TensorSpec:
    """What is known of a value before it is computed.

    Attributes:
        shape: (H, W, C).
        kind: ``u8`` pixels, ``bit`` signs, ``int`` sums.
        low, high: bounds that no input can leave (0 and 1 for bits).
    """

    shape: tuple[int, int, int]
    kind: Literal["u8", "bit", "int"]
    low: int
    high: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def bounds(self) -> tuple[int, int]:
        """The bounds as an integer operation sees them: -1 and +1 for bits."""
        return (-1, 1) if self.kind == "bit" else (self.low, self.high)


def frozen_array(array: Array, dtype: type[np.generic], where: str) -> Array:
    """A private, read-only, C-ordered copy.

    Raises:
        GraphError: it is of another dtype.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype):
        seen = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise GraphError(f"array is {seen}, not {np.dtype(dtype)}", where=where)
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


def whole(value: object, low: int, high: int, what: str, where: str | None) -> int:
    """A whole number as a Python int; ``what`` names it in the error.

    Graphs come from files and from frontends: True is no 1, 2.0 is no 2, and a
    numpy integer becomes an int, since the fingerprint is taken from JSON.

    Raises:
        GraphError: it is no whole number, or lies outside [low, high].
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise GraphError(f"{what} is {value!r}, not a whole number", where=where)
    number = int(value)
    if not low <= number <= high:
        raise GraphError(f"{what} is {number}; {low} to {high} are possible", where=where)
    return number


def wholes(value: object, count: int, low: int, what: str, where: str | None) -> tuple[int, ...]:
    """``count`` whole numbers in [low, MAX_SIDE], from a tuple or a list.

    Raises:
        GraphError: it is something else.
    """
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise GraphError(f"{what} is {value!r}, not {count} whole numbers", where=where)
    return tuple(whole(item, low, MAX_SIDE, what, where) for item in value)


@dataclass(frozen=True)
class Window:
    """Where the windows of a convolution or a pool lie.

    Attributes:
        kernel: (rows, columns).
        stride: (vertical, horizontal).
        padding: rows and columns of nothing around the input.
        dilation: (vertical, horizontal) distance of neighbouring taps.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def checked(
        cls, kernel: object, stride: object, padding: object, dilation: object, where: str
    ) -> Window:
        """A window of these values, whatever they are.

        Raises:
            GraphError: a length or a value is out of range.
        """
        top, left, bottom, right = wholes(padding, 4, 0, "padding", where)
        kh, kw = wholes(kernel, 2, 1, "kernel", where)
        sy, sx = wholes(stride, 2, 1, "stride", where)
        dy, dx = wholes(dilation, 2, 1, "dilation", where)
        return cls((kh, kw), (sy, sx), (top, left, bottom, right), (dy, dx))

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns from the first tap to the last."""
        (kh, kw), (dy, dx) = self.kernel, self.dilation
        return (kh - 1) * dy + 1, (kw - 1) * dx + 1

    def output_side(self, shape: tuple[int, int, int], where: str) -> tuple[int, int]:
        """(H, W) out for (H, W, C) in.

        Raises:
            GraphError: the window is larger than the padded input, or the output too large.
        """
        height, width, _ = shape
        top, left, bottom, right = self.padding
        extent = self.extent
        rows, cols = height + top + bottom - extent[0], width + left + right - extent[1]
        if rows < 0 or cols < 0:
            raise GraphError(
                f"kernel {extent[0]}x{extent[1]} on an input of {height}x{width}", where=where
            )
        out = rows // self.stride[0] + 1, cols // self.stride[1] + 1
        if max(out) > MAX_SIDE:
            raise GraphError(
                f"its output has {out[0]}x{out[1]} positions; {MAX_SIDE} each way are possible",
                where=where,
            )
        return out

    def taps_inside(self, shape: tuple[int, int, int], where: str) -> tuple[Array, Array]:
        """How many taps lie inside the input: int64, of each output row and each column.

        A window holds the product of the two.  Counted without listing the taps: a file may
        name a kernel of 65,535 x 65,535.
        """
        counts = []
        for axis, out in enumerate(self.output_side(shape, where)):
            start = np.arange(out, dtype=np.int64) * self.stride[axis] - self.padding[axis]
            step, size = self.dilation[axis], shape[axis]
            # Tap k lies at start + k * step, inside for k from first to last.
            first = np.maximum(0, -(start // step))
            last = np.minimum(self.kernel[axis] - 1, (size - 1 - start) // step)
            counts.append(np.maximum(0, last - first + 1))
        return counts[0], counts[1]
