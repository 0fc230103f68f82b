"""Your own network, from training to a firmware project, without bnnmcu's layers.

A small binarized network in plain PyTorch, trained for a minute on the bundled
digits, exported for a NUCLEO-F446RE, and stored as a model file that every
bnnmcu command reads:

    python examples/own_network.py
    bnnmcu inspect own.safetensors --picture own.svg
    bnnmcu verify own-f446 --emulate
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnnmcu
from bnnmcu.data import load_digits

#: As the data loader of your training does: pixels are (p / 255 - MEAN) / STD.
MEAN, STD = 0.1307, 0.3081
EPOCHS = 3


class Sign(torch.autograd.Function):
    """-1 or +1, with the straight-through estimator of BinaryNet."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class BinaryConv(nn.Conv2d):
    """Weights alpha * sign(W), one alpha a filter (XNOR-Net)."""

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
        weight = Sign.apply(self.weight) * alpha
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


class Block(nn.Module):
    """Bi-Real: the real value goes around the binary convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = BinaryConv(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.conv(Sign.apply(x)))


class OwnNet(nn.Module):
    """28x28 pixels to ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 5, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.block1 = Block(32)
        self.pool = nn.MaxPool2d(2)
        self.block2 = Block(32)
        self.head = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block1(self.norm(self.stem(x)))
        x = self.block2(self.pool(x))
        return self.head(x.flatten(1))


def main() -> None:
    """Train, export, and store."""
    torch.manual_seed(1)
    digits = load_digits()
    pixels = torch.from_numpy(digits.images).permute(0, 3, 1, 2).float() / 255
    inputs, labels = (pixels - MEAN) / STD, torch.from_numpy(digits.labels)
    order = torch.randperm(len(labels))
    train, test = order[:4000], order[4000:]

    net = OwnNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(EPOCHS):
        net.train()
        for batch in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            right = (net(inputs[test]).argmax(dim=1) == labels[test]).float().mean()
        print(f"epoch {epoch + 1}: {100 * right:.1f} % of {len(test)} held-out digits are right")

    example = torch.zeros(1, 1, 28, 28)
    bnnmcu.save(net, example, "own.safetensors", name="own", mean=MEAN, std=STD)
    exported = bnnmcu.export(
        net, example, board="nucleo_f446re", output="own-f446", name="own", mean=MEAN, std=STD
    )
    print(f"written: own.safetensors and {exported.folder}; bnnmcu verify own-f446 --emulate")


if __name__ == "__main__":
    main()
