"""Float networks as torch modules, written the way people write them.

The spelling of signs, norms and weights varies with the seed; what is
computed does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu.network import (
    Add,
    Affine,
    AvgPool,
    Clamp,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Network,
    Op,
    Pad,
    PRelu,
    Sign,
)

__all__ = ["to_module"]


class _Ste(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        return grad


def _detached(x: Tensor) -> Tensor:
    hard = torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))
    return (hard - x).detach() + x


_AT_LEAST: list[Callable[[Tensor], Tensor]] = [
    _Ste.apply,
    lambda x: (x >= 0).float() * 2 - 1,
    lambda x: torch.where(x < 0, -1.0, 1.0),
    lambda x: 2 * torch.ge(x, 0).to(x.dtype) - 1,
]
_ABOVE: list[Callable[[Tensor], Tensor]] = [
    lambda x: torch.where(x > 0, 1.0, -1.0),
    lambda x: 2 * (x > 0).float() - 1,
]


class _Sign(nn.Module):
    def __init__(self, spelling: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        return self.spelling(x)


class _Weighted(nn.Module):
    """Convolution or linear; binary weights come from real ones and a scale a filter."""

    def __init__(self, op: Conv | Linear, rng: np.random.Generator) -> None:
        super().__init__()
        self.op = op
        weights = torch.from_numpy(op.weights.copy()).float()
        flat = weights.abs().flatten(1)
        self.binary = bool((flat == flat[:, :1]).all() and (flat > 0).all())
        if self.binary:
            shape = (-1, *[1] * (weights.dim() - 1))
            self.scale = nn.Parameter(flat[:, 0].reshape(shape).clone())
            noise = torch.from_numpy(rng.uniform(0.05, 1.0, op.weights.shape)).float()
            weights = weights.sign() * noise
        self.weight = nn.Parameter(weights)
        self.bias = None
        if op.bias is not None:
            self.bias = nn.Parameter(torch.from_numpy(op.bias.copy()).float())

    def forward(self, x: Tensor) -> Tensor:
        weight = _detached(self.weight).sign() * self.scale if self.binary else self.weight
        op = self.op
        if isinstance(op, Linear):
            return F.linear(x.flatten(1), weight, self.bias)
        top, left, bottom, right = op.padding
        if (top, left) == (bottom, right):
            pad = (top, left)
        else:
            x, pad = F.pad(x, (left, right, top, bottom)), (0, 0)
        return F.conv2d(x, weight, self.bias, op.stride, pad, op.dilation, op.groups)


class _Norm(nn.Module):
    """An affine operation as batch norm, or by hand."""

    def __init__(self, op: Affine, rng: np.random.Generator) -> None:
        super().__init__()
        scale, offset = (torch.from_numpy(a.copy()).float() for a in (op.scale, op.offset))
        self.norm = None
        if rng.random() < 0.6:
            mean = torch.from_numpy(rng.normal(0, 0.3, op.scale.size)).float()
            variance = torch.from_numpy(rng.uniform(0.3, 2, op.scale.size)).float()
            self.norm = nn.BatchNorm2d(op.scale.size)
            with torch.no_grad():
                self.norm.running_mean.copy_(mean)
                self.norm.running_var.copy_(variance)
                self.norm.weight.copy_(scale * (variance + self.norm.eps).sqrt())
                self.norm.bias.copy_(offset + scale * mean)
        self.scale, self.offset = nn.Parameter(scale), nn.Parameter(offset)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            return self.norm(x) if x.dim() == 4 else self.norm(x[..., None, None]).flatten(1)
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * self.scale.reshape(shape) + self.offset.reshape(shape)


class _Other(nn.Module):
    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op
        if isinstance(op, PRelu):
            self.slope = nn.Parameter(torch.from_numpy(op.slope.copy()).float())

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        op = self.op
        if isinstance(op, Clamp):
            if op.low == 0 and math.isinf(op.high):
                return F.relu(x)
            return F.hardtanh(x, op.low, op.high)
        if isinstance(op, PRelu):
            return F.prelu(x, self.slope)
        if isinstance(op, Add):
            return x + more[0]
        if isinstance(op, MaxPool):
            return F.max_pool2d(x, op.kernel, op.stride, op.padding[:2], op.dilation)
        if isinstance(op, AvgPool):
            return F.avg_pool2d(x, op.kernel, op.stride)
        if isinstance(op, Flatten):
            return x.flatten(1)
        assert isinstance(op, Pad)
        top, left, bottom, right = op.padding
        return F.pad(x, (left, right, top, bottom))


class _Net(nn.Module):
    def __init__(self, network: Network, rng: np.random.Generator) -> None:
        super().__init__()
        self.order = network.ops
        self.layers = nn.ModuleDict()
        for op in network.ops:
            layer: nn.Module
            if isinstance(op, Conv | Linear):
                layer = _Weighted(op, rng)
            elif isinstance(op, Affine):
                layer = _Norm(op, rng)
            elif isinstance(op, Sign):
                spellings = _AT_LEAST if op.zero >= 0 else _ABOVE
                layer = _Sign(spellings[int(rng.integers(len(spellings)))])
            else:
                layer = _Other(op)
            self.layers[op.name] = layer

    def forward(self, x: Tensor) -> Tensor:
        values = {"input": x}
        for op in self.order:
            values[op.name] = self.layers[op.name](*(values[s] for s in op.sources))
        return values[self.order[-1].name]


def to_module(network: Network, seed: int) -> nn.Module:
    """A module in eval mode that computes the network in float32."""
    return _Net(network, np.random.default_rng(seed)).eval()
