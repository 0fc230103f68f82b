"""Signs and binary weights in a style of your own, and what a refusal looks like.

Nothing here is a class that bnnmcu knows: signs are tanh-steepened in training,
weights come from a parametrization. Both are recognised by what they compute.
Then one layer that integers cannot express, the message, and its rewrite.

    python examples/custom_style.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import bnnmcu
from bnnmcu.errors import BnnmcuError


class Binary(nn.Module):
    """A parametrization: one scale a filter times a sign, by the detach trick."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.abs().mean(dim=(1, 2, 3), keepdim=True)
        hard = torch.where(weight >= 0, scale, -scale)
        return hard.detach() - weight.detach() + weight if self.training else hard


class Step(nn.Module):
    """Smooth while it is trained, a sign when it is not."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(3 * x) if self.training else torch.where(x >= 0, 1.0, -1.0)


def network(last: nn.Module) -> nn.Module:
    """28x28 pixels to ten logits; ``last`` stands before the head."""
    binary = nn.Conv2d(24, 48, 3, stride=2, bias=False)
    parametrize.register_parametrization(binary, "weight", Binary())
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2, bias=False),
        nn.BatchNorm2d(24),
        Step(),
        binary,
        nn.BatchNorm2d(48),
        last,
        nn.Flatten(),
        nn.Linear(48 * 25, 10),
    ).eval()


def main() -> None:
    """Save one that works, and try one that does not."""
    torch.manual_seed(1)
    example = torch.zeros(1, 1, 28, 28)
    bnnmcu.save(network(nn.ReLU()), example, "custom.safetensors", name="custom")
    print("custom.safetensors: signs and binary weights were recognised")
    try:
        bnnmcu.save(network(nn.Softplus()), example, "refused.safetensors", name="refused")
    except BnnmcuError as error:
        print(f"refused, as it should be:\n  {error}")
    else:
        raise SystemExit("a softplus is no integer operation and must be refused")
    print("next: bnnmcu inspect custom.safetensors")


if __name__ == "__main__":
    main()
