"""From a graph to what is emitted: kernels, constants, and a static arena.

A plan has one :class:`Step` for each convolution or dense layer; what follows
a convolution (threshold or ReLU) is part of its step.  All memory is placed
here, so that flash and RAM are known before anything is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.arena import Buffer, Request, place
from bnnmcu.errors import GraphError, UnsupportedModelError
from bnnmcu.graph import (
    ALWAYS,
    GE,
    INPUT,
    INT32_MAX,
    LE,
    NEVER,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
    TensorSpec,
    Threshold,
    infer,
)
from bnnmcu.packing import pack_bits, pack_planes, words_for

__all__ = ["Constant", "Plan", "Step", "make_plan"]

Array = npt.NDArray[Any]
_C_TYPES = {"uint32": "uint32_t", "int32": "int32_t", "int16": "int16_t"}
_MAX_LAYERS = 255


@dataclass(frozen=True, eq=False)
class Constant:
    """A table in flash: its role in the kernel and its contents, one-dimensional."""

    role: str
    data: Array

    @property
    def c_type(self) -> str:
        """For instance ``uint32_t``."""
        return _C_TYPES[self.data.dtype.name]


@dataclass(frozen=True, eq=False)
class Step:
    """One layer as it runs.

    Attributes:
        name: the convolution's or dense layer's name in the graph.
        kernel: the C function.
        macs: multiply-accumulates of one inference.
        constants: tables in flash.
        source: buffer it reads, or None for the image.
        result, scratch: buffers it writes.
        shape: fields of ``bnn_shape_t``, or None for a dense layer.
        sampled_words: words of weights drawn for each inference.
        planes: k, if its weights are drawn, else 0.
        relu: whether sums are cut off at zero.
    """

    name: str
    kernel: str
    macs: int
    constants: tuple[Constant, ...]
    source: Buffer | None
    result: Buffer
    scratch: Buffer | None
    shape: dict[str, int] | None
    sampled_words: int
    planes: int
    relu: bool
    inputs: int
    outputs: int

    @property
    def flash_bytes(self) -> int:
        """Bytes of its tables."""
        return sum(constant.data.nbytes for constant in self.constants)

    @property
    def ram_bytes(self) -> int:
        """Bytes of the arena that are in use while it runs."""
        buffers = (self.source, self.result, self.scratch)
        return 4 * sum(buffer.words for buffer in buffers if buffer is not None)

    def constant(self, role: str) -> Constant | None:
        """The table of that role, if there is one."""
        return next((c for c in self.constants if c.role == role), None)


@dataclass(frozen=True, eq=False)
class Plan:
    """A whole network, placed.

    Attributes:
        graph: what it was made from.
        steps: in the order in which they run.
        arena_words: size of the arena in 32-bit words.
        logit_bytes: 4 or 8; the width that holds every logit.
    """

    graph: Graph
    steps: tuple[Step, ...]
    arena_words: int
    logit_bytes: int

    @property
    def flash_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(step.flash_bytes for step in self.steps)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(step.macs for step in self.steps)

    @property
    def first_drawn(self) -> int:
        """Index of the first step whose weights are drawn; the number of steps without any."""
        drawn = (i for i, step in enumerate(self.steps) if step.planes)
        return next(drawn, len(self.steps))

    @property
    def planes(self) -> int:
        """k of the stochastic layers, 0 without any."""
        return max(step.planes for step in self.steps)


@dataclass(frozen=True, eq=False)
class _Group:
    """A convolution or dense layer with what directly follows it."""

    head: Node
    tail: Node | None

    @property
    def last(self) -> Node:
        return self.tail if self.tail is not None else self.head


def _group(graph: Graph) -> list[_Group]:
    """Split a chain of nodes into groups that one kernel computes each."""
    groups: list[_Group] = []
    previous = INPUT
    for node in graph.nodes:
        if node.source != previous:
            raise UnsupportedModelError(
                f"takes {node.source!r}, not the layer before it; branches are not supported",
                where=node.name,
            )
        previous = node.name
        if groups and isinstance(groups[-1].head, Dense):
            # Logits are stored in two words each, which no kernel takes as input.
            raise UnsupportedModelError(
                "only the last layer can be dense with logits as its output",
                where=groups[-1].head.name,
            )
        if isinstance(node, (Conv, Dense)):
            groups.append(_Group(node, None))
        elif groups and isinstance(groups[-1].head, Conv) and groups[-1].tail is None:
            groups[-1] = _Group(groups[-1].head, node)
        else:
            raise UnsupportedModelError(
                f"{type(node).__name__} can only follow a convolution directly",
                where=node.name,
                hint="fold it into the threshold before it",
            )
    if len(groups) > _MAX_LAYERS:
        raise UnsupportedModelError(f"{len(groups)} layers; {_MAX_LAYERS} are possible")
    return groups


def _threshold_tables(node: Threshold) -> tuple[Constant, Constant]:
    """Every kind as ``(sum >= threshold) XOR flip``, which is what the kernels compute."""
    value = node.value.astype(np.int64)
    lowest = -INT32_MAX - 1
    # sum <= v is not (sum >= v + 1); with the largest int32 as v it is always true.
    top = (node.kind == LE) & (value == INT32_MAX)
    threshold = np.select(
        [top, node.kind == GE, node.kind == LE], [lowest, value, value + 1], default=lowest
    )
    flip = ((node.kind == LE) & ~top) | (node.kind == NEVER)
    assert not np.any(flip & (node.kind == ALWAYS))
    return (
        Constant("threshold", threshold.astype(np.int32)),
        Constant("flip", pack_bits(flip.astype(np.uint8))),
    )


def _weights(node: Conv) -> Constant:
    if isinstance(node, IntegerConv):
        return Constant("weights", node.weights.reshape(-1))
    if isinstance(node, StochasticConv):
        return Constant("weights", pack_planes(node.weights, node.planes).reshape(-1))
    return Constant("weights", pack_bits(node.weights).reshape(-1))


def _result_words(spec: TensorSpec) -> int:
    height, width, channels = spec.shape
    return height * width * (words_for(channels) if spec.kind == "bit" else channels)


def _scratch_words(node: Conv, out: TensorSpec) -> int:
    """What a kernel of ``bnn_kernels.h`` needs besides its input and output."""
    kh, kw, inputs = (int(n) for n in node.weights.shape[1:])
    if isinstance(node, IntegerConv):
        return -(-kh * kw * inputs // 4)
    window = kh * kw * words_for(inputs)
    if isinstance(node, StochasticConv):
        return window * (out.shape[0] * out.shape[1] + 1)
    return window


def _kernel(node: Node, logit_bytes: int) -> str:
    if isinstance(node, IntegerConv):
        return "bnn_conv_pixels"
    if isinstance(node, StochasticConv):
        return "bnn_conv_drawn"
    if isinstance(node, Conv):
        return "bnn_conv_bits"
    return "bnn_dense_i32" if logit_bytes == 4 else "bnn_dense_i64"


def _shape_fields(node: Conv, source: TensorSpec, out: TensorSpec) -> dict[str, int]:
    _, kh, kw, _ = node.weights.shape
    (in_h, in_w, in_c), (out_h, out_w, out_c) = source.shape, out.shape
    fields = {
        "in_h": in_h,
        "in_w": in_w,
        "in_c": in_c,
        "out_h": out_h,
        "out_w": out_w,
        "out_c": out_c,
        "kernel_h": kh,
        "kernel_w": kw,
        "stride_y": node.stride[0],
        "stride_x": node.stride[1],
        "pad_y": node.padding[0],
        "pad_x": node.padding[1],
    }
    for field, value in fields.items():
        if value > 65_535:
            raise GraphError(f"{field} is {value}, more than 65,535", where=node.name)
    return fields


def make_plan(graph: Graph) -> Plan:
    """Choose kernels and place all memory.

    Raises:
        UnsupportedModelError: the graph is no chain of layers that kernels exist for.
    """
    specs = infer(graph)
    groups = _group(graph)
    logits = specs[graph.nodes[-1].name]
    logit_bytes = 4 if max(-logits.low, logits.high) <= INT32_MAX else 8

    # What goes into the first drawn layer is kept, so that the same image can be
    # answered for another seed without running the layers before it again.
    kept = next((i - 1 for i, g in enumerate(groups) if isinstance(g.head, StochasticConv)), -1)
    requests: list[Request] = []
    for i, group in enumerate(groups):
        out = specs[group.last.name]
        last = len(groups) if i == kept else i + 1
        # The logits stay readable after the last layer; two words each.
        words = 2 * out.size if isinstance(group.head, Dense) else _result_words(out)
        requests.append(Request(group.head.name, words, i, last))
        if isinstance(group.head, Conv):
            scratch = _scratch_words(group.head, out)
            # A colon, since no layer's name can hold one: "conv1.scratch" could be a layer.
            requests.append(Request(f"{group.head.name}:scratch", scratch, i, i))
    buffers, arena_words = place(requests)

    steps = []
    for i, group in enumerate(groups):
        head, source = group.head, specs[group.head.source]
        out = specs[group.last.name]
        constants: tuple[Constant, ...]
        if isinstance(head, Conv):
            constants = (_weights(head),)
            if isinstance(group.tail, Threshold):
                constants += _threshold_tables(group.tail)
            macs, inputs = head.macs(source.shape), 0
        else:
            assert isinstance(head, Dense)
            constants = (Constant("weights", head.weights.reshape(-1)),)
            macs, inputs = int(head.weights.size), int(head.weights.shape[1])
        drawn = isinstance(head, StochasticConv)
        planes = head.planes if isinstance(head, StochasticConv) else 0
        steps.append(
            Step(
                name=head.name,
                kernel=_kernel(head, logit_bytes),
                macs=macs,
                constants=constants,
                source=None if i == 0 else buffers[groups[i - 1].head.name],
                result=buffers[head.name],
                scratch=buffers.get(f"{head.name}:scratch"),
                shape=_shape_fields(head, source, out) if isinstance(head, Conv) else None,
                sampled_words=constants[0].data.size // planes if drawn else 0,
                planes=planes,
                relu=isinstance(group.tail, Relu),
                inputs=inputs,
                outputs=out.shape[2],
            )
        )
    k = {step.planes for step in steps if step.planes}
    if len(k) > 1:
        raise UnsupportedModelError(f"stochastic layers with different bit-planes: {sorted(k)}")
    return Plan(graph, tuple(steps), arena_words, logit_bytes)
