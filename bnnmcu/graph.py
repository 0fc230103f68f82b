"""The integer network: the contract between the compiler, the executors and the board.

A :class:`Graph` is integer from pixel to logit, so that every executor gives
the same bits.  The rules, once and for all:

* **Input**: uint8, shape (H, W, C); pixel p stands for p / 255.
* **Bits** stand for signs: 1 is +1, 0 is -1.  sign(0) is +1.
* **Integer convolution**: int16 weights times pixels, int32 sums.  Padding
  adds nothing (pixel 0).
* **Binary convolution**: n - 2 m for n taps inside the image and m mismatches
  among them.  Padding adds nothing: a tap outside the image counts neither as
  +1 nor as -1.
* **Stochastic convolution**: as the binary one, with weights drawn once per
  forward pass; a level v of k bits means P(+1) = (v + msb(v)) / 2**k, so that
  0 and 1 are exact and one half is not a level.  See :mod:`bnnmcu.lfsr`.
* **Threshold**, per channel: bit = (sum >= value), (sum <= value), always 1 or
  always 0.  Frontends derive it from the float network in float64, at the
  integer sums themselves; a sum on which the float64 value is exactly zero
  gives 1.
* **ReLU**: max(sum, 0).
* **Dense**: int16 weights times integers, flattened in the order (H, W, C);
  int32 logits where the range analysis shows that they fit, else int64.
* **Label**: the first of the largest logits.  ``logit_scale`` turns integer
  logits into those of the float network, on the host only.

No sum can overflow: :func:`infer` bounds every value and refuses a graph that
could leave int32 (int64 for logits), naming the layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import GraphError
from bnnmcu.lfsr import GENERATORS

__all__ = [
    "ALWAYS",
    "GE",
    "INPUT",
    "LE",
    "MAX_PLANES",
    "MIN_PLANES",
    "NEVER",
    "BinaryConv",
    "Conv",
    "Dense",
    "Graph",
    "IntegerConv",
    "Node",
    "Padding",
    "Relu",
    "StochasticConv",
    "Surrogate",
    "TensorSpec",
    "Threshold",
    "infer",
]

#: Name under which nodes refer to the image.
INPUT = "input"
#: Threshold kinds.
GE, LE, ALWAYS, NEVER = 0, 1, 2, 3
#: Bit-planes a stochastic layer may have.
MIN_PLANES, MAX_PLANES = 2, 8

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,47}\Z")
_MAX_SIDE = 65_535

Array = npt.NDArray[Any]
Padding = tuple[int, int, int, int]
"""Top, left, bottom, right."""


@dataclass(frozen=True)
class TensorSpec:
    """What is known of a value before it is computed.

    Attributes:
        shape: (H, W, C).
        kind: ``u8`` pixels, ``bit`` signs, ``int`` sums.
        low, high: bounds that no input can leave (0 and 1 for bits).
    """

    shape: tuple[int, int, int]
    kind: Literal["u8", "bit", "int"]
    low: int
    high: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.shape[0] * self.shape[1] * self.shape[2]


def _frozen_array(array: Array, dtype: type[np.generic], where: str) -> Array:
    """A private, read-only, C-ordered copy."""
    if np.asarray(array).dtype != np.dtype(dtype):
        raise GraphError(f"array is {np.asarray(array).dtype}, not {np.dtype(dtype)}", where=where)
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.  ``source`` names the node whose value it takes."""

    name: str
    source: str

    def __post_init__(self) -> None:
        if not _NAME.match(self.name) or self.name == INPUT:
            raise GraphError(f"{self.name!r} is no name for a layer")


