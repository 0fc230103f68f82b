"""The first layer with integer weights, in training: rounded forward, straight through backward.

The rounding is that of the compiler (``bnnmcu.passes.lower.fold``): symmetric
integers with one scale for each filter, its largest weight being the largest
integer.  What a trained network keeps are the rounded weights themselves, and
rounding them once more changes none: exported with as many bits, the integer
layer is the one that was trained.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FirstConv2d", "quantize_filters"]

# A filter without any weight has no scale of its own.
_NOTHING = 1e-30


def quantize_filters(weight: Tensor, bits: int) -> Tensor:
    """Weights (O, I, KH, KW) rounded to integers of so many bits, times each filter's scale.

    The gradient passes as if nothing had been rounded.

    Args:
        bits: width of the integers, at least 2; the sign is one of them.
    """
    top = float((1 << (bits - 1)) - 1)
    kept = weight.detach()
    largest = kept.abs().amax(dim=(1, 2, 3), keepdim=True)
    unit = torch.where(largest > _NOTHING, largest, torch.ones_like(largest)) / top
    rounded = (kept / unit).round().clamp(-top, top) * unit
    return _StraightThrough.apply(weight, rounded)  # type: ignore[no-untyped-call,no-any-return]


class _StraightThrough(torch.autograd.Function):
    """Another value forward, the gradient of the first one backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        return other

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        return grads[0], None


class FirstConv2d(nn.Conv2d):
    """A convolution whose weights are rounded to ``bits``; None leaves them as they are."""

    bits: int | None = None

    def effective(self) -> Tensor:
        """The weights of a forward pass."""
        return self.weight if self.bits is None else quantize_filters(self.weight, self.bits)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.effective(), self.bias, self.stride, self.padding)

    def settle(self) -> None:
        """Make the rounded weights the weights: the end of a training with ``bits``."""
        with torch.no_grad():
            self.weight.copy_(self.effective())
        self.bits = None
