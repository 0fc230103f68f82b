"""Signs, steps and activations in all the ways in which people write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tracing import Around, Branches, agree, batches

from bnnmcu.frontend.trace import trace
from bnnmcu.network import Affine, Clamp, Conv, MaxPool, PRelu, Sign

_EXAMPLE = torch.rand(1, 2, 8, 8)


def _function(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An autograd.Function with this forward, and a straight-through gradient."""

    class Estimator(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            (x,) = ctx.saved_tensors
            return gradients[0] * (x.abs() <= 1)

    return Estimator.apply


def _masked(x: Tensor) -> Tensor:
    out = torch.sign(x)
    out[out == 0] = 1
    return out


def _assigned(x: Tensor) -> Tensor:
    out = x.clone()
    out[x >= 0] = 1.0
    out[x < 0] = -1.0
    return out


def _approximate(x: Tensor) -> Tensor:
    hard = torch.sign(x)
    low, mid, high = x < -1, x < 0, x < 1
    out = (-1) * low.float() + (x * x + 2 * x) * (1 - low.float())
    out = out * mid.float() + (-x * x + 2 * x) * (1 - mid.float())
    out = out * high.float() + 1 * (1 - high.float())
    return hard.detach() - out.detach() + out


def _in_place(x: Tensor) -> Tensor:
    return x.clone().sign_().add_(0.5).sign_()


def _no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        hard = torch.where(x < 0, -1.0, 1.0)
    soft = torch.tanh(3 * x)
    return soft + (hard - soft).detach()


def _data(x: Tensor) -> Tensor:
    soft = F.hardtanh(x)
    return soft + (torch.sign(x) - soft).data


# Spelling: (function, what zero gives).
_SIGNS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "torch.sign": (torch.sign, 0),
    "method": (lambda x: x.sign(), 0),
    "sgn": (torch.sgn, 0),
    "function sign": (_function(lambda x: x.sign()), 0),
    "function where ge": (_function(lambda x: torch.where(x >= 0, 1.0, -1.0)), 1),
    "function where gt": (_function(lambda x: torch.where(x > 0, 1.0, -1.0)), -1),
    "function float": (_function(lambda x: (x >= 0).float() * 2 - 1), 1),
    "where tensors": (lambda x: torch.where(x > 0, torch.tensor(1.0), torch.tensor(-1.0)), -1),
    "where like": (lambda x: torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x)), 1),
    "where lt": (lambda x: torch.where(x < 0, -1.0, 1.0), 1),
    "where le": (lambda x: torch.where(x <= 0, -1.0, 1.0), -1),
    "where 0 <": (lambda x: torch.where(0 < x, 1.0, -1.0), -1),  # noqa: SIM300
    "float gt": (lambda x: 2 * (x > 0).float() - 1, -1),
    "to dtype": (lambda x: (x >= 0).to(x.dtype).mul(2).sub(1), 1),
    "type_as": (lambda x: (x.ge(0)).type_as(x) * 2.0 - 1.0, 1),
    "bool arithmetic": (lambda x: (x > 0).int() * 2.0 - 1.0, -1),
    "not lt": (lambda x: (~(x < 0)).float() * 2 - 1, 1),
    "logical not": (lambda x: torch.logical_not(x <= 0).float() * 2 - 1, -1),
    "difference of masks": (lambda x: (x > 0).float() - (x < 0).float(), 0),
    "detach": (lambda x: (torch.sign(x) - x).detach() + x, 0),
    "detach reversed": (lambda x: x + (torch.where(x >= 0, 1.0, -1.0) - x).detach(), 1),
    "detach hardtanh": (
        lambda x: torch.sign(x).detach() - F.hardtanh(x).detach() + F.hardtanh(x), 0
    ),
    "detach clamp": (lambda x: (x.sign() - x.clamp(-1, 1)).detach() + torch.clamp(x, -1, 1), 0),
    "detach tanh": (lambda x: (x.sign() - torch.tanh(2 * x)).detach() + torch.tanh(2 * x), 0),
    "no_grad": (_no_grad, 1),
    "data": (_data, 0),
    "approximate sign": (_approximate, 0),
    "zeros to one": (_masked, 1),
    "sign plus zero": (lambda x: x.sign() + (x == 0).float(), 1),
    "masked_fill": (lambda x: x.sign().masked_fill(x == 0, -1), -1),
    "assigned": (_assigned, 1),
    "twice": (lambda x: torch.sign(torch.sign(x) + 0.1), 1),
    "in place": (_in_place, 1),
    "through tanh": (lambda x: torch.sign(torch.tanh(x)), 0),
    "through sigmoid": (lambda x: (torch.sigmoid(x) >= 0.5).float() * 2 - 1, 1),
    "copysign": (lambda x: torch.copysign(torch.ones_like(x), x), 1),
    "heaviside": (lambda x: 2 * torch.heaviside(x, torch.zeros((), dtype=x.dtype)) - 1, -1),
    "negated": (lambda x: -torch.sign(-x), 0),
    "scaled": (lambda x: torch.sign(3 * x), 0),
}  # fmt: skip