@dataclass(frozen=True, eq=False)
class Conv(Node):
    """Geometry shared by the convolutions.

    Attributes:
        weights: shape (O, KH, KW, I); the dtype is the subclass's.
        stride: (vertical, horizontal).
        padding: rows and columns of nothing around the input.
    """

    weights: Array
    stride: tuple[int, int] = (1, 1)
    padding: Padding = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.ndim != 4 or 0 in self.weights.shape:
            raise GraphError(f"weights of shape {self.weights.shape}", where=self.name)
        if len(self.stride) != 2 or len(self.padding) != 4:
            raise GraphError(f"stride {self.stride}, padding {self.padding}", where=self.name)
        _, kh, kw, _ = self.weights.shape
        top, left, bottom, right = self.padding
        if min(self.stride) < 1 or min(self.padding) < 0:
            raise GraphError(f"stride {self.stride}, padding {self.padding}", where=self.name)
        # A window that lies in the padding alone would be a constant: not a useful
        # layer, and a case that every kernel would have to mind.
        if max(top, bottom) >= kh or max(left, right) >= kw:
            raise GraphError(
                f"padding {self.padding} is not smaller than the kernel {kh}x{kw}", where=self.name
            )

    def output_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(H, W, C) out for (H, W, C) in.

        Raises:
            GraphError: the channels differ or the kernel is larger than the input.
        """
        outputs, kh, kw, inputs = self.weights.shape
        height, width, channels = shape
        if channels != inputs:
            raise GraphError(f"takes {inputs} channels, gets {channels}", where=self.name)
        top, left, bottom, right = self.padding
        rows, cols = height + top + bottom - kh, width + left + right - kw
        if rows < 0 or cols < 0:
            raise GraphError(f"kernel {kh}x{kw} on an input of {height}x{width}", where=self.name)
        return rows // self.stride[0] + 1, cols // self.stride[1] + 1, outputs

    def macs(self, shape: tuple[int, int, int]) -> int:
        """Multiply-accumulates for one input of this shape, padding taps included."""
        rows, cols, outputs = self.output_shape(shape)
        return rows * cols * outputs * int(np.prod(self.weights.shape[1:]))


@dataclass(frozen=True, eq=False)
class IntegerConv(Conv):
    """int16 weights on pixels.  ``bits``: width the weights were quantised to."""

    bits: int = 14

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", _frozen_array(self.weights, np.int16, self.name))
        if not 2 <= self.bits <= 16 or int(np.abs(self.weights.astype(np.int32)).max()) >= 1 << (
            self.bits - 1
        ):
            raise GraphError(f"weights do not fit {self.bits} bits", where=self.name)


@dataclass(frozen=True, eq=False)
class BinaryConv(Conv):
    """Weights in {0, 1} (uint8), standing for -1 and +1, on bits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", _frozen_array(self.weights, np.uint8, self.name))
        if self.weights.max() > 1:
            raise GraphError("binary weights must be 0 or 1", where=self.name)


@dataclass(frozen=True, eq=False)
class StochasticConv(Conv):
    """Levels of ``planes`` bits (uint8) from which weights are drawn, on bits."""

    planes: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", _frozen_array(self.weights, np.uint8, self.name))
        if not MIN_PLANES <= self.planes <= MAX_PLANES:
            raise GraphError(
                f"{self.planes} bit-planes; {MIN_PLANES} to {MAX_PLANES} are possible",
                where=self.name,
            )
        if int(self.weights.max()) >= 1 << self.planes:
            raise GraphError(f"levels do not fit {self.planes} bits", where=self.name)


@dataclass(frozen=True, eq=False)
class Surrogate:
    """What a threshold stood for in the float network, for gradients only.

    The float value whose sign the bit is:
    ``slope * (max(sum, 0) if rectified else sum) + offset``; float64, shape (C,).
    """

    slope: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    rectified: bool

    def __post_init__(self) -> None:
        for field in ("slope", "offset"):
            value = _frozen_array(getattr(self, field), np.float64, f"surrogate {field}")
            object.__setattr__(self, field, value)


@dataclass(frozen=True, eq=False)
class Threshold(Node):
    """Sums to bits, per channel.

    Attributes:
        value: int32, shape (C,).
        kind: uint8, shape (C,): :data:`GE`, :data:`LE`, :data:`ALWAYS`, :data:`NEVER`.
        surrogate: for differentiable twins; not part of what the device computes.
    """

    value: Array
    kind: Array
    surrogate: Surrogate | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", _frozen_array(self.value, np.int32, self.name))
        object.__setattr__(self, "kind", _frozen_array(self.kind, np.uint8, self.name))
        if self.value.ndim != 1 or self.value.shape != self.kind.shape:
            raise GraphError("value and kind must be vectors of one length", where=self.name)
        if self.kind.size and self.kind.max() > NEVER:
            raise GraphError("unknown threshold kind", where=self.name)
        if self.surrogate is not None and (
            self.surrogate.slope.shape != self.value.shape
            or self.surrogate.offset.shape != self.value.shape
        ):
            raise GraphError("surrogate of another length", where=self.name)


@dataclass(frozen=True, eq=False)
class Relu(Node):
    """max(sum, 0)."""


