"""A differentiable twin of the integer network.

**Forward**: the graph, bit for bit.  Sums are float32 where the graph's range
analysis shows that they stay below 2**24 and float64 where they do not, so
every one of them is an exact integer.

**Backward**: what the float network would give at the same point.  A threshold
stood for ``sign(y)`` with ``y = slope * relu(sum) + offset``
(:class:`bnnmcu.graph.Surrogate`), and its gradient is that of y times the
estimator's factor:

* ``identity``: 1, the straight-through estimator of the paper;
* ``clipped``: 1 where abs(y) <= 1, else 0 (BinaryNet; Courbariaux & Bengio, 2016);
* ``tanh``: 1 - tanh(y)**2.

A bit that is constant over all possible sums has no gradient.

**Draws** of stochastic layers are given from outside as constants: no gradient
passes through the Bernoulli, since the drawn weights do not depend on the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnmcu import reference
from bnnmcu.attack.config import Estimator
from bnnmcu.errors import UnsupportedModelError, UsageError
from bnnmcu.graph import (
    ALWAYS,
    GE,
    INPUT,
    LE,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
    TensorSpec,
    Threshold,
    infer,
)

__all__ = ["Draws", "IntegerTwin"]

# Integers below these bounds are exact, and so are all sums of them on the way.
_FLOAT32_EXACT = 2**24
_FLOAT64_EXACT = 2**53


@dataclass(frozen=True, eq=False)
class Draws:
    """Drawn weights of every stochastic layer.

    Attributes:
        weights: layer name to float32 -1 / +1, shape (D, O, I, KH, KW).
        count: D.
    """

    weights: Mapping[str, Tensor]
    count: int


class _SurrogateBit(torch.autograd.Function):
    """Given bits forward, given factors backward."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, bits: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        ctx.dtype = sums.dtype
        return bits

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        return (grads[0] * factor).to(ctx.dtype), None, None


class _Pixels(torch.autograd.Function):
    """[0, 1] to the pixel levels 0 to 255; the rounding passes gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x * 255.0).clamp(0.0, 255.0)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return cast(Tensor, grads[0] * 255.0)


class _Round(torch.autograd.Function):
    """Sums of integers, freed of a backend's rounding errors.

    A backend may convolve by Winograd's method or by FFT; the error on integers
    of this size is far below one half.
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        return torch.round(sums)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return cast(Tensor, grads[0])


def _magnitude(spec: TensorSpec) -> int:
    return max(-spec.low, spec.high)


def _exact_dtype(node: Node, source: TensorSpec, result: TensorSpec) -> torch.dtype:
    """The narrowest float in which every partial sum of a node is an exact integer.

    Partial sums, in whatever order a backend adds, are bounded by the sum of
    magnitudes, which can exceed the bounds of the result.
    """
    largest = _magnitude(result)
    if isinstance(node, (IntegerConv, Dense)):
        weights = np.abs(node.weights.astype(np.int64)).reshape(len(node.weights), -1)
        largest = int(weights.sum(axis=1).max()) * max(_magnitude(source), 1)
    if largest < _FLOAT32_EXACT:
        return torch.float32
    if largest < _FLOAT64_EXACT:
        return torch.float64
    raise UnsupportedModelError(
        f"sums can reach {largest}, more than float64 holds exactly, so the differentiable "
        "twin would not be the integer network",
        where=node.name,
    )


class _ConvStep(nn.Module):
    """A convolution on pixels or on signs; weights may be given per draw."""

    weights: Tensor

    def __init__(self, node: Conv, dtype: torch.dtype) -> None:
        super().__init__()
        top, left, bottom, right = node.padding
        self.stride = node.stride
        # Zeros beside signs count as neither +1 nor -1, as the graph says.
        self.padding = (left, right, top, bottom)
        self.dtype = dtype
        if not isinstance(node, StochasticConv):
            integers = node.weights.astype(np.float64)
            if not isinstance(node, IntegerConv):
                integers = 2.0 * integers - 1.0
            ordered = torch.from_numpy(integers).permute(0, 3, 1, 2).to(dtype).contiguous()
            self.register_buffer("weights", ordered)

    def forward(self, value: Tensor, weights: Tensor | None = None, groups: int = 1) -> Tensor:
        value = value.to(self.dtype)
        if any(self.padding):
            value = F.pad(value, self.padding)
        kernel = self.weights if weights is None else weights
        if groups == 1 and value.shape[1:] == kernel.shape[1:]:
            # One position only: a matrix product spares reordering the weights,
            # which costs more than the sums when they are new at every step.
            sums = F.linear(value.flatten(1), kernel.flatten(1))[..., None, None]
        else:
            sums = F.conv2d(value, kernel, stride=self.stride, groups=groups)
        return cast(Tensor, _Round.apply(sums))  # type: ignore[no-untyped-call]


