"""The twin: a graph's steps, and how values pass between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bnnmcu import reference
from bnnmcu.attack.config import Estimator
from bnnmcu.attack.model import Draws
from bnnmcu.attack.twin.exact import Pixels, exact_dtype
from bnnmcu.attack.twin.linear import ConvStep, DenseStep, StochasticStep
from bnnmcu.attack.twin.pointwise import (
    AddStep,
    AffineStep,
    ClampStep,
    MaxPoolStep,
    SumPoolStep,
    ThresholdStep,
)
from bnnmcu.errors import UnsupportedModelError, UsageError
from bnnmcu.graph import (
    INPUT,
    Add,
    Affine,
    Clamp,
    Conv,
    Dense,
    Graph,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    TensorSpec,
    Threshold,
    infer,
)

__all__ = ["Draws", "IntegerTwin"]


def _step(node: Node, specs: Mapping[str, TensorSpec], dtype: torch.dtype) -> nn.Module:
    """What computes a node (no threshold) in ``dtype``."""
    if isinstance(node, StochasticConv):
        return StochasticStep(node, dtype)
    if isinstance(node, Conv):
        return ConvStep(node, dtype)
    if isinstance(node, Dense):
        return DenseStep(node, specs[node.source], dtype)
    if isinstance(node, Relu):
        return nn.ReLU()
    if isinstance(node, Clamp):
        return ClampStep(specs[node.name], dtype)
    if isinstance(node, Affine):
        return AffineStep(node, dtype)
    if isinstance(node, Add):
        return AddStep(dtype)
    if isinstance(node, MaxPool):
        return MaxPoolStep(node)
    if isinstance(node, SumPool):
        return SumPoolStep(node, dtype)
    raise UnsupportedModelError(
        f"the differentiable twin does not know {type(node).__name__}", where=node.name
    )


class IntegerTwin(nn.Module):
    """The integer network of a graph as a torch module.

    Args:
        graph: all there is to know; no float model is needed.
        estimator: of the thresholds' gradients, see the package's text, where a
            call names no other.

    Raises:
        UnsupportedModelError: a logit could exceed what float64 holds exactly.
        UsageError: unknown estimator.
    """

    def __init__(self, graph: Graph, estimator: Estimator = "tanh") -> None:
        super().__init__()
        if estimator not in get_args(Estimator):
            raise UsageError(f"unknown estimator {estimator!r}; use {get_args(Estimator)}")
        self.graph = graph
        self.estimator = estimator
        specs = infer(graph)
        # Of the tensors, as they come; pixels are float32.
        dtypes = {INPUT: torch.float32}
        self.steps = nn.ModuleList()
        thresholds: dict[str, tuple[Threshold, ThresholdStep]] = {}
        # Pools of bits, with the threshold that made the bits.
        self._ties: dict[str, tuple[Threshold, ThresholdStep]] = {}
        for node in graph.nodes:
            source = dtypes[node.source]
            if isinstance(node, Threshold):
                step = ThresholdStep(node, source)
                self.steps.append(step)
                dtypes[node.name] = torch.float32
                if step.differentiable:
                    thresholds[node.name] = node, step
                continue
            dtype = exact_dtype(node, [specs[name] for name in node.sources], specs[node.name])
            self.steps.append(_step(node, specs, dtype))
            # What selects from its values leaves them as they are.
            dtypes[node.name] = source if isinstance(node, (Relu, MaxPool)) else dtype
            if isinstance(node, MaxPool) and node.source in thresholds:
                self._ties[node.name] = thresholds[node.source]
        self.eval()

    @property
    def name(self) -> str:
        """The graph's."""
        return self.graph.name

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.graph.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.graph.input_shape

    @property
    def device(self) -> torch.device:
        """Where its numbers are; :meth:`to` moves them."""
        return next((one.device for one in self.buffers()), torch.device("cpu"))

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
            if isinstance(step, StochasticStep)
        }
        return Draws(weights, count)

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """What a device draws for these seeds, shape (D,): the adversary who knows them."""
        words = reference.sampled_words(self.graph, seeds)
        weights = {}
        for node in self.graph.stochastic:
            bits = reference.sampled_weights(node, words[node.name]).astype(np.float32)
            signs = torch.from_numpy(2.0 * bits - 1.0)
            ordered = signs.permute(0, 1, 4, 2, 3).contiguous()
            weights[node.name] = ordered.to(self.device)
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
        pixels = cast(Tensor, Pixels.apply(x))  # type: ignore[no-untyped-call]
        values = {INPUT: pixels.permute(0, 3, 1, 2)}
        for node, step in zip(self.graph.nodes, self.steps, strict=True):
            value = values[node.source]
            if isinstance(step, StochasticStep):
                assert draws is not None
                result = step(value, draws.weights[node.name])
            elif isinstance(step, ThresholdStep):
                result = step(value, estimator or self.estimator)
            elif isinstance(node, Add):
                result = step(value, values[node.other])
            elif node.name in self._ties and value.requires_grad:
                threshold, bits = self._ties[node.name]
                result = step(value, bits.stood_for(values[threshold.source]))
            else:
                result = step(value)
            values[node.name] = result
        logits = values[self.graph.nodes[-1].name].flatten(-3)
        if logits.dim() == 3:
            return logits
        # Drawn layers may stand beside what the logits depend on.
        return logits.expand(draws.count if draws and self.stochastic else 1, -1, -1)

    def forward(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits of the float network, ``logit_scale`` times :meth:`integer_logits`.

        float64, in which a softmax saturates late; same arguments and shape.
        """
        return self.integer_logits(x, draws, estimator).double() * self.graph.logit_scale
