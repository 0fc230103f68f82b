"""Random float networks over all operations, as training would leave them.

``exact`` networks hold only what integers can express without rounding: first
layers on a grid, signs before everything else.  Their bits must equal the
float network's wherever its value is not exactly zero.
"""

from __future__ import annotations

import numpy as np

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
from bnnmcu.network.model import shape_of

__all__ = ["random_network"]

_CHANNELS = (1, 2, 3, 7, 8, 16, 31, 32, 33, 40)


class _Maker:
    def __init__(self, rng: np.random.Generator, exact: bool, name: str, symmetric: bool) -> None:
        self.rng, self.exact, self.symmetric = rng, exact, symmetric
        self.ops: list[Op] = []
        one_dimensional = rng.random() < 0.2
        self.input_shape = (
            int(rng.choice([1, 2, 3])),
            1 if one_dimensional else int(rng.integers(4, 13)),
            int(rng.integers(12, 40)) if one_dimensional else int(rng.integers(4, 13)),
        )
        self.mean = float(rng.choice([0.0, 0.0, 0.25, 0.5]))
        self.std = float(rng.choice([1.0, 0.5, 0.25]))
        self.name, self.count, self.last = name, 0, "input"
        self.known = {"input": self.input_shape}

    def network(self) -> Network:
        channels = self.input_shape[0]
        return Network(
            self.name,
            self.input_shape,
            tuple(self.ops),
            np.full(channels, 1 / 255 / self.std),
            np.full(channels, -self.mean / self.std),
        )

    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the last value."""
        return self.known[self.last]

    def add(self, op: Op) -> str:
        self.ops.append(op)
        self.known[op.name] = shape_of(op, self.known)
        self.last = op.name
        return op.name

    def new(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def norm(self) -> None:
        channels = self.shape()[0]
        scale = self.rng.uniform(0.1, 2, channels)
        scale[self.rng.random(channels) < 0.3] *= -1
        if self.rng.random() < 0.2:
            scale[self.rng.random(channels) < 0.2] = 0.0
        offset = self.rng.normal(0, 0.5, channels)
        self.add(Affine(self.new("norm"), self.last, scale, offset))

    def activation(self) -> None:
        channels = self.shape()[0]
        kind = self.rng.integers(0, 4)
        if kind == 0:
            self.add(Clamp(self.new("relu"), self.last, 0.0, float("inf")))
        elif kind == 1:
            self.add(Clamp(self.new("hardtanh"), self.last, -1.0, 1.0))
        elif kind == 2:
            slope = self.rng.uniform(0, 0.5, channels)
            if not self.exact and self.rng.random() < 0.3:
                slope[0] = -0.2
            self.add(PRelu(self.new("prelu"), self.last, slope))

    def window(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        _, height, width = self.shape()
        dilation = (1, 1)
        kernel = (int(self.rng.integers(1, min(4, height) + 1)),
                  int(self.rng.integers(1, min(4, width) + 1)))  # fmt: skip
        if self.rng.random() < 0.2:
            dilation = (1 if kernel[0] * 2 > height else 2, 1 if kernel[1] * 2 > width else 2)
        stride = (int(self.rng.integers(1, 3)), int(self.rng.integers(1, 3)))
        return kernel, stride, dilation

    def conv(self, *, binary: bool) -> None:
        channels = self.shape()[0]
        kernel, stride, dilation = self.window()
        pads = tuple(int(self.rng.integers(0, 2)) for _ in range(4))
        groups, outputs = 1, int(self.rng.choice(_CHANNELS))
        if self.rng.random() < 0.25:
            groups, outputs = channels, channels * int(self.rng.choice([1, 2]))
        shape = (outputs, channels // groups, *kernel)
        if binary:
            scale = self.rng.uniform(0.01, 0.2, (outputs, 1, 1, 1))
            if self.exact:
                # Powers of two, so that sums that cancel do so in float64 too.
                scale = 2.0 ** self.rng.integers(-7, -2, (outputs, 1, 1, 1))
            weights = np.where(self.rng.random(shape) < 0.5, 1.0, -1.0) * scale
        elif self.exact:
            weights = self.rng.integers(-9, 10, shape) * 0.0625
            weights[:, 0, 0, 0] = 0.0625
        else:
            weights = self.rng.normal(0, 0.3, shape)
        if not self.ops and self.mean:
            # Only whole pixels can stand for zero without an error.
            pads = (0, 0, 0, 0)
        if self.rng.random() < 0.2 and any(pads):
            self.add(Pad(self.new("pad"), self.last, pads))  # type: ignore[arg-type]
            pads = (0, 0, 0, 0)
        bias = self.rng.normal(0, 0.2, outputs) if self.rng.random() < 0.5 else None
        self.add(
            Conv(
                self.new("conv"), self.last, weights, bias,
                stride, pads, dilation, groups,  # type: ignore[arg-type]
            )
        )  # fmt: skip

    def max_pool(self) -> None:
        kernel, stride, dilation = self.window()
        pads = tuple(int(self.rng.integers(0, (k + 1) // 2)) for k in (*kernel, *kernel))
        if self.symmetric:
            pads = (*pads[:2], *pads[:2])
        self.add(MaxPool(self.new("pool"), self.last, kernel, stride, pads, dilation))  # type: ignore[arg-type]

    def average(self) -> None:
        kernel, stride, _ = self.window()
        self.add(AvgPool(self.new("avg"), self.last, kernel, stride))

    def sign(self) -> None:
        # torch.sign gives 0 at 0, which has tests of its own.
        self.add(Sign(self.new("sign"), self.last, int(self.rng.choice([1, 1, -1]))))

    def linear(self, outputs: int, *, binary: bool) -> None:
        if self.shape()[1:] != (1, 1):
            self.add(Flatten(self.new("flatten"), self.last))
        features = self.shape()[0]
        shape = (outputs, features)
        if binary:
            weights = np.where(self.rng.random(shape) < 0.5, 0.25, -0.25)
        else:
            weights = self.rng.normal(0, 0.3, shape)
        bias = self.rng.normal(0, 0.5, outputs) if self.rng.random() < 0.5 else None
        self.add(Linear(self.new("fc"), self.last, weights, bias))

    def decide(self) -> None:
        """Something that ends in signs."""
        if self.rng.random() < 0.4:
            self.max_pool()
        if self.rng.random() < 0.8:
            self.norm()
        if self.rng.random() < 0.5:
            self.activation()
            if self.rng.random() < 0.3:
                self.norm()
        if self.rng.random() < 0.2:
            self.max_pool()
        self.sign()
        if self.rng.random() < 0.2:
            self.max_pool()

    def residual(self) -> None:
        """A real-valued block as Bi-Real networks have them."""
        start, channels = self.last, self.shape()[0]
        self.sign()
        weights = np.where(self.rng.random((channels, channels, 3, 3)) < 0.5, 0.05, -0.05)
        self.add(Conv(self.new("conv"), self.last, weights, padding=(1, 1, 1, 1)))
        self.norm()
        self.activation()
        self.add(Add(self.new("add"), self.last, other=start))


def random_network(seed: int, *, exact: bool, symmetric: bool = False) -> Network:
    """One network, decided by the seed; its last layer gives 2 to 10 logits.

    Args:
        symmetric: pools pad as torch's do, alike on both sides.
    """
    rng = np.random.default_rng([seed, int(exact)])
    make = _Maker(rng, exact, f"n{seed}", symmetric)
    make.conv(binary=bool(exact and rng.random() < 0.3))
    if not exact and rng.random() < 0.6:
        make.norm()
        for _ in range(int(rng.integers(1, 3))):
            make.residual()
        if rng.random() < 0.5:
            make.average()
    make.decide()
    for _ in range(int(rng.integers(0, 3))):
        make.conv(binary=True)
        make.decide()
    if rng.random() < 0.4:
        if rng.random() < 0.5:
            make.add(Flatten("early", make.last))
            make.add(Clamp("clip", make.last, -0.5, 0.5))
            make.sign()
        make.linear(int(rng.choice([8, 33])), binary=True)
        make.norm()
        make.sign()
    classes = int(rng.integers(2, 11))
    last = rng.integers(0, 3)
    if last == 0 and not exact:
        make.conv(binary=True)
        make.norm()
        _, height, width = make.shape()
        make.add(AvgPool("gap", make.last, (height, width), (height, width)))
        make.linear(classes, binary=False)
    else:
        make.linear(classes, binary=bool(last == 1))
        if rng.random() < 0.5:
            make.norm()
    return make.network()
