"""The weights that a seed draws, as the float network takes them."""

from __future__ import annotations

import numpy as np

from bnnmcu.network.ops import Conv, Floats, Linear
from bnnmcu.passes import Lowering
from bnnmcu.reference import sampled_weights, sampled_words

__all__ = ["float_draws"]


def float_draws(lowering: Lowering, seed: int) -> dict[str, Floats]:
    """-1 / +1 weights of the float network's drawn layers, those of a device's seed."""
    graph = lowering.graph
    words = sampled_words(graph, np.array([seed], dtype=np.uint64))
    signs = [
        2.0 * sampled_weights(node, words[node.name])[0].transpose(0, 3, 1, 2) - 1.0
        for node in graph.stochastic
    ]
    # Layers that nobody reads are not in the graph; what they draw changes nothing.
    kept = next(s.network for s in reversed(lowering.snapshots) if s.network is not None)
    names = [op.name for op in kept.ops if isinstance(op, Conv | Linear) and op.drawn]
    drawn = dict(zip(names, signs, strict=True))
    return {
        op.name: drawn[op.name].reshape(op.weights.shape)
        if op.name in drawn
        else np.ones(op.weights.shape)
        for op in lowering.network.ops
        if isinstance(op, Conv | Linear) and op.drawn
    }
