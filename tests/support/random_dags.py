"""Random integer networks over every operation, with branches: what a graph may be.

A seed decides all.  Each node is tried against the rules of the graph itself:
what they refuse is thrown away and another node is tried, so that everything
they accept can occur.  The values of a few images are computed on the way;
thresholds are taken from them, so that bits are mixed and ties are common.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from random_nodes import affine, clamp, dense, integer_weights, levels, threshold, window

from bnnmcu import reference
from bnnmcu.errors import GraphError
from bnnmcu.graph import (
    INPUT,
    MAX_PLANES,
    MIN_PLANES,
    Add,
    BinaryConv,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    TensorSpec,
    infer_node,
)
from bnnmcu.lfsr import GENERATORS

__all__ = ["random_dag"]

Array = npt.NDArray[Any]
Rng = np.random.Generator

#: Bounds that keep a network quick in every executor and its tables short.
MOST_VALUES = 3_000
MOST_MACS = {"integer": 60_000, "binary": 1_000_000, "stochastic": 400_000}
MOST_WEIGHTS = {"integer": 6_000, "binary": 40_000, "stochastic": 20_000}
_SAMPLES = 4
_INPUT_CHANNELS = (1, 1, 1, 2, 3, 3, 4, 5, 8, 31, 32, 33, 70)
_CHANNELS = (1, 2, 3, 4, 5, 8, 17, 31, 32, 33, 40, 63, 64, 65, 63, 64, 65, 70)
#: How often each operation is tried on values of each kind.
_CHOICES: dict[str, dict[str, int]] = {
    "u8": {"integer": 9, "threshold": 3, "affine": 2, "max": 3, "sum": 2, "branch": 1},
    "bit": {
        "integer": 3,
        "binary": 11,
        "stochastic": 9,
        "affine": 2,
        "max": 4,
        "sum": 2,
        "branch": 2,
    },
    "int": {
        "integer": 3,
        "threshold": 13,
        "relu": 2,
        "clamp": 3,
        "affine": 3,
        "add": 4,
        "max": 3,
        "sum": 2,
        "branch": 3,
    },
}


def _name(style: int, index: int) -> str:
    """Names that a careless emitter could confuse: with each other, or with words of C."""
    if style == 0:
        return f"blk.{index // 2}" if index % 2 else f"blk_{index // 2}"
    if style == 1:
        words = ("int", "main", "bnn_model", "image", "arena", "for", "M1", "_", "A", "a", "NULL")
        return words[index] if index < len(words) else f"L{index}"
    if style == 2:
        return f"n{index}".ljust(48, "x")
    return f"n{index}"


class _Builder:
    """Grows one network."""

    def __init__(self, rng: Rng, shape: tuple[int, int, int], planes: int) -> None:
        self.rng = rng
        self.planes = planes
        self.nodes: list[Node] = []
        self.specs = {INPUT: TensorSpec(shape, "u8", 0, 255)}
        images = rng.integers(0, 256, (_SAMPLES, *shape), dtype=np.uint8)
        images[0], images[1] = 0, 255
        self.values: dict[str, Array] = {INPUT: images}
        self.style = int(rng.integers(0, 12))

    # -- what is there ---------------------------------------------------------------

    @property
    def name(self) -> str:
        """Of the next node."""
        return _name(self.style, len(self.nodes))

    @property
    def last(self) -> str:
        return self.nodes[-1].name if self.nodes else INPUT

    def some(self, *kinds: str) -> str | None:
        """A value to build on: mostly the last, or one that nothing reads yet."""
        names = [name for name, spec in self.specs.items() if spec.kind in kinds]
        if not names:
            return None
        read = {source for node in self.nodes for source in node.sources}
        unread = [name for name in names if name not in read]
        choice = self.rng.random()
        if choice < 0.55 and self.last in names:
            return self.last
        if choice < 0.85 and unread:
            return str(self.rng.choice(unread))
        return str(self.rng.choice(names))

    # -- growing ---------------------------------------------------------------------

    def add(self, node: Node | None) -> bool:
        """Append a node, if it is sound and small."""
        if node is None:
            return False
        try:
            spec = infer_node(node, self.specs)
        except GraphError:
            return False
        if spec.size > MOST_VALUES:
            return False
        if isinstance(node, (IntegerConv, BinaryConv, StochasticConv)):
            kind = "integer" if isinstance(node, IntegerConv) else "binary"
            if node.macs(self.specs[node.source].shape) > MOST_MACS[kind]:
                return False
        drawn = None
        if isinstance(node, StochasticConv):
            chance = (node.weights + (node.weights >> (node.planes - 1))) / (1 << node.planes)
            drawn = (self.rng.random((_SAMPLES, *node.weights.shape)) < chance).astype(np.uint8)
        self.nodes.append(node)
        self.specs[node.name] = spec
        self.values[node.name] = reference.evaluate(
            node, self.values, self.specs[node.source], drawn
        )
        return True

    def conv(self, kind: str, source: str, **fixed: Any) -> Node | None:
        """A convolution of random geometry; ``fixed`` overrides some of it."""
        rng, spec = self.rng, self.specs[source]
        channels = spec.shape[2]
        where = window(rng, spec.shape) | fixed
        outputs, groups = int(rng.choice(_CHANNELS)), 1
        if "outputs" in fixed:
            outputs = where.pop("outputs")
        elif channels > 1 and rng.random() < 0.3:
            divisors = [n for n in range(2, channels + 1) if channels % n == 0]
            groups = channels if rng.random() < 0.5 else int(rng.choice(divisors))
            outputs = groups * int(rng.integers(1, 4))
        kernel = where.pop("kernel")
        taps, positions = kernel[0] * kernel[1] * channels // groups, spec.size // channels
        most = min(MOST_WEIGHTS[kind] // taps, max(1, MOST_MACS[kind] // (taps * positions)))
        if outputs > most:
            if "outputs" in fixed or groups > 1 or most == 0:
                return None
            outputs = int(rng.integers(1, most + 1))
        shape = (outputs, *kernel, channels // groups)
        common: dict[str, Any] = {"name": self.name, "source": source, "groups": groups, **where}
        if kind == "stochastic":
            weights = levels(rng, shape, self.planes)
            return StochasticConv(weights=weights, planes=self.planes, **common)
        if kind == "binary":
            return BinaryConv(weights=rng.integers(0, 2, shape, dtype=np.uint8), **common)
        made = integer_weights(rng, shape, *spec.bounds)
        if made is None:
            return None
        weights, bits = made
        fill = None
        if spec.kind == "u8" and rng.random() < 0.4:
            fill = rng.integers(0, 256, channels, dtype=np.uint8)
        return IntegerConv(weights=weights, bits=bits, fill=fill, **common)

    def pool(self, kind: str, source: str) -> Node:
        rng, spec = self.rng, self.specs[source]
        where = window(rng, spec.shape, dilated=kind == "max")
        if kind == "sum":
            del where["dilation"]
            return SumPool(self.name, source, **where)
        minimum = None
        if rng.random() < 0.4:
            minimum = rng.integers(0, 2, spec.shape[2], dtype=np.uint8)
        return MaxPool(self.name, source, minimum=minimum, **where)

    def addition(self) -> Node | None:
        """Two integers of one shape; now and then a value and itself."""
        first = self.some("int")
        if first is None:
            return None
        shape = self.specs[first].shape
        others = [
            name
            for name, spec in self.specs.items()
            if spec.kind == "int" and spec.shape == shape and name != first
        ]
        if not others and self.rng.random() < 0.7:
            return None
        other = str(self.rng.choice(others)) if others else first
        pair = (first, other) if self.rng.random() < 0.5 else (other, first)
        return Add(self.name, *pair)

    def branch(self, source: str) -> bool:
        """A convolution whose output has the shape of an integer value, added to it."""
        ints = [name for name, spec in self.specs.items() if spec.kind == "int"]
        if not ints:
            return False
        target = str(self.rng.choice(ints))
        height, width, outputs = self.specs[target].shape
        kernel, stride, padding = [], [], [0, 0, 0, 0]
        dilation = (int(self.rng.integers(1, 3)), int(self.rng.integers(1, 3)))
        for axis, (size, out) in enumerate(
            zip(self.specs[source].shape[:2], (height, width), strict=True)
        ):
            side = int(self.rng.choice([1, 2, 3]))
            extent = (side - 1) * dilation[axis] + 1
            step = max(1, -(-size // out))
            # Padding that makes the outputs exactly as many as wanted.
            total = max(0, (out - 1) * step + extent - size)
            before = int(self.rng.integers(0, total + 1))
            padding[axis], padding[axis + 2] = before, total - before
            kernel.append(side)
            stride.append(step)
        kinds = ["binary", "stochastic", "integer"]
        kind = str(self.rng.choice(kinds)) if self.specs[source].kind == "bit" else "integer"
        fixed = {
            "kernel": tuple(kernel),
            "stride": tuple(stride),
            "padding": tuple(padding),
            "dilation": dilation,
            "outputs": outputs,
        }
        node = self.conv(kind, source, **fixed)
        if not self.add(node):
            return False
        assert node is not None
        return self.add(Add(self.name, target, node.name))

    def grow(self) -> bool:
        """Try one operation."""
        source = self.some("u8", "bit", "int")
        assert source is not None
        spec = self.specs[source]
        choices = _CHOICES[spec.kind]
        weights = np.array(list(choices.values())) / sum(choices.values())
        kind = str(self.rng.choice(list(choices), p=weights))
        make: dict[str, Callable[[], Node | None]] = {
            "integer": lambda: self.conv("integer", source),
            "binary": lambda: self.conv("binary", source),
            "stochastic": lambda: self.conv("stochastic", source),
            "threshold": lambda: threshold(self.rng, self.name, source, self.values[source]),
            "relu": lambda: Relu(self.name, source),
            "clamp": lambda: clamp(self.rng, self.name, source, self.values[source]),
            "affine": lambda: affine(self.rng, self.name, source, spec),
            "max": lambda: self.pool("max", source),
            "sum": lambda: self.pool("sum", source),
            "add": self.addition,
        }
        return self.branch(source) if kind == "branch" else self.add(make[kind]())

    # -- ending ----------------------------------------------------------------------

    def _global(self) -> bool:
        """One position left, by an operation over the whole image."""
        source = self.last
        spec = self.specs[source]
        height, width, _ = spec.shape
        whole = {"kernel": (height, width), "stride": (1, 1), "padding": (0, 0, 0, 0)}
        kinds = {"u8": ["sum", "conv"], "bit": ["sum", "conv"], "int": ["sum", "max", "conv"]}
        kind = str(self.rng.choice(kinds[spec.kind]))
        if kind == "sum":
            return self.add(SumPool(self.name, source, **whole))
        if kind == "max":
            return self.add(MaxPool(self.name, source, **whole))
        weights = str(self.rng.choice(["binary", "stochastic", "integer"]))
        if spec.kind != "bit":
            weights = "integer"
        return self.add(self.conv(weights, source, **whole, dilation=(1, 1)))

    def finish(self) -> None:
        """End with logits: a dense layer, or any integers at one position."""
        if self.rng.random() < 0.4 and self._ended_without_dense():
            return
        for source in (self.last, *reversed(self.specs)):
            node = dense(self.rng, self.name, source, self.specs[source], MOST_WEIGHTS["integer"])
            if self.add(node):
                return
        raise AssertionError("no dense layer fits")

    def _ended_without_dense(self) -> bool:
        spec = self.specs[self.last]
        if (spec.kind != "int" or spec.shape[:2] != (1, 1)) and not self._global():
            return False
        source, spec = self.last, self.specs[self.last]
        after = {
            "none": lambda: None,
            "relu": lambda: Relu(self.name, source),
            "clamp": lambda: clamp(self.rng, self.name, source, self.values[source]),
            "affine": lambda: affine(self.rng, self.name, source, spec),
            "add": lambda: Add(self.name, source, source),
        }
        self.add(after[str(self.rng.choice(list(after)))]())
        return True


def _without_dead(nodes: list[Node]) -> list[Node]:
    needed = {nodes[-1].name}
    for node in reversed(nodes):
        if node.name in needed:
            needed |= set(node.sources)
    return [node for node in nodes if node.name in needed]


def random_dag(seed: int) -> Graph:
    """One network; the same seed gives the same network.

    Its images have H = 1 in a quarter of the cases (signals).  All its stochastic layers
    have the same k.  Nodes that the logits do not need are mostly taken out again.
    """
    rng = np.random.default_rng([seed, 0xDA6])
    if rng.random() < 0.25:
        height, width = 1, int(rng.integers(1, 41))
    else:
        height, width = (int(n) for n in rng.integers(1, 11, 2))
    shape = (height, width, int(rng.choice(_INPUT_CHANNELS)))
    builder = _Builder(rng, shape, int(rng.integers(MIN_PLANES, MAX_PLANES + 1)))
    target = int(rng.choice([0, 1, 2, 4, 6, 8, 10, 12, 14, 16]))
    for _ in range(6 * target):
        if len(builder.nodes) >= target:
            break
        builder.grow()
    builder.finish()
    nodes = builder.nodes if rng.random() < 0.12 else _without_dead(builder.nodes)
    return Graph(
        name=f"dag{seed}",
        input_shape=shape,
        nodes=tuple(nodes),
        logit_scale=float(rng.choice([1.0, 0.25, 3e-5])),
        generator=str(rng.choice(list(GENERATORS))),
    )
