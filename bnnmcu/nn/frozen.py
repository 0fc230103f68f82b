"""A network of the paper as an attack in training sees it: fast, gradients by pixels alone.

Batch normalisation uses its running statistics and changes none, binary weights
are made once for all steps of an attack, and no weight gets a gradient.  Drawn
weights are drawn anew for each pass, as in training.  The function is that of
``net.eval()`` with the same gradients, but for the order of a few sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.nn.layers import BatchNormShift, BinaryConv2d, Scale, StochasticBinaryConv2d
from bnnmcu.nn.paper import PaperNet

__all__ = ["FrozenNet"]

_KERNEL, _STRIDE, _PADDING = 8, 2, 3


class _First(torch.autograd.Function):
    """The first convolution; its gradient by few input channels is faster by a matrix product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.sides = x.shape[2:]
        return F.conv2d(x, weight, stride=_STRIDE, padding=_PADDING)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        grad = grads[0].permute(0, 2, 3, 1).flatten(1, 2)
        columns = (grad @ weight.flatten(1)).transpose(1, 2)
        pixels = F.fold(columns, ctx.sides, _KERNEL, stride=_STRIDE, padding=_PADDING)
        return pixels, None


class _Signs(torch.autograd.Function):
    """ReLU, scale, normalisation and sign at once; backward as the layers' own chain."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, factor: Tensor, shift: Tensor, clipped: bool) -> Tensor:
        rectified = sums.clamp_min(0.0)
        normal = torch.addcmul(shift, rectified, factor)
        passes = sums > 0
        if clipped:
            passes &= normal.abs() <= 1.0
        ctx.save_for_backward(passes, factor)
        return (normal >= 0).to(sums.dtype).mul_(2.0).sub_(1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None]:
        passes, factor = ctx.saved_tensors
        return grads[0].clamp(-1.0, 1.0).mul_(factor).mul_(passes), None, None, None


def _line(norm: BatchNormShift, scale: float) -> tuple[Tensor, Tensor]:
    """Normalisation of ``scale`` times a sum, as factor and shift (1, C, 1, 1)."""
    inverse = torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias.detach() - norm.running_mean * inverse
    return (scale * inverse).view(1, -1, 1, 1), shift.view(1, -1, 1, 1)


def _value(scale: nn.Module) -> float:
    return float(scale.value.detach()) if isinstance(scale, Scale) else 1.0


class FrozenNet:
    """Pixels (N, C, H, W) in [0, 1] to logits (N, 10), by the weights that a network has now.

    Args:
        net: is not changed, but for the generator that its draws come from.
    """

    @torch.no_grad()
    def __init__(self, net: PaperNet) -> None:
        self._whole = net.config.last_side == 1
        self._first = net.conv1.effective().clone()
        self._dense = net.dense.weight.detach()
        self._drawn: StochasticBinaryConv2d | None = None
        conv2, conv3 = net.conv2, net.conv3
        self._binary = isinstance(conv2, BinaryConv2d) and isinstance(conv3, BinaryConv2d)
        if isinstance(conv2, BinaryConv2d) and isinstance(conv3, BinaryConv2d):
            self._clipped = net.config.ste == "clipped"
            self._last_scale = _value(net.scale3)
            self._line2 = _line(net.norm2, 1.0)
            self._line3 = _line(net.norm3, _value(net.scale2))
            second, self._third = conv2.quantized(), conv3.quantized()
            if isinstance(conv3, StochasticBinaryConv2d):
                self._drawn = conv3
        else:
            assert isinstance(conv2, nn.Conv2d)
            assert isinstance(conv3, nn.Conv2d)
            second, self._third = conv2.weight.detach(), conv3.weight.detach()
        self._second = second.contiguous(memory_format=torch.channels_last)

    def __call__(self, x: Tensor) -> Tensor:
        sums: Tensor = _First.apply(x, self._first)  # type: ignore[no-untyped-call]
        sums = sums.contiguous(memory_format=torch.channels_last)
        if not self._binary:
            hidden = torch.relu(F.conv2d(torch.relu(sums), self._second, stride=2))
            return F.linear(torch.relu(self._last(hidden)).flatten(1), self._dense)
        signs = _Signs.apply(sums, *self._line2, self._clipped)  # type: ignore[no-untyped-call]
        sums = F.conv2d(signs, self._second, stride=2)
        signs = _Signs.apply(sums, *self._line3, self._clipped)  # type: ignore[no-untyped-call]
        hidden = torch.relu(self._last(signs)) * self._last_scale
        return F.linear(hidden.flatten(1), self._dense)

    def _last(self, values: Tensor) -> Tensor:
        """conv3, which on MNIST looks at everything at once."""
        weight = self._third
        if self._drawn is not None:
            with torch.no_grad():
                weight = self._drawn.quantized()
        if self._whole:
            return F.linear(values.flatten(1), weight.flatten(1))
        return F.conv2d(values, weight)
