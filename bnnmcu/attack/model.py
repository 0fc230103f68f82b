"""What an attack needs of a network to follow its gradients.

:class:`bnnmcu.attack.twin.IntegerTwin` and the float model are both one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config.base import Estimator

__all__ = ["Draws", "GradientModel"]


@dataclass(frozen=True, eq=False)
class Draws:
    """Drawn weights of every stochastic layer.

    Attributes:
        weights: layer name to -1 / +1, float, shape (D, O, I / groups, KH, KW).
        count: D.
    """

    weights: Mapping[str, Tensor]
    count: int


class GradientModel(Protocol):
    """A network that can be differentiated; draws of its weights come from outside."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def classes(self) -> int:
        """How many labels there are."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""

    @property
    def stochastic(self) -> bool:
        """Weights are drawn: a call needs draws."""

    @property
    def device(self) -> torch.device:
        """Where images and draws must be."""

    def require_gradients(self) -> None:
        """Raise an UnsupportedModelError that says why there are no gradients, if so."""

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """``count`` independent draws of all stochastic weights, on :attr:`device`.

        Args:
            generator: on the CPU, whatever the device, so that draws are the same.
        """

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """What a device draws for these seeds, shape (D,).

        Raises:
            UsageError: the model knows nothing of devices.
        """

    def __call__(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits, shape (D, N, classes); D is 1 without draws.

        Args:
            x: float32, shape (N, H, W, C), in [0, 1].
            draws: of the stochastic weights; None for a deterministic network.
            estimator: of the gradients; None for the model's own.
        """
