"""Random networks in C on this machine, held against the reference bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from many_models import Choices, Library
from random_graphs import random_images

from bnnmcu import reference
from bnnmcu.backend.plan import DEFAULT_CHOICE, make_plan
from bnnmcu.graph import Graph

__all__ = ["AT_ONCE", "differences", "inputs"]

#: Networks of one compilation: bounds the memory, and what one failure hides.
AT_ONCE = 75
#: Black, white and noise; draws of each.
_IMAGES, _DRAWS = 5, 3


def inputs(graph: Graph) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """Images (N, H, W, C) and seeds (N, D) that belong to a network, by its name."""
    rng = np.random.default_rng(list(graph.name.encode()))
    seeds = rng.integers(0, 1 << 64, (_IMAGES, _DRAWS), dtype=np.uint64)
    seeds[0] = [0, 1, (1 << 64) - 1]
    return random_images(graph, _IMAGES, int(rng.integers(1 << 30))), seeds


def differences(
    graphs: Sequence[Graph], folder: Path, choice: Choices = DEFAULT_CHOICE
) -> list[str]:
    """Every network that differs, and where: in its logits, its draws or values on the way."""
    library = Library(graphs, folder, choice)
    found = []
    for index, graph in enumerate(graphs):
        images, seeds = inputs(graph)
        if not np.array_equal(
            library.run(index, images, seeds), reference.run(graph, images, seeds)
        ):
            found.append(f"{graph.name}: logits")
        found += [
            f"{graph.name}: drawn weights of {name}" for name in _draws(library, index, seeds)
        ]
        found += [
            f"{graph.name}: value of {name}" for name in _values(library, index, images, seeds)
        ]
    return found


def _draws(library: Library, index: int, seeds: npt.NDArray[np.uint64]) -> list[str]:
    graph = library.graphs[index]
    words = reference.sampled_words(graph, seeds[:, 0])
    wrong = []
    for layer, step in enumerate(make_plan(graph, library.choices[index]).steps):
        if step.planes:
            for row, seed in zip(words.pop(step.nodes[0]), seeds[:, 0], strict=True):
                if not np.array_equal(library.sample(index, layer, int(seed), len(row)), row):
                    wrong.append(step.nodes[0])
    return wrong + list(words)


def _values(
    library: Library, index: int, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
) -> list[str]:
    """A difference that later layers would hide: every value of one image and one draw."""
    graph = library.graphs[index]
    seen: dict[str, Any] = {}
    reference.run(
        graph,
        images[2:3],
        seeds[2:3, :1],
        on_value=lambda name, value: seen.setdefault(name, value[0].reshape(-1)),
    )
    values = library.values(index, images[2], int(seeds[2, 0]))
    return [name for name, value in values.items() if not np.array_equal(value, seen[name])]
