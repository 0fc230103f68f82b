"""Small ONNX files, written by hand, and ONNX's reference implementation for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402

__all__ = ["QONNX", "Model", "quant_node", "reference"]

QONNX = "qonnx.custom_op.general"


class BipolarQuant(OpRun):  # type: ignore[misc]
    """By the text of its definition: the sign, +1 at zero, times the scale."""

    op_domain = QONNX

    def _run(self, x: Any, scale: Any) -> tuple[Any]:
        return (np.where(x < 0, -scale, scale).astype(x.dtype),)


class Quant(OpRun):  # type: ignore[misc]
    """By the text of its definition, one bit apart: to the nearest level in range."""

    op_domain = QONNX

    def _run(self, x: Any, scale: Any, zero: Any, bits: Any, signed: Any = None,
             narrow: Any = None, rounding_mode: Any = None) -> tuple[Any]:  # fmt: skip
        assert rounding_mode in (None, "ROUND")
        half = 2.0 ** (float(bits) - 1)
        if signed and bits == 1:
            level = np.where(x / scale + zero >= 0, 1.0, -1.0)
        else:
            low, high = (-half, half - 1) if signed else (0, 2 * half - 1)
            if narrow:
                low, high = (low + 1, high) if signed else (low, high - 1)
            level = np.minimum(np.maximum(np.round(x / scale + zero), low), high)
        return (((level - zero) * scale).astype(x.dtype),)


class Model:
    """A graph under construction: ``m("Conv", "x", weights, pads=[...])`` adds a node.

    Arguments that are arrays become initialisers; the result is the name of the
    node's output.
    """

    def __init__(self, shape: Sequence[Any] = (1, 2, 6, 6), *, opset: int = 20) -> None:
        self.shape = list(shape)
        self.opset = opset
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.element = TensorProto.FLOAT
        self.values: list[Any] = []

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """An initialiser; a list of integers is int64."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else dtype)
        if np.asarray(value).dtype.kind == "b":
            array = np.asarray(value)
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def __call__(self, op: str, *inputs: Any, domain: str = "", outputs: int = 1,
                 name: str | None = None, **attributes: Any) -> str:  # fmt: skip
        names = [part if isinstance(part, str) else self.constant(part) for part in inputs]
        out = [f"v{len(self.nodes)}", *(f"v{len(self.nodes)}_{n}" for n in range(1, outputs))]
        called = f"/{op.lower()}{len(self.nodes)}/{op}" if name is None else name
        self.nodes.append(helper.make_node(op, names, out, called, domain=domain, **attributes))
        return out[0]

    def proto(self, output: str = "", *extra: str) -> Any:
        """The model, whose output is the last node's unless another one is named."""
        output = output or self.nodes[-1].output[0]
        image = helper.make_tensor_value_info("x", self.element, self.shape)
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in (output, *extra)
        ]
        graph = helper.make_graph(
            self.nodes, "g", [image], outputs, self.initializers, value_info=self.values
        )
        sets = [helper.make_opsetid("", self.opset), helper.make_opsetid(QONNX, 2)]
        return helper.make_model(graph, opset_imports=sets, ir_version=10)

    def save(self, folder: Path, change: Callable[[Any], Any] | None = None) -> Path:
        """Write it, after a change to the ModelProto."""
        proto = self.proto()
        if change:
            change(proto)
        path = folder / "model.onnx"
        path.write_bytes(proto.SerializeToString())
        return path


def quant_node(m: Model, x: Any, scale: Any, bits: float, **attributes: Any) -> str:
    """A Quant with zero point 0."""
    given = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"} | attributes
    zero = given.pop("zero", 0.0)
    return m("Quant", x, np.asarray(scale), np.float64(zero), np.float64(bits),
             domain=QONNX, **given)  # fmt: skip


def reference(path: Path, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The output of a file by ONNX's reference implementation, which no code here shares."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = ReferenceEvaluator(str(path), new_ops=[BipolarQuant, Quant])
        name = evaluator.input_names[0]
        return np.asarray(evaluator.run(None, {name: x})[0])
