"""Executes a graph in numpy: the specification that all other executors are held to.

Sums are formed by float64 matrix products, which are exact here: a graph's
range analysis bounds the sum of any selection of a convolution's products by
2**31, so that no partial sum comes near 2**53, whatever the order of a matrix
product.  Dense layers, whose sums may need 64 bits, use integer products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError
from bnnmcu.graph import (
    ALWAYS,
    GE,
    INPUT,
    LE,
    Add,
    Affine,
    Clamp,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    TensorSpec,
    Threshold,
    Window,
    infer,
)
from bnnmcu.lfsr import RandomWords, draw_words
from bnnmcu.packing import pack_planes, unpack_bits

__all__ = ["argmax", "checked_seeds", "evaluate", "run", "sampled_weights", "sampled_words"]

Array = npt.NDArray[Any]

# Draws made at a time: bounds the memory (a K = 64 layer is 410 KB a draw).
_SEEDS_AT_ONCE = 256
# Images convolved at a time, for the same reason; fewer where each has weights of its own.
_IMAGES_AT_ONCE = 64
_DRAWN_AT_ONCE = 8


def argmax(logits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels: the first of the largest logits along the last axis."""
    return np.asarray(logits.argmax(axis=-1), dtype=np.int64)


def _taps(window: Window, axis: int, size: int, out: int) -> tuple[Array, Array]:
    """Where the taps of one axis lie, and which of them inside: both (out, kernel)."""
    start = np.arange(out) * window.stride[axis] - window.padding[axis]
    at = start[:, np.newaxis] + np.arange(window.kernel[axis]) * window.dilation[axis]
    inside = (at >= 0) & (at < size)
    return np.where(inside, at, 0), inside


def _windows(window: Window, values: Array, fill: Any) -> Array:
    """(N, H, W, C) to (N, OH, OW, KH, KW, C); ``fill`` stands in the padding."""
    height, width, channels = values.shape[1:]
    rows, cols = window.output_side((height, width, channels), "window")
    y, y_inside = _taps(window, 0, height, rows)
    x, x_inside = _taps(window, 1, width, cols)
    taken: Array = values[:, y[:, np.newaxis, :, np.newaxis], x[np.newaxis, :, np.newaxis, :]]
    outside = ~(y_inside[:, np.newaxis, :, np.newaxis] & x_inside[np.newaxis, :, np.newaxis, :])
    if outside.any():
        taken[:, outside] = fill
    return taken


def _signs(node: Conv, weights: Array) -> Array:
    """Weights as float64: -1 and +1, or the integers of an integer convolution."""
    wide = weights.astype(np.float64)
    return wide if isinstance(node, IntegerConv) else 2.0 * wide - 1.0


def _convolve(node: Conv, values: Array, weights: Array) -> npt.NDArray[np.int64]:
    """values (N, H, W, C) as integers; weights (O, ...) shared, or (N, O, ...) one set each."""
    fill: Any = 0
    if isinstance(node, IntegerConv) and node.fill is not None:
        fill = node.fill
    inputs, outputs = node.weights.shape[3], node.weights.shape[0] // node.groups
    out = []
    at_once = _IMAGES_AT_ONCE if weights.ndim == 4 else _DRAWN_AT_ONCE
    for start in range(0, len(values), at_once):
        part = slice(start, start + at_once)
        kernels = _signs(node, weights if weights.ndim == 4 else weights[part])
        patches = _windows(node.window, values[part].astype(np.float64), fill)
        sums = []
        for group in range(node.groups):
            mine = patches[..., group * inputs : (group + 1) * inputs]
            mine = mine.reshape(*mine.shape[:3], -1)
            matrix = kernels[..., group * outputs : (group + 1) * outputs, :, :, :]
            matrix = matrix.reshape(*matrix.shape[:-3], -1)
            if matrix.ndim == 3:
                matrix = matrix[:, np.newaxis]
            sums.append((mine @ np.swapaxes(matrix, -1, -2)).astype(np.int64))
        out.append(np.concatenate(sums, axis=-1))
    return np.concatenate(out)


def _affine(node: Affine, values: Array) -> npt.NDArray[np.int64]:
    factor = node.mul.astype(np.int64)
    if node.neg is not None:
        factor = np.where(values >= 0, factor, node.neg.astype(np.int64))
    # An arithmetic shift of a numpy integer rounds towards minus infinity.
    return np.asarray((factor * values + node.add) >> node.shift, dtype=np.int64)


def _max_pool(node: MaxPool, values: Array) -> Array:
    lowest, highest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    wide = values.astype(np.int64)
    largest = _windows(node.window, wide, lowest).max(axis=(3, 4))
    if node.minimum is not None:
        smallest = _windows(node.window, wide, highest).min(axis=(3, 4))
        largest = np.where(node.minimum == 1, smallest, largest)
    return np.asarray(largest.astype(values.dtype))


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


def evaluate(
    node: Node, values: Mapping[str, Array], spec: TensorSpec, drawn: Array | None = None
) -> Array:
    """One node's value.

    Args:
        values: of the nodes it takes, first axis N; bits as {0, 1}.
        spec: of its first source.
        drawn: weights {0, 1} of a stochastic convolution, shape (N, O, KH, KW, I / groups).

    Returns:
        shape (N, H, W, C), or (N, outputs) of a dense layer; int64, but bits are uint8 and
        the pool of the largest keeps the dtype of its source.
    """
    value = values[node.source]
    if isinstance(node, MaxPool):
        return _max_pool(node, value)
    # -1 and +1 before anything is padded, so that the zeros of the padding are neither.
    value = 2 * value.astype(np.int64) - 1 if spec.kind == "bit" else value.astype(np.int64)
    if isinstance(node, Conv):
        return _convolve(node, value, node.weights if drawn is None else drawn)
    if isinstance(node, Threshold):
        return _compare(node, value)
    if isinstance(node, Relu):
        return np.maximum(value, 0)
    if isinstance(node, Clamp):
        return np.clip(value, node.low, node.high)
    if isinstance(node, Affine):
        return _affine(node, value)
    if isinstance(node, Add):
        return np.asarray(value + values[node.other])
    if isinstance(node, SumPool):
        return np.asarray(_windows(node.window, value, 0).sum(axis=(3, 4)))
    assert isinstance(node, Dense)
    logits = value.reshape(len(value), -1) @ node.weights.astype(np.int64).T
    return logits if node.bias is None else np.asarray(logits + node.bias)


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
    specs = infer(graph)
    values: dict[str, Array] = {INPUT: images}
    for node in prefix:
        values[node.name] = evaluate(node, values, specs[node.source], None)
        if on_value:
            on_value(node.name, values[node.name])
    rest = graph.nodes[len(prefix) :]
    logits = []
    last = graph.nodes[-1].name
    if not rest:
        flat = values[last].reshape(len(images), -1)
        repeated = np.repeat(flat[:, np.newaxis], draws, axis=1)
        return np.asarray(repeated, dtype=np.int64)
    needed = {source for node in rest for source in node.sources} & values.keys()
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
            local[node.name] = evaluate(node, local, specs[node.source], drawn)
            if on_value:
                on_value(node.name, local[node.name])
        logits.append(local[last].reshape(len(index), -1))
    return np.concatenate(logits).reshape(len(images), draws, -1).astype(np.int64)
