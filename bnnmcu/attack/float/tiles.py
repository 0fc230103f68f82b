"""Convolutions of signs with signs by few multiplications (Winograd; Lavin & Gray, 2016).

A convolution with stride s is a sum of s * s convolutions with stride 1, of every
s-th row and column.  Along one axis, m outputs of a filter with r places are

    A^T ((G g) * (B^T d)),      d the m + r - 1 inputs,

with m + r - 1 products instead of m * r; along both axes at once that makes 49
instead of 225 for the paper's second layer (m = 5, r = 3).  Over all images, input
and output channels each product is a matrix product, and so are the transforms.

In float32 the result is off by some 1e-5 of its size.  Sums of signs are integers,
so rounding makes them exact; gradients keep the error, which is far below what the
straight-through estimator does to them.  ``tests/attack/test_attack_float.py`` holds
both against ``F.conv2d``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.network import Conv

__all__ = ["SignTiles", "suits"]

#: Where the polynomials of Toom and Cook are evaluated, besides infinity: powers of
#: two, so that most entries are exact, in the order in which errors stay small.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
#: Products of a tile along an axis; one more and rounding is no longer safe.
_MOST = len(_POINTS) + 1
#: Sums beyond this many terms could be off by one half in the worst case.
_MOST_TERMS = 8192
#: Fewer channels than this on either side leave the matrix products too thin.
_LEAST_CHANNELS = 16


@dataclass(frozen=True)
class _Axis:
    """How one axis is cut.

    Attributes:
        places: r, of the filter, at every ``stride``-th row or column.
        outputs: m, of a tile.
        tiles: how many.
    """

    stride: int
    places: int
    outputs: int
    tiles: int

    @property
    def inputs(self) -> int:
        """t = m + r - 1: inputs of a tile, and products."""
        return self.outputs + self.places - 1

    @property
    def length(self) -> int:
        """Inputs of all tiles together, which overlap."""
        return self.tiles * self.outputs + self.places - 1


def _cut(size: int, kernel: int, stride: int) -> _Axis:
    """The cut with the fewest products."""
    places = -(-kernel // stride)
    choices = [
        _Axis(stride, places, m, -(-size // m)) for m in range(1, max(2, _MOST - places + 2))
    ]
    return min(choices, key=lambda axis: (axis.tiles * axis.inputs, axis.tiles))


def _axes(op: Conv, output: tuple[int, int]) -> tuple[_Axis, _Axis]:
    window = op.weights.shape[2:]
    return tuple(map(_cut, output, window, op.stride))  # type: ignore[return-value]


def suits(op: Conv, output: tuple[int, int]) -> bool:
    """Whether tiles are exact and worth it for a layer that reads signs.

    Args:
        output: (OH, OW).
    """
    outputs, inputs, rows, cols = op.weights.shape
    axes = _axes(op, output)
    products = np.prod([axis.tiles * axis.inputs * axis.stride for axis in axes])
    return bool(
        op.groups == 1
        and op.dilation == (1, 1)
        and not op.drawn
        and min(outputs, inputs) >= _LEAST_CHANNELS
        and inputs * rows * cols <= _MOST_TERMS
        and max(axis.inputs for axis in axes) <= _MOST
        and 2 * products <= output[0] * output[1] * rows * cols
        and np.all(np.abs(op.weights) == 1.0)
    )


def _transforms(axis: _Axis) -> tuple[npt.NDArray[np.float64], ...]:
    """A^T (m, t), G (t, r), B^T (t, t): Toom and Cook's product, transposed."""
    t = axis.inputs
    points = np.array(_POINTS[: t - 1])

    def powers(count: int) -> npt.NDArray[np.float64]:
        finite = np.vander(points, count, increasing=True)
        # The value at infinity is the leading coefficient.
        return np.vstack([finite, np.eye(1, count, count - 1)])

    filters, signals = powers(axis.places), np.linalg.inv(powers(t)).T
    # Both sides of a product of about the same size, by exact factors.
    ratio = np.abs(signals).max(1) / np.abs(filters).max(1)
    factor = 2.0 ** np.round(0.5 * np.log2(ratio))[:, np.newaxis]
    return powers(axis.outputs).T, filters * factor, signals / factor


def _padded(value: Tensor, pads: tuple[int, ...]) -> Tensor:
    """``F.pad``, which copies even where there is nothing to add."""
    return F.pad(value, pads) if any(pads) else value


