"""Steps that multiply by weights: convolutions and dense layers, fixed or drawn.

Tensors are logically (N, C, H, W) and lie in memory as (H, W, N, C) after the first
convolution: then what follows is matrix products without reordering.  Any other
order gives the same values, more slowly.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.attack.float.pointwise import column, sides
from bnnmcu.attack.float.tiles import SignTiles, suits
from bnnmcu.attack.twin.exact import merge_leading, split
from bnnmcu.network import Conv, Linear
from bnnmcu.network.ops import Floats

__all__ = ["DrawnStep", "FixedStep"]

#: Up to here a convolution runs as a matrix product: oneDNN's gradient works on
#: blocks of input channels, and takes seven times as long where there is only one.
_FEW_CHANNELS = 4


class _ImageConv(torch.autograd.Function):
    """A convolution of few channels: windows side by side, and a matrix product."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, stride: tuple[int, int], dilation: tuple[int, int]
    ) -> Tensor:
        outputs, channels, rows, cols = kernel.shape
        height, width = x.shape[2:]
        out = [
            (size - (k - 1) * d - 1) // s + 1
            for size, k, d, s in zip((height, width), (rows, cols), dilation, stride, strict=True)
        ]
        count = len(x)
        # Images last, so that windows are copied in long runs.
        planes = x.permute(1, 2, 3, 0).contiguous()
        line = width * count
        windows = planes.as_strided(
            (channels, rows, cols, *out, count),
            (
                height * line,
                dilation[0] * line,
                dilation[1] * count,
                stride[0] * line,
                stride[1] * count,
                1,
            ),
        )
        ctx.save_for_backward(kernel)
        ctx.geometry = tuple(x.shape), out, stride, dilation
        sums = windows.reshape(channels * rows * cols, -1).t() @ kernel.flatten(1).t()
        return sums.view(*out, count, outputs).permute(2, 3, 0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        (kernel,) = ctx.saved_tensors
        (count, channels, height, width), out, stride, dilation = ctx.geometry
        gradient = grads[0].permute(2, 3, 0, 1).reshape(-1, len(kernel))
        columns = kernel.flatten(1).t() @ gradient.t()
        columns = columns.view(channels, *kernel.shape[2:], *out, count)
        planes = columns.new_zeros(channels, height, width, count)
        reach = [(n - 1) * s + 1 for n, s in zip(out, stride, strict=True)]
        for i in range(kernel.shape[2]):
            for j in range(kernel.shape[3]):
                top, left = i * dilation[0], j * dilation[1]
                planes[:, top : top + reach[0] : stride[0], left : left + reach[1] : stride[1]] += (
                    columns[:, i, j]
                )
        return planes.permute(3, 0, 1, 2), None, None, None


def _row_major(value: Tensor) -> Tensor:
    """The same values with plain strides where there is one channel.

    That channel's stride means nothing, but torch may take it for channels last,
    for which oneDNN gives wrong sums in a corner (torch 2.13; see the integer twin).
    """
    return value.reshape(-1).view(value.shape) if value.shape[1] == 1 else value


def _places_first(value: Tensor) -> Tensor:
    """(M, C, H, W) as (M, H * W * C)."""
    return value.permute(0, 2, 3, 1).flatten(1)


def _weights(op: Conv | Linear) -> Floats:
    """(O, I / groups, KH, KW); a dense layer's kernel covers one place."""
    return op.weights if isinstance(op, Conv) else op.weights[..., np.newaxis, np.newaxis]


class _Sums(nn.Module):
    """Products with a kernel that is given, and a bias."""

    bias: Tensor | None

    def __init__(self, op: Conv | Linear) -> None:
        super().__init__()
        # A dense layer is a convolution with one place.
        place = op if isinstance(op, Conv) else Conv(op.name, op.source, _weights(op))
        self.stride, self.dilation, self.groups = place.stride, place.dilation, place.groups
        self.sides = sides(place.padding)
        self.register_buffer("bias", None if op.bias is None else column(op.bias))

    def sums(self, value: Tensor, kernel: Tensor, groups: int) -> Tensor:
        """(M, I, H, W) and (O, I / groups, KH, KW) to (M, O, OH, OW), without the bias."""
        value = F.pad(value, self.sides) if any(self.sides) else value
        if groups == 1 and value.shape[1:] == kernel.shape[1:]:
            # One position only: no reordering of weights, which may be new in every step.
            return F.linear(_places_first(value), _places_first(kernel))[..., None, None]
        if groups == 1 and value.shape[1] <= _FEW_CHANNELS:
            given = (value, kernel, self.stride, self.dilation)
            return cast(Tensor, _ImageConv.apply(*given))  # type: ignore[no-untyped-call]
        value, kernel = _row_major(value), _row_major(kernel)
        return F.conv2d(value, kernel, None, self.stride, (0, 0), self.dilation, groups)

    def biased(self, sums: Tensor) -> Tensor:
        """(..., O, OH, OW), the same shape."""
        return sums if self.bias is None else sums + self.bias


def _ordered(kernel: Tensor) -> Tensor:
    """The same kernel, in memory as (O, KH, KW, I)."""
    return kernel.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class FixedStep(_Sums):
    """Weights that never change.

    Args:
        signs: what it reads are -1 and +1.
        output: (OH, OW).
    """

    weights: Tensor
    tiles: SignTiles | None

    def __init__(self, op: Conv | Linear, *, signs: bool, output: tuple[int, int]) -> None:
        super().__init__(op)
        self.register_buffer("weights", _ordered(torch.from_numpy(_weights(op).astype(np.float32))))
        self.tiles = None
        if signs and isinstance(op, Conv) and suits(op, output):
            self.tiles = SignTiles(op, output)

    def forward(self, value: Tensor) -> Tensor:
        """(..., I, H, W) to (..., O, OH, OW)."""
        flat = merge_leading(value)
        if self.tiles is None:
            sums = self.sums(flat, self.weights, self.groups)
        else:
            sums = self.tiles(flat)
        return self.biased(split(sums, 0, value.shape[:-3]))


class DrawnStep(_Sums):
    """Weights of -1 and +1, drawn from P(+1) to 16 bits; many sets for one input."""

    level: Tensor
    certain: Tensor | None

    def __init__(self, op: Conv | Linear) -> None:
        super().__init__(op)
        # Drawn in the order in which they are multiplied.
        share = torch.from_numpy(_weights(op).transpose(0, 2, 3, 1).copy())
        steps = torch.round(share * 65536.0)
        # +1 where noise in -32768 .. 32767 is below the level: 0 is exact, and 1,
        # for which 16 bits have no level, is looked after apart.
        self.register_buffer("level", (steps - 32768.0).clamp_max(32767.0).to(torch.int16))
        certain = steps == 65536.0
        self.register_buffer("certain", certain if bool(certain.any()) else None)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Weights of -1 / +1, float32, shape (D, O, I / groups, KH, KW)."""
        size = count * self.level.numel()
        level = self.level.cpu()
        # Four weights for each 64-bit random number: three times as fast as torch.rand.
        wide = torch.empty((size + 3) // 4, dtype=torch.int64)
        wide.random_(-(2**63), None, generator=generator)
        plus = wide.view(torch.int16)[:size].view(count, *level.shape) < level
        if self.certain is not None:
            plus |= self.certain.cpu()
        # Signs are made in bytes: a quarter of the memory that floats would touch.
        signs = plus.view(torch.int8).mul_(2).sub_(1)
        return signs.to(self.level.device).float().permute(0, 1, 4, 2, 3)

    def forward(self, value: Tensor, weights: Tensor) -> Tensor:
        """(N, I, H, W) or (D, N, I, H, W) to (D, N, O, OH, OW)."""
        draws, outputs = weights.shape[:2]
        if value.dim() == 5:
            # The draws are groups of channels too, each of the layer's own groups.
            value = value.transpose(0, 1).flatten(1, 2)
            sums = self.sums(value, weights.flatten(0, 1), draws * self.groups)
            return self.biased(split(sums, 1, (draws, outputs)).transpose(0, 1))
        if self.groups == 1:
            sums = split(self.sums(value, weights.flatten(0, 1), 1), 1, (draws, outputs))
            return self.biased(sums.transpose(0, 1))
        # All draws read the same channels: within each group, draw by draw.
        each = outputs // self.groups
        kernel = split(weights, 1, (self.groups, each)).transpose(0, 1).flatten(0, 2)
        sums = split(self.sums(value, kernel, self.groups), 1, (self.groups, draws, each))
        return self.biased(sums.permute(2, 0, 1, 3, 4, 5).flatten(2, 3))
