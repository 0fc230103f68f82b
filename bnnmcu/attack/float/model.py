"""The float model: a network's steps, and how values pass between them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bnnmcu.attack.config.base import Estimator
from bnnmcu.attack.float.linear import DrawnStep, FixedStep
from bnnmcu.attack.float.pointwise import (
    AffineStep,
    AvgPoolStep,
    ClampStep,
    MaxPoolStep,
    PReluStep,
    SignStep,
    column,
    sides,
)
from bnnmcu.attack.model import Draws
from bnnmcu.errors import UnsupportedModelError, UsageError
from bnnmcu.network import (
    Add,
    Affine,
    AvgPool,
    Clamp,
    Conv,
    Decide,
    Flatten,
    Linear,
    MaxPool,
    Network,
    Op,
    Pad,
    PRelu,
    Sign,
    shapes,
)
from bnnmcu.network.ops import INPUT

__all__ = ["FloatModel"]


class _Flatten(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value.flatten(-3)[..., None, None]


class _Pad(nn.Module):
    def __init__(self, op: Pad) -> None:
        super().__init__()
        self.sides, self.value = sides(op.padding), op.value

    def forward(self, value: Tensor) -> Tensor:
        return nn.functional.pad(value, self.sides, value=self.value)


def _step(op: Op, *, signs: bool, output: tuple[int, int]) -> nn.Module:
    """What computes an operation; ``signs``: it reads -1 and +1; ``output``: (OH, OW)."""
    if isinstance(op, Conv | Linear):
        return DrawnStep(op) if op.drawn else FixedStep(op, signs=signs, output=output)
    if isinstance(op, Affine):
        return AffineStep(op)
    if isinstance(op, Sign):
        return SignStep(op)
    if isinstance(op, Clamp):
        return ClampStep(op)
    if isinstance(op, PRelu):
        return PReluStep(op)
    if isinstance(op, MaxPool):
        return MaxPoolStep(op)
    if isinstance(op, AvgPool):
        return AvgPoolStep(op)
    if isinstance(op, Flatten):
        return _Flatten()
    if isinstance(op, Pad):
        return _Pad(op)
    if isinstance(op, Add):
        # Adds itself, see FloatModel.forward: it is the only one with two sources.
        return nn.Identity()
    raise UnsupportedModelError(f"the float model does not know {type(op).__name__}", where=op.name)


def _plain(network: Network) -> tuple[Op, ...]:
    """The operations, decisions taken apart into what they were made of."""
    ops: list[Op] = []
    for op in network.ops:
        if not isinstance(op, Decide):
            ops.append(op)
            continue
        last = op.source
        for index, step in enumerate(op.steps):
            ops.append(replace(step, name=f"{op.name}.{index}", source=last))
            last = ops[-1].name
        ops.append(Sign(op.name, last, op.zero))
    return tuple(ops)


class FloatModel(nn.Module):
    """A float network as a torch module, differentiable by the image.

    Args:
        network: as frontends give it.
        estimator: of the signs' gradients, see the package's text, where a call
            names no other.

    Raises:
        UsageError: unknown estimator.
        UnsupportedModelError: an operation without a step here.
    """

    pixel_scale: Tensor | None
    pixel_offset: Tensor | None
    place: Tensor

    def __init__(self, network: Network, estimator: Estimator = "tanh") -> None:
        super().__init__()
        if estimator not in get_args(Estimator):
            raise UsageError(f"unknown estimator {estimator!r}; use {get_args(Estimator)}")
        self.network = network
        self.estimator = estimator
        # x is a pixel by 255, which is what many networks take as it is.
        scale, offset = 255.0 * network.input_scale, network.input_offset
        plain = bool(np.all(np.abs(scale - 1.0) < 1e-12) and not offset.any())
        self.register_buffer("pixel_scale", None if plain else column(scale))
        self.register_buffer("pixel_offset", None if plain else column(offset))
        self._ops = _plain(network)
        sizes = shapes(replace(network, ops=self._ops))
        # What gives -1 and +1, and nothing between.
        signs = {op.name for op in self._ops if isinstance(op, Sign) and op.zero}
        self.steps = nn.ModuleList(
            _step(op, signs=op.source in signs, output=sizes[op.name][1:]) for op in self._ops
        )
        self._drawn = {
            op.name: step
            for op, step in zip(self._ops, self.steps, strict=True)
            if isinstance(step, DrawnStep)
        }
        # Pools of signs, with what the signs were of.
        signed = {op.name: op.source for op in self._ops if isinstance(op, Sign)}
        self._ties = {
            op.name: signed[op.source]
            for op in self._ops
            if isinstance(op, MaxPool) and op.source in signed
        }
        # Moves with the module, so that there is always something to ask where it is.
        self.register_buffer("place", torch.empty(0), persistent=False)
        self.eval()

    @property
    def name(self) -> str:
        """For people."""
        return self.network.name

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.network.classes

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        channels, height, width = self.network.input_shape
        return height, width, channels

    @property
    def stochastic(self) -> bool:
        """Weights are drawn."""
        return bool(self._drawn)

    @property
    def device(self) -> torch.device:
        """Where images and draws must be."""
        return self.place.device

    def require_gradients(self) -> None:
        """Nothing to check: every operation has a gradient."""

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """``count`` independent draws of all stochastic weights.

        P(+1) is the trained one, rounded to a multiple of 2**-16; 0 and 1 are exact.

        Args:
            generator: on the CPU.
        """
        if count < 1:
            raise UsageError(f"{count} draws; at least one is needed")
        return Draws({n: step.sample(count, generator) for n, step in self._drawn.items()}, count)

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """Not possible: what a seed draws is defined for integer networks only.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"the float model of {self.name} cannot draw what a device draws for its seeds",
            hint="an attacker who knows the seed attacks the integer twin: name no model",
        )

    def forward(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits, float32, shape (D, N, classes); D is 1 without draws.

        Args:
            x: float32, shape (N, H, W, C), in [0, 1]; not rounded.
            draws: of the stochastic layers; None for a deterministic network.
            estimator: of the gradients; None for the model's own.

        Raises:
            UsageError: wrong shape, or draws missing.
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != self.input_shape:
            shape = ", ".join(map(str, self.input_shape))
            raise UsageError(f"images of shape {tuple(x.shape)}, not (N, {shape})")
        if self.stochastic and draws is None:
            raise UsageError(f"{self.name} draws its weights: give draws")
        value = x.permute(0, 3, 1, 2)
        if self.pixel_scale is not None:
            assert self.pixel_offset is not None
            value = value * self.pixel_scale + self.pixel_offset
        values = {INPUT: value}
        for op, step in zip(self._ops, self.steps, strict=True):
            value = values[op.source]
            if isinstance(step, DrawnStep):
                assert draws is not None
                value = step(value, draws.weights[op.name])
            elif isinstance(step, SignStep):
                value = step(value, estimator or self.estimator)
            elif isinstance(op, Add):
                value = value + values[op.other]
            elif op.name in self._ties and value.requires_grad:
                value = step(value, values[self._ties[op.name]])
            else:
                value = step(value)
            values[op.name] = value
        logits = value.flatten(-3)
        if logits.dim() == 3:
            return logits
        # Drawn layers may stand beside what the logits depend on.
        return logits.expand(draws.count if draws and self.stochastic else 1, -1, -1)
