"""A whole network of nodes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bnnmcu.errors import GraphError
from bnnmcu.graph.check import infer
from bnnmcu.graph.convs import StochasticConv
from bnnmcu.graph.nodes import Node
from bnnmcu.graph.values import wholes
from bnnmcu.lfsr import GENERATORS

__all__ = ["Graph"]

_NAME = re.compile(r"[A-Za-z0-9_.+*-]{1,31}\Z")


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole network.

    Attributes:
        name: for people, e.g. ``S64``.
        input_shape: (H, W, C) of the uint8 image.
        nodes: in an order in which they can be executed; the last one gives
            the logits, shape (1, 1, classes).
        logit_scale: float logits = ``logit_scale`` * integer logits.
        generator: a key of :data:`bnnmcu.lfsr.GENERATORS`.
    """

    name: str
    input_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    logit_scale: float = 1.0
    generator: str = "xorshift128"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise GraphError(f"{self.name!r} is no name for a network (1 to 31 plain characters)")
        object.__setattr__(self, "input_shape", wholes(self.input_shape, 3, 1, "input shape", None))
        if not isinstance(self.nodes, (tuple, list)) or not all(
            isinstance(node, Node) for node in self.nodes
        ):
            raise GraphError("the layers are no tuple of nodes")
        object.__setattr__(self, "nodes", tuple(self.nodes))
        if not isinstance(self.generator, str) or self.generator not in GENERATORS:
            raise GraphError(
                f"unknown generator {self.generator!r}", hint=f"use {', '.join(GENERATORS)}"
            )
        scale = self.logit_scale
        numbers = (int, float, np.integer, np.floating)
        number = isinstance(scale, numbers) and not isinstance(scale, bool)
        # An int beyond the largest float64 is no logit scale either.
        if not number or not 0 < scale <= sys.float_info.max:
            raise GraphError(f"logit scale {scale!r} is not a positive number")
        object.__setattr__(self, "logit_scale", float(scale))
        specs = infer(self)
        object.__setattr__(self, "_classes", specs[self.nodes[-1].name].shape[2])

    @property
    def classes(self) -> int:
        """Logits."""
        count: int = self._classes  # type: ignore[attr-defined]
        return count

    @property
    def stochastic(self) -> tuple[StochasticConv, ...]:
        """The layers whose weights are drawn, in the order of the draws."""
        return tuple(node for node in self.nodes if isinstance(node, StochasticConv))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)