@pytest.mark.parametrize("spellings", batches(_SIGNS))
def test_signs(spellings: list[str]) -> None:
    module = Branches.settled({name: _SIGNS[name][0] for name in spellings})
    network = trace(module, _EXAMPLE)
    agree(network, module, _EXAMPLE)
    for name in spellings:
        ops = module.ops(network, name)
        assert [type(op) for op in ops] == [Conv, Affine, Sign, MaxPool], name
        assert ops[2].zero == _SIGNS[name][1], name


class _Prelu(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.act = nn.PReLU(count)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x)


_COLUMN = torch.tensor([0.5, -1.0, 2.0, 0.25]).reshape(4, 1, 1)

# Spelling: (function, operations between batch norm and flatten).
_OTHERS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "step": (lambda x: (x > 0).float(), ["Sign", "Affine"]),
    "half step": (lambda x: (torch.sign(x) + 1) / 2, ["Sign", "Affine"]),
    "scaled sign": (lambda x: 0.3 * torch.sign(x), ["Sign", "Affine"]),
    "sign per channel": (lambda x: torch.sign(x) * _COLUMN, ["Sign", "Affine"]),
    "threshold": (lambda x: torch.sign(x - 0.3), ["Affine", "Sign"]),
    "threshold per channel": (lambda x: torch.where(x > _COLUMN, 1.0, -1.0), ["Affine", "Sign"]),
    "dorefa bit": (lambda x: torch.round(torch.clamp(x, 0, 1)), ["Affine", "Sign", "Affine"]),
    "hardtanh then sign": (lambda x: torch.sign(F.hardtanh(x)), ["Clamp", "Sign"]),
    "relu": (torch.relu, ["Clamp"]),
    "relu method": (lambda x: x.relu(), ["Clamp"]),
    "relu module": (nn.ReLU(), ["Clamp"]),
    "relu in place": (nn.ReLU(inplace=True), ["Clamp"]),
    "relu by hand": (lambda x: x * (x > 0), ["Clamp"]),
    "relu by where": (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), ["Clamp"]),
    "relu by maximum": (lambda x: torch.maximum(x, torch.zeros(())), ["Clamp"]),
    "threshold module": (nn.Threshold(0.0, 0.0), ["Clamp"]),
    "relu6": (F.relu6, ["Clamp"]),
    "hardtanh": (nn.Hardtanh(), ["Clamp"]),
    "hardtanh bounds": (nn.Hardtanh(-0.5, 2.0), ["Clamp"]),
    "clamp": (lambda x: x.clamp(-1, 1), ["Clamp"]),
    "clip": (lambda x: torch.clip(x, max=0.7), ["Clamp"]),
    "clamp_min": (lambda x: x.clamp_min(-0.2), ["Clamp"]),
    "minimum": (lambda x: torch.minimum(torch.tensor(0.4), x), ["Clamp"]),
    "clamp tensors": (lambda x: torch.clamp(x, torch.tensor(-1.0), torch.tensor(1.0)), ["Clamp"]),
    "min(x, 0)": (lambda x: -torch.relu(-x), ["Clamp"]),
    "hardsigmoid": (F.hardsigmoid, ["Affine", "Clamp"]),
    "leaky": (nn.LeakyReLU(0.1), ["PRelu"]),
    "leaky by where": (lambda x: torch.where(x > 0, x, 0.1 * x), ["PRelu"]),
    "leaky by relu": (lambda x: F.relu(x) - 0.1 * F.relu(-x), ["PRelu"]),
    "prelu one": (_Prelu(1), ["PRelu"]),
    "prelu channels": (_Prelu(4), ["PRelu"]),
    "prelu functional": (lambda x: F.prelu(x, _COLUMN.reshape(-1).to(x)), ["PRelu"]),
    "abs": (torch.abs, ["PRelu"]),
    "identity": (nn.Identity(), []),
    "dropout": (nn.Dropout(), []),
    "dropout functional": (lambda x: F.dropout(x, training=False), []),
    "neg": (torch.neg, ["Affine"]),
    "divide": (lambda x: x / 3, ["Affine"]),
    "subtract from": (lambda x: 1 - x, ["Affine"]),
    "alpha": (lambda x: torch.add(x, torch.ones(4, 1, 1), alpha=2), ["Affine"]),
    "addcmul": (lambda x: torch.addcmul(_COLUMN, x, _COLUMN), ["Affine"]),
    "scale (1, C, 1, 1)": (lambda x: x * _COLUMN[None] + _COLUMN, ["Affine"]),
    "one times": (lambda x: 1.0 * x + 0.0, []),
    "bias twice": (lambda x: x + 1.0 - 1.0, []),
    "double and back": (lambda x: x.double().float(), []),
    "batch norm by hand": (
        lambda x: (x - _COLUMN) / torch.sqrt(_COLUMN.abs() + 1e-5) * _COLUMN + 0.1, ["Affine"]
    ),
    "residual": (lambda x: x + torch.sign(x), ["Sign", "Add"]),
    "residual minus": (lambda x: torch.sign(x) - x, ["Sign", "Affine", "Add"]),
    "sum of halves": (lambda x: (x + torch.sign(x)) / 2, ["Sign", "Add", "Affine"]),
    "maximum of two": (lambda x: torch.maximum(x, torch.sign(x)),
                       ["Sign", "Affine", "Add", "Clamp", "Add"]),
}  # fmt: skip


