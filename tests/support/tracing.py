"""Helpers for tests of the tracer: small modules around one function, and comparisons."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from styles import settle
from torch import Tensor, nn

from bnnmcu.network import Network
from bnnmcu.network.execute import run, to_float

__all__ = ["Around", "Branches", "agree", "batches", "kinds"]


class Around(nn.Module):
    """Convolution, batch norm, what is tested (``self.it``), flatten."""

    def __init__(self, it: Callable[..., Tensor], channels: int = 4, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, channels, 3)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.it = it

    def forward(self, x: Tensor) -> Tensor:
        return self.it(self.norm(self.conv(x))).flatten(1)

    @classmethod
    def settled(cls, it: Callable[..., Tensor], **options: Any) -> nn.Module:
        """With parameters that look trained."""
        torch.manual_seed(0)
        return settle(cls(it, **options), (2, 8, 8), 7)


class _Branch(nn.Module):
    """Convolution, batch norm, what is tested, and a pooling that makes its value needed."""

    def __init__(self, it: Callable[..., Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.it = it
        self.end = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.it(self.norm(self.conv(x))))


class Branches(nn.Module):
    """Many functions at once, since a trace costs half a second: a sum of branches."""

    def __init__(self, them: dict[str, Callable[..., Tensor]]) -> None:
        super().__init__()
        self.keys = {name: f"b{number}" for number, name in enumerate(them)}
        self.branches = nn.ModuleDict({self.keys[name]: _Branch(it) for name, it in them.items()})

    def forward(self, x: Tensor) -> Tensor:
        total = 0
        for number, branch in enumerate(self.branches.values()):
            total = total + branch(x) * (1 + number / 8)
        return total.flatten(1)

    def ops(self, network: Network, name: str) -> list[Any]:
        """The operations of one branch."""
        prefix = f"branches.{self.keys[name]}."
        return [op for op in network.ops if op.name.startswith(prefix)]

    @classmethod
    def settled(cls, them: dict[str, Callable[..., Tensor]]) -> Branches:
        """With parameters that look trained."""
        torch.manual_seed(0)
        module = settle(cls(them), (2, 8, 8), 7)
        assert isinstance(module, cls)
        return module


def batches(table: dict[str, Any], size: int = 10) -> list[Any]:
    """A table's keys in groups, as parameters of a test."""
    names = list(table)
    groups = [names[start : start + size] for start in range(0, len(names), size)]
    return [pytest.param(group, id=f"{group[0]} to {group[-1]}") for group in groups]


def kinds(network: Network) -> list[str]:
    """Class names of the operations."""
    return [type(op).__name__ for op in network.ops]


def agree(network: Network, module: nn.Module, example: Tensor, count: int = 6) -> None:
    """The network gives what the module gives, in float64, on images of its own."""
    generator = np.random.default_rng(99)
    channels, height, width = network.input_shape
    images = generator.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    images[-1] = 0
    twin = copy.deepcopy(module).eval().double()
    inputs = torch.from_numpy(to_float(network, images)).reshape(count, *example.shape[1:])
    with torch.no_grad():
        wanted = np.concatenate([twin(x[None].contiguous()).reshape(1, -1).numpy() for x in inputs])
    got = run(network, images)
    assert got.shape == wanted.shape
    # The trace folds constants in float32, the double twin does not.
    assert np.abs(got - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())
    assert wanted.std() > 0, "a constant answer proves nothing"
