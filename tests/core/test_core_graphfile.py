"""Files and fingerprints of graphs with every operation: nothing lost, nothing taken on trust."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_dags import random_dag

from bnnmcu.errors import BnnmcuError, GraphError, ModelFileError
from bnnmcu.graph import (
    INPUT,
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
    infer,
)
from bnnmcu.graphfile import graph_sha256, load_graph, save_graph_bytes


def _bits(*shape: int) -> Any:
    return (np.arange(np.prod(shape)) % 3 % 2).astype(np.uint8).reshape(shape)


def _all_kinds() -> tuple[Node, ...]:
    """Every operation with every attribute set, on values of 8 x 8 x 2."""
    mul, add = np.array([3, -4], np.int32), np.array([5, -6], np.int64)
    same = {"padding": (1, 1, 1, 1)}
    ramp = (np.arange(36) - 17).astype(np.int16).reshape(2, 3, 3, 2)
    fill = np.array([7, 8], np.uint8)
    return (
        MaxPool("top", INPUT, (3, 3), (1, 1), (1, 1, 1, 1), minimum=np.array([0, 1], np.uint8)),
        IntegerConv("first", "top", ramp, **same, bits=9, fill=fill),
        Relu("relu", "first"),
        Affine("scale", "relu", mul, add, 2, np.array([1, 2], np.int32)),
        Clamp("clip", "scale", -500, 600),
        Add("sum", "clip", "first"),
        Threshold(
            "sign",
            "sum",
            np.array([1, -2], np.int32),
            np.array([0, 1], np.uint8),
            Surrogate(np.ones(2), np.zeros(2), True),
        ),
        BinaryConv("fixed", "sign", _bits(2, 3, 3, 2), **same),
        StochasticConv("drawn", "sign", 3 * _bits(2, 3, 3, 2), **same, planes=3),
        Add("both", "fixed", "drawn"),
        SumPool("mean", "both", (2, 2), (2, 2)),
        Dense("dense", "mean", np.ones((3, 32), np.int16), np.array([1, 2, 3], np.int64)),
    )


NODES = _all_kinds()
SHAPE = (8, 8, 2)


def _graph(nodes: tuple[Node, ...] = NODES, **more: Any) -> Graph:
    return Graph(**({"name": "all", "input_shape": SHAPE, "nodes": nodes} | more))


def _with(name: str, **changes: Any) -> Graph:
    return _graph(tuple(dataclasses.replace(n, **changes) if n.name == name else n for n in NODES))


def _bumped(name: str, attribute: str) -> Graph:
    array = getattr(next(n for n in NODES if n.name == name), attribute).copy()
    array.flat[-1] ^= 1
    return _with(name, **{attribute: array})


#: Changes that give a sound graph which may compute something else.
_DECIDING: dict[str, Callable[[], Graph]] = {
    **{
        f"{name}.{attribute}": lambda name=name, attribute=attribute: _bumped(name, attribute)
        for name, attribute in (
            *(("top", "minimum"), ("first", "weights"), ("first", "fill"), ("scale", "mul")),
            *(("scale", "add"), ("scale", "neg"), ("sign", "value"), ("sign", "kind")),
            *(("fixed", "weights"), ("drawn", "weights"), ("dense", "weights"), ("dense", "bias")),
        )
    },
    "top.kernel": lambda: _with("top", kernel=(2, 3), padding=(1, 1, 0, 1)),
    "top.padding": lambda: _with("top", kernel=(2, 3), padding=(0, 1, 1, 1)),
    "top.dilation": lambda: _with("top", kernel=(2, 3), dilation=(2, 1)),
    "top without minimum": lambda: _with("top", minimum=None),
    "top.source": lambda: _with("first", source=INPUT),
    "first.dilation": lambda: _with("first", dilation=(2, 2), padding=(2, 2, 2, 2)),
    "first.dilation across": lambda: _with("first", dilation=(1, 2), padding=(1, 2, 1, 2)),
    "first.padding": lambda: _with("first", padding=(2, 1, 0, 1)),
    "first.stride": lambda: _with("first", stride=(2, 1), padding=(8, 1, 1, 1)),
    "first.bits": lambda: _with("first", bits=10),
    "first without fill": lambda: _with("first", fill=None),
    "first.groups": lambda: _with("first", groups=2, weights=NODES[1].weights[..., :1]),  # type: ignore[attr-defined]
    "scale.shift": lambda: _with("scale", shift=3),
    "scale without neg": lambda: _with("scale", neg=None),
    "clip.low": lambda: _with("clip", low=-501),
    "clip.high": lambda: _with("clip", high=601),
    "sum.other": lambda: _with("sum", other="scale"),
    "sum the other way": lambda: _with("sum", source="first", other="clip"),
    "sign.source": lambda: _with("sign", source="first"),
    "drawn.planes": lambda: _with("drawn", planes=4),
    "drawn.groups": lambda: _with("drawn", groups=2, weights=_bits(2, 3, 3, 1)),
    "mean.kernel": lambda: _with("mean", kernel=(1, 2)),
    "mean.stride": lambda: _with("mean", stride=(3, 2), padding=(3, 0, 0, 0)),
    "mean as maximum": lambda: _graph(
        (*NODES[:-2], MaxPool("mean", "both", (2, 2), (2, 2)), NODES[-1])
    ),
    "dense without bias": lambda: _with("dense", bias=None),
    "generator": lambda: _graph(generator="taus88"),
    "a layer less": lambda: _graph(_without("relu", "first")),
    "order": lambda: _graph((*NODES[:7], NODES[8], NODES[7], *NODES[9:])),
}  # fmt: skip


def _without(gone: str, instead: str) -> tuple[Node, ...]:
    """The nodes without one of them."""
    return tuple(
        dataclasses.replace(n, source=instead) if n.source == gone else n
        for n in NODES
        if n.name != gone
    )


@pytest.mark.parametrize("case", _DECIDING)
def test_fingerprint_covers(case: str, tmp_path: Path) -> None:
    changed = _DECIDING[case]()
    assert graph_sha256(changed) != graph_sha256(_graph())
    _same_from_file(changed, tmp_path)


def test_fingerprints_all_differ() -> None:
    assert len({graph_sha256(make()) for make in _DECIDING.values()}) == len(_DECIDING)


def test_every_attribute_is_covered() -> None:
    """An attribute that is added to an operation must be written, hashed and tested."""
    hashed = {case.split(" ")[0] for case in _DECIDING}
    by_name = {type(node).__name__: node.name for node in NODES}
    skipped = {"name", "source", "surrogate"}
    # The geometry of convolutions and pools is tested once for the class that defines it.
    shared = {
        "BinaryConv": {"stride", "padding", "dilation", "groups"},
        "StochasticConv": {"stride", "padding", "dilation"},
        "SumPool": {"padding"},
        "MaxPool": {"stride"},
    }
    for node in NODES:
        kind = type(node).__name__
        fields = {field.name for field in dataclasses.fields(node)} - skipped
        for attribute in fields - shared.get(kind, set()):
            assert f"{by_name[kind]}.{attribute}" in hashed or kind == "Add", attribute


def test_fingerprint_leaves_out_defaults_and_names() -> None:
    conv = IntegerConv("c", INPUT, np.ones((1, 1, 1, 2), np.int16))
    spelled = IntegerConv(
        "c", INPUT, np.ones((1, 1, 1, 2), np.int16), (1, 1), (0, 0, 0, 0), (1, 1), 1, 14, None
    )
    end = SumPool("s", "c", (8, 8), (8, 8))
    same = graph_sha256(_graph((conv, end)))
    assert graph_sha256(_graph((spelled, end), name="other", logit_scale=2.0)) == same
    # Nothing is drawn, so the generator decides nothing.
    assert graph_sha256(_graph((conv, end), generator="lfsr113")) == same


def test_fingerprints_do_not_change_between_versions() -> None:
    """Boards and stored results carry them; a change must come with a new version of the file."""
    assert (
        graph_sha256(_graph()).hex()
        == "e44f15b81910e687a3a707e1913fd7d25e97963bfacace95ee1ea79e1243d526"
    )
    chain = (NODES[1], Dense("d", "first", np.ones((1, 128), np.int16)))
    first = dataclasses.replace(NODES[1], source=INPUT, fill=None)
    assert (
        graph_sha256(_graph((first, *chain[1:]))).hex()
        == "ca000c14f5586e35495fe69938bbb8b6012ce5c24df5de938aa9e832b9b8b941"
    )


def _same_from_file(graph: Graph, folder: Path) -> None:
    path = folder / "graph.safetensors"
    data = save_graph_bytes(graph)
    path.write_bytes(data)
    loaded = load_graph(path)
    assert save_graph_bytes(loaded) == data
    assert graph_sha256(loaded) == graph_sha256(graph)
    assert infer(loaded) == infer(graph)
    for mine, other in zip(graph.nodes, loaded.nodes, strict=True):
        assert type(mine) is type(other)
        for field in dataclasses.fields(mine):
            a, b = getattr(mine, field.name), getattr(other, field.name)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype
                assert np.array_equal(a, b)
                assert not b.flags.writeable
            elif not isinstance(a, Surrogate):
                assert a == b
                assert type(a) is type(b)


def test_files_keep_every_kind(tmp_path: Path) -> None:
    _same_from_file(_graph(), tmp_path)


def test_files_keep_random_graphs(tmp_path: Path) -> None:
    for seed in range(60):
        _same_from_file(random_dag(seed), tmp_path)


# -- files that somebody else wrote --------------------------------------------------


def _edited(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A file of the graph above with its description changed in place."""
    data = save_graph_bytes(_graph())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    graph = json.loads(header["__metadata__"]["graph"])
    change(graph)
    header["__metadata__"]["graph"] = json.dumps(graph)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + length :]