class _Tiled(torch.autograd.Function):
    """Sums forward, rounded; the transposed computation backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tiles: SignTiles) -> Tensor:
        ctx.tiles, ctx.size = tiles, x.shape
        return tiles.sums(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return ctx.tiles.transposed(grads[0], ctx.size), None


class SignTiles(nn.Module):
    """A convolution of signs (zeros in the padding) with weights -1 and +1.

    Tensors are logically (N, C, H, W) and lie in memory as (H, W, N, C), so that all
    images and channels of a place are neighbours.
    """

    signal: Tensor
    result: Tensor
    products: Tensor

    def __init__(self, op: Conv, output: tuple[int, int]) -> None:
        super().__init__()
        self.padding, self.output = op.padding, output
        self.rows, self.cols = _axes(op, output)
        (a1, g1, b1), (a2, g2, b2) = _transforms(self.rows), _transforms(self.cols)
        outputs, inputs, height, width = op.weights.shape
        sh, sw = op.stride
        rh, rw = self.rows.places, self.cols.places
        grown = np.zeros((outputs, inputs, rh * sh, rw * sw))
        grown[:, :, :height, :width] = op.weights
        # One row for each place, one column for each phase, input and output.
        parts = grown.reshape(outputs, inputs, rh, sh, rw, sw).transpose(2, 4, 3, 5, 1, 0)
        spread = np.kron(g1, g2) @ parts.reshape(rh * rw, -1)
        for name, matrix in (
            ("signal", np.kron(b1, b2)),
            ("result", np.kron(a1, a2)),
            ("products", spread.reshape(-1, sh * sw * inputs, outputs)),
        ):
            self.register_buffer(name, torch.from_numpy(matrix.astype(np.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, H, W) to exact sums (N, O, OH, OW)."""
        sums: Tensor = _Tiled.apply(x, self)  # type: ignore[no-untyped-call]
        return sums

    def _pads(self, height: int, width: int) -> tuple[int, ...]:
        """For ``F.pad`` on (H, W, N, C): zeros to add, or rows and columns nobody reads."""
        top, left, _, _ = self.padding
        below = self.rows.stride * self.rows.length - top - height
        right = self.cols.stride * self.cols.length - left - width
        return 0, 0, 0, 0, left, right, top, below

    def sums(self, x: Tensor) -> Tensor:
        """(N, I, H, W) to (N, O, OH, OW), without a gradient."""
        r, c = self.rows, self.cols
        count, channels, height, width = x.shape
        framed = _padded(x.permute(2, 3, 0, 1), self._pads(height, width)).contiguous()
        # Rows, columns, tiles, image, phases, channel; tiles overlap.
        line = c.stride * c.length * count * channels
        place, image = count * channels, channels
        windows = framed.as_strided(
            (r.inputs, c.inputs, r.tiles, c.tiles, count, r.stride, c.stride, channels),
            (
                r.stride * line,
                c.stride * place,
                r.stride * r.outputs * line,
                c.stride * c.outputs * place,
                image,
                line,
                place,
                1,
            ),
        )
        points = self.signal @ windows.reshape(r.inputs * c.inputs, -1)
        points = points.view(len(self.products), -1, self.products.shape[1])
        products = torch.bmm(points, self.products)
        sums = (self.result @ products.flatten(1)).round_()
        shape = (r.outputs, c.outputs, r.tiles, c.tiles, count, -1)
        tiled = sums.view(shape).permute(2, 0, 3, 1, 4, 5)
        whole = tiled.reshape(r.tiles * r.outputs, c.tiles * c.outputs, count, -1)
        return whole[: self.output[0], : self.output[1]].permute(2, 3, 0, 1)

    def transposed(self, gradient: Tensor, size: torch.Size) -> Tensor:
        """Gradient of the sums (N, O, OH, OW) to that of the signs, shape ``size``."""
        r, c = self.rows, self.cols
        count, channels, height, width = size
        rows, cols = r.tiles * r.outputs, c.tiles * c.outputs
        beyond = (0, 0, 0, 0, 0, cols - self.output[1], 0, rows - self.output[0])
        whole = _padded(gradient.permute(2, 3, 0, 1), beyond)
        tiled = whole.reshape(r.tiles, r.outputs, c.tiles, c.outputs, count, -1)
        sums = tiled.permute(1, 3, 0, 2, 4, 5).reshape(r.outputs * c.outputs, -1)
        products = (self.result.t() @ sums).view(len(self.products), -1, gradient.shape[1])
        points = torch.bmm(products, self.products.transpose(1, 2)).flatten(1)
        windows = (self.signal.t() @ points).view(
            r.inputs, c.inputs, r.tiles, c.tiles, count, r.stride, c.stride, channels
        )
        whole = self._overlaid(windows)
        flat = whole.reshape(r.length * r.stride, c.length * c.stride, count, channels)
        cut = tuple(-pad for pad in self._pads(height, width))
        return _padded(flat, cut).permute(2, 3, 0, 1)

    def _overlaid(self, windows: Tensor) -> Tensor:
        """Tiles added where they overlap: (rows, phases, columns, phases, N, C)."""
        r, c = self.rows, self.cols
        ordered = windows.permute(2, 3, 0, 5, 1, 6, 4, 7)
        if r.tiles == c.tiles == 1:
            return ordered[0, 0]
        whole = windows.new_zeros(r.length, r.stride, c.length, c.stride, *ordered.shape[6:])
        for i in range(r.tiles):
            for j in range(c.tiles):
                top, left = i * r.outputs, j * c.outputs
                part = whole[top : top + r.inputs, :, left : left + c.inputs]
                part += ordered[i, j]
        return whole
