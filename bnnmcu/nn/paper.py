"""The paper's four networks: A, B, C and S (section 3, figure 1).

==========  ==============  ==============  ====================  ====================
layer       A               B               C                     S
==========  ==============  ==============  ====================  ====================
conv1       8x8 stride 2, padding 3, K filters, full precision, ReLU (all four)
conv2       float, ReLU     binary, ReLU    binary, ReLU, scale   as C
conv3       float, ReLU     binary, ReLU    binary, ReLU, scale   stochastic weights
dense       10 outputs, full precision, no bias (all four)
==========  ==============  ==============  ====================  ====================

conv2 is 6x6 stride 2 and conv3 is 5x5 stride 1, both unpadded with 2K filters.
Before a binary convolution stand a batch normalisation without gamma and a
sign.  Inputs are pixels in [0, 1]: 28x28x1 (MNIST) or 32x32x3 (CIFAR-10).
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from bnnmcu.nn.config import CLASSES, PaperConfig
from bnnmcu.nn.layers import (
    BatchNormShift,
    BinaryConv2d,
    Scale,
    SignActivation,
    StochasticBinaryConv2d,
)
from bnnmcu.nn.quantize import FirstConv2d

__all__ = ["PaperNet", "build"]


def _unit_norm(weight: Tensor, dims: tuple[int, ...]) -> None:
    with torch.no_grad():
        weight /= torch.linalg.vector_norm(weight, dim=dims, keepdim=True)


_Conv = TypeVar("_Conv", bound=nn.Conv2d)


def _initialised(conv: _Conv) -> _Conv:
    """A full-precision convolution: truncated normal, then unit norm of each filter."""
    nn.init.trunc_normal_(conv.weight, std=0.1, a=-0.2, b=0.2)
    _unit_norm(conv.weight, (1, 2, 3))
    return conv


class PaperNet(nn.Module):
    """A, B, C or S: pixels (N, C, H, W) in [0, 1] to logits (N, 10)."""

    def __init__(self, config: PaperConfig) -> None:
        super().__init__()
        self.config = config
        width, doubled = config.filters, 2 * config.filters
        channels, side = config.input_shape[2], config.last_side
        binary = config.kind != "A"
        scaled = config.kind in ("C", "S")

        self.conv1 = _initialised(FirstConv2d(channels, width, 8, 2, 3, bias=False))
        if binary:
            self.norm2 = BatchNormShift(width, config.bn_momentum)
            self.sign2 = SignActivation(config.ste)
            self.conv2: nn.Module = BinaryConv2d(width, doubled, 6, 2, config.ste)
            self.scale2: nn.Module = Scale() if scaled else nn.Identity()
            self.norm3 = BatchNormShift(doubled, config.bn_momentum)
            self.sign3 = SignActivation(config.ste)
            kind = StochasticBinaryConv2d if config.kind == "S" else BinaryConv2d
            self.conv3: nn.Module = kind(doubled, doubled, 5, 1, config.ste)
            self.scale3: nn.Module = Scale() if scaled else nn.Identity()
            if isinstance(self.conv3, StochasticBinaryConv2d):
                self.conv3.shared = config.form == "shared-draw"
                self.conv3.weight.requires_grad_(config.form != "frozen")
        else:
            self.conv2 = _initialised(nn.Conv2d(width, doubled, 6, 2, bias=False))
            self.conv3 = _initialised(nn.Conv2d(doubled, doubled, 5, bias=False))
        self.dense = nn.Linear(doubled * side * side, CLASSES, bias=False)
        nn.init.normal_(self.dense.weight)
        _unit_norm(self.dense.weight, (1,))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        if self.config.kind == "A":
            x = torch.relu(self.conv3(torch.relu(self.conv2(x))))
        else:
            x = self.scale2(torch.relu(self.conv2(self.sign2(self.norm2(x)))))
            x = self.scale3(torch.relu(self.conv3(self.sign3(self.norm3(x)))))
        logits: Tensor = self.dense(x.flatten(1))
        return logits

    def set_generator(self, generator: torch.Generator | None) -> None:
        """Make the draws of stochastic layers come from one generator."""
        for module in self.modules():
            if isinstance(module, StochasticBinaryConv2d):
                module.generator = generator


def build(config: PaperConfig, seed: int | None = None) -> PaperNet:
    """A freshly initialised network; reproducible when a seed is given."""
    if seed is None:
        return PaperNet(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PaperNet(config)
