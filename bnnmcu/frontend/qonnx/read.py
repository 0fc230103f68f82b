"""From a checked file to a float network: every node in order, through its handler."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bnnmcu.errors import GraphError, ModelFileError, UnsupportedModelError, UsageError
from bnnmcu.frontend.qonnx import axes, layers, pointwise
from bnnmcu.frontend.qonnx.builder import Builder, Tensor, Truth, Value, internal
from bnnmcu.frontend.qonnx.check import Step, check
from bnnmcu.frontend.qonnx.fold import fold
from bnnmcu.frontend.qonnx.nodes import Node
from bnnmcu.frontend.qonnx.parse import OnnxFile, parse
from bnnmcu.frontend.qonnx.tensors import Array, plain
from bnnmcu.network import Network, Op
from bnnmcu.network.ops import Floats

__all__ = ["read_qonnx"]

_HANDLERS = {**axes.HANDLERS, **layers.HANDLERS, **pointwise.HANDLERS}
# The largest logit stays the largest through these, so the device need not compute them.
_LAST = ("Softmax", "LogSoftmax", "Sigmoid")

_SMOOTH = "use a sign, nn.ReLU, nn.PReLU or nn.Hardtanh"
_LOGITS = "let forward return the logits, and choose the class outside the model"
_LABEL = ("ArgMax", "TopK")
_HINTS = {
    **dict.fromkeys(
        ("Sigmoid", "Tanh", "Elu", "Selu", "Gelu", "Softplus", "Softsign", "Erf", "HardSwish",
         "Mish", "Celu", "Swish", "Exp", "Log"),
        _SMOOTH,
    ),
    **dict.fromkeys(_LABEL, _LOGITS),
    **dict.fromkeys(("Softmax", "LogSoftmax"), "use it at the end only: attention does not fit"),
    **dict.fromkeys(("If", "Loop", "Scan"), "write forward without if and loops"),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "use 1-D convolutions over the signal"),
    **dict.fromkeys(
        ("Concat", "Split", "Slice", "Gather"),
        "keep one stream of channels: add branches instead of concatenating them, and use "
        "grouped convolutions instead of splitting",
    ),
    **dict.fromkeys(("Resize", "Upsample", "ConvTranspose"), "only classifiers are supported"),
    **dict.fromkeys(
        ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "LpNormalization"),
        "use nn.BatchNorm2d: its statistics are constant once it is trained",
    ),
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
         "MatMulInteger"),
        "export with brevitas.export.export_qonnx, not as QCDQ or QOps",
    ),
    "Trunc": "use nn.AvgPool2d, whose sum stays exact, instead of a truncating one",
    "FloatQuant": "quantise weights and activations to one bit, or leave them in float",
    "MultiThreshold": "export from Brevitas directly, before FINN converts the model",
    "Pow": "use a sign, nn.ReLU or a constant factor",
    "Abs": "use nn.PReLU",
}  # fmt: skip


def _pixels(
    channels: int, kind: str, mean: float | Sequence[float], std: float | Sequence[float]
) -> tuple[Floats, Floats]:
    """Scale and offset of what a pixel stands for."""
    parts = []
    for what, given in (("mean", mean), ("std", std)):
        try:
            array = np.asarray(given, dtype=np.float64).reshape(-1)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{given!r:.60} is no number", where=what) from error
        if array.size not in (1, channels) or not np.isfinite(array).all():
            raise UsageError(
                f"{array.size} numbers for {channels} input channels, or not finite", where=what
            )
        parts.append(np.broadcast_to(array, channels))
    if not np.all(parts[1]):
        raise UsageError("a standard deviation of zero", where="std")
    if kind == "uint8":
        # The model takes the pixels themselves and does its own normalisation.
        if np.any(parts[0]) or np.any(parts[1] != 1):
            raise UsageError(
                "the model takes uint8 pixels, so mean and std are in it already", where="mean, std"
            )
        return np.ones(channels), np.zeros(channels)
    return 1.0 / (255.0 * parts[1]), -parts[0] / parts[1]


def _constant(node: Node, inputs: list[Tensor | None], room: int) -> Array:
    arrays = [part for part in inputs if isinstance(part, np.ndarray)]
    result = fold(node, arrays, room) if len(arrays) == len(inputs) else None
    if result is None:
        raise node.unsupported(
            f"{node.op} of constants is not computed here",
            "fold constants when exporting: torch.onnx.export(..., do_constant_folding=True), "
            "or onnx-simplifier",
        )
    return result


def _dependent(b: Builder, node: Node) -> Tensor:
    """A node that depends on the image."""
    if node.op in _LAST and node.outputs[0] == b.file.output:
        value = b.value(node, 0)
        axis = node.integer("axis", 1 if b.file.opset < 13 else -1)
        rank = len(value.dims) + 1
        if axis % rank != 1 and value.dims[axis % rank - 1] != value.dims[0]:
            raise node.unsupported(f"{node.op} over axis {axis}", "use it over the classes: dim=1")
        return value
    if node.op not in _HANDLERS:
        raise node.unsupported(
            f"operator {node.op} is not supported",
            _HINTS.get(node.op, "docs/MODELS.md lists the operators that are"),
        )
    return _HANDLERS[node.op](b, node)


def _check_declared(b: Builder, node: Node, tensor: Tensor) -> None:
    """The file's own statement of a shape, where it makes one, must be what was understood."""
    declared = b.file.declared.get(node.outputs[0])
    if declared is None or isinstance(tensor, np.ndarray):
        return
    known = declared[1:]
    if len(known) != len(tensor.dims) or any(
        size is not None and size != n for size, n in zip(known, tensor.dims, strict=True)
    ):
        raise node.broken(
            f"the file says that it gives shape {list(declared)}, and it gives "
            f"{list(tensor.dims)} for every image"
        )


