"""A network for signals: four gestures from a three-axis accelerometer, with 1-D convolutions.

The signals are SYNTHETIC, made below from sines, ramps and noise: they show the
path from a signal to a board, and say nothing about real gestures.

    python examples/gestures.py
    bnnmcu verify gestures --emulate --data gestures.npz -n 20
    bnnmcu evaluate gestures.safetensors --data gestures.npz
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import bnnmcu

SAMPLES, AXES = 64, 3
GESTURES = ("circle", "shake", "lift", "still")
EPOCHS = 6
# 128 is no acceleration, and so what padding stands for, exactly.
MEAN, STD = 128 / 255, 0.5


def signals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (count, 1, SAMPLES, AXES), 128 is no acceleration; and labels."""
    noise = np.random.default_rng(seed)
    labels = np.arange(count) % len(GESTURES)
    time = np.linspace(0, 1, SAMPLES)
    made = noise.normal(0, 0.12, (count, SAMPLES, AXES))
    for signal, label in zip(made, labels, strict=True):
        phase, size = noise.uniform(0, 2 * np.pi), noise.uniform(0.5, 0.9)
        if GESTURES[label] == "circle":
            turns = 2 * np.pi * noise.uniform(1.5, 2.5) * time + phase
            signal[:, 0] += size * np.sin(turns)
            signal[:, 1] += size * np.cos(turns)
        elif GESTURES[label] == "shake":
            signal[:, 0] += size * np.sin(2 * np.pi * noise.uniform(6, 9) * time + phase)
        elif GESTURES[label] == "lift":
            centre = noise.uniform(0.3, 0.7)
            signal[:, 2] += size * np.sin(8 * (time - centre)) * (np.abs(time - centre) < 0.4)
    pixels = np.clip(128 + 100 * made, 0, 255).astype(np.uint8)
    return pixels[:, np.newaxis], labels


class Sign(torch.autograd.Function):
    """-1 or +1; the gradient passes where |x| <= 1."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class BinaryConv1d(nn.Conv1d):
    """Weights are signs."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv1d(x, Sign.apply(self.weight), None, self.stride, self.padding)


class Gestures(nn.Module):
    """(N, AXES, SAMPLES) to four logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(AXES, 32, 7, stride=2, padding=3, bias=False)
        self.norm1 = nn.BatchNorm1d(32)
        self.conv = BinaryConv1d(32, 32, 5, stride=2, padding=2, bias=False)
        self.norm2 = nn.BatchNorm1d(32)
        self.head = nn.Linear(32 * SAMPLES // 4, len(GESTURES))

    def forward(self, x: Tensor) -> Tensor:
        x = Sign.apply(self.norm1(self.stem(x)))
        x = Sign.apply(self.norm2(self.conv(x)))
        return self.head(x.flatten(1))


def tensor(pixels: np.ndarray) -> Tensor:
    """As the network takes signals: (p / 255 - MEAN) / STD, (N, AXES, SAMPLES)."""
    return (torch.from_numpy(pixels[:, 0]).permute(0, 2, 1).float() / 255 - MEAN) / STD


def main() -> None:
    """Train, store, export, and write test signals."""
    torch.manual_seed(1)
    pixels, answers = signals(2000, seed=1)
    inputs, labels = tensor(pixels), torch.from_numpy(answers)
    net = Gestures()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(50):
            optimizer.zero_grad()
            F.cross_entropy(net(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    net.eval()
    test, test_labels = signals(400, seed=2)
    with torch.no_grad():
        right = (net(tensor(test)).argmax(dim=1).numpy() == test_labels).mean()
    print(f"{100 * right:.1f} % of {len(test)} synthetic signals are right")

    example = torch.zeros(1, AXES, SAMPLES)
    bnnmcu.save(net, example, "gestures.safetensors", name="gestures", mean=MEAN, std=STD)
    done = bnnmcu.export(
        net,
        example,
        board="nucleo_f446re",
        output="gestures",
        name="gestures",
        mean=MEAN,
        std=STD,
    )
    np.savez("gestures.npz", images=test, labels=test_labels)
    print(f"written: gestures.safetensors, gestures.npz and {done.folder}, for a NUCLEO-F446RE")
    print("next: bnnmcu verify gestures --emulate --data gestures.npz -n 20")


if __name__ == "__main__":
    main()
