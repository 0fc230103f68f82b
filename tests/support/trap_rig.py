"""A small linear classifier, as integers for the oracle and as floats for attacks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bnnmcu.attack.config import Estimator
from bnnmcu.attack.model import Draws
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.graph import INPUT, Dense, Graph

SHAPE = (8, 8, 1)
CLASSES = 4
SCALE = 2e-5


def _templates() -> npt.NDArray[np.int64]:
    """Stripes of -1 and +1, one way a class; all orthogonal, and to plain grey."""
    index = np.arange(SHAPE[0])
    halves, quarters = 1 - 2 * (index // 4), 1 - 2 * (index // 2 % 2)
    flat = np.ones_like(index)
    pairs = ((halves, flat), (flat, halves), (quarters, flat), (flat, quarters))
    return np.stack([np.outer(rows, columns) for rows, columns in pairs])


def linear_graph() -> Graph:
    """Correlates with the classes' patterns."""
    weights = (100 * _templates()).reshape(CLASSES, -1).astype(np.int16)
    return Graph("linear", SHAPE, (Dense("dense", INPUT, weights),), logit_scale=SCALE)


def patterns(count: int) -> Dataset:
    """The patterns, faint and noisy; all are classified rightly."""
    rng = np.random.default_rng(8)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    values = 128 + 30 * _templates()[labels] + rng.normal(0, 10, (count, *SHAPE[:2]))
    return Dataset("patterns", np.clip(values, 0, 255).astype(np.uint8)[..., np.newaxis], labels)


class LinearModel(nn.Module):
    """What :func:`linear_graph` computes, in floats; traps change it in one place."""

    classes = CLASSES
    input_shape = SHAPE
    stochastic = False
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        weights = 255 * 100 * SCALE * torch.from_numpy(_templates()).float()
        self.register_buffer("weights", weights.reshape(CLASSES, -1))

    @property
    def name(self) -> str:
        """Which of them."""
        return type(self).__name__

    def require_gradients(self) -> None:
        """It has."""

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """Nothing is drawn."""
        raise UsageError("nothing is drawn")

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """Nothing is drawn."""
        raise UsageError("nothing is drawn")

    def forward(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits (1, N, classes) of images (N, H, W, C)."""
        return self.logits(x)[None]

    def logits(self, x: Tensor) -> Tensor:
        """(N, classes)."""
        return x.flatten(1) @ self.weights.T
