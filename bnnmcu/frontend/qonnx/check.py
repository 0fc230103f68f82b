"""Compares every operator, as it was understood, with ONNX's reference implementation.

One operator at a time and on the same inputs, so that a rounding cannot grow
from layer to layer, and an error names the layer that was misread.  Quantisers
are left out, since ONNX's reference does not know them, and so are layers too
large to compute quickly in numpy; what follows these is checked on random values.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnnmcu.errors import ModelFileError
from bnnmcu.frontend.qonnx.builder import Builder, Tensor, Truth, Value
from bnnmcu.frontend.qonnx.nodes import QONNX, Node
from bnnmcu.frontend.qonnx.tensors import Array
from bnnmcu.network import Conv, MaxPool, Op
from bnnmcu.network.execute import evaluate
from bnnmcu.network.ops import INPUT, AvgPool, Floats

__all__ = ["Step", "check"]

# Numbers that one operator may touch: about a tenth of a second in the reference.
_MAX_WORK = 1 << 22
# In float64; a cast in the file may round to float32 in between.
_TOLERANCE = 1e-5
_LEFT_OUT = ("Cast", "Softmax", "LogSoftmax", "Sigmoid", "Shape", "Dropout")


@dataclass(frozen=True)
class Step:
    """A node that depends on the image, what became of it, and the operations made for it."""

    node: Node
    tensor: Tensor
    ops: tuple[Op, ...]


def _work(b: Builder, op: Op) -> int:
    """Numbers that computing an operation touches."""
    shape = b.known[op.name]
    size = math.prod(shape)
    source = math.prod(b.known[op.source])
    if isinstance(op, Conv | MaxPool | AvgPool):
        kernel = op.weights.shape[2:] if isinstance(op, Conv) else op.kernel
        channels, height, width = b.known[op.source]
        padded = (height + op.padding[0] + op.padding[2]) * (width + op.padding[1] + op.padding[3])
        taps = math.prod(kernel) * (op.weights.shape[1] if isinstance(op, Conv) else 1)
        return max(channels * padded, size * taps)
    weights = getattr(op, "weights", None)
    return max(size, source, 0 if weights is None else weights.size)


def _array(tensor: Tensor, values: dict[str, Floats], batch: int) -> Array | None:
    """A tensor of the file, as the network's values give it."""
    if isinstance(tensor, Value):
        return values[tensor.op].reshape(batch, *tensor.dims) if tensor.op in values else None
    if isinstance(tensor, Truth):
        if tensor.sign is None:
            inner = values.get(tensor.value.op)
            truth = None if inner is None else inner == 0
        else:
            inner = values.get(tensor.sign)
            truth = None if inner is None else inner > 0
        return None if truth is None else (truth != tensor.flipped).reshape(batch, *tensor.dims)
    return tensor.astype(np.float64) if tensor.dtype.kind == "f" else tensor


def _reference(b: Builder, node: Node, inputs: dict[str, Array]) -> Array:
    """The node's first output by ONNX's reference implementation."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    double = helper.np_dtype_to_tensor_dtype(np.dtype(np.float64))
    arguments = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for name, array in inputs.items()
    ]
    result = helper.make_tensor_value_info(node.outputs[0], double, None)
    graph = helper.make_graph([node.proto], "node", arguments, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.file.opset)])
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        answer: Any = ReferenceEvaluator(model).run([node.outputs[0]], inputs)
    return np.asarray(answer[0])


def _values(b: Builder) -> tuple[dict[str, Floats], set[str]]:
    """Every value that is small enough, for random pixels; and which of them are made up."""
    rng = np.random.default_rng(0)
    batch = b.file.batch
    values: dict[str, Floats] = {}
    made_up: set[str] = set()
    if math.prod(b.known[INPUT]) * batch <= _MAX_WORK:
        pixels = rng.integers(0, 256, (batch, *b.known[INPUT])).astype(np.float64)
        column = (-1, 1, 1)
        values[INPUT] = pixels * b.pixel_scale.reshape(column) + b.pixel_offset.reshape(column)
    for op in b.ops:
        known = all(source in values for source in op.sources)
        if known and _work(b, op) * batch <= _MAX_WORK:
            values[op.name] = evaluate(op, values)
        elif math.prod(b.known[op.name]) * batch <= _MAX_WORK:
            values[op.name] = rng.normal(size=(batch, *b.known[op.name]))
            made_up.add(op.name)
    return values, made_up


def check(b: Builder, steps: list[Step]) -> None:
    """Compare what was understood with the reference.

    Raises:
        ModelFileError: an operator gives something else than the reference does.
    """
    values, made_up = _values(b)
    for step in steps:
        node = step.node
        if node.proto.domain in QONNX or node.op in _LEFT_OUT:
            continue
        if node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
            # The reference itself misreads it before onnx 1.23: wrong sizes with strides.
            continue
        if any(op.name in made_up for op in step.ops):
            continue
        ours = _array(step.tensor, values, b.file.batch)
        inputs = {
            name: _array(b.tensors[name], values, b.file.batch) for name in node.inputs if name
        }
        given = {name: array for name, array in inputs.items() if array is not None}
        if ours is None or len(given) != len(inputs):
            continue
        try:
            theirs = _reference(b, node, given)
        except Exception as error:  # the reference raises whatever numpy does
            raise ModelFileError(
                f"ONNX's reference implementation fails on it: {str(error)[:200]}",
                where=node.where,
                hint="export the model again, with opset_version=20",
            ) from error
        limit = _TOLERANCE * max(float(np.max(np.abs(ours), initial=0.0)), 1.0)
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=0, atol=limit):
            raise ModelFileError(
                f"it was understood to give {list(ours.shape)} values that ONNX's reference "
                f"implementation does not give ({list(theirs.shape)})",
                where=node.where,
                hint="a fault of bnnmcu or of this onnx version: please report it, with the file",
            )
