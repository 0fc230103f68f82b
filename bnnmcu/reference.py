"""Executes a graph in numpy: the specification that all other executors are held to.

Sums are formed by float64 matrix products, which are exact here: a graph's
range analysis bounds every convolution sum by 2**31, far below 2**53.  Dense
layers, whose sums may need 64 bits, use integer products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError
from bnnmcu.graph import (
    ALWAYS,
    GE,
    INPUT,
    LE,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
    Threshold,
)
from bnnmcu.lfsr import RandomWords, draw_words
from bnnmcu.packing import pack_planes, unpack_bits

__all__ = ["argmax", "checked_seeds", "run", "sampled_weights", "sampled_words"]

Array = npt.NDArray[Any]

# Draws made at a time: bounds the memory (a K = 64 layer is 410 KB a draw).
_SEEDS_AT_ONCE = 256
# Images convolved at a time, for the same reason; fewer where each has weights of its own.
_IMAGES_AT_ONCE = 64
_DRAWN_AT_ONCE = 8


def argmax(logits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels: the first of the largest logits along the last axis."""
    return np.asarray(logits.argmax(axis=-1), dtype=np.int64)


def _patches(node: Conv, values: Array) -> Array:
    """(N, H, W, C) to (N, OH, OW, KH * KW * C); padding is zero."""
    _, kh, kw, _ = node.weights.shape
    top, left, bottom, right = node.padding
    padded = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
    windows = windows[:, :: node.stride[0], :: node.stride[1]].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(*windows.shape[:3], -1).astype(np.float64)


def _signs(node: Conv, weights: Array) -> Array:
    """Flattened weights as float64: -1 and +1, or the integers of a first layer."""
    flat = weights.reshape(*weights.shape[:-4], node.weights.shape[0], -1).astype(np.float64)
    return flat if isinstance(node, IntegerConv) else 2.0 * flat - 1.0


def _convolve(node: Conv, values: Array, weights: Array) -> npt.NDArray[np.int64]:
    """values (N, H, W, C); weights (O, ...) shared, or (N, O, ...) one set per input."""
    if not isinstance(node, IntegerConv):
        # -1 and +1, so that the zeros of the padding count as neither.
        values = 2 * values.astype(np.int8) - 1
    out = []
    at_once = _IMAGES_AT_ONCE if weights.ndim == 4 else _DRAWN_AT_ONCE
    for start in range(0, len(values), at_once):
        part = slice(start, start + at_once)
        matrix = _signs(node, weights if weights.ndim == 4 else weights[part])
        patches = _patches(node, values[part])
        if matrix.ndim == 3:
            matrix = matrix[:, np.newaxis]
        out.append((patches @ np.swapaxes(matrix, -1, -2)).astype(np.int64))
    return np.concatenate(out)


def _compare(node: Threshold, sums: Array) -> npt.NDArray[np.uint8]:
    at_least, at_most = sums >= node.value, sums <= node.value
    kinds = [node.kind == GE, node.kind == LE, node.kind == ALWAYS]
    bits = np.select(kinds, [at_least, at_most, np.ones_like(at_least)], default=False)
    return bits.astype(np.uint8)


def sampled_words(graph: Graph, seeds: npt.NDArray[np.uint64]) -> dict[str, npt.NDArray[np.uint32]]:
    """The drawn weights of every stochastic layer as packed words.

    Args:
        seeds: shape (S,).

    Returns:
        layer name to uint32 of shape (S, W); see :mod:`bnnmcu.lfsr` for the order.
    """
    generator = RandomWords(graph.generator, seeds)
    return {
        node.name: draw_words(generator, pack_planes(node.weights, node.planes))
        for node in graph.stochastic
    }


def sampled_weights(node: StochasticConv, words: npt.NDArray[np.uint32]) -> Array:
    """Packed words (S, W) to weights in {0, 1}, shape (S, O, KH, KW, I)."""
    outputs, kh, kw, inputs = node.weights.shape
    return unpack_bits(words.reshape(len(words), outputs, kh, kw, -1), inputs)


def _evaluate(node: Node, value: Array, drawn: Array | None) -> Array:
    if isinstance(node, Conv):
        return _convolve(node, value, node.weights if drawn is None else drawn)
    if isinstance(node, Threshold):
        return _compare(node, value)
    if isinstance(node, Relu):
        return np.maximum(value, 0)
    assert isinstance(node, Dense)
    return value.reshape(len(value), -1) @ node.weights.astype(np.int64).T


def checked_seeds(
    graph: Graph, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64] | None
) -> npt.NDArray[np.uint64]:
    """The seeds of a call to any executor: one draw for each image where None suffices.

    Raises:
        UsageError: images or seeds of the wrong shape, or seeds missing.
    """
    if images.dtype != np.uint8 or images.shape[1:] != graph.input_shape:
        raise UsageError(
            f"images are {images.dtype} {images.shape}, "
            f"{graph.name} takes uint8 (N, {', '.join(map(str, graph.input_shape))})"
        )
    if seeds is None:
        if graph.stochastic:
            raise UsageError(f"{graph.name} draws its weights: give seeds for every image")
        return np.zeros((len(images), 1), dtype=np.uint64)
    if seeds.ndim != 2 or len(seeds) != len(images):
        raise UsageError(f"{len(images)} images, but seeds of shape {seeds.shape}")
    return seeds


def run(
    graph: Graph,
    images: npt.NDArray[np.uint8],
    seeds: npt.NDArray[np.uint64] | None = None,
    *,
    on_value: Callable[[str, Array], None] | None = None,
) -> npt.NDArray[np.int64]:
    """Logits of images, one row for every draw.

    Args:
        images: uint8, shape (N, H, W, C).
        seeds: shape (N, D): D draws for each image.  A graph without
            stochastic layers takes None, or ignores them: each draw is equal.
        on_value: is given every node's value, with first axis N * D from the
            first stochastic layer on (in chunks) and N before it.

    Returns:
        int64, shape (N, D, classes); D is 1 without seeds.

    Raises:
        UsageError: images or seeds of the wrong shape, or seeds missing.
    """
    seeds = checked_seeds(graph, images, seeds)
    draws = seeds.shape[1]
    if seeds.size == 0:
        return np.zeros((len(images), draws, graph.classes), dtype=np.int64)
    flat_seeds = seeds.reshape(-1)
    # Only what does not depend on the seed is computed once for all draws.
    prefix: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, StochasticConv):
            break
        prefix.append(node)
    values: dict[str, Array] = {INPUT: images}
    for node in prefix:
        values[node.name] = _evaluate(node, values[node.source], None)
        if on_value:
            on_value(node.name, values[node.name])
    rest = graph.nodes[len(prefix) :]
    logits = []
    if not rest:
        repeated = np.repeat(values[graph.nodes[-1].name][:, np.newaxis], draws, axis=1)
        return np.asarray(repeated, dtype=np.int64)
    needed = {node.source for node in rest} & values.keys()
    for start in range(0, len(flat_seeds), _SEEDS_AT_ONCE):
        chosen = slice(start, start + _SEEDS_AT_ONCE)
        index = np.arange(len(flat_seeds))[chosen] // draws
        words = sampled_words(graph, flat_seeds[chosen])
        local = {name: values[name][index] for name in needed}
        for node in rest:
            drawn = (
                sampled_weights(node, words[node.name])
                if isinstance(node, StochasticConv)
                else None
            )
            local[node.name] = _evaluate(node, local[node.source], drawn)
            if on_value:
                on_value(node.name, local[node.name])
        logits.append(local[graph.nodes[-1].name])
    return np.concatenate(logits).reshape(len(images), draws, -1).astype(np.int64)
