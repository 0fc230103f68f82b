"""Steps on single values and windows of them: comparisons, arithmetic, pools."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.attack.config import Estimator
from bnnmcu.attack.twin.exact import ScaledFloor, SurrogateBit, merge_leading, split
from bnnmcu.graph import ALWAYS, GE, LE, Affine, MaxPool, SumPool, TensorSpec, Threshold

__all__ = ["AddStep", "AffineStep", "ClampStep", "MaxPoolStep", "SumPoolStep", "ThresholdStep"]


def _column(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array)).view(-1, 1, 1)


class ThresholdStep(nn.Module):
    """Exact comparisons forward, the surrogate backward; bits as -1 and +1."""

    value: Tensor
    at_least: Tensor
    at_most: Tensor
    always: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, node: Threshold, dtype: torch.dtype) -> None:
        super().__init__()
        self.rectified = node.surrogate is not None and node.surrogate.rectified
        self.differentiable = node.surrogate is not None
        # A threshold beyond what float32 holds lies beyond every such sum,
        # and rounding it leaves it there.
        self.register_buffer("value", _column(node.value).to(dtype))
        self.register_buffer("at_least", _column(node.kind == GE))
        self.register_buffer("at_most", _column(node.kind == LE))
        self.register_buffer("always", _column(node.kind == ALWAYS))
        if node.surrogate is not None:
            # Slopes go in float32: only forward values need be exact.
            varies = (node.kind == GE) | (node.kind == LE)
            self.register_buffer("slope", _column(node.surrogate.slope * varies).float())
            self.register_buffer("offset", _column(node.surrogate.offset).float())

    def forward(self, sums: Tensor, estimator: Estimator) -> Tensor:
        """Bits of sums (..., C, H, W)."""
        exact = sums.detach()
        high = (exact >= self.value) & self.at_least
        high |= (exact <= self.value) & self.at_most
        high |= self.always
        bits = high.float().mul_(2.0).sub_(1.0)
        if not (self.differentiable and sums.requires_grad):
            return bits
        return cast(Tensor, SurrogateBit.apply(sums, bits, self._factor(exact, estimator)))  # type: ignore[no-untyped-call]

    def stood_for(self, sums: Tensor) -> Tensor:
        """y, of which the bit is the sign: float32, without a gradient."""
        wide = sums.detach().float()
        return self.slope * (wide.clamp_min(0.0) if self.rectified else wide) + self.offset

    def _factor(self, sums: Tensor, estimator: Estimator) -> Tensor:
        """d bit / d sum by the estimator, float32."""
        if estimator == "identity":
            factor = self.slope.expand_as(sums)
        else:
            y = self.stood_for(sums)
            gate = (y.abs() <= 1.0) if estimator == "clipped" else 1.0 - torch.tanh(y) ** 2
            factor = self.slope * gate
        return factor * (sums > 0) if self.rectified else factor


class AffineStep(nn.Module):
    """Multiply, add, shift; per channel."""

    mul: Tensor
    add: Tensor
    neg: Tensor | None

    def __init__(self, node: Affine, dtype: torch.dtype) -> None:
        super().__init__()
        self.shift = node.shift
        self.dtype = dtype
        self.register_buffer("mul", _column(node.mul.astype(np.int64)))
        self.register_buffer("add", _column(node.add))
        neg = None if node.neg is None else _column(node.neg.astype(np.int64))
        self.register_buffer("neg", neg)

    def forward(self, value: Tensor) -> Tensor:
        """(..., C, H, W), the same shape."""
        given = (value, self.mul, self.neg, self.add, self.shift, self.dtype)
        return cast(Tensor, ScaledFloor.apply(*given))  # type: ignore[no-untyped-call]


class ClampStep(nn.Module):
    """Cuts off at the bounds that the values of the node can have."""

    def __init__(self, result: TensorSpec, dtype: torch.dtype) -> None:
        super().__init__()
        # Not the node's own bounds, which float32 may not hold where no value reaches them.
        self.low, self.high = result.low, result.high
        self.dtype = dtype

    def forward(self, value: Tensor) -> Tensor:
        """(..., C, H, W), the same shape."""
        return value.to(self.dtype).clamp(self.low, self.high)


class AddStep(nn.Module):
    """A sum; where one side depends on the draws and the other does not, it broadcasts."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, value: Tensor, other: Tensor) -> Tensor:
        """(..., C, H, W) twice."""
        return value.to(self.dtype) + other.to(self.dtype)


class MaxPoolStep(nn.Module):
    """The largest value of each window, or the smallest where ``minimum`` is set."""

    sign: Tensor | None

    def __init__(self, node: MaxPool) -> None:
        super().__init__()
        top, left, bottom, right = node.padding
        self.padding = (left, right, top, bottom)
        self.window = (node.kernel, node.stride, (0, 0), node.dilation)
        signs = None if node.minimum is None else 1.0 - 2.0 * node.minimum.astype(np.float32)
        self.register_buffer("sign", None if signs is None else _column(signs))

    def forward(self, value: Tensor, y: Tensor | None = None) -> Tensor:
        """(..., C, H, W) to (..., C, OH, OW); ``y`` decides among equal bits."""
        flat = merge_leading(value)
        # The smallest is the largest of the opposite.
        turned = flat if self.sign is None else flat * self.sign
        if y is None:
            best = F.max_pool2d(self._padded(turned), *self.window)
        else:
            order = merge_leading(y)
            order = order if self.sign is None else order * self.sign
            # Bits first, 2 apart; y squashed between -1 and 1 can only break their ties.
            key = 2.0 * turned.detach() + F.softsign(order)
            _, place = F.max_pool2d(self._padded(key), *self.window, return_indices=True)
            chosen = self._padded(turned).flatten(2).gather(2, place.flatten(2))
            best = chosen.view(place.shape)
        best = best if self.sign is None else best * self.sign
        return split(best, 0, value.shape[:-3])

    def _padded(self, flat: Tensor) -> Tensor:
        if not any(self.padding):
            return flat
        # Every window holds some value, so the padding is never the largest.
        return F.pad(flat, self.padding, value=-torch.inf)


class SumPoolStep(nn.Module):
    """The sum of each window."""

    def __init__(self, node: SumPool, dtype: torch.dtype) -> None:
        super().__init__()
        top, left, bottom, right = node.padding
        self.padding = (left, right, top, bottom)
        self.kernel, self.stride = node.kernel, node.stride
        self.dtype = dtype

    def forward(self, value: Tensor) -> Tensor:
        """(..., C, H, W) to (..., C, OH, OW)."""
        flat = merge_leading(value.to(self.dtype))
        padded = F.pad(flat, self.padding) if any(self.padding) else flat
        # The mean over a divisor of one.
        sums = F.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)
        return split(sums, 0, value.shape[:-3])