def _node(name: str, /, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    def change(graph: dict[str, Any]) -> None:
        next(node for node in graph["nodes"] if node["name"] == name).update(changes)

    return change


_HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version of truth": (lambda g: g.update(version=True), "graph of version True"),
    "version 1.0": (lambda g: g.update(version=1.0), "graph of version 1.0"),
    "layers in an object": (lambda g: g.update(nodes={"0": {}}), "the layers are no list"),
    "layer of text": (lambda g: g.update(nodes=["relu"]), "no object with a name"),
    "rectified as a list": (lambda g: g.update(rectified=["sign"]), "no object"),
    "rectified of text": (
        lambda g: g.update(rectified={"sign": "false"}), "'false', not a truth value"),
    "rectified missing": (lambda g: g.update(rectified={}), "None, not a truth value"),
    "scale of text": (lambda g: g.update(logit_scale="1"), "'1' is not a positive number"),
    "scale of truth": (lambda g: g.update(logit_scale=True), "True is not a positive"),
    "scale nan": (lambda g: g.update(logit_scale=float("nan")), "nan is not a positive"),
    "scale huge": (lambda g: g.update(logit_scale=10**400), "not a positive number"),
    "shape of floats": (lambda g: g.update(input_shape=[8.0, 8, 2]), "input shape is 8.0"),
    "shape of truth": (lambda g: g.update(input_shape=[True, 8, 2]), "input shape is True"),
    "shape of digits": (lambda g: g.update(input_shape=["8", 8, 2]), "input shape is '8'"),
    "stride of digits": (_node("first", stride=["1", "1"]), "first: stride is '1'"),
    "stride of 1.0": (_node("first", stride=[1.0, 1]), "first: stride is 1.0"),
    "stride of truth": (_node("first", stride=[True, 1]), "first: stride is True"),
    "stride none": (_node("first", stride=None), "first: stride is None"),
    "padding as an object": (_node("first", padding={}), "first: padding is {}"),
    "padding huge": (_node("first", padding=[0, 0, 0, 2**64]), "padding is 18446744073709551616"),
    "dilation 0": (_node("first", dilation=[0, 1]), "first: dilation is 0"),
    "groups of truth": (_node("first", groups=True), "first: groups is True"),
    "bits of 9.0": (_node("first", bits=9.0), "first: bits is 9.0"),
    "kernel huge": (_node("mean", kernel=[65_536, 1]), "mean: kernel is 65536"),
    "kernel of nan": (_node("mean", kernel=[float("nan"), 1]), "mean: kernel is nan"),
    "clamp to text": (_node("clip", low="x"), "clip: low is 'x'"),
    "clamp to infinity": (_node("clip", high=float("inf")), "clip: high is inf"),
    "shift of text": (_node("scale", shift="2"), "scale: shift is '2'"),
    "planes of text": (_node("drawn", planes="3"), "drawn: bit-planes is '3'"),
    "source of a number": (_node("relu", source=0), "relu: 0 is no name of a source"),
    "source of a list": (_node("relu", source=["first"]), "is no name of a source"),
    "other of a number": (_node("sum", other=1), "sum: 1 is no name of a source"),
    "weights in the description": (_node("relu", weights=[1]), "relu has no weights"),
    "kernel of a relu": (_node("relu", kernel=[1, 1]), "relu has no kernel"),
    "surrogate in the description": (_node("sign", surrogate=1), "has no surrogate"),
    "dilation of a sum pool": (_node("mean", dilation=[2, 2]), "sum_pool has no dilation"),
    "no low": (lambda g: g["nodes"][4].pop("low"), "clip: clamp lacks low"),
    "surrogate of a relu": (
        lambda g: (g["nodes"].pop(6), g["nodes"].insert(6, {
            "kind": "relu", "name": "sign", "source": "sum"})), "sign: relu has no kind, value"),
    "arrays of another layer": (_node("dense", name="last"), "last: dense lacks weights"),
    "arrays of no layer": (
        lambda g: (g["nodes"].pop(3), g["nodes"][3].update(source="relu")), "arrays of no layer"),
    "twice": (lambda g: g["nodes"].insert(3, g["nodes"][2]), "two layers of this name"),
    "a circle": (_node("relu", source="sum"), "'sum' does not come before"),
}  # fmt: skip


