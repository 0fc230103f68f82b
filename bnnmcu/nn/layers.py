"""Binary and stochastic-binary layers with the straight-through estimator.

A layer keeps real-valued weights and quantises them in the forward pass.  It
does not touch its input: signs of activations are :class:`SignActivation`, so
that a network reads as its drawing does.
"""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.nn.config import STE
from bnnmcu.nn.functional import binarize, sample_sign

__all__ = [
    "BatchNormShift",
    "BinaryConv2d",
    "BinaryLinear",
    "Scale",
    "SignActivation",
    "StochasticBinaryConv2d",
    "StochasticBinaryLinear",
]

#: Spread of the real-valued weights behind binary ones (paper, section 3).
_BINARY_SIGMA = 0.2


def _checked(ste: str) -> STE:
    if ste not in get_args(STE):
        raise ValueError(f"ste must be one of {get_args(STE)}, not {ste!r}")
    return ste  # type: ignore[return-value]


class SignActivation(nn.Module):
    """``sign(x)`` in {-1, +1}; same shape."""

    def __init__(self, ste: STE = "clipped") -> None:
        super().__init__()
        self.ste = _checked(ste)

    def forward(self, x: Tensor) -> Tensor:
        return binarize(x, self.ste)


class BatchNormShift(nn.Module):
    """Batch normalisation with a learned shift and no gamma, as in the authors' code.

    Args:
        channels: C of an input (N, C, H, W).
        momentum: weight of the newest batch in the running statistics.
        eps: added to the variance.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.01, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            weight=None,
            bias=self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )


class Scale(nn.Module):
    """One learned scalar for the whole tensor (Tang et al., 2017; models C and S)."""

    def __init__(self, initial: float = 0.05) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.value


class _Quantized(nn.Module):
    """Real-valued weights and the way they are quantised in a forward pass."""

    def __init__(self, shape: tuple[int, ...], ste: STE) -> None:
        super().__init__()
        self.ste = _checked(ste)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.trunc_normal_(
            self.weight, std=_BINARY_SIGMA, a=-2 * _BINARY_SIGMA, b=2 * _BINARY_SIGMA
        )

    def quantized(self) -> Tensor:
        """The weights of this forward pass, in {-1, +1}."""
        return binarize(self.weight, self.ste)


class _Stochastic(_Quantized):
    """Weights drawn once per forward pass and shared by the batch.

    Set :attr:`generator` to make the draws reproducible, and :attr:`shared` to
    compare all filters with the same uniform numbers (for study: no device does).
    """

    generator: torch.Generator | None = None
    shared: bool = False

    def quantized(self) -> Tensor:
        return sample_sign(self.weight, self.ste, self.generator, shared=self.shared)


class BinaryConv2d(_Quantized):
    """Convolution with weights sign(w), no bias, no padding.

    Args:
        in_channels, out_channels, kernel_size, stride: as in ``nn.Conv2d``.
        ste: the straight-through estimator of the weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        ste: STE = "clipped",
    ) -> None:
        super().__init__((out_channels, in_channels, kernel_size, kernel_size), ste)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.quantized(), stride=self.stride)


class StochasticBinaryConv2d(_Stochastic, BinaryConv2d):
    """Convolution whose weights are +1 with probability hard_sigmoid(w) (model S)."""


class BinaryLinear(_Quantized):
    """Fully connected layer with weights sign(w) and no bias."""

    def __init__(self, in_features: int, out_features: int, ste: STE = "clipped") -> None:
        super().__init__((out_features, in_features), ste)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quantized())


class StochasticBinaryLinear(_Stochastic, BinaryLinear):
    """Fully connected layer whose weights are +1 with probability hard_sigmoid(w)."""
