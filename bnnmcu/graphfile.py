"""Graphs on disk and their fingerprint.

A graph is stored as a ``.safetensors`` file: its arrays, and under the
metadata key ``graph`` a JSON description.  The SHA-256 of a graph covers all
that decides what a device computes and nothing else: not its name, not the
gradient surrogates, not the host's logit scale.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bnnmcu.errors import GraphError, ModelFileError
from bnnmcu.graph import (
    BinaryConv,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
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
    "dense": Dense,
}


def _describe(node: Node) -> tuple[dict[str, Any], Arrays]:
    """What decides a node's output: plain values, and arrays by attribute."""
    kind = next(name for name, cls in _KINDS.items() if type(node) is cls)
    plain: dict[str, Any] = {"kind": kind, "name": node.name, "source": node.source}
    arrays: Arrays = {}
    if isinstance(node, Conv):
        plain |= {"stride": list(node.stride), "padding": list(node.padding)}
    if isinstance(node, IntegerConv):
        plain["bits"] = node.bits
    if isinstance(node, StochasticConv):
        plain["planes"] = node.planes
    if isinstance(node, (Conv, Dense)):
        arrays["weights"] = node.weights
    if isinstance(node, Threshold):
        arrays |= {"value": node.value, "kind": node.kind}
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


def _node(plain: dict[str, Any], arrays: Arrays, rectified: dict[str, bool]) -> Node:
    plain = dict(plain)
    kind = plain.pop("kind")
    if kind not in _KINDS:
        raise GraphError(f"unknown operation {kind!r}", hint="upgrade bnnmcu")
    for key in ("stride", "padding"):
        if key in plain:
            plain[key] = tuple(int(value) for value in plain[key])
    prefix = f"{plain['name']}:"
    mine = {key[len(prefix) :]: a for key, a in arrays.items() if key.startswith(prefix)}
    slope, offset = mine.pop("slope", None), mine.pop("offset", None)
    if slope is not None and offset is not None:
        plain["surrogate"] = Surrogate(slope, offset, bool(rectified[plain["name"]]))
    constructor: Any = _KINDS[kind]
    node: Node = constructor(**plain, **mine)
    return node


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
        if header["format"] != "bnnmcu-graph" or header["version"] != GRAPH_VERSION:
            raise ModelFileError(
                f"graph of version {header['version']!r}; this bnnmcu reads {GRAPH_VERSION}",
                where=str(path),
                hint="export the model again",
            )
        return Graph(
            name=header["name"],
            input_shape=tuple(int(n) for n in header["input_shape"]),  # type: ignore[arg-type]
            nodes=tuple(_node(plain, arrays, header["rectified"]) for plain in header["nodes"]),
            logit_scale=float(header["logit_scale"]),
            generator=header["generator"],
        )
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
