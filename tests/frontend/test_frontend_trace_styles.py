"""The five usual styles, whole: what is traced, and that it is what the module computes."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from styles import STYLES, pictures
from torch import nn
from tracing import kinds

import bnnmcu
from bnnmcu.frontend.trace import trace
from bnnmcu.network import Conv, Linear, Network, Sign
from bnnmcu.network.execute import run, to_float

_BLOCK = "Affine Clamp Affine Sign Conv Affine PRelu"
_EXPECTED: dict[str, tuple[tuple[int, int, int], str]] = {
    "xnor": (
        (1, 16, 16),
        "Conv Affine Clamp MaxPool Affine Sign Conv Clamp MaxPool Affine Sign Conv Clamp Affine "
        "Flatten Linear",
    ),
    "bireal": (
        (3, 16, 16),
        "Conv Affine MaxPool Sign Conv Affine Add Sign Conv Affine AvgPool Conv Affine Add "
        "Sign Conv Affine Add AvgPool Linear",
    ),
    "ste-mlp": (
        (1, 12, 12),
        "Flatten Affine Linear Affine Clamp Sign Linear Affine Clamp Linear Affine",
    ),
    "separable": (
        (3, 16, 16),
        "Conv Affine Clamp Affine "
        + " ".join(f"Sign Conv {_BLOCK}" for _ in range(3))
        + " AvgPool Linear",
    ),
    "keyword-spotter": (
        (10, 1, 48),
        "Conv Affine Sign Conv Affine Sign Conv Affine Clamp AvgPool Affine Sign Conv Clamp "
        "AvgPool Linear",
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_styles(style: str) -> None:
    made = STYLES[style]()
    network = trace(made.module, made.example)
    shape, names = _EXPECTED[style]
    assert network.input_shape == shape
    assert (shape[1], shape[2], shape[0]) == made.image_shape
    assert kinds(network) == names.split()
    _compare(network, made.module, made.example, made.image_shape)


def _compare(
    network: Network, module: nn.Module, example: torch.Tensor, shape: tuple[int, int, int]
) -> None:
    images = pictures(shape, 24, seed=5)
    shares = {}

    def note(name: str, value: np.ndarray) -> None:
        shares[name] = shares.get(name, 0.0) + float((value > 0).mean()) / 2

    logits = run(network, images, on_value=note)
    inputs = torch.from_numpy(to_float(network, images)).reshape(24, *example.shape[1:])
    with torch.no_grad():
        single = module(inputs.float()).numpy()
        double = copy.deepcopy(module).double()(inputs).numpy()
    labels = logits.argmax(1)
    assert np.array_equal(labels, double.argmax(1))
    assert (labels == single.argmax(1)).mean() >= 0.9
    assert len(np.unique(labels)) >= 3, "one class for all images proves little"
    for op in network.ops:
        if isinstance(op, Sign):
            assert 0.05 < shares[op.name] < 0.95, f"{op.name} is constant"


@pytest.mark.parametrize("style", STYLES)
def test_styles_look_trained_and_are_small(style: str) -> None:
    made = STYLES[style]()
    norms = [m for m in made.module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms
    assert not made.module.training
    for norm in norms:
        assert (norm.running_mean != 0).any()
        assert (norm.running_var != 1).any()
    gammas = torch.cat([norm.weight for norm in norms if norm.affine])
    assert 0.1 < (gammas < 0).float().mean() < 0.6
    network = trace(made.module, made.example)
    weights = sum(op.weights.size for op in network.ops if isinstance(op, Conv | Linear))
    assert weights * 4 < 62_000


def test_the_same_module_gives_the_same_network() -> None:
    one, other = (trace(*(lambda s: (s.module, s.example))(STYLES["bireal"]())) for _ in range(2))
    assert [op.name for op in one.ops] == [op.name for op in other.ops]
    for a, b in zip(one.ops, other.ops, strict=True):
        for name, value in vars(a).items():
            assert np.array_equal(value, getattr(b, name)), (a.name, name)


def test_importing_needs_no_torch() -> None:
    code = "import bnnmcu.frontend.trace, sys; assert 'torch' not in sys.modules"
    root = str(Path(bnnmcu.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})
