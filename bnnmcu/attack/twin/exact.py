"""Which float holds an integer value exactly, and functions with gradients of their own."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import Dense, IntegerConv, Node, SumPool, TensorSpec

__all__ = [
    "Pixels",
    "Round",
    "ScaledFloor",
    "SurrogateBit",
    "exact_dtype",
    "merge_leading",
    "split",
]

# Integers below these bounds are exact, and so are all sums of them on the way.
_FLOAT32_EXACT = 2**24
_FLOAT64_EXACT = 2**53


def _magnitude(spec: TensorSpec) -> int:
    low, high = spec.bounds
    return max(-low, high)


def _largest(node: Node, sources: list[TensorSpec], result: TensorSpec) -> int:
    """What a node reads, forms on the way, or gives, at most.

    Partial sums, in whatever order a backend adds, are bounded by the sum of
    magnitudes, which can exceed the bounds of the result.
    """
    source = _magnitude(sources[0])
    if isinstance(node, (IntegerConv, Dense)):
        weights = np.abs(node.weights.astype(np.int64)).reshape(len(node.weights), -1)
        largest = int(weights.sum(axis=1).max()) * max(source, 1)
        if isinstance(node, Dense) and node.bias is not None:
            # Python integers: a bias may be anything that 64 bits hold.
            largest += max(abs(bias) for bias in node.bias.tolist())
        return largest
    if isinstance(node, SumPool):
        rows, cols = node.kernel
        return rows * cols * source
    return max(_magnitude(result), *map(_magnitude, sources))


def exact_dtype(node: Node, sources: list[TensorSpec], result: TensorSpec) -> torch.dtype:
    """The narrowest float in which all that a node computes is an exact integer.

    Raises:
        UnsupportedModelError: there is none.  Only a dense layer can be so large:
            the graph bounds everything else by 32 bits.
    """
    largest = _largest(node, sources, result)
    if largest < _FLOAT32_EXACT:
        return torch.float32
    if largest < _FLOAT64_EXACT:
        return torch.float64
    raise UnsupportedModelError(
        f"sums can reach {largest}, more than float64 holds exactly, so the differentiable "
        "twin would not be the integer network",
        where=node.name,
        hint="clamp or shift the values before it, or use fewer bits for its weights",
    )


def merge_leading(value: Tensor) -> Tensor:
    """(..., C, H, W) as (M, C, H, W)."""
    return value.flatten(0, -4) if value.dim() > 4 else value


def split(value: Tensor, axis: int, sizes: tuple[int, ...]) -> Tensor:
    """An axis as several, of these sizes; as it is where they are one."""
    if len(sizes) == 1:
        return value
    return value.reshape(*value.shape[:axis], *sizes, *value.shape[axis + 1 :])


class SurrogateBit(torch.autograd.Function):
    """Given bits forward, given factors backward."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, bits: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.dtype = sums.dtype
        return bits

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        return (grads[0] * factor).to(ctx.dtype), None, None


class Pixels(torch.autograd.Function):
    """[0, 1] to the pixel levels 0 to 255; the rounding passes gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 255.0).clamp(0.0, 255.0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return cast(Tensor, grads[0] * 255.0)


class Round(torch.autograd.Function):
    """Sums of integers, freed of a backend's rounding errors.

    A backend may convolve by Winograd's method or by FFT; the error on integers
    of this size is far below one half.
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        return torch.round(sums)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return cast(Tensor, grads[0])


class ScaledFloor(torch.autograd.Function):
    """floor((m x + add) / 2**shift) in 64-bit integers, as the graph defines it.

    The product may need more bits than float64 has, so floats would not do.
    The gradient is that of ``m / 2**shift * x``.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mul: Tensor, neg: Tensor | None, add: Tensor, shift: int,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        wide = x.to(torch.int64)
        factor = mul if neg is None else torch.where(wide >= 0, mul, neg)
        ctx.save_for_backward(factor)
        ctx.shift, ctx.dtype = shift, x.dtype
        # An arithmetic shift of an integer rounds towards minus infinity.
        return (wide.mul_(factor).add_(add) >> shift).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None, None]:
        (factor,) = ctx.saved_tensors
        slope = factor.to(ctx.dtype) / float(1 << ctx.shift)
        return grads[0].to(ctx.dtype) * slope, None, None, None, None, None
