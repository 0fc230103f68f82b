"""Steps that multiply by weights: convolutions, drawn convolutions, the dense layer."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.attack.twin.exact import Round, merge_leading, split
from bnnmcu.graph import Conv, Dense, IntegerConv, StochasticConv, TensorSpec

__all__ = ["ConvStep", "DenseStep", "StochasticStep"]


def _row_major(value: Tensor) -> Tensor:
    """The same values with plain strides where there is one channel.

    That channel's stride means nothing, and torch may read from it that channels
    come last; oneDNN's kernel for that gives wrong sums in one corner (torch
    2.13: one channel, strides 1 and 2, one column of output).
    """
    return value.reshape(-1).view(value.shape) if value.shape[1] == 1 else value


class ConvStep(nn.Module):
    """A convolution on pixels, integers or signs; weights may be given per draw."""

    weights: Tensor
    fill: Tensor | None

    def __init__(self, node: Conv, dtype: torch.dtype) -> None:
        super().__init__()
        top, left, bottom, right = node.padding
        self.stride = node.stride
        self.dilation = node.dilation
        self.groups = node.groups
        # Zeros beside signs count as neither +1 nor -1, as the graph says.
        self.padding = (left, right, top, bottom)
        self.dtype = dtype
        fill = node.fill if isinstance(node, IntegerConv) and any(node.padding) else None
        pixel = None if fill is None else torch.from_numpy(fill.astype(np.float64))
        self.register_buffer("fill", None if pixel is None else pixel.to(dtype).view(-1, 1, 1))
        if not isinstance(node, StochasticConv):
            integers = node.weights.astype(np.float64)
            if not isinstance(node, IntegerConv):
                integers = 2.0 * integers - 1.0
            ordered = torch.from_numpy(integers).permute(0, 3, 1, 2).to(dtype).contiguous()
            self.register_buffer("weights", ordered)

    def sums(self, value: Tensor, kernel: Tensor, groups: int) -> Tensor:
        """(M, I, H, W) and (O, I / groups, KH, KW) to (M, O, OH, OW)."""
        value = value.to(self.dtype)
        if self.fill is not None:
            # Zero padding of the difference, whose values are exact too.
            value = F.pad(value - self.fill, self.padding) + self.fill
        elif any(self.padding):
            value = F.pad(value, self.padding)
        if groups == 1 and value.shape[1:] == kernel.shape[1:]:
            # One position only: a matrix product spares reordering the weights,
            # which costs more than the sums when they are new at every step.
            sums = F.linear(value.flatten(1), kernel.flatten(1))[..., None, None]
        else:
            sums = F.conv2d(
                _row_major(value),
                _row_major(kernel),
                stride=self.stride,
                dilation=self.dilation,
                groups=groups,
            )
        return cast(Tensor, Round.apply(sums))  # type: ignore[no-untyped-call]

    def forward(self, value: Tensor) -> Tensor:
        """(..., I, H, W) to (..., O, OH, OW)."""
        sums = self.sums(merge_leading(value), self.weights, self.groups)
        return split(sums, 0, value.shape[:-3])


class StochasticStep(nn.Module):
    """Keeps P(+1) in 256ths and convolves one input with many drawn weight sets."""

    chances: Tensor

    def __init__(self, node: StochasticConv, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = ConvStep(node, dtype)
        levels = torch.from_numpy(node.weights.astype(np.int16)).permute(0, 3, 1, 2)
        chances = (levels + (levels >> (node.planes - 1))) << (8 - node.planes)
        self.register_buffer("chances", chances.contiguous())

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Weights of -1 / +1, shape (D, O, I / groups, KH, KW)."""
        size = count * self.chances.numel()
        # Eight weights for each 64-bit random number, a byte each: as fine as
        # eight planes can be, and several times as fast as a number for each.
        wide = torch.empty((size + 7) // 8, dtype=torch.int64)
        wide.random_(-(2**63), None, generator=generator)
        noise = wide.view(torch.uint8)[:size].view(count, *self.chances.shape)
        # Signs are made in bytes: a quarter of the memory that floats would touch.
        signs = (noise < self.chances.cpu()).view(torch.int8).mul_(2).sub_(1)
        return signs.to(self.chances.device).to(self.conv.dtype)

    def forward(self, value: Tensor, weights: Tensor) -> Tensor:
        """(N, I, H, W) or (D, N, I, H, W) to (D, N, O, OH, OW)."""
        draws, outputs = weights.shape[:2]
        groups = self.conv.groups
        if value.dim() == 5:
            # The draws are groups of channels too, each of the layer's own groups.
            value = value.transpose(0, 1).flatten(1, 2)
            sums = self.conv.sums(value, weights.flatten(0, 1), draws * groups)
            return split(sums, 1, (draws, outputs)).transpose(0, 1)
        if groups == 1:
            sums = self.conv.sums(value, weights.flatten(0, 1), 1)
            return split(sums, 1, (draws, outputs)).transpose(0, 1)
        # All draws read the same channels: within each group, draw by draw.
        each = outputs // groups
        kernel = split(weights, 1, (groups, each)).transpose(0, 1).flatten(0, 2)
        sums = split(self.conv.sums(value, kernel, groups), 1, (groups, draws, each))
        return sums.permute(2, 0, 1, 3, 4, 5).flatten(2, 3)


class DenseStep(nn.Module):
    """Flattens in the order (H, W, C), multiplies, and adds the bias."""

    weights: Tensor
    bias: Tensor | None

    def __init__(self, node: Dense, source: TensorSpec, dtype: torch.dtype) -> None:
        super().__init__()
        height, width, channels = source.shape
        integers = node.weights.astype(np.float64).reshape(-1, height, width, channels)
        ordered = integers.transpose(0, 3, 1, 2).reshape(len(integers), -1)
        self.register_buffer("weights", torch.from_numpy(ordered.copy()).to(dtype))
        bias = None if node.bias is None else torch.from_numpy(node.bias.astype(np.float64))
        self.register_buffer("bias", None if bias is None else bias.to(dtype))

    def forward(self, value: Tensor) -> Tensor:
        """(..., C, H, W) to (..., outputs, 1, 1)."""
        logits = F.linear(value.flatten(-3).to(self.weights.dtype), self.weights, self.bias)
        return logits[..., None, None]
