"""Float networks in model files: a manifest of layers, and their tensors.

The manifest's ``architecture`` is ``layers`` and its ``network`` lists every
operation with its plain attributes; parameters are tensors ``NAME:ATTRIBUTE``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import GraphError, ModelFileError, UsageError
from bnnmcu.modelfile import ModelFile, write_model
from bnnmcu.network import ops as kinds
from bnnmcu.network.model import Network
from bnnmcu.network.ops import Op

__all__ = ["ARCHITECTURE", "from_model", "save_network", "to_manifest"]

ARCHITECTURE = "layers"
_KINDS: dict[str, type[Op]] = {
    "conv": kinds.Conv,
    "linear": kinds.Linear,
    "affine": kinds.Affine,
    "sign": kinds.Sign,
    "clamp": kinds.Clamp,
    "prelu": kinds.PRelu,
    "add": kinds.Add,
    "max_pool": kinds.MaxPool,
    "avg_pool": kinds.AvgPool,
    "flatten": kinds.Flatten,
    "pad": kinds.Pad,
}
#: A network on a microcontroller has some hundreds at most.
_MOST_OPS = 5_000
_ARRAYS = {"weights", "bias", "scale", "offset", "slope"}
_TUPLES = {"stride": 2, "padding": 4, "dilation": 2, "kernel": 2}
_SCALARS: dict[str, type] = {
    "name": str, "source": str, "other": str, "groups": int, "zero": int, "drawn": bool,
}  # fmt: skip

Tensors = dict[str, npt.NDArray[Any]]


def to_manifest(network: Network) -> tuple[dict[str, Any], Tensors]:
    """Manifest entries and tensors of a network."""
    names = {cls: name for name, cls in _KINDS.items()}
    described: list[dict[str, Any]] = []
    tensors: Tensors = {
        "input:scale": network.input_scale,
        "input:offset": network.input_offset,
    }
    for op in network.ops:
        plain: dict[str, Any] = {"kind": names[type(op)]}
        for field in dataclasses.fields(op):
            value = getattr(op, field.name)
            if value is None:
                continue
            if field.name in _ARRAYS:
                tensors[f"{op.name}:{field.name}"] = value
            elif isinstance(value, float) and math.isinf(value):
                # JSON has no infinity; a clamp that is open on a side is null there.
                plain[field.name] = None
            else:
                plain[field.name] = list(value) if isinstance(value, tuple) else value
        described.append(plain)
    manifest = {
        "architecture": ARCHITECTURE,
        "network": {
            "name": network.name,
            "input_shape": list(network.input_shape),
            "ops": described,
        },
    }
    return manifest, tensors


def save_network(path: Path, network: Network, training: dict[str, Any] | None = None) -> None:
    """Write a network as ``.safetensors`` or ``.pt``.

    Raises:
        ModelFileError: another suffix.
        UsageError: ``training`` is more than JSON can hold.
    """
    manifest, tensors = to_manifest(network)
    try:
        json.dumps(training)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"what to remember of the training is no plain data: {error}",
            where="training",
            hint="use dictionaries, lists, texts and numbers",
        ) from error
    write_model(path, manifest | ({"training": training} if training else {}), tensors)


def _ints(value: Any, length: int) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) != length
        or not all(type(n) is int for n in value)
    ):
        raise ValueError(f"{_shown(value)} is no list of {length} integers")
    return tuple(value)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{_shown(value)} is no number")
    return float(value)


def _shown(value: Any) -> str:
    """A value from a file in a message, however long or deep it is."""
    return reprlib.repr(value)


def _op(plain: Any, tensors: Tensors) -> Op:
    kind = _KINDS.get(plain["kind"]) if isinstance(plain["kind"], str) else None
    if kind is None:
        raise ValueError(f"unknown operation {_shown(plain['kind'])}")
    name = plain["name"]
    if not isinstance(name, str):
        raise ValueError(f"{_shown(name)} is no name")
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        key = field.name
        if key in _ARRAYS:
            if f"{name}:{key}" in tensors:
                given[key] = tensors.pop(f"{name}:{key}").astype(np.float64)
        elif key in _TUPLES and key in plain:
            given[key] = _ints(plain[key], _TUPLES[key])
        elif key in ("low", "high"):
            open_end = -math.inf if key == "low" else math.inf
            given[key] = open_end if plain[key] is None else _number(plain[key])
        elif key == "value" and key in plain:
            given[key] = _number(plain[key])
        elif key == "divisor":
            given[key] = plain.get(key)
        elif key in plain:
            if type(plain[key]) is not _SCALARS[key]:
                raise ValueError(f"{key} = {_shown(plain[key])}")
            given[key] = plain[key]
    unknown = plain.keys() - {field.name for field in dataclasses.fields(kind)} - {"kind"}
    if unknown:
        raise ValueError(f"unknown attributes {_shown(sorted(unknown))} of {_shown(name)}")
    constructor: Any = kind
    op: Op = constructor(**given)
    return op


def from_model(model: ModelFile) -> Network:
    """The network that a model file describes.

    Raises:
        ModelFileError: the description is unsound, or tensors are left over.
    """
    where = str(model.path)
    tensors = dict(model.tensors)
    try:
        described = model.manifest["network"]
        if len(described["ops"]) > _MOST_OPS:
            raise ValueError(f"{len(described['ops']):,} operations; {_MOST_OPS:,} are possible")
        network = Network(
            name=described["name"],
            input_shape=_ints(described["input_shape"], 3),  # type: ignore[arg-type]
            input_scale=tensors.pop("input:scale").astype(np.float64),
            input_offset=tensors.pop("input:offset").astype(np.float64),
            ops=tuple(_op(plain, tensors) for plain in described["ops"]),
        )
    except GraphError as error:
        raise ModelFileError(f"its network is unsound: {error}", where=where) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(
            f"its manifest describes no network: {type(error).__name__}: {error}",
            where=where,
            hint="write it with bnnmcu.save(module, example_input, path)",
        ) from error
    if tensors:
        raise ModelFileError(
            f"{len(tensors)} tensors that the network does not have: "
            f"{', '.join(sorted(tensors)[:4])}",
            where=where,
        )
    return network