def _convert(b: Builder) -> list[Step]:
    steps = []
    # Every operator of a weight's subgraph makes a copy; a few of them are usual.
    room = 4 * b.file.size + (1 << 16)
    for node in b.file.nodes:
        inputs: list[Tensor | None] = []
        for name in node.inputs:
            if name and name not in b.tensors:
                raise node.unsupported(
                    f"it reads {plain(name)!r}, a second output of another operator",
                    "use the first output alone: pooling without indices, batch norm in eval mode",
                )
            inputs.append(b.tensors[name] if name else None)
        if not node.outputs or not node.outputs[0]:
            raise node.broken("it has no output")
        if any(isinstance(part, Value | Truth) for part in inputs):
            before = len(b.ops)
            tensor = _dependent(b, node)
            _check_declared(b, node, tensor)
            steps.append(Step(node, tensor, tuple(b.ops[before:])))
        else:
            tensor = _constant(node, inputs, room)
            room -= tensor.size
        node.finish()
        b.tensors[node.outputs[0]] = tensor
    return steps


def _needed(ops: list[Op], last: str) -> tuple[Op, ...]:
    """The operations that the last one depends on: a - b + b leaves some over."""
    wanted = {last}
    kept = []
    for op in reversed(ops):
        if op.name in wanted:
            wanted.update(op.sources)
            kept.append(op)
    return tuple(reversed(kept))


def _network(file: OnnxFile, name: str | None, b: Builder) -> Network:
    where = str(file.path)
    steps = _convert(b)
    output = b.tensors[file.output]
    if not isinstance(output, Value):
        raise UnsupportedModelError(
            f"its output is {'boolean' if isinstance(output, Truth) else 'constant'}",
            where=where,
            hint=_LOGITS,
        )
    shape = internal(file.input_dims)
    assert shape is not None
    stem = re.sub(r"[^A-Za-z0-9_.+*-]", "_", file.path.stem)[:31] or "model"
    try:
        network = Network(
            name=stem if name is None else name,
            input_shape=shape,
            ops=_needed(b.ops, output.op),
            input_scale=b.pixel_scale,
            input_offset=b.pixel_offset,
        )
    except GraphError as error:
        raise ModelFileError(
            f"its network is unsound: {error.what}",
            where=where if error.where is None else f"{where}: {error.where}",
            hint=error.hint,
        ) from error
    check(b, steps)
    return network


def read_qonnx(
    path: Path,
    *,
    name: str | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> Network:
    """The float network of a QONNX or ONNX file.

    The image is the file's one input, of shape (N, F), (N, C, L) or
    (N, C, H, W); a pixel p, 0 to 255, stands for (p / 255 - mean) / std, or for
    itself where the input is uint8.  A Softmax, LogSoftmax or Sigmoid at the
    end is left out, since it changes no label.

    Args:
        path: the file.
        name: of the network, 1 to 31 plain characters; the file's name if None.
        mean, std: one number, or one per input channel.

    Raises:
        ModelFileError: the file is missing, damaged, refers to other files, or
            was misread (every operator is compared with ONNX's own definition).
        UnsupportedModelError: something that cannot be expressed; ``where`` is
            the node as the file calls it.
        MissingDependencyError: the package onnx is not installed.
        UsageError: mean or std do not fit.
    """
    path = Path(path)
    file = parse(path)
    scale, offset = _pixels(file.input_dims[0], file.input_type, mean, std)
    return _network(file, name, Builder(file, scale, offset))