class _StochasticStep(nn.Module):
    """Keeps P(+1) in 256ths and convolves one input with many drawn weight sets."""

    chances: Tensor

    def __init__(self, node: StochasticConv, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = _ConvStep(node, dtype)
        levels = torch.from_numpy(node.weights.astype(np.int16)).permute(0, 3, 1, 2)
        chances = (levels + (levels >> (node.planes - 1))) << (8 - node.planes)
        self.register_buffer("chances", chances.contiguous())

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Weights of -1 / +1, shape (D, O, I, KH, KW)."""
        size = count * self.chances.numel()
        # Eight weights for each 64-bit random number, a byte each: as fine as
        # eight planes can be, and several times as fast as a number for each.
        wide = torch.empty((size + 7) // 8, dtype=torch.int64)
        wide.random_(-(2**63), None, generator=generator)
        noise = wide.view(torch.uint8)[:size].view(count, *self.chances.shape)
        # Signs are made in bytes: a quarter of the memory that floats would touch.
        signs = (noise < self.chances).view(torch.int8).mul_(2).sub_(1)
        return signs.to(self.conv.dtype)

    def forward(self, value: Tensor, weights: Tensor) -> Tensor:
        """(N, I, H, W) or (D, N, I, H, W) to (D, N, O, OH, OW)."""
        draws, outputs = weights.shape[:2]
        kernel = weights.flatten(0, 1)
        groups = 1
        if value.dim() == 5:
            value = value.transpose(0, 1).flatten(1, 2)
            groups = draws
        sums = self.conv(value, kernel, groups)
        return cast(Tensor, sums.unflatten(1, (draws, outputs)).transpose(0, 1))


class _ThresholdStep(nn.Module):
    """Exact comparisons forward, the surrogate backward; bits as -1 and +1."""

    value: Tensor
    at_least: Tensor
    at_most: Tensor
    always: Tensor
    slope: Tensor
    offset: Tensor

    def __init__(self, node: Threshold, dtype: torch.dtype) -> None:
        super().__init__()
        self.rectified = node.surrogate is not None and node.surrogate.rectified
        self.differentiable = node.surrogate is not None

        def column(array: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(np.array(array)).view(-1, 1, 1)

        # A threshold beyond what float32 holds lies beyond every such sum,
        # and rounding it leaves it there.
        self.register_buffer("value", column(node.value).to(dtype))
        self.register_buffer("at_least", column(node.kind == GE))
        self.register_buffer("at_most", column(node.kind == LE))
        self.register_buffer("always", column(node.kind == ALWAYS))
        if node.surrogate is not None:
            # Slopes go in float32: only forward values need be exact.
            varies = (node.kind == GE) | (node.kind == LE)
            self.register_buffer("slope", column(node.surrogate.slope * varies).float())
            self.register_buffer("offset", column(node.surrogate.offset).float())

    def forward(self, sums: Tensor, estimator: Estimator) -> Tensor:
        exact = sums.detach()
        high = (exact >= self.value) & self.at_least
        high |= (exact <= self.value) & self.at_most
        high |= self.always
        bits = high.float().mul_(2.0).sub_(1.0)
        if not (self.differentiable and sums.requires_grad):
            return bits
        return cast(Tensor, _SurrogateBit.apply(sums, bits, self._factor(exact, estimator)))  # type: ignore[no-untyped-call]

    def _factor(self, sums: Tensor, estimator: Estimator) -> Tensor:
        """d bit / d sum by the estimator, float32."""
        wide = sums.float()
        if estimator == "identity":
            factor = self.slope.expand_as(wide)
        else:
            rectified = wide.clamp_min(0.0) if self.rectified else wide
            y = self.slope * rectified + self.offset
            gate = (y.abs() <= 1.0) if estimator == "clipped" else 1.0 - torch.tanh(y) ** 2
            factor = self.slope * gate
        return factor * (sums > 0) if self.rectified else factor


class _DenseStep(nn.Module):
    """Flattens in the order (H, W, C) and multiplies."""

    weights: Tensor

    def __init__(self, node: Dense, source: TensorSpec, dtype: torch.dtype) -> None:
        super().__init__()
        height, width, channels = source.shape
        integers = node.weights.astype(np.float64).reshape(-1, height, width, channels)
        ordered = integers.transpose(0, 3, 1, 2).reshape(len(integers), -1)
        self.register_buffer("weights", torch.from_numpy(ordered.copy()).to(dtype))

    def forward(self, value: Tensor) -> Tensor:
        return F.linear(value.flatten(-3).to(self.weights.dtype), self.weights)


class IntegerTwin(nn.Module):
    """The integer network of a graph as a torch module (CPU).

    Args:
        graph: all there is to know; no float model is needed.
        estimator: of the thresholds' gradients, see the module's text, where a
            call names no other.

    Raises:
        UnsupportedModelError: a sum could exceed what float64 holds exactly.
        UsageError: unknown estimator.
    """

    def __init__(self, graph: Graph, estimator: Estimator = "tanh") -> None:
        super().__init__()
        if estimator not in get_args(Estimator):
            raise UsageError(f"unknown estimator {estimator!r}; use {get_args(Estimator)}")
        self.graph = graph
        self.estimator = estimator
        specs = infer(graph)
        dtypes: dict[str, torch.dtype] = {}
        self.steps = nn.ModuleList()
        for node in graph.nodes:
            source = specs[node.source]
            if isinstance(node, Threshold):
                self.steps.append(_ThresholdStep(node, dtypes[node.source]))
                continue
            dtype = _exact_dtype(node, source, specs[node.name])
            dtypes[node.name] = dtypes[node.source] if isinstance(node, Relu) else dtype
            if isinstance(node, StochasticConv):
                self.steps.append(_StochasticStep(node, dtype))
            elif isinstance(node, Conv):
                self.steps.append(_ConvStep(node, dtype))
            elif isinstance(node, Dense):
                self.steps.append(_DenseStep(node, source, dtype))
            else:
                self.steps.append(nn.ReLU())
        self.eval()

    @property
    def stochastic(self) -> bool:
        """Weights are drawn."""
        return bool(self.graph.stochastic)

    def require_gradients(self) -> None:
        """Check that every threshold knows what it stood for.

        Raises:
            UnsupportedModelError: the graph carries no surrogate for one of them.
        """
        for node in self.graph.nodes:
            if isinstance(node, Threshold) and node.surrogate is None:
                raise UnsupportedModelError(
                    "this threshold has no float surrogate, so no gradient can pass it",
                    where=node.name,
                    hint="export the model again, from its trained file",
                )

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """``count`` independent draws of all stochastic weights.

        P(+1) is the graph's ``(v + msb(v)) / 2**k``, exactly.  The stream is
        torch's: these are never the draws of a device seed.
        """
        if count < 1:
            raise UsageError(f"{count} draws; at least one is needed")
        weights = {
            node.name: step.sample(count, generator)
            for node, step in zip(self.graph.nodes, self.steps, strict=True)
            if isinstance(step, _StochasticStep)
        }
        return Draws(weights, count)

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """What a device draws for these seeds, shape (D,): the adversary who knows them."""
        words = reference.sampled_words(self.graph, seeds)
        weights = {}
        for node in self.graph.stochastic:
            bits = reference.sampled_weights(node, words[node.name]).astype(np.float32)
            signs = torch.from_numpy(2.0 * bits - 1.0)
            weights[node.name] = signs.permute(0, 1, 4, 2, 3).contiguous()
        return Draws(weights, len(seeds))

    def integer_logits(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits before the scale: exact integers in a float tensor.

        Args:
            x: shape (N, H, W, C), in [0, 1].  Values off the grid k / 255 are
                rounded to it in the forward pass, straight through backward,
                since that is what reaches the device.
            draws: of the stochastic layers; None for a deterministic graph.
            estimator: of the gradients; None for the twin's own.

        Returns:
            shape (D, N, classes); D is 1 for a deterministic graph.

        Raises:
            UsageError: wrong shape, or draws missing.
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != self.graph.input_shape:
            shape = ", ".join(map(str, self.graph.input_shape))
            raise UsageError(f"images of shape {tuple(x.shape)}, not (N, {shape})")
        if self.stochastic and draws is None:
            raise UsageError(f"{self.graph.name} draws its weights: give draws")
        pixels = cast(Tensor, _Pixels.apply(x))  # type: ignore[no-untyped-call]
        values = {INPUT: pixels.permute(0, 3, 1, 2)}
        for node, step in zip(self.graph.nodes, self.steps, strict=True):
            value = values[node.source]
            if isinstance(step, _StochasticStep):
                assert draws is not None
                values[node.name] = step(value, draws.weights[node.name])
            elif isinstance(step, _ThresholdStep):
                values[node.name] = step(value, estimator or self.estimator)
            elif isinstance(step, _ConvStep) and value.dim() == 5:
                flat = step(value.flatten(0, 1))
                values[node.name] = flat.unflatten(0, value.shape[:2])
            else:
                values[node.name] = step(value)
        logits = values[self.graph.nodes[-1].name]
        return logits if logits.dim() == 3 else logits.unsqueeze(0)

    def forward(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits of the float network, ``logit_scale`` times :meth:`integer_logits`.

        float64, in which a softmax saturates late; same arguments and shape.
        """
        return self.integer_logits(x, draws, estimator).double() * self.graph.logit_scale
