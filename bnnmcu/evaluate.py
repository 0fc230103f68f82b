"""The clean error of an integer network: by the generated C on this machine, or as stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.data import Dataset
from bnnmcu.graph import Graph
from bnnmcu.reference import argmax
from bnnmcu.toolchain.native import NativeTwin

__all__ = ["Evaluation", "draw_seeds", "evaluate", "evaluation_of"]

_CHUNK = 250


@dataclass(frozen=True)
class Evaluation:
    """Shares of wrong labels, 0 to 1.

    Attributes:
        error: mean over images and draws.
        spread: standard deviation, over draws, of the error of one draw of
            every image.
        majority_error: the true label does not get more votes than any other;
            a tie counts as wrong.
        worst_error: some draw is wrong.
    """

    model: str
    data: str
    images: int
    draws: int
    seed: int
    error: float
    spread: float
    majority_error: float
    worst_error: float

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def draw_seeds(seed: int, first: int, count: int, draws: int) -> npt.NDArray[np.uint64]:
    """Seeds of images ``first`` .. ``first + count - 1``: all different, shape (count, draws).

    The run's seed is the high word; image and draw make up the low one.
    """
    index = np.arange(first, first + count, dtype=np.uint64)[:, np.newaxis] * np.uint64(draws)
    low = index + np.arange(draws, dtype=np.uint64)
    return np.asarray((np.uint64(seed) << np.uint64(32)) + low, dtype=np.uint64)


def evaluate(
    graph: Graph,
    data: Dataset,
    *,
    draws: int = 20,
    seed: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Run every image, several times if weights are drawn.

    Raises:
        DataError: the images have another shape than the network takes.
    """
    data.check_suits(graph.name, graph.input_shape, graph.classes)
    if not graph.stochastic:
        draws = 1
    twin = NativeTwin(graph)
    predicted = np.empty((len(data), draws), dtype=np.int64)
    for start in range(0, len(data), _CHUNK):
        part = slice(start, start + _CHUNK)
        images = data.images[part]
        predicted[part] = argmax(twin.run(images, draw_seeds(seed, start, len(images), draws)))
        if progress:
            progress(len(images))
    return evaluation_of(graph, data, predicted, seed)


def evaluation_of(
    graph: Graph, data: Dataset, predicted: npt.NDArray[np.int64], seed: int
) -> Evaluation:
    """The errors of answers, whoever gave them.

    Args:
        predicted: labels, shape (images, draws).
        seed: that the draws came from.
    """
    draws = predicted.shape[1]
    correct = predicted == data.labels[:, np.newaxis]
    votes = (predicted[..., np.newaxis] == np.arange(graph.classes)).sum(axis=1)
    own = np.take_along_axis(votes, data.labels[:, np.newaxis], axis=1)
    majority = ((votes >= own).sum(axis=1) == 1) & (own[:, 0] > 0)
    return Evaluation(
        model=graph.name,
        data=data.name,
        images=len(data),
        draws=draws,
        seed=seed,
        error=float((~correct).mean()),
        spread=float((~correct).mean(axis=0).std(ddof=1)) if draws > 1 else 0.0,
        majority_error=float((~majority).mean()),
        worst_error=float((~correct).any(axis=1).mean()),
    )
