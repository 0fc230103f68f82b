"""One node of an ONNX graph, with checked attributes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnnmcu.errors import ModelFileError, UnsupportedModelError
from bnnmcu.frontend.qonnx.tensors import Array, array, plain

__all__ = ["QONNX", "Node", "read_node"]

#: Operator sets that define BipolarQuant and Quant; the second is what older Brevitas called it.
QONNX = ("qonnx.custom_op.general", "onnx.brevitas")
_STANDARD = ("", "ai.onnx")
# Nodes that stand for a module of the user's: the module's name alone names them.
_MODULES = (
    "Conv", "Gemm", "MatMul", "BatchNormalization", "BipolarQuant", "Quant", "IntQuant", "PRelu",
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
)  # fmt: skip
# Parts of Brevitas' own that lie between a module and the node it exports.
_INTERNAL = {"act_quant", "weight_quant", "bias_quant", "input_quant", "output_quant",
             "export_handler", "fused_activation_quant_proxy"}  # fmt: skip
_SCOPES = "pkg.torch.onnx.name_scopes"

_Plain = int | float | str | list[int] | list[float]


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of the file.

    Attributes:
        op: the operator, e.g. ``Conv``.
        name: what its layer is called in the network: the module's qualified
            name where the file tells, plain characters only; not unique.
        where: the node as the file calls it, for errors.
        inputs: tensor names; empty where an optional input is left out.
        proto: the ``onnx.NodeProto``.
    """

    op: str
    name: str
    where: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, _Plain | Array]
    proto: Any
    _read: set[str] = field(default_factory=set)

    def unsupported(self, seen: str, hint: str) -> UnsupportedModelError:
        """The error for something sound that cannot be expressed."""
        return UnsupportedModelError(seen, where=self.where, hint=hint)

    def broken(self, what: str) -> ModelFileError:
        """The error for something that ONNX does not allow."""
        return ModelFileError(
            what, where=self.where, hint="the file is damaged or was edited: export it again"
        )

    def _get(self, name: str, kinds: tuple[type, ...]) -> Any:
        self._read.add(name)
        value = self.attributes.get(name)
        if value is not None and not isinstance(value, kinds):
            raise self.broken(f"attribute {name} is {value!r:.60}")
        return value

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self._get(name, (int,))
        return default if value is None else int(value)

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        value = self._get(name, (float,))
        return default if value is None else float(value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self._get(name, (str,))
        return default if value is None else str(value)

    def integers(self, name: str) -> tuple[Any, ...] | None:
        """A list of integers, or None if it is not given."""
        value = self._get(name, (list,))
        if value is not None and not all(type(n) is int for n in value):
            raise self.broken(f"attribute {name} is {value!r:.60}")
        return None if value is None else tuple(value)

    def tensor(self, name: str) -> Array | None:
        """A tensor attribute, or None."""
        value: Array | None = self._get(name, (np.ndarray,))
        return value

    def ignore(self, *names: str) -> None:
        """Attributes that change nothing here."""
        self._read.update(names)

    def finish(self) -> None:
        """Refuses attributes that nobody asked for: what is not understood is not guessed.

        Raises:
            UnsupportedModelError: there are some.
        """
        unknown = sorted(self.attributes.keys() - self._read)
        if unknown:
            raise self.unsupported(
                f"attribute {plain(unknown[0])} of {self.op} is not supported",
                "export with a torch.onnx operator set of at most 25: opset_version=20",
            )


def _scope(proto: Any) -> tuple[list[str], str]:
    """Qualified module name, in parts, and the last part of the node's own name."""
    for entry in proto.metadata_props:
        if entry.key == _SCOPES:
            scopes = re.findall(r"'([^']*)'", entry.value)
            if len(scopes) >= 2:
                return scopes[-2].split(".") if scopes[-2] else [], scopes[-1]
    parts = [part for part in proto.name.split("/") if part]
    modules: list[str] = []
    before = ""
    for part in parts[:-1]:
        # torch writes layers.0 below layers, and conv below block.
        short = part[len(before) + 1 :] if before and part.startswith(before + ".") else part
        modules += short.split(".")
        before = part
    return modules, parts[-1] if parts else ""


def _layer_name(proto: Any, index: int) -> str:
    modules, last = _scope(proto)
    while modules and modules[-1] in _INTERNAL:
        modules.pop()
    if proto.op_type not in _MODULES or not modules:
        modules = [*modules, last or f"{proto.op_type}_{index}"]
    name = re.sub(r"[^A-Za-z0-9_.:-]", "_", ".".join(modules))[:150]
    return name if re.match(r"[A-Za-z0-9_]", name) else f"_{name}"


def _attribute(proto: Any, where: str) -> _Plain | Array:
    if proto.ref_attr_name:
        raise ModelFileError("an attribute refers to a function's", where=where)
    kind = proto.type
    if kind == 1:
        return float(proto.f)
    if kind == 2:
        return int(proto.i)
    if kind == 3:
        return str(proto.s.decode("utf-8", "replace"))
    if kind == 4:
        return array(proto.t, where)
    if kind == 6:
        return [float(value) for value in proto.floats]
    if kind == 7:
        return [int(value) for value in proto.ints]
    if kind in (5, 10):
        raise UnsupportedModelError(
            "it holds a graph of its own: the network takes another way from input to input",
            where=where,
            hint="write forward without if and loops that depend on tensors, then export again",
        )
    raise UnsupportedModelError(
        f"attribute {plain(proto.name)} is of ONNX attribute type {kind}",
        where=where,
        hint="supported are numbers, lists of numbers, strings and tensors",
    )


def read_node(proto: Any, index: int) -> Node:
    """Check and read a NodeProto.

    Raises:
        ModelFileError, UnsupportedModelError: it cannot be read.
    """
    op = plain(proto.op_type, 60)
    where = f"{plain(proto.name) or f'node {index}'} ({op})"
    if proto.domain not in (*_STANDARD, *QONNX):
        raise UnsupportedModelError(
            f"operator set {plain(proto.domain, 60)!r} is not known; supported are ONNX's own and "
            f"{QONNX[0]}",
            where=where,
            hint="export with brevitas.export.export_qonnx or torch.onnx.export, and convert "
            "afterwards no further",
        )
    attributes: dict[str, _Plain | Array] = {}
    for attribute in proto.attribute:
        if attribute.name in attributes:
            raise ModelFileError(f"attribute {plain(attribute.name)} twice", where=where)
        attributes[attribute.name] = _attribute(attribute, where)
    # Operators of the two sets do not share names, so the set need not be kept.
    quantizers = ("BipolarQuant", "Quant", "IntQuant", "Trunc", "FloatQuant", "MultiThreshold")
    if (proto.domain in QONNX) != (op in quantizers):
        raise UnsupportedModelError(
            f"there is no {op} in operator set {plain(proto.domain, 60)!r} that is known here",
            where=where,
            hint="export with brevitas.export.export_qonnx",
        )
    return Node(
        op=op,
        name=_layer_name(proto, index),
        where=where,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        proto=proto,
    )
