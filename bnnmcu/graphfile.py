"""Graphs on disk and their fingerprint.

A graph is stored as a ``.safetensors`` file: its arrays, and under the
metadata key ``graph`` a JSON description.  The SHA-256 of a graph covers all
that decides what a device computes and nothing else: not its name, not the
gradient surrogates, not the host's logit scale.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bnnmcu.errors import GraphError, ModelFileError
from bnnmcu.graph import (
    Add,
    Affine,
    BinaryConv,
    Clamp,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    Surrogate,
    Threshold,
)

__all__ = ["GRAPH_VERSION", "graph_sha256", "load_graph", "save_graph_bytes"]

#: Version of the description and of what the fingerprint covers.
GRAPH_VERSION = 1

Arrays = dict[str, npt.NDArray[Any]]
_KINDS: dict[str, type[Node]] = {
    "integer_conv": IntegerConv,
    "binary_conv": BinaryConv,
    "stochastic_conv": StochasticConv,
    "threshold": Threshold,
    "relu": Relu,
    "clamp": Clamp,
    "affine": Affine,
    "add": Add,
    "max_pool": MaxPool,
    "sum_pool": SumPool,
    "dense": Dense,
}
#: Plain attributes that are written only where they differ from these.
_DEFAULTS: dict[str, Any] = {"dilation": (1, 1), "groups": 1}
_PLAIN = (
    *("stride", "padding", "dilation", "groups", "bits", "planes"),
    *("kernel", "low", "high", "shift", "other"),
)
_ARRAYS = ("weights", "fill", "bias", "value", "mul", "neg", "add", "minimum")
_PAIRS = ("stride", "padding", "dilation", "kernel")


def _describe(node: Node) -> tuple[dict[str, Any], Arrays]:
    """What decides a node's output: plain values, and arrays by attribute."""
    kind = next(name for name, cls in _KINDS.items() if type(node) is cls)
    plain: dict[str, Any] = {"kind": kind, "name": node.name, "source": node.source}
    arrays: Arrays = {}
    for attribute in _PLAIN:
        value = getattr(node, attribute, None)
        if value is not None and value != _DEFAULTS.get(attribute):
            plain[attribute] = list(value) if attribute in _PAIRS else value
    for attribute in _ARRAYS:
        value = getattr(node, attribute, None)
        if value is not None:
            arrays[attribute] = value
    if isinstance(node, Threshold):
        arrays["kind"] = node.kind
    return plain, arrays


def _header(graph: Graph) -> dict[str, Any]:
    return {
        "format": "bnnmcu-graph",
        "version": GRAPH_VERSION,
        "input_shape": list(graph.input_shape),
        "generator": graph.generator if graph.stochastic else None,
        "nodes": [_describe(node)[0] for node in graph.nodes],
    }


def graph_sha256(graph: Graph) -> bytes:
    """The 32-byte fingerprint that a board shows in its HELLO."""
    digest = hashlib.sha256(json.dumps(_header(graph), sort_keys=True).encode())
    for node in graph.nodes:
        for attribute, array in sorted(_describe(node)[1].items()):
            little = array.astype(array.dtype.newbyteorder("<"))
            label = f"\0{node.name}.{attribute} {little.dtype.str} {little.shape}\0"
            digest.update(label.encode())
            digest.update(little.tobytes())
    return digest.digest()


def save_graph_bytes(graph: Graph) -> bytes:
    """The graph as the bytes of a ``.safetensors`` file; equal graphs give equal bytes."""
    import safetensors.numpy

    arrays: Arrays = {}
    header = _header(graph) | {
        "name": graph.name,
        "logit_scale": graph.logit_scale,
        "generator": graph.generator,
        "rectified": {},
    }
    for node in graph.nodes:
        for attribute, array in _describe(node)[1].items():
            arrays[f"{node.name}:{attribute}"] = array
        if isinstance(node, Threshold) and node.surrogate is not None:
            arrays[f"{node.name}:slope"] = node.surrogate.slope
            arrays[f"{node.name}:offset"] = node.surrogate.offset
            header["rectified"][node.name] = node.surrogate.rectified
    data: bytes = safetensors.numpy.save(
        arrays, metadata={"graph": json.dumps(header, sort_keys=True)}
    )
    return data


def _node(plain: Any, arrays: Arrays, rectified: Any) -> Node:
    """A node of its description; takes its arrays out of ``arrays``."""
    if not isinstance(plain, dict) or not isinstance(plain.get("name"), str):
        raise GraphError("the description of a layer is no object with a name")
    plain, where = dict(plain), plain["name"]
    kind = plain.pop("kind", None)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise GraphError(f"unknown operation {kind!r}", where=where, hint="upgrade bnnmcu")
    fields = {field.name: field for field in dataclasses.fields(_KINDS[kind])}
    prefix = f"{where}:"
    mine = {key[len(prefix) :]: arrays[key] for key in list(arrays) if key.startswith(prefix)}
    for attribute in mine:
        del arrays[prefix + attribute]
    surrogate = {key: mine.pop(key) for key in ("slope", "offset") if key in mine}
    # The kind of a threshold is an array, and named like the operation's own.
    stray = plain.keys() - (fields.keys() & {"name", "source", *_PLAIN})
    stray |= mine.keys() - (fields.keys() & {"kind", *_ARRAYS})
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    for problem, names in (("has no", stray), ("lacks", needed - plain.keys() - mine.keys())):
        if names:
            raise GraphError(f"{kind} {problem} {', '.join(sorted(names))}", where=where)
    if surrogate:
        if set(surrogate) != {"slope", "offset"} or "surrogate" not in fields:
            raise GraphError("half a surrogate, or one of no threshold", where=where)
        plain["surrogate"] = Surrogate(**surrogate, rectified=rectified.get(where))
    constructor: Any = _KINDS[kind]
    node: Node = constructor(**plain, **mine)
    return node


def _graph(header: Any, arrays: Arrays, where: str) -> Graph:
    """A graph of the header and the arrays of a file."""
    if not isinstance(header, dict) or header.get("format") != "bnnmcu-graph":
        raise ModelFileError("no graph of bnnmcu", where=where, hint="export the model again")
    version = header.get("version")
    if type(version) is not int or version != GRAPH_VERSION:
        raise ModelFileError(
            f"graph of version {version!r}; this bnnmcu reads {GRAPH_VERSION}",
            where=where,
            hint="export the model again",
        )
    if not isinstance(header["nodes"], list) or not isinstance(header["rectified"], dict):
        raise GraphError("the layers are no list, or their surrogates no object")
    graph = Graph(
        name=header["name"],
        input_shape=header["input_shape"],
        nodes=tuple(_node(plain, arrays, header["rectified"]) for plain in header["nodes"]),
        logit_scale=header["logit_scale"],
        generator=header["generator"],
    )
    if arrays:
        raise GraphError(f"arrays of no layer: {', '.join(map(repr, sorted(arrays)[:4]))}")
    return graph


def load_graph(path: Path) -> Graph:
    """Read and check a graph.

    Raises:
        ModelFileError: the file is missing, corrupt or no graph.
        GraphError: it is a graph, but breaks the contract.
    """
    import safetensors

    if not path.is_file():
        raise ModelFileError(
            "no such file", where=str(path), hint="export the model again: bnnmcu export"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as archive:
            header = json.loads((archive.metadata() or {})["graph"])
            arrays = {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118
        return _graph(header, arrays, str(path))
    except (GraphError, ModelFileError):
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        RecursionError,
        safetensors.SafetensorError,
    ) as error:
        raise ModelFileError(
            f"no sound graph file: {error}", where=str(path), hint="export the model again"
        ) from error
