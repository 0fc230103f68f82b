"""Random networks around one convolution of signs, of any shape, for kernels that are forced."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from random_nodes import dense, threshold, window

from bnnmcu import reference
from bnnmcu.errors import GraphError
from bnnmcu.graph import (
    GE,
    INPUT,
    BinaryConv,
    Graph,
    Node,
    Relu,
    TensorSpec,
    Threshold,
    infer,
    infer_node,
)

__all__ = ["random_bits"]

Array = npt.NDArray[Any]
_CHANNELS = (1, 2, 7, 31, 32, 33, 40, 64, 65, 96, 100, 130)
_FILTERS = (1, 2, 3, 5, 6, 7, 12, 13, 31, 32, 33, 40, 64, 66)
_SAMPLES = 4
#: Weights of a convolution, its multiply-accumulates, and weights of the dense layer.
_MOST, _MOST_MACS, _MOST_DENSE = 40_000, 3_000_000, 40_000


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Mostly fair; sometimes filters that nearly agree, whose classes are of very unlike size."""
    fair = rng.integers(0, 2, shape, dtype=np.uint8)
    if rng.random() < 0.7:
        return fair
    flips = rng.random(shape) < rng.choice([0.0, 0.03, 0.2])
    return fair[:1] ^ flips.astype(np.uint8)


def _conv(rng: np.random.Generator, specs: dict[str, TensorSpec]) -> BinaryConv:
    """A convolution that fits the input and is small."""
    shape = specs["bits"].shape
    while True:
        where = window(rng, shape)
        kernel = where.pop("kernel")
        filters = int(rng.choice(_FILTERS))
        weights = _weights(rng, (filters, *kernel, shape[2]))
        node = BinaryConv("conv", "bits", weights, **where)
        try:
            out = infer_node(node, specs)
        except GraphError:
            continue
        small = weights.size <= _MOST and out.size <= _MOST_DENSE
        if small and node.macs(shape) <= _MOST_MACS:
            return node


def _value(nodes: list[Node], name: str, images: Array) -> Array:
    """What a node gives for some images."""
    graph = Graph("probe", images.shape[1:], (*nodes, _end(nodes, images)))
    found: dict[str, Array] = {}
    reference.run(graph, images, on_value=lambda key, value: found.setdefault(key, value))
    return found[name]


def _end(nodes: list[Node], images: Array) -> Node:
    """A dense layer behind the last node."""
    specs = {INPUT: TensorSpec(images.shape[1:], "u8", 0, 255)}
    for node in nodes:
        specs[node.name] = infer_node(node, specs)
    rng = np.random.default_rng(0)
    last = nodes[-1].name
    end = dense(rng, "dense", last, specs[last], _MOST_DENSE)
    assert end is not None
    return end


def random_bits(seed: int) -> Graph:
    """Pixels to bits, a convolution, its threshold, ReLU or neither, and a dense layer."""
    rng = np.random.default_rng([seed, 0xB175])
    channels = int(rng.choice(_CHANNELS))
    shape = (int(rng.integers(1, 15)), int(rng.integers(1, 15)), channels)
    images = rng.integers(0, 256, (_SAMPLES, *shape), dtype=np.uint8)
    limits = rng.integers(60, 200, channels).astype(np.int32)
    bits = Threshold("bits", INPUT, limits, np.full(channels, GE, dtype=np.uint8))
    image = TensorSpec(shape, "u8", 0, 255)
    nodes: list[Node] = [bits, _conv(rng, {INPUT: image, "bits": infer_node(bits, {INPUT: image})})]
    tail = str(rng.choice(["threshold", "threshold", "relu", "sums"]))
    if tail == "threshold":
        nodes.append(threshold(rng, "sign", "conv", _value(nodes, "conv", images)))
    elif tail == "relu":
        nodes.append(Relu("relu", "conv"))
    graph = Graph(f"bits{seed}", shape, (*nodes, _end(nodes, images)))
    infer(graph)
    return graph
