"""Steps on single values and windows of them: signs, clamps, batch norm, pools."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.attack.config.base import Estimator
from bnnmcu.attack.twin.exact import merge_leading, split
from bnnmcu.network import Affine, AvgPool, Clamp, MaxPool, PRelu, Sign
from bnnmcu.network.ops import Floats, Padding

__all__ = [
    "AffineStep",
    "AvgPoolStep",
    "ClampStep",
    "MaxPoolStep",
    "PReluStep",
    "SignStep",
    "column",
    "sides",
]


def column(values: Floats) -> Tensor:
    """One number a channel, float32 (C, 1, 1)."""
    return torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1)


def sides(padding: Padding) -> tuple[int, int, int, int]:
    """Top, left, bottom, right in the order of ``F.pad``: left, right, top, bottom."""
    top, left, bottom, right = padding
    return left, right, top, bottom


def _signs(y: Tensor, zero: int) -> Tensor:
    # Three passes of torch's vectorised sign; ``where`` with two scalars costs ten.
    signs = torch.sign(y)
    return signs if zero == 0 else signs.add_(0.5 * zero).sign_()


class _Sign(torch.autograd.Function):
    """Signs forward, the estimator's factor backward."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, zero: int, estimator: Estimator) -> Tensor:
        ctx.estimator = estimator
        if estimator != "identity":
            ctx.save_for_backward(y)
        return _signs(y, zero)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        gradient: Tensor = grads[0]
        if ctx.estimator == "identity":
            return gradient, None, None
        (y,) = ctx.saved_tensors
        if ctx.estimator == "clipped":
            return gradient * (y.abs() <= 1.0), None, None
        # 1 - tanh(y)**2 = 4 s (1 - s) with s = sigmoid(2 y), which is five times as fast.
        s = torch.sigmoid(2.0 * y)
        return torch.addcmul(s, s, s, value=-1.0).mul_(4.0).mul_(gradient), None, None


class SignStep(nn.Module):
    """-1 and +1, or 0 at zero where the network says so."""

    def __init__(self, op: Sign) -> None:
        super().__init__()
        self.zero = op.zero

    def forward(self, y: Tensor, estimator: Estimator) -> Tensor:
        """Any shape, the same shape."""
        return cast(Tensor, _Sign.apply(y, self.zero, estimator))  # type: ignore[no-untyped-call]


class AffineStep(nn.Module):
    """Scale and offset per channel; a batch norm arrives as this."""

    scale: Tensor
    offset: Tensor

    def __init__(self, op: Affine) -> None:
        super().__init__()
        self.register_buffer("scale", column(op.scale))
        self.register_buffer("offset", column(op.offset))

    def forward(self, value: Tensor) -> Tensor:
        """(..., C, H, W), the same shape."""
        return value * self.scale + self.offset


class ClampStep(nn.Module):
    """ReLU, hardtanh and the like; at both ends included gradients pass, at a ReLU's not."""

    def __init__(self, op: Clamp) -> None:
        super().__init__()
        self.low, self.high = op.low, op.high
        self.relu = op.low == 0.0 and op.high == math.inf

    def forward(self, value: Tensor) -> Tensor:
        """Any shape, the same shape."""
        return torch.relu(value) if self.relu else value.clamp(self.low, self.high)


class PReluStep(nn.Module):
    """A slope per channel below zero."""

    slope: Tensor

    def __init__(self, op: PRelu) -> None:
        super().__init__()
        self.register_buffer("slope", column(op.slope))

    def forward(self, value: Tensor) -> Tensor:
        """(..., C, H, W), the same shape."""
        return torch.where(value >= 0, value, self.slope * value)


class MaxPoolStep(nn.Module):
    """The largest value of each window; among equal signs the one of the largest input."""

    def __init__(self, op: MaxPool) -> None:
        super().__init__()
        self.sides = sides(op.padding)
        self.window = (op.kernel, op.stride, (0, 0), op.dilation)

    def forward(self, value: Tensor, y: Tensor | None = None) -> Tensor:
        """(..., C, H, W) to (..., C, OH, OW).

        Args:
            y: where ``value`` are signs, what they are the signs of.  Which of the
                equal values gets the gradient is then decided as in a network that
                pools first.
        """
        flat = merge_leading(value)
        if y is None:
            best = F.max_pool2d(self._padded(flat), *self.window)
        else:
            # Signs are at least 1 apart; y squashed between -0.5 and 0.5 only breaks ties.
            key = flat.detach() + 0.5 * F.softsign(merge_leading(y.detach()))
            _, place = F.max_pool2d(self._padded(key), *self.window, return_indices=True)
            best = self._padded(flat).flatten(2).gather(2, place.flatten(2)).view(place.shape)
        return split(best, 0, value.shape[:-3])

    def _padded(self, flat: Tensor) -> Tensor:
        return F.pad(flat, self.sides, value=-torch.inf) if any(self.sides) else flat


class AvgPoolStep(nn.Module):
    """The sum of each window by a divisor; zeros stand in the padding."""

    def __init__(self, op: AvgPool) -> None:
        super().__init__()
        self.sides = sides(op.padding)
        self.kernel, self.stride = op.kernel, op.stride
        self.divisor = op.kernel[0] * op.kernel[1] if op.divisor is None else op.divisor

    def forward(self, value: Tensor) -> Tensor:
        """(..., C, H, W) to (..., C, OH, OW)."""
        flat = merge_leading(value)
        flat = F.pad(flat, self.sides) if any(self.sides) else flat
        pooled = F.avg_pool2d(flat, self.kernel, self.stride, divisor_override=self.divisor)
        return split(pooled, 0, value.shape[:-3])