@dataclass(frozen=True, eq=False)
class Dense(Node):
    """int16 weights, shape (outputs, H * W * C), on integers; gives the logits."""

    weights: Array

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", _frozen_array(self.weights, np.int16, self.name))
        if self.weights.ndim != 2 or 0 in self.weights.shape:
            raise GraphError(f"weights of shape {self.weights.shape}", where=self.name)


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole network.

    Attributes:
        name: for people, e.g. ``S64``.
        input_shape: (H, W, C) of the uint8 image.
        nodes: in an order in which they can be executed; the last one is a
            :class:`Dense` and gives the logits.
        logit_scale: float logits = ``logit_scale`` * integer logits.
        generator: a key of :data:`bnnmcu.lfsr.GENERATORS`.
    """

    name: str
    input_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    logit_scale: float = 1.0
    generator: str = "xorshift128"

    def __post_init__(self) -> None:
        if not re.match(r"[A-Za-z0-9_.+*-]{1,31}\Z", self.name):
            raise GraphError(f"{self.name!r} is no name for a network (1 to 31 plain characters)")
        if self.generator not in GENERATORS:
            raise GraphError(
                f"unknown generator {self.generator!r}", hint=f"use {', '.join(GENERATORS)}"
            )
        if not (np.isfinite(self.logit_scale) and self.logit_scale > 0):
            raise GraphError(f"logit scale {self.logit_scale} is not a positive number")
        infer(self)

    @property
    def classes(self) -> int:
        """Logits."""
        last = self.nodes[-1]
        assert isinstance(last, Dense)
        return int(last.weights.shape[0])

    @property
    def stochastic(self) -> tuple[StochasticConv, ...]:
        """The layers whose weights are drawn, in the order of the draws."""
        return tuple(node for node in self.nodes if isinstance(node, StochasticConv))

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)


def _conv_range(node: Conv, source: TensorSpec) -> tuple[int, int]:
    if isinstance(node, IntegerConv):
        flat = node.weights.reshape(node.weights.shape[0], -1).astype(np.int64)
        high = source.high * int(np.where(flat > 0, flat, 0).sum(axis=1).max())
        low = source.high * int(np.where(flat < 0, flat, 0).sum(axis=1).min())
        return low, high
    taps = int(np.prod(node.weights.shape[1:]))
    return -taps, taps


def _dense_range(node: Dense, source: TensorSpec) -> tuple[int, int]:
    # Python integers: the bound itself may not fit any machine type.
    positive = np.where(node.weights > 0, node.weights, 0).astype(np.int64).sum(axis=1)
    negative = np.where(node.weights < 0, node.weights, 0).astype(np.int64).sum(axis=1)
    pairs = [(int(p), int(n)) for p, n in zip(positive, negative, strict=True)]
    high = max(p * source.high + n * source.low for p, n in pairs)
    low = min(p * source.low + n * source.high for p, n in pairs)
    return min(low, 0), max(high, 0)


def _infer_node(node: Node, source: TensorSpec) -> TensorSpec:
    def expects(kind: str) -> None:
        if source.kind != kind:
            raise GraphError(f"takes {kind} values, gets {source.kind}", where=node.name)

    if isinstance(node, Conv):
        expects("u8" if isinstance(node, IntegerConv) else "bit")
        low, high = _conv_range(node, source)
        return TensorSpec(node.output_shape(source.shape), "int", low, high)
    expects("int")
    if isinstance(node, Threshold):
        if node.value.shape != (source.shape[2],):
            raise GraphError(
                f"{node.value.size} thresholds for {source.shape[2]} channels", where=node.name
            )
        return TensorSpec(source.shape, "bit", 0, 1)
    if isinstance(node, Relu):
        return TensorSpec(source.shape, "int", 0, max(source.high, 0))
    if isinstance(node, Dense):
        if node.weights.shape[1] != source.size:
            raise GraphError(
                f"takes {node.weights.shape[1]} values, gets {source.size}", where=node.name
            )
        low, high = _dense_range(node, source)
        return TensorSpec((1, 1, int(node.weights.shape[0])), "int", low, high)
    raise GraphError(f"unknown operation {type(node).__name__}", where=node.name)


def infer(graph: Graph) -> dict[str, TensorSpec]:
    """Shape, kind and bounds of every value; checks the whole graph on the way.

    Raises:
        GraphError: the graph is not well formed, or a sum could overflow.
    """
    if len(graph.input_shape) != 3 or not all(1 <= n <= _MAX_SIDE for n in graph.input_shape):
        raise GraphError(f"input shape {graph.input_shape}")
    specs = {INPUT: TensorSpec(graph.input_shape, "u8", 0, 255)}
    for node in graph.nodes:
        if node.name in specs:
            raise GraphError("two layers of this name", where=node.name)
        if node.source not in specs:
            raise GraphError(f"its source {node.source!r} does not come before it", where=node.name)
        spec = _infer_node(node, specs[node.source])
        limit = INT64_MAX if isinstance(node, Dense) else INT32_MAX
        if max(-spec.low, spec.high) > limit:
            raise GraphError(
                f"a sum can reach {max(-spec.low, spec.high)}, more than {limit}",
                where=node.name,
                hint="use fewer bits for its weights, or a smaller kernel",
            )
        specs[node.name] = spec
    if not graph.nodes or not isinstance(graph.nodes[-1], Dense):
        raise GraphError("the last layer must be a dense layer with integer inputs")
    if specs[graph.nodes[-1].name].shape[2] > 65_535:
        raise GraphError("more than 65,535 classes")
    return specs
