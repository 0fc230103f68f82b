"""Random networks for measuring plain kernels: few layers, all kinds of them and odd shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from bnnmcu.errors import BnnmcuError
from bnnmcu.graph import (
    GE,
    INPUT,
    LE,
    Add,
    Affine,
    BinaryConv,
    Clamp,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    StochasticConv,
    SumPool,
    TensorSpec,
    Threshold,
    infer_node,
)

__all__ = ["KINDS", "random_layers"]

#: The kinds of values and what is done to them: each network is about one of these.
KINDS: dict[str, tuple[str, ...]] = {
    "u8": ("integer", "integer", "max", "sum", "affine", "threshold", "dense"),
    "int": (
        "integer",
        "max",
        "sum",
        "affine",
        "threshold",
        "clamp",
        "add",
        "dense",
        "wide",
        "logits",
    ),
    "bit": (
        *("binary",) * 6,
        *("grouped",) * 4,
        *("lanes",) * 3,
        *("drawn",) * 4,
        *("integer", "integer", "max", "sum", "affine", "dense"),
    ),
}
_MOST_MACS, _MOST_SIGNS, _MOST_VALUES, _MOST_WEIGHTS = 400_000, 4_000_000, 6_000, 24_000
_FILTERS = (1, 2, 3, 5, 8, 16, 31, 33, 40, 64)
_CHANNELS = {"u8": (1, 1, 2, 3, 4), "int": (1, 3, 8, 17, 32), "bit": (1, 5, 31, 32, 33, 64, 70)}
_KERNELS = (1, 1, 2, 3, 3, 5, 7)
_TRIES = 200


def _as_kind(name: str) -> Literal["u8", "bit", "int"]:
    return "u8" if name == "u8" else "bit" if name == "bit" else "int"


class _Layers:
    def __init__(self, seed: int, kind: str, layer: str) -> None:
        self.rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
        self.kind, self.layer = kind, layer

    def of(self, *values: int) -> int:
        """One of them."""
        return int(self.rng.choice(values))

    def signs(self, *shape: int) -> np.ndarray:
        """0 and 1."""
        return self.rng.integers(0, 2, shape, dtype=np.uint8)

    def threshold(self, name: str, source: str, channels: int, most: int) -> Threshold:
        """Some in each direction."""
        value = self.rng.integers(-most, most + 1, channels).astype(np.int32)
        return Threshold(name, source, value, self.rng.choice([GE, LE], channels).astype(np.uint8))

    def affine(self, name: str, source: str, channels: int, most: int) -> Affine:
        """From -most to most, without a shift."""
        mul = self.rng.integers(-most, most + 1, channels).astype(np.int32)
        add = self.rng.integers(-most, most + 1, channels).astype(np.int64)
        return Affine(name, source, mul, add, 0, -mul if self.of(0, 1) else None)

    def windows(self) -> dict[str, Any]:
        """Stride and padding."""
        pads = tuple(self.of(0, 0, 0, 1, 2, 3) for _ in range(4))
        return {"stride": (self.of(1, 1, 2, 3), self.of(1, 1, 2, 3)), "padding": pads}

    def conv(self, channels: int) -> Node:
        """A convolution of the wanted kind."""
        kernel = self.of(*_KERNELS), self.of(*_KERNELS)
        filters, groups = self.of(*_FILTERS), 1
        if self.layer == "grouped" or (self.layer == "integer" and self.of(0, 0, 1)):
            groups = self.of(*[n for n in range(1, channels + 1) if channels % n == 0])
            filters = groups * self.of(1, 2, 3, 9)
        if self.layer == "lanes":
            groups = filters = channels
        shape = filters, *kernel, channels // groups
        where = {**self.windows(), "dilation": (self.of(1, 1, 1, 2), self.of(1, 1, 1, 2))}
        if self.layer == "integer":
            weights = self.rng.integers(-7, 8, shape).astype(np.int16)
            return IntegerConv("layer", "before", weights, groups=groups, **where)
        if self.layer == "drawn":
            levels = self.rng.integers(0, 16, shape, dtype=np.uint8)
            return StochasticConv("layer", "before", levels, groups=groups, **where)
        return BinaryConv("layer", "before", self.signs(*shape), groups=groups, **where)

    def node(self, spec: TensorSpec) -> Node:
        """The layer that the network is about."""
        channels = spec.shape[2]
        others: dict[str, Callable[[], Node]] = {
            "max": lambda: MaxPool(
                "layer",
                "before",
                (self.of(*_KERNELS), self.of(*_KERNELS)),
                **self.windows(),
                minimum=self.signs(channels) if self.of(0, 1) else None,
            ),
            "sum": lambda: SumPool(
                "layer", "before", (self.of(*_KERNELS), self.of(*_KERNELS)), **self.windows()
            ),
            "affine": lambda: self.affine("layer", "before", channels, 9),
            "threshold": lambda: self.threshold("layer", "before", channels, 99),
            "clamp": lambda: Clamp("layer", "before", -5, 77),
            "add": lambda: Add("layer", "before", "before"),
        }
        return others[self.layer]() if self.layer in others else self.conv(channels)

    def graph(self) -> Graph:
        """One try."""
        if self.layer == "logits":
            classes = self.of(*range(2, 4_000))
            return Graph("layers", (1, 1, classes), (self.affine("before", INPUT, classes, 9),))
        shape = self.of(*range(1, 30)), self.of(*range(1, 30)), self.of(*_CHANNELS[self.kind])
        nodes: list[Node] = []
        if self.kind == "int":
            nodes.append(self.affine("before", INPUT, shape[2], 9))
        elif self.kind == "bit":
            nodes.append(self.threshold("before", INPUT, shape[2], 255))
        if self.layer not in ("dense", "wide"):
            node = self.node(TensorSpec(shape, _as_kind(self.kind), 0, 1))
            # What reads the image itself.
            if not nodes:
                node = type(node)(**{**vars(node), "source": INPUT})
            nodes.append(node)
            if isinstance(node, IntegerConv | BinaryConv | StochasticConv) and self.of(0, 1):
                nodes.append(self.threshold("tail", "layer", len(node.weights), 20))
        if not nodes:
            nodes.append(MaxPool("before", INPUT, (1, 1), (1, 1)))
        last = nodes[-1].name
        spec = self.spec(shape, nodes)
        reach = 32_767 if self.layer == "wide" else 3
        outputs = self.of(2, 3, 10) if self.layer in ("dense", "wide") else 1
        if outputs * spec.size > _MOST_WEIGHTS:
            raise ValueError("large")
        weights = self.rng.integers(-reach, reach + 1, (outputs, spec.size)).astype(np.int16)
        bias = np.full(outputs, 1 << 40) if self.layer == "wide" else None
        return Graph("layers", shape, (*nodes, Dense("dense", last, weights, bias)))

    def spec(self, shape: tuple[int, int, int], nodes: list[Node]) -> TensorSpec:
        """Of the last value so far."""
        specs: dict[str, TensorSpec] = {INPUT: TensorSpec(shape, "u8", 0, 255)}
        for node in nodes:
            specs[node.name] = infer_node(node, specs)
            if specs[node.name].size > _MOST_VALUES:
                raise ValueError("large")
            if isinstance(node, IntegerConv | BinaryConv | StochasticConv):
                macs = node.macs(specs[node.source].shape)
                most = _MOST_MACS if isinstance(node, IntegerConv) else _MOST_SIGNS
                if macs > most or node.weights.size > _MOST_WEIGHTS:
                    raise ValueError("large")
        return specs[nodes[-1].name]


def random_layers(seed: int, kind: str, layer: str) -> Graph:
    """A network about one layer, on values of one kind: both of :data:`KINDS`."""
    layers = _Layers(seed, kind, layer)
    for _ in range(_TRIES):
        try:
            return layers.graph()
        except (BnnmcuError, ValueError):
            continue
    raise AssertionError(f"no {layer} on {kind} fits")
