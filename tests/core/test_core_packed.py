"""The packed arrays of docs/SPEC.md: its vector, by its words alone and by the code."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.backend.emit import model_sources
from bnnmcu.backend.plan import KernelChoice, make_plan
from bnnmcu.graph import (
    BinaryConv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    StochasticConv,
    Threshold,
)
from bnnmcu.graphfile import graph_sha256
from bnnmcu.packing import pack_bits

_SPEC = Path(__file__).resolve().parents[2] / "docs" / "SPEC.md"
_KINDS: dict[str, type[Node]] = {
    "integer_conv": IntegerConv,
    "threshold": Threshold,
    "binary_conv": BinaryConv,
    "stochastic_conv": StochasticConv,
    "dense": Dense,
}
_INT32_MAX = 2**31 - 1


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    section = _SPEC.read_text(encoding="utf-8").partition("\n## 12. Packed arrays\n")[2]
    (block,) = re.findall(r"```json\n(.*?)\n```", section, re.DOTALL)
    found: dict[str, Any] = json.loads(block)
    return found


def _pack(bits: list[int]) -> list[int]:
    words = [0] * -(-len(bits) // 32)
    for channel, bit in enumerate(bits):
        words[channel // 32] |= bit << channel % 32
    return words


def _words(texts: list[str]) -> list[int]:
    return [int(text, 16) for text in texts]


def _rows(array: dict[str, Any]) -> list[list[int]]:
    """Its elements by the last axis, the channels."""
    data, channels = array["data"], array["shape"][-1]
    return [data[at : at + channels] for at in range(0, len(data), channels)]


def _threshold(value: int, kind: int) -> tuple[int, int]:
    if kind == 1:
        return (-(2**31), 0) if value == _INT32_MAX else (value + 1, 1)
    return (value, 0) if kind == 0 else (-(2**31), kind - 2)


def test_the_vector_is_what_the_words_say(vector: dict[str, Any]) -> None:
    arrays, packed = vector["arrays"], vector["packed"]
    for name in ("sign1", "sign2"):
        pairs = zip(arrays[f"{name}.value"]["data"], arrays[f"{name}.kind"]["data"], strict=True)
        limits, flips = zip(*(_threshold(*pair) for pair in pairs), strict=True)
        assert packed[name]["threshold"] == list(limits)
        assert _words(packed[name]["flip"]) == _pack(list(flips))
    weights = [word for row in _rows(arrays["conv2.weights"]) for word in _pack(row)]
    assert _words(packed["conv2"]["weights"]) == weights
    planes = [
        _pack([level >> j & 1 for level in row])[word]
        for row in _rows(arrays["conv3.weights"])
        for word in range(-(-len(row) // 32))
        for j in range(3)
    ]
    assert _words(packed["conv3"]["planes"]) == planes
    activation = vector["activation"]
    words = []
    for channels in activation["set"]:
        words += _pack([int(c in channels) for c in range(activation["channels"])])
    assert _words(activation["words"]) == words


def test_the_fingerprint_is_what_the_words_say(vector: dict[str, Any]) -> None:
    digest = hashlib.sha256(json.dumps(vector["description"], sort_keys=True).encode("ascii"))
    formats = {"<i2": "h", "<i4": "i", "|u1": "B"}
    for node in vector["description"]["nodes"]:
        for key in sorted(k for k in vector["arrays"] if k.startswith(node["name"] + ".")):
            array = vector["arrays"][key]
            dtype, shape, data = array["dtype"], array["shape"], array["data"]
            assert len(data) == prod(shape)
            digest.update(f"\0{key} {dtype} {tuple(shape)}\0".encode())
            digest.update(struct.pack(f"<{len(data)}{formats[dtype]}", *data))
    assert digest.hexdigest() == vector["sha256"]


def _graph(vector: dict[str, Any]) -> Graph:
    nodes = []
    for plain in vector["description"]["nodes"]:
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        kind = _KINDS[fields.pop("kind")]
        for key, array in vector["arrays"].items():
            layer, _, attribute = key.partition(".")
            if layer == plain["name"]:
                data = np.array(array["data"], dtype=array["dtype"]).reshape(array["shape"])
                fields[attribute] = data
        nodes.append(kind(**fields))
    return Graph("packed", tuple(vector["description"]["input_shape"]), tuple(nodes))


def _table(source: str, name: str) -> list[int]:
    found = re.search(rf"\b{name}\[\d+\] = \{{(.*?)\}};", source, re.DOTALL)
    assert found, name
    values = re.findall(r"-?\w+", found[1])
    return [-(2**31) if text == "INT32_MIN" else int(text.rstrip("u"), 0) for text in values]


def test_the_code_packs_like_the_vector(vector: dict[str, Any]) -> None:
    graph = _graph(vector)
    assert graph_sha256(graph).hex() == vector["sha256"]
    source = model_sources(make_plan(graph, KernelChoice("size")))["bnn_model.c"].decode()
    packed = vector["packed"]
    for layer, name in ((0, "sign1"), (1, "sign2")):
        assert _table(source, f"bnn_layer{layer}_threshold") == packed[name]["threshold"]
        assert _table(source, f"bnn_layer{layer}_flip") == _words(packed[name]["flip"])
    assert _table(source, "bnn_layer1_weights") == _words(packed["conv2"]["weights"])
    assert _table(source, "bnn_layer2_weights") == _words(packed["conv3"]["planes"])
    for layer, name in ((0, "conv1"), (3, "dense")):
        data = vector["arrays"][f"{name}.weights"]["data"]
        assert _table(source, f"bnn_layer{layer}_weights") == data
    activation = vector["activation"]
    bits = np.array(
        [[int(c in on) for c in range(activation["channels"])] for on in activation["set"]]
    )
    assert pack_bits(bits).reshape(-1).tolist() == _words(activation["words"])
