"""A differentiable formula that attacks take for a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config import Estimator
from bnnmcu.attack.model import Draws


class FormulaModel:
    """Logits by a function of x (N, H, W, C) and, if it is stochastic, of a draw (D, K).

    Attributes:
        sampled: every draw that was ever taken, in order.
        calls: how often logits were asked for.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        shape: tuple[int, int, int],
        logits: Callable[[Tensor, Tensor], Tensor],
        *,
        classes: int,
        drawn: int = 0,
    ) -> None:
        """A draw is ``drawn`` fair signs; 0 for a deterministic model."""
        self.name, self.classes, self.input_shape = "formula", classes, shape
        self.logits, self.drawn = logits, drawn
        self.sampled: list[Tensor] = []
        self.calls = 0

    @property
    def stochastic(self) -> bool:
        """Whether draws are needed."""
        return self.drawn > 0

    def require_gradients(self) -> None:
        """It always has them."""

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """Fair signs."""
        signs = 2.0 * torch.randint(0, 2, (count, self.drawn), generator=generator) - 1.0
        self.sampled.append(signs)
        return Draws({"signs": signs}, count)

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """From torch, one generator a seed."""
        rows = [self.sample(1, torch.Generator().manual_seed(int(s))) for s in seeds]
        return Draws({"signs": torch.cat([row.weights["signs"] for row in rows])}, len(seeds))

    def __call__(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits (D, N, classes), float64."""
        self.calls += 1
        if not self.stochastic:
            return self.logits(x.double(), torch.zeros(0)).unsqueeze(0)
        assert draws is not None
        return torch.stack([self.logits(x.double(), row) for row in draws.weights["signs"]])


def smooth(
    shape: tuple[int, int, int], classes: int, *, hidden: int = 12, drawn: int = 0, seed: int = 0
) -> FormulaModel:
    """A random network with one tanh layer; a draw flips the signs of ``drawn`` hidden units."""
    generator = torch.Generator().manual_seed(seed)
    pixels = shape[0] * shape[1] * shape[2]
    first = torch.randn(pixels, hidden, generator=generator).double() / pixels**0.5
    last = torch.randn(hidden, classes, generator=generator).double()

    def logits(x: Tensor, draw: Tensor) -> Tensor:
        between = torch.tanh(4.0 * (x - 0.5).flatten(1) @ first)
        if drawn:
            between = torch.cat([between[:, :drawn] * draw, between[:, drawn:]], 1)
        return 3.0 * between @ last

    return FormulaModel(shape, logits, classes=classes, drawn=drawn)


def images_of(count: int, shape: tuple[int, int, int], seed: int = 1) -> npt.NDArray[np.uint8]:
    """Random images, uint8 (count, H, W, C)."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels_of(model: FormulaModel, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """What the model itself says, by the mean of 200 draws, int64 (N,)."""
    draws = model.sample(200, torch.Generator().manual_seed(0)) if model.drawn else None
    with torch.no_grad():
        logits = model(torch.from_numpy(images).float() / 255.0, draws)
    labels: npt.NDArray[np.int64] = logits.mean(0).argmax(-1).numpy()
    return labels


def fooled(
    model: FormulaModel,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    draws: Draws | None = None,
) -> float:
    """Share of answers that are not the labels, over given draws or 200 fresh ones."""
    if model.stochastic and draws is None:
        draws = model.sample(200, torch.Generator().manual_seed(99))
    with torch.no_grad():
        found = model(torch.from_numpy(images).float() / 255.0, draws).argmax(-1)
    return float((found != torch.from_numpy(labels)).double().mean())