@pytest.mark.parametrize("spellings", batches(_OTHERS))
def test_activations(spellings: list[str]) -> None:
    module = Branches.settled({name: _OTHERS[name][0] for name in spellings})
    network = trace(module, _EXAMPLE)
    agree(network, module, _EXAMPLE)
    for name in spellings:
        found = [type(op).__name__ for op in module.ops(network, name)]
        assert found == ["Conv", "Affine", *_OTHERS[name][1], "MaxPool"], name


def test_values_of_activations() -> None:
    def only(it: Callable[[Tensor], Tensor], kind: type) -> Any:
        network = trace(Around.settled(it), _EXAMPLE)
        (op,) = [op for op in network.ops[2:] if isinstance(op, kind)]
        return op

    relu6 = only(F.relu6, Clamp)
    assert (relu6.low, relu6.high) == (0.0, 6.0)
    assert only(torch.relu, Clamp).high == math.inf
    prelu = only(lambda x: F.prelu(x, torch.tensor([0.5, -0.25, 0.0, 2.0])), PRelu)
    assert prelu.slope.tolist() == [0.5, -0.25, 0.0, 2.0]
    assert only(torch.abs, PRelu).slope.tolist() == [-1.0] * 4
    step = only(lambda x: (x > 0).float(), Affine)
    assert np.array_equal(step.scale, [0.5] * 4)
    assert np.array_equal(step.offset, [0.5] * 4)
