"""Five networks in the five usual styles, as users write them: plain torch, none of our classes.

Each function returns a :class:`Style`: a module in eval mode whose parameters look
trained (batch-norm statistics and negative gammas included), an example input, and
the shape of the uint8 images that a device takes.  The first batch-norm statistics
are measured on images, so that activations are neither all +1 nor all -1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "STYLES",
    "Style",
    "bireal",
    "keyword_spotter",
    "pictures",
    "separable",
    "settle",
    "ste_mlp",
    "xnor",
]


@dataclass(frozen=True)
class Style:
    """A module, what goes in, and the (H, W, C) of the images it stands for."""

    module: nn.Module
    example: Tensor
    image_shape: tuple[int, int, int]


def pictures(shape: tuple[int, int, int], count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """uint8 images (count, H, W, C) with structure: waves of several lengths, contrasts, noise.

    Plain noise looks the same everywhere once it is averaged, so that all of it is one class.
    """
    generator = np.random.default_rng(seed)
    height, width, channels = shape
    rows, cols = np.mgrid[0:height, 0:width]
    angle = generator.uniform(0, 6.28, (count, 1, 1, channels))
    pitch = generator.uniform(0.1, 1.5, (count, 1, 1, channels))
    phase = generator.uniform(0, 6.28, (count, 1, 1, channels))
    along = rows[..., np.newaxis] * np.sin(angle) + cols[..., np.newaxis] * np.cos(angle)
    waves = np.sin(pitch * along + phase)
    level = generator.uniform(40, 215, (count, 1, 1, 1))
    contrast = generator.uniform(10, 120, (count, 1, 1, 1))
    noise = generator.normal(0, 8, (count, *shape))
    return np.clip(level + contrast * waves + noise, 0, 255).astype(np.uint8)


def _hwc(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of a torch shape without the batch."""
    channels, *rest = shape
    height, width = [1, 1, *rest][-2:]
    return height, width, channels


def settle(module: nn.Module, shape: tuple[int, ...], seed: int) -> nn.Module:
    """Make a fresh module look trained; returns it in eval mode.

    Args:
        shape: of one input, without the batch.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * 0.4)
            else:
                parameter.add_(noise * 0.1)
        for norm in norms:
            norm.momentum = None
            if norm.affine:
                signs = torch.where(torch.rand(norm.weight.shape, generator=generator) < 0.3, -1, 1)
                norm.weight.copy_(signs * (0.5 + torch.rand(signs.shape, generator=generator)))
                norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator) * 0.3)
        module.train()
        # Cumulative averages over a few batches of images.
        for batch in range(2):
            drawn = pictures(_hwc(shape), 16, seed + batch).transpose(0, 3, 1, 2).copy()
            module(torch.from_numpy(drawn.reshape(16, *shape)).float() / 255)
    return module.eval()


# XNOR-Net: batch norm, sign, binary convolution, pooling; alpha = mean |W| of each filter.


class XnorSign(torch.autograd.Function):
    """Sign of activations, with the clipped straight-through gradient."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 1)


