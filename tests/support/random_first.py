"""Random small networks for the kernels of first layers and of layers with one position."""

from __future__ import annotations

import numpy as np

from bnnmcu.graph import (
    ALWAYS,
    GE,
    LE,
    NEVER,
    BinaryConv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
    Threshold,
)

__all__ = ["random_first", "random_single"]

_INT32 = (-(1 << 31), (1 << 31) - 1)


def _threshold(rng: np.random.Generator, name: str, source: str, count: int, reach: int) -> Node:
    """Of every kind; some values are far beyond any sum."""
    value = rng.integers(-reach, reach + 1, count)
    value = np.where(rng.random(count) < 0.05, rng.choice(_INT32, count), value)
    kind = rng.choice([GE, LE, ALWAYS, NEVER], count, p=[0.45, 0.45, 0.05, 0.05])
    return Threshold(name, source, value.astype(np.int32), kind.astype(np.uint8))


def _tail(rng: np.random.Generator, source: str, count: int, reach: int) -> list[Node]:
    style = rng.random()
    if style < 0.5:
        return [_threshold(rng, "tail", source, count, reach)]
    return [Relu("tail", source)] if style < 0.75 else []


def _graph(
    rng: np.random.Generator, name: str, shape: tuple[int, int, int], nodes: list[Node], size: int
) -> Graph:
    weights = rng.integers(-300, 301, (3, size)).astype(np.int16)
    return Graph(name, shape, (*nodes, Dense("dense", nodes[-1].name, weights)))


def _pads(rng: np.random.Generator, shape: tuple[int, int], extent: list[int]) -> tuple[int, ...]:
    """Top, left, bottom, right; sometimes none; at least a window fits."""
    pads = rng.integers(0, 5, 4) if rng.random() < 0.7 else np.zeros(4, dtype=np.int64)
    for axis in range(2):
        pads[axis + 2] += max(0, extent[axis] - shape[axis] - int(pads[axis] + pads[axis + 2]))
    return tuple(int(p) for p in pads)


def random_first(seed: int, *, fir: bool) -> Graph:
    """Pixels, an integer convolution of 14 bits, a threshold, ReLU or neither; dense.

    Args:
        fir: a window that the fast FIR filter takes, otherwise any.
    """
    rng = np.random.default_rng([seed, fir, 0xF1257])
    channels = int(rng.choice([1, 1, 1, 2, 3]))
    size = int(rng.integers(3, 18)), int(rng.integers(3, 36))
    sides = (5, 9) if fir else (1, 7)
    kernel = [int(n) for n in rng.integers(*sides, 2)]
    stride = (2, 2) if fir else tuple(int(n) for n in rng.integers(1, 4, 2))
    dilation = (1, 1) if fir else tuple(int(n) for n in rng.choice([1, 1, 2], 2))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    outputs = int(rng.choice([1, 3, 31, 32, 33, 40, 64, 70]))
    top = 8191
    weights = rng.integers(-top, top + 1, (outputs, *kernel, channels))
    if rng.random() < 0.3:
        weights[0], weights[-1] = top, -top
    conv = IntegerConv(
        "conv",
        "input",
        weights.astype(np.int16),
        stride=stride,
        padding=_pads(rng, size, extent),
        dilation=dilation,
        fill=rng.integers(0, 256, channels).astype(np.uint8) if rng.random() < 0.5 else None,
    )
    reach = int(25 * np.abs(weights.reshape(outputs, -1)).sum(axis=1).max()) + 1
    nodes = [conv, *_tail(rng, "conv", outputs, reach)]
    shape = (*size, channels)
    rows, cols, _ = conv.output_shape(shape)
    return _graph(rng, f"first{seed}", shape, nodes, rows * cols * outputs)


def random_single(seed: int, *, drawn: bool, generator: str = "xorshift128") -> Graph:
    """Pixels to bits, a sign convolution with one window, its tail, dense."""
    rng = np.random.default_rng([seed, drawn, 0x51619])
    channels = int(rng.choice([1, 3, 16, 20, 32, 33, 64, 70]))
    size = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    bits = _threshold(rng, "bits", "input", channels, 255)
    pads, dilation = (0, 0, 0, 0), (1, 1)
    kernel = [int(rng.integers(1, side + 1)) for side in size]
    if not drawn:
        kernel = [int(rng.integers(1, side + 3)) for side in size]
        dilation = tuple(int(n) for n in rng.choice([1, 1, 2], 2))
        extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        pads = _pads(rng, size, extent)
    outputs = int(rng.choice([1, 5, 31, 32, 33, 64, 100]))
    shape = (outputs, *kernel, channels)
    stride = (size[0] + 20, size[1] + 20)
    if drawn:
        planes = int(rng.choice([4, 4, 6, 8, 2, 3, 5]))
        levels = rng.integers(0, 1 << planes, shape, dtype=np.uint8)
        conv: Node = StochasticConv("conv", "bits", levels, stride=stride, planes=planes)
    else:
        weights = rng.integers(0, 2, shape, dtype=np.uint8)
        if rng.random() < 0.2:
            weights[0], weights[-1] = 1, 0
        conv = BinaryConv("conv", "bits", weights, stride=stride, padding=pads, dilation=dilation)
    reach = int(np.sqrt(np.prod(shape[1:]))) + 2
    nodes = [bits, conv, *_tail(rng, "conv", outputs, reach)]
    graph = _graph(rng, f"single{seed}", (*size, channels), nodes, outputs)
    return Graph(graph.name, graph.input_shape, graph.nodes, generator=generator)
