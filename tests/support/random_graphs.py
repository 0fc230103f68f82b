"""Random chains such as trained networks are: a first layer, hidden layers, a dense one.

Networks of every operation, with branches, come from ``random_dags``.
Thresholds are taken from sums that the network really produces, so that bits
are mixed and ties (sum equal to the threshold) are common.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu import reference
from bnnmcu.graph import (
    GE,
    INPUT,
    LE,
    MAX_PLANES,
    MIN_PLANES,
    BinaryConv,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
    Threshold,
    infer,
)
from bnnmcu.lfsr import GENERATORS

__all__ = ["random_graph", "random_images"]

_CHANNELS = (1, 2, 5, 31, 32, 33, 40, 63, 65)
_INT32 = np.iinfo(np.int32)
Rng = np.random.Generator


def random_images(graph: Graph, count: int, seed: int) -> npt.NDArray[np.uint8]:
    """Images of a graph: all black, all white, then noise; (count, H, W, C)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *graph.input_shape), dtype=np.uint8)
    images[:1], images[1:2] = 0, 255
    return images


def _geometry(rng: Rng, height: int, width: int, largest: int = 4) -> dict[str, Any]:
    """Kernel, stride and padding; windows that fit."""
    kh = int(rng.integers(1, min(height, largest) + 1))
    kw = int(rng.integers(1, min(width, largest) + 1))
    top, bottom = (int(n) for n in rng.integers(0, kh, 2))
    left, right = (int(n) for n in rng.integers(0, kw, 2))
    if rng.random() < 0.4:
        top = left = bottom = right = 0
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    return {"kernel": (kh, kw), "stride": stride, "padding": (top, left, bottom, right)}


def _levels(rng: Rng, shape: tuple[int, ...], planes: int) -> npt.NDArray[np.uint8]:
    """Levels with exact zeros and ones among them."""
    levels = rng.integers(0, 1 << planes, shape, dtype=np.uint8)
    extreme = rng.random(shape) < 0.2
    ends = np.where(rng.random(shape) < 0.5, 0, (1 << planes) - 1).astype(np.uint8)
    return np.where(extreme, ends, levels).astype(np.uint8)


def _sums(nodes: list[Node], graph_like: dict[str, Any], rng: Rng) -> npt.NDArray[Any]:
    """Sums of the last node (a convolution) for a few images: (N, H, W, C)."""
    last = nodes[-1]
    shape = graph_like["input_shape"]
    for node in nodes:
        shape = node.output_shape(shape) if isinstance(node, Conv) else shape
    # A dense layer makes it a graph.
    end = Dense("probe", last.name, np.zeros((1, int(np.prod(shape))), dtype=np.int16))
    probe = Graph(nodes=(*nodes, end), **graph_like)
    seen: list[npt.NDArray[Any]] = []
    images = random_images(probe, 4, int(rng.integers(1 << 30)))
    seeds = rng.integers(0, 1 << 63, (4, 1), dtype=np.uint64)
    reference.run(
        probe,
        images,
        seeds,
        on_value=lambda name, value: seen.append(value) if name == last.name else None,
    )
    return np.concatenate(seen)


def _threshold(rng: Rng, name: str, source: str, sums: npt.NDArray[Any]) -> Threshold:
    channels = sums.shape[-1]
    flat = sums.reshape(-1, channels)
    value = flat[rng.integers(0, len(flat), channels), np.arange(channels)].astype(np.int32)
    kind = rng.choice([GE, LE, GE, LE, GE, LE, 2, 3], channels).astype(np.uint8)
    # The ends of int32 are where "<= v" as "not >= v + 1" would overflow.
    edge = rng.random(channels)
    value = np.where(edge < 0.04, _INT32.max, np.where(edge > 0.96, _INT32.min, value))
    return Threshold(name, source, value.astype(np.int32), kind)


def random_graph(
    seed: int,
    *,
    hidden: int | None = None,
    stochastic: bool | None = None,
    planes: int | None = None,
    generator: str | None = None,
) -> Graph:
    """One network; the same seed gives the same network.

    Args:
        hidden: binary or stochastic layers, 0 to 3; with none of them the
            logits usually need 64 bits.
        stochastic: whether the first hidden layer draws its weights.
        planes: k of all stochastic layers.
        generator: a key of ``GENERATORS``.
    """
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 11)), int(rng.integers(2, 11)), int(rng.choice([1, 2, 3, 5])))
    hidden = int(rng.choice([0, 1, 1, 2, 2, 3])) if hidden is None else hidden
    planes = int(rng.integers(MIN_PLANES, MAX_PLANES + 1)) if planes is None else planes
    generator = str(rng.choice(list(GENERATORS))) if generator is None else generator
    like: dict[str, Any] = {"name": f"r{seed}", "input_shape": shape, "generator": generator}

    where = _geometry(rng, shape[0], shape[1])
    outputs = int(rng.choice(_CHANNELS))
    bits = int(rng.integers(2, 17))
    top = (1 << (bits - 1)) - 1
    weights = rng.integers(-top, top + 1, (outputs, *where["kernel"], shape[2]))
    weights[rng.random(outputs) < 0.1] = 0
    conv: Conv = IntegerConv(
        "first", INPUT, weights.astype(np.int16), where["stride"], where["padding"], bits=bits
    )
    nodes: list[Node] = [conv]
    for i in range(hidden):
        sums = _sums(nodes, like, rng)
        nodes.append(_threshold(rng, f"sign{i}", conv.name, sums))
        where = _geometry(rng, sums.shape[1], sums.shape[2])
        outputs = int(rng.choice(_CHANNELS))
        kernel = (outputs, *where["kernel"], sums.shape[3])
        drawn = bool(rng.random() < 0.5) if stochastic is None or i else stochastic
        if drawn:
            conv = StochasticConv(
                f"drawn{i}",
                f"sign{i}",
                _levels(rng, kernel, planes),
                where["stride"],
                where["padding"],
                planes=planes,
            )
        else:
            fixed = rng.integers(0, 2, kernel, dtype=np.uint8)
            conv = BinaryConv(f"fixed{i}", f"sign{i}", fixed, where["stride"], where["padding"])
        nodes.append(conv)
    size = int(np.prod(_sums(nodes, like, rng).shape[1:]))
    source = conv.name
    if rng.random() < 0.6:
        nodes.append(Relu("relu", source))
        source = "relu"
    classes = int(rng.integers(1, 13))
    reach = int(rng.choice([3, 300, 32_767]))
    dense = rng.integers(-reach, reach + 1, (classes, size)).astype(np.int16)
    if classes > 2:
        dense[-1] = dense[0]  # equal logits: the first label must win
    graph = Graph(nodes=(*nodes, Dense("dense", source, dense)), **like)
    assert infer(graph)
    return graph