class XnorConv(nn.Module):
    """A block of the network's PyTorch ports."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding: int, pool: bool) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs, eps=1e-4, momentum=0.1)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2, 2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = XnorSign.apply(self.bn(x))
        weight = self.conv.weight
        centred = (weight - weight.mean(1, keepdim=True)).clamp(-1.0, 1.0)
        alpha = centred.abs().mean((1, 2, 3), keepdim=True)
        x = F.conv2d(x, centred.sign() * alpha, self.conv.bias, padding=self.conv.padding)
        return self.pool(self.relu(x))


class XnorNet(nn.Module):
    """LeNet-like, on grey images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 5)
        self.bn1 = nn.BatchNorm2d(12, eps=1e-4)
        self.pool1 = nn.MaxPool2d(2, 2)
        self.bin2 = XnorConv(12, 24, 3, 1, pool=True)
        self.bin3 = XnorConv(24, 40, 3, 1, pool=False)
        self.bn4 = nn.BatchNorm2d(40)
        self.classifier = nn.Linear(40 * 3 * 3, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(F.relu(self.bn1(self.conv1(x))))
        x = self.bin3(self.bin2(x))
        x = self.bn4(x)
        return self.classifier(x.view(x.size(0), -1))


def xnor(seed: int = 1) -> Style:
    """XNOR-Net with per-channel scales."""
    torch.manual_seed(seed)
    module = settle(XnorNet(), (1, 16, 16), seed)
    return Style(module, torch.rand(1, 1, 16, 16), (16, 16, 1))


# Bi-Real: real-valued shortcuts around every binary convolution.


class BiRealActivation(nn.Module):
    """Sign forward; the gradient of a piecewise polynomial backward."""

    def forward(self, x: Tensor) -> Tensor:
        out_forward = torch.sign(x)
        mask1, mask2, mask3 = x < -1, x < 0, x < 1
        out1 = (-1) * mask1.type(torch.float32) + (x * x + 2 * x) * (1 - mask1.type(torch.float32))
        out2 = out1 * mask2.type(torch.float32) + (-x * x + 2 * x) * (1 - mask2.type(torch.float32))
        out3 = out2 * mask3.type(torch.float32) + 1 * (1 - mask3.type(torch.float32))
        return out_forward.detach() - out3.detach() + out3


class BiRealConv(nn.Module):
    """3x3 convolution with weights sign(w) * mean |w| of each filter."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weights = nn.Parameter(torch.rand(outputs, inputs, 3, 3) * 0.001)

    def forward(self, x: Tensor) -> Tensor:
        real = self.weights
        factor = torch.mean(
            torch.mean(torch.mean(abs(real), dim=3, keepdim=True), dim=2, keepdim=True),
            dim=1, keepdim=True,
        ).detach()  # fmt: skip
        binary = factor * torch.sign(real)
        clipped = torch.clamp(real, -1.0, 1.0)
        weights = binary.detach() - clipped.detach() + clipped
        return F.conv2d(x, weights, stride=self.stride, padding=1)


class BiRealBlock(nn.Module):
    """sign, binary convolution, batch norm, and the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.binary_activation = BiRealActivation()
        self.binary_conv = BiRealConv(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(kernel_size=2, stride=stride),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        out = self.bn1(self.binary_conv(self.binary_activation(x)))
        if self.downsample is not None:
            residual = self.downsample(x)
        out += residual
        return out


class BiRealNet(nn.Module):
    """A stem, three blocks, global average pooling; colour images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
        self.layer1 = nn.Sequential(BiRealBlock(16, 16), BiRealBlock(16, 24, stride=2))
        self.layer2 = nn.Sequential(BiRealBlock(24, 24))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        x = self.avgpool(x)
        x = x.view(x.size(0), -1)
        return self.fc(x)


def bireal(seed: int = 2) -> Style:
    """Bi-Real residual network."""
    torch.manual_seed(seed)
    module = settle(BiRealNet(), (3, 16, 16), seed)
    return Style(module, torch.rand(1, 3, 16, 16), (16, 16, 3))


# A plain multi-layer perceptron with a straight-through estimator.


class Binarize(torch.autograd.Function):
    """+1 or -1, nothing between."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient


class BinLinear(nn.Linear):
    """Linear with binary weights; binarises its input too, unless that is the image."""

    def __init__(self, inputs: int, outputs: int, first: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        if not self.first:
            x = Binarize.apply(x)
        return F.linear(x, Binarize.apply(self.weight), self.bias)


class Mlp(nn.Module):
    """Grey images, flattened; the last layer is binary too."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.fc1 = BinLinear(144, 72, first=True)
        self.bn1 = nn.BatchNorm1d(72)
        self.fc2 = BinLinear(72, 50)
        self.bn2 = nn.BatchNorm1d(50)
        self.drop = nn.Dropout(0.3)
        self.fc3 = nn.Linear(50, classes)
        self.bn3 = nn.BatchNorm1d(classes, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = 2 * x.flatten(1) - 1
        x = F.hardtanh(self.bn1(self.fc1(x)))
        x = F.hardtanh(self.bn2(self.fc2(x)))
        x = self.bn3(self.fc3(self.drop(x)))
        return F.log_softmax(x, dim=1)


def ste_mlp(seed: int = 3) -> Style:
    """Plain STE MLP."""
    torch.manual_seed(seed)
    module = settle(Mlp(), (1, 12, 12), seed)
    return Style(module, torch.rand(1, 1, 12, 12), (12, 12, 1))


# Depthwise-separable convolutions; channel counts that are no multiple of 32.


class DetachSign(nn.Module):
    """The detach trick around a hardtanh."""

    def forward(self, x: Tensor) -> Tensor:
        soft = F.hardtanh(x)
        return (torch.where(x >= 0, 1.0, -1.0) - soft).detach() + soft


class BinaryConv(nn.Conv2d):
    """Convolution whose weights are scaled signs, with the detach trick."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True)
        binary = scale * torch.where(self.weight >= 0, 1.0, -1.0)
        weight = self.weight + (binary - self.weight).detach()
        return self._conv_forward(x, weight, self.bias)


class SeparableBlock(nn.Module):
    """Depthwise 3x3 and pointwise 1x1, both binary, each with its batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.sign1, self.sign2 = DetachSign(), DetachSign()
        self.depthwise = BinaryConv(
            inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False
        )
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = nn.ReLU6()
        self.pointwise = BinaryConv(inputs, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.depthwise(self.sign1(x))))
        return self.act2(self.bn2(self.pointwise(self.sign2(x - 0.5))))


class Separable(nn.Module):
    """A small MobileNet; colour images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 20, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(20), nn.ReLU6()
        )
        self.shift = nn.Parameter(torch.full((1, 20, 1, 1), -0.5))
        self.blocks = nn.Sequential(
            SeparableBlock(20, 36, 1), SeparableBlock(36, 52, 2), SeparableBlock(52, 52, 1)
        )
        self.head = nn.Linear(52, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x) + self.shift)
        return self.head(x.mean((2, 3)))


def separable(seed: int = 4) -> Style:
    """Depthwise-separable network with grouped convolutions."""
    torch.manual_seed(seed)
    module = settle(Separable(), (3, 16, 16), seed)
    return Style(module, torch.rand(1, 3, 16, 16), (16, 16, 3))


# A keyword spotter: 1-D convolutions over features in time.


class Step(nn.Module):
    """-1 or +1 by comparing, with a straight-through gradient."""

    def forward(self, x: Tensor) -> Tensor:
        hard = (x > 0).float() * 2 - 1
        soft = torch.tanh(2 * x)
        return hard.detach() - soft.detach() + soft


class KeywordSpotter(nn.Module):
    """(N, 10 features, 48 frames) to keywords."""

    def __init__(self, classes: int = 6) -> None:
        super().__init__()
        self.front = nn.Conv1d(10, 24, 5, stride=2, padding=2)
        self.norm0 = nn.BatchNorm1d(24)
        self.step = Step()
        self.conv1 = nn.Conv1d(24, 40, 3, dilation=2, padding="same", bias=False)
        self.norm1 = nn.BatchNorm1d(40)
        self.conv2 = nn.Conv1d(40, 40, 3, dilation=4, padding=4, groups=2, bias=False)
        self.norm2 = nn.BatchNorm1d(40)
        self.pool = nn.AvgPool1d(2)
        self.conv3 = nn.Conv1d(40, 24, 1, bias=False)
        self.gap = nn.AdaptiveAvgPool1d(1)
        self.out = nn.Linear(24, classes)

    @staticmethod
    def binary(conv: nn.Conv1d, x: Tensor) -> Tensor:
        weight = conv.weight.sign() + (conv.weight == 0)
        return F.conv1d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.step(self.norm0(self.front(x)))
        x = self.step(self.norm1(self.binary(self.conv1, x)))
        x = F.relu(self.norm2(self.binary(self.conv2, x)))
        x = F.relu(self.binary(self.conv3, self.step(self.pool(x) - 0.4)))
        return self.out(self.gap(x).squeeze(-1))


def keyword_spotter(seed: int = 5) -> Style:
    """1-D convolutions for audio."""
    torch.manual_seed(seed)
    module = settle(KeywordSpotter(), (10, 48), seed)
    return Style(module, torch.rand(1, 10, 48), (1, 48, 10))


STYLES: dict[str, Callable[[], Style]] = {
    "xnor": xnor,
    "bireal": bireal,
    "ste-mlp": ste_mlp,
    "separable": separable,
    "keyword-spotter": keyword_spotter,
}