@pytest.mark.parametrize("case", _HOSTILE)
def test_hostile_files_are_refused(case: str, tmp_path: Path) -> None:
    change, words = _HOSTILE[case]
    path = tmp_path / "graph.safetensors"
    path.write_bytes(_edited(change))
    with pytest.raises((GraphError, ModelFileError)) as caught:
        load_graph(path)
    assert words in str(caught.value)


def _leaves(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    items = (
        list(value.items()) if isinstance(value, dict)
        else list(enumerate(value)) if isinstance(value, list) else []
    )  # fmt: skip
    return [(value, key) for key, _ in items] + [x for _, v in items for x in _leaves(v)]


_RUBBISH = (
    *(None, True, False, 0, -1, 2, 1.0, 0.5, 65_536, 2**31, 2**63, -(2**63) - 1, 10**400),
    *("", "1", "first", "input", "\0", "ü", [], [1], [1, 1], [0, 0, 0, 0], {}, {"a": 1}),
    *(float("nan"), float("inf"), [[1]], ["x"] * 4),
)


def test_files_with_rubbish_are_refused_or_sound(tmp_path: Path) -> None:
    """Whatever stands at any place of the description: an error of ours, or a checked graph."""
    rng = random.Random(3)
    path = tmp_path / "graph.safetensors"
    places = len(_leaves(json.loads(json.dumps(_header()))))
    refused = 0
    for place in range(places):
        for rubbish in rng.sample(_RUBBISH, 8):

            def change(graph: dict[str, Any], place: int = place, rubbish: Any = rubbish) -> None:
                container, key = _leaves(graph)[place]
                container[key] = rubbish

            path.write_bytes(_edited(change))
            try:
                loaded = load_graph(path)
            except BnnmcuError:
                refused += 1
            else:
                _same_from_file(loaded, tmp_path)
    assert refused > 6 * places


def _header() -> Any:
    data = save_graph_bytes(_graph())
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["graph"])


def test_files_with_flipped_bits_are_refused_or_sound(tmp_path: Path) -> None:
    rng = random.Random(4)
    path = tmp_path / "graph.safetensors"
    data = save_graph_bytes(_graph())
    for _ in range(600):
        broken = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 8])):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(broken))
        try:
            loaded = load_graph(path)
        except BnnmcuError:
            continue
        _same_from_file(loaded, tmp_path)
