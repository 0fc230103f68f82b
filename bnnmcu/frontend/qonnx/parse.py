"""From bytes to checked nodes and constants.  Nothing here knows what operators mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnmcu.errors import MissingDependencyError, ModelFileError, UnsupportedModelError
from bnnmcu.frontend.qonnx.nodes import Node, read_node
from bnnmcu.frontend.qonnx.tensors import Array, array, plain

__all__ = ["MAX_ELEMENTS", "OnnxFile", "parse"]

# No microcontroller's network is larger, and parsing takes a few times the memory.
_MAX_BYTES = 256 << 20
# Operator sets whose definitions the reader follows: broadcasting came with 7; 25 is the
# newest one that was compared operator by operator.
_MIN_OPSET, _MAX_OPSET = 7, 25
#: Half a megabyte even at one bit each: more than any microcontroller holds of one value.
MAX_ELEMENTS = 1 << 22
_MAX_BATCH = 4096
_ELEMENTS = {1: "float32", 2: "uint8", 10: "float16", 11: "float64"}


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """What the output of a file needs.

    Attributes:
        nodes: in the file's order, which is executable; only what the output depends on.
        constants: initialisers by name.
        input, output: tensor names.
        input_dims: without the batch.
        input_type: ``float32``, ``uint8``, ...
        batch: images at a time that the file was exported for; 1 if it does not say.
        opset: version of ONNX's own operator set.
        size: of the file, in bytes.
        declared: shapes that the file states for its values, batch included; None
            for a size that is not fixed.
    """

    path: Path
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    input: str
    output: str
    input_dims: tuple[int, ...]
    input_type: str
    batch: int
    opset: int
    size: int
    declared: dict[str, tuple[int | None, ...]]


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ModelFileError("no such file", where=str(path), hint="check the path")
    if path.stat().st_size > _MAX_BYTES:
        raise ModelFileError(
            f"{path.stat().st_size} bytes; ONNX files of more than {_MAX_BYTES} are not read",
            where=str(path),
        )
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingDependencyError(
            "reading an ONNX file needs the package onnx",
            where=str(path),
            hint="pip install 'bnnmcu[onnx]'",
        ) from error
    model = onnx.ModelProto()
    try:
        # Not onnx.load: it opens other files that the model names.
        model.ParseFromString(path.read_bytes())
    except (DecodeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            "not an ONNX file, or cut short", where=str(path), hint="export it again"
        ) from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelFileError(
            "there is no ONNX graph in it", where=str(path), hint="export it again"
        )
    return model


def _check_text(model: Any, path: Path) -> None:
    """Names must be text: protobuf hands out bytes where they are not."""
    graph = model.graph
    texts: list[Any] = [entry.domain for entry in model.opset_import]
    texts += [function.name for function in model.functions]
    for named in (graph.initializer, graph.input, graph.output, graph.value_info):
        texts += [entry.name for entry in named]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [part for entry in node.metadata_props for part in (entry.key, entry.value)]
        texts += [name for a in node.attribute for name in (a.name, a.ref_attr_name)]
    if not all(isinstance(text, str) for text in texts):
        raise ModelFileError(
            "a name in it is not text", where=str(path), hint="the file is damaged: export it again"
        )


def _opset(model: Any, path: Path) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        # A graph of custom operators alone; every one of its nodes will be judged by itself.
        return _MAX_OPSET
    if len(versions) > 1:
        raise ModelFileError("two versions of ONNX's operator set", where=str(path))
    if not _MIN_OPSET <= versions[0] <= _MAX_OPSET:
        raise UnsupportedModelError(
            f"operator set version {versions[0]}; {_MIN_OPSET} to {_MAX_OPSET} are supported",
            where=str(path),
            hint="export with opset_version=20",
        )
    return int(versions[0])


def _dims(value: Any) -> tuple[int | None, ...] | None:
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else None
        for dim in value.type.tensor_type.shape.dim
    )


def _only(values: list[Any], what: str, hint: str, path: Path) -> Any:
    if len(values) != 1:
        names = ", ".join(plain(value.name, 40) for value in values[:5]) or "none"
        raise UnsupportedModelError(
            f"{len(values)} {what}s ({names}); exactly one is supported", where=str(path), hint=hint
        )
    return values[0]


def _input(value: Any, path: Path) -> tuple[tuple[int, ...], str, int]:
    where = f"input {plain(value.name)}"
    dims = _dims(value)
    kind = value.type.tensor_type.elem_type
    if dims is None or not 2 <= len(dims) <= 4 or any(not n or n < 1 for n in dims[1:]):
        shown = "unknown" if dims is None else [d if d is not None else "?" for d in dims]
        raise UnsupportedModelError(
            f"its shape is {shown}; supported are (N, features), (N, channels, length) and "
            "(N, channels, height, width), all but N fixed",
            where=where,
            hint="export with an example input of the real size, and only the batch dynamic",
        )
    if kind not in _ELEMENTS:
        raise UnsupportedModelError(
            f"its elements are of ONNX type {kind}; supported are {', '.join(_ELEMENTS.values())}",
            where=where,
            hint="let the model take float pixels",
        )
    fixed = tuple(int(dim) for dim in dims[1:] if dim is not None)
    batch = dims[0] if dims[0] and dims[0] > 0 else 1
    if math.prod(fixed) > MAX_ELEMENTS or batch > _MAX_BATCH:
        raise UnsupportedModelError(
            f"its shape is {list(dims)}: {math.prod(fixed)} values for each of {batch} images",
            where=where,
            hint=f"no microcontroller holds more than {MAX_ELEMENTS} values: use a smaller image, "
            "and a batch of 1",
        )
    return fixed, _ELEMENTS[kind], batch


def _needed(protos: list[Any], known: set[str], output: str, path: Path) -> list[int]:
    """Indices of the nodes that the output depends on; checks names and order of all."""
    maker: dict[str, int] = {}
    for index, proto in enumerate(protos):
        where = f"{plain(proto.name) or f'node {index}'} ({plain(proto.op_type, 60)})"
        for name in proto.input:
            if name and name not in known and name not in maker:
                raise ModelFileError(
                    f"it reads {plain(name)!r}, which nothing before it makes: the graph has a "
                    "cycle, a gap, or is not in order",
                    where=where,
                )
        for name in proto.output:
            if name in known or name in maker:
                raise ModelFileError(f"{plain(name)!r} is made twice", where=where)
            if name:
                maker[name] = index
    if output not in maker:
        raise ModelFileError(f"no node makes the output {plain(output)!r}", where=str(path))
    wanted: set[int] = set()
    todo = [maker[output]]
    while todo:
        index = todo.pop()
        if index not in wanted:
            wanted.add(index)
            todo += [maker[name] for name in protos[index].input if name in maker]
    return sorted(wanted)


def parse(path: Path) -> OnnxFile:
    """Read a file, check its structure, and keep what its output depends on.

    Raises:
        ModelFileError: it is missing, corrupt, or refers to other files.
        UnsupportedModelError: several inputs or outputs, shapes that are not fixed,
            unknown operator sets, graphs inside nodes.
        MissingDependencyError: the package onnx is not installed.
    """
    model = _load(path)
    _check_text(model, path)
    graph = model.graph
    opset = _opset(model, path)
    if graph.sparse_initializer:
        raise UnsupportedModelError(
            "sparse initialisers", where=str(path), hint="store weights as dense tensors"
        )
    if model.functions:
        raise UnsupportedModelError(
            f"it defines operators of its own, such as {plain(model.functions[0].name)}",
            where=str(path),
            hint="inline them: onnx.inliner.inline_local_functions(model)",
        )
    protos = {tensor.name: tensor for tensor in graph.initializer}
    if len(protos) != len(graph.initializer):
        raise ModelFileError("two initialisers of one name", where=str(path))
    value = _only(
        [entry for entry in graph.input if entry.name not in protos],
        "input", "export a module whose forward takes one tensor", path,
    )  # fmt: skip
    output = _only(list(graph.output), "output", "let forward return the logits alone", path)
    dims, kind, batch = _input(value, path)
    nodes = list(graph.node)
    wanted = _needed(nodes, {value.name, *protos}, output.name, path)
    used = {name for index in wanted for name in nodes[index].input}
    declared = {entry.name: _dims(entry) for entry in [*graph.value_info, output]}
    return OnnxFile(
        path=path,
        nodes=tuple(read_node(nodes[index], index) for index in wanted),
        constants={
            name: array(tensor, f"initialiser {plain(name)}")
            for name, tensor in protos.items()
            if name in used
        },
        input=value.name,
        output=output.name,
        input_dims=dims,
        input_type=kind,
        batch=batch,
        opset=opset,
        size=path.stat().st_size,
        declared={name: shape for name, shape in declared.items() if shape is not None},
    )
