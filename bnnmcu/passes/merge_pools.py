"""Max pools of integers before a threshold become pools of bits behind it.

The largest of some sums passes a threshold exactly if one of them does, so
that sums need not be kept.  Where a threshold asks for small sums, all must.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from bnnmcu.graph import LE, Graph, MaxPool, Node, Threshold

__all__ = ["MergePools"]


def _readers(graph: Graph, name: str) -> list[Node]:
    return [node for node in graph.nodes if name in node.sources]


@dataclass(frozen=True)
class MergePools:
    """Swaps ``max pool, threshold``."""

    name: ClassVar[str] = "merge-pools"
    text: ClassVar[str] = "max pools of sums before a threshold become pools of bits behind it"

    @staticmethod
    def match(node: Node, graph: Graph) -> bool:
        if not isinstance(node, Threshold):
            return False
        source = next((n for n in graph.nodes if n.name == node.source), None)
        return isinstance(source, MaxPool) and len(_readers(graph, source.name)) == 1

    @staticmethod
    def transform(node: Node, graph: Graph) -> tuple[Graph, dict[str, str | None]]:
        """The new graph, and where values are found now (None: nowhere)."""
        assert isinstance(node, Threshold)
        pool = next(n for n in graph.nodes if n.name == node.source)
        assert isinstance(pool, MaxPool)
        falling = (node.kind == LE).astype(np.uint8)
        minimum = falling if pool.minimum is None else falling ^ pool.minimum
        first = replace(node, source=pool.source)
        behind = replace(pool, source=node.name, minimum=minimum if minimum.any() else None)
        nodes: list[Node] = []
        for other in graph.nodes:
            if other is pool:
                continue
            if other is node:
                nodes += [first, behind]
                continue
            # Bits are only ever read as a first source.
            reads = other.source == node.name
            nodes.append(replace(other, source=pool.name) if reads else other)
        return replace(graph, nodes=tuple(nodes)), {pool.name: None, node.name: pool.name}
