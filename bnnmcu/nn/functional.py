"""Sign and Bernoulli quantisers with straight-through gradients (paper, section 3).

Two estimators are offered wherever a value is quantised:

* ``identity``: the gradient passes, clipped to [-1, 1] in value, as in the
  authors' code.
* ``clipped``: additionally it is zero where the quantised value's magnitude
  exceeds one, as in BinaryNet (Courbariaux & Bengio, 2016).

``sign(0)`` is +1 here and on the device (TensorFlow's is 0, which one bit
cannot hold).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bnnmcu.nn.config import STE

__all__ = ["binarize", "hard_sigmoid", "sample_sign"]


def _pass_through(grad: Tensor, value: Tensor, ste: str) -> Tensor:
    grad = grad.clamp(-1.0, 1.0)
    return grad * (value.abs() <= 1.0) if ste == "clipped" else grad


class _Sign(torch.autograd.Function):
    """``sign(x)`` in {-1, +1} forward, straight through backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ste: str) -> Tensor:
        ctx.save_for_backward(value)
        ctx.ste = ste
        return torch.where(value >= 0, 1.0, -1.0).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (value,) = ctx.saved_tensors
        return _pass_through(grads[0], value, ctx.ste), None


class _SampleSign(torch.autograd.Function):
    """A Bernoulli(p) draw mapped to {-1, +1} forward, straight through backward."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, uniform: Tensor, ste: str) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.ste = ste
        return torch.where(uniform < hard_sigmoid(weight), 1.0, -1.0).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _pass_through(grads[0], weight, ctx.ste), None, None


def binarize(value: Tensor, ste: STE) -> Tensor:
    """``sign(value)`` in {-1, +1}, same shape, with a straight-through gradient."""
    result: Tensor = _Sign.apply(value, ste)  # type: ignore[no-untyped-call]
    return result


def hard_sigmoid(value: Tensor) -> Tensor:
    """``clip((value + 1) / 2, 0, 1)``: the probability that a weight is +1."""
    return ((value + 1.0) / 2.0).clamp(0.0, 1.0)


def sample_sign(
    weight: Tensor, ste: STE, generator: torch.Generator | None = None, *, shared: bool = False
) -> Tensor:
    """One draw of every weight in {-1, +1}; p = :func:`hard_sigmoid` (paper, footnote 2).

    Args:
        weight: the real weights, filters first.
        generator: of the uniform numbers; they are made on its own device, so that
            the same seed draws the same weights on every device.
        shared: all filters are compared with one plane of uniform numbers.
    """
    shape = (1, *weight.shape[1:]) if shared else weight.shape
    device = weight.device if generator is None else generator.device
    uniform = torch.rand(shape, dtype=weight.dtype, device=device, generator=generator)
    result: Tensor = _SampleSign.apply(  # type: ignore[no-untyped-call]
        weight, uniform.to(weight.device), ste
    )
    return result
