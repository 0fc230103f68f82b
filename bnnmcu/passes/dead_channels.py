"""Removes channels whose bits never change.

A threshold that no possible sum can cross gives a constant.  The filter
behind it need not be computed; what the constant adds to the next layer's
sums goes into the thresholds or the bias there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from bnnmcu.graph import (
    ALWAYS,
    GE,
    INT32_MAX,
    LE,
    NEVER,
    BinaryConv,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Surrogate,
    Threshold,
)

__all__ = ["DeadChannels"]

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def _by_name(graph: Graph) -> dict[str, Node]:
    return {node.name: node for node in graph.nodes}


def _readers(graph: Graph, name: str) -> list[Node]:
    return [node for node in graph.nodes if name in node.sources]


@dataclass(frozen=True, eq=False)
class _Site:
    """A place where channels can go: convolution, threshold, pool, and the layer that reads."""

    conv: Conv
    threshold: Threshold
    pool: MaxPool | None
    reader: Conv | Dense
    then: tuple[Threshold, ...]
    dead: Mask


def _only(nodes: list[Node]) -> Node | None:
    return nodes[0] if len(nodes) == 1 else None


def _site(node: Node, graph: Graph) -> _Site | None:
    if not isinstance(node, Threshold):
        return None
    dead = (node.kind == ALWAYS) | (node.kind == NEVER)
    conv = _by_name(graph).get(node.source)
    if not dead.any() or dead.all() or not isinstance(conv, IntegerConv | BinaryConv):
        return None
    if conv.groups != 1 or len(_readers(graph, conv.name)) != 1:
        return None
    reader, pool = _only(_readers(graph, node.name)), None
    if isinstance(reader, MaxPool):
        pool = reader
        reader = _only(_readers(graph, pool.name))
    if isinstance(reader, Dense):
        return _Site(conv, node, pool, reader, (), dead)
    # Beside padding a constant bit does not add a constant; drawn weights add a random one.
    if not isinstance(reader, IntegerConv | BinaryConv) or reader.groups != 1:
        return None
    if any(reader.padding):
        return None
    then = _readers(graph, reader.name)
    thresholds = tuple(n for n in then if isinstance(n, Threshold))
    if len(thresholds) != len(then) or not then:
        return None
    # A rectified surrogate bends at zero of the whole sum, which it would no longer see.
    if any(t.surrogate is not None and t.surrogate.rectified for t in thresholds):
        return None
    return _Site(conv, node, pool, reader, thresholds, dead)


def _shifted(node: Threshold, constant: Ints) -> Threshold:
    """The threshold on sums that lack ``constant``."""
    value = node.value.astype(np.int64) - constant
    kind = node.kind.copy()
    fixed = (kind == ALWAYS) | (kind == NEVER)
    # Beyond int32 nothing can lie: the comparison is constant there.
    low, high = value < -INT32_MAX, value > INT32_MAX
    kind[(kind == GE) & low | (kind == LE) & high] = ALWAYS
    kind[(node.kind == GE) & high | (node.kind == LE) & low] = NEVER
    value = np.where(fixed | low | high, node.value, value)
    surrogate = node.surrogate
    if surrogate is not None:
        offset = surrogate.offset + surrogate.slope * constant
        surrogate = Surrogate(surrogate.slope, offset, surrogate.rectified)
    return replace(node, value=value.astype(np.int32), kind=kind, surrogate=surrogate)


def _sliced(node: Threshold, keep: Mask) -> Threshold:
    surrogate = node.surrogate
    if surrogate is not None:
        surrogate = Surrogate(surrogate.slope[keep], surrogate.offset[keep], surrogate.rectified)
    return replace(node, value=node.value[keep], kind=node.kind[keep], surrogate=surrogate)


@dataclass(frozen=True)
class DeadChannels:
    """Removes a threshold's constant channels."""

    name: ClassVar[str] = "dead-channels"
    text: ClassVar[str] = "remove channels whose bits never change"

    @staticmethod
    def match(node: Node, graph: Graph) -> bool:
        return _site(node, graph) is not None

    @staticmethod
    def transform(node: Node, graph: Graph) -> tuple[Graph, dict[str, Mask]]:
        """The new graph, and which channels of which nodes are left."""
        site = _site(node, graph)
        assert site is not None
        keep = ~site.dead
        signs = np.where(site.threshold.kind == ALWAYS, 1, -1).astype(np.int64)
        reader = site.reader
        wide = reader.weights.astype(np.int64)
        if isinstance(reader, BinaryConv):
            wide = 2 * wide - 1
        if isinstance(reader, Dense):
            maps = wide.reshape(len(wide), -1, len(keep))
            constant = (maps * (signs * site.dead)).sum(axis=(1, 2))
            bias = constant if reader.bias is None else constant + reader.bias
            narrow = reader.weights.reshape(maps.shape)[:, :, keep].reshape(len(wide), -1)
            changed: dict[str, Node] = {
                reader.name: replace(
                    reader, weights=narrow, bias=bias.astype(np.int64) if bias.any() else None
                )
            }
        else:
            constant = (wide * (signs * site.dead)).sum(axis=(1, 2, 3))
            changed = {reader.name: replace(reader, weights=reader.weights[..., keep])}
            changed |= {then.name: _shifted(then, constant) for then in site.then}
        changed[site.conv.name] = replace(site.conv, weights=site.conv.weights[keep])
        changed[site.threshold.name] = _sliced(site.threshold, keep)
        masks = {site.conv.name: keep, site.threshold.name: keep}
        if site.pool is not None:
            minimum = site.pool.minimum
            if minimum is not None:
                minimum = minimum[keep] if minimum[keep].any() else None
            changed[site.pool.name] = replace(site.pool, minimum=minimum)
            masks[site.pool.name] = keep
        nodes = tuple(changed.get(n.name, n) for n in graph.nodes)
        return replace(graph, nodes=nodes), masks
