"""Oracles of few words, and one black-box attack on all of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from bnnmcu import reference
from bnnmcu.attack.blackbox import craft_queries
from bnnmcu.attack.config import BlackBoxConfig, Crafted
from bnnmcu.attack.oracle import Answer, NativeOracle, Oracle, ReferenceOracle
from bnnmcu.attack.query import QueryOracle
from bnnmcu.data import Dataset
from bnnmcu.errors import MissingDependencyError
from bnnmcu.graph import Graph

IMAGE = np.zeros((1, 2, 2, 1), dtype=np.uint8)
TAKES_ART = pytest.mark.skipif(find_spec("art") is None, reason="ART is not installed")


class Scripted:
    """An oracle that answers by a function of images and seeds, and remembers the seeds."""

    name = "scripted"
    label = "reference"
    stats = None
    seeded = True

    def __init__(self, logits: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.seeds: list[np.ndarray] = []
        self._logits = logits

    def logits(self, images: np.ndarray, seeds: np.ndarray) -> Iterator[Answer]:
        self.seeds.append(seeds)
        for image, row in zip(images, seeds, strict=True):
            yield Answer(self._logits(image, row))


def constant(label: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Logits of a network that gives one label, whatever it is shown."""
    return lambda _, seeds: np.eye(3, dtype=np.int64)[np.full(len(seeds), label)]


def asked(oracle: Any, **more: Any) -> QueryOracle:
    settings: dict[str, Any] = {"images": 3, "classes": 3, "answers": "logits", "seed": 5}
    return QueryOracle(oracle, **(settings | more))


def oracle_of(graph: Graph) -> Oracle:
    """The same answers, sooner where there is a compiler."""
    try:
        return NativeOracle(graph)
    except MissingDependencyError:
        return ReferenceOracle(graph)


class Counting:
    """Passes questions on, and counts them for itself."""

    def __init__(self, graph: Graph) -> None:
        self._oracle = oracle_of(graph)
        self.name, self.label, self.stats = "counting", self._oracle.label, None
        self.draws = 0
        self.calls = 0

    def logits(self, images: np.ndarray, seeds: np.ndarray) -> Iterator[Answer]:
        self.draws += seeds.size
        self.calls += 1
        return self._oracle.logits(images, seeds)


def attacked(
    graph: Graph,
    data: Dataset,
    attack: BlackBoxConfig,
    seed: int = 1,
    oracle: Any = None,
    **more: Any,
) -> Crafted:
    """One attack on all the data, its oracle made as a campaign makes it."""
    query = QueryOracle(
        oracle or oracle_of(graph),
        images=len(data),
        classes=graph.classes,
        answers=attack.answers,
        seed=seed,
        draws=attack.votes if graph.stochastic else 1,
        seeds=attack.query_seeds,
        budget=attack.budget,
        logit_scale=graph.logit_scale,
        stochastic=bool(graph.stochastic),
    )
    targets = more.pop("targets", None)
    return craft_queries(query, attack, data.images, data.labels, targets, seed, **more)


def right(graph: Graph, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of right answers to each image, on 21 draws that no attack saw."""
    seeds = np.arange(21 * len(images), dtype=np.uint64).reshape(-1, 21) + np.uint64(10**9)
    answers = [reference.argmax(one.logits) for one in oracle_of(graph).logits(images, seeds)]
    shares: np.ndarray = (np.stack(answers) == labels[:, np.newaxis]).mean(1)
    return shares


def distance(crafted: Crafted, data: Dataset) -> np.ndarray:
    change = crafted.images.astype(np.float64) - data.images
    lengths: np.ndarray = np.sqrt((change**2).sum((1, 2, 3))) / 255.0
    return lengths


def some(data: Dataset, count: int) -> Dataset:
    return Dataset(data.name, data.images[:count], data.labels[:count])
