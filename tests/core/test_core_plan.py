"""Memory plan, emitted tables, graph files and fingerprints."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import random_graph

from bnnmcu.backend.arena import Request, place
from bnnmcu.backend.emit import model_sources
from bnnmcu.backend.plan import make_plan
from bnnmcu.errors import BnnmcuError, GraphError, ModelFileError, UnsupportedModelError
from bnnmcu.graph import (
    INPUT,
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
from bnnmcu.graphfile import graph_sha256, load_graph, save_graph_bytes

_REQUESTS = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 6), st.integers(0, 3)), min_size=0, max_size=12
)


@given(_REQUESTS)
def test_buffers_alive_together_are_disjoint(rows: list[tuple[int, int, int]]) -> None:
    requests = [
        Request(f"b{i}", words, first, first + length)
        for i, (words, first, length) in enumerate(rows)
    ]
    buffers, total = place(requests)
    assert buffers.keys() == {request.name for request in requests}
    assert total >= 1
    for request in requests:
        buffer = buffers[request.name]
        assert buffer.words == request.words
        assert 0 <= buffer.offset <= total - buffer.words
    for i, a in enumerate(requests):
        for b in requests[:i]:
            if a.first <= b.last and b.first <= a.last:
                x, y = buffers[a.name], buffers[b.name]
                assert x.offset + x.words <= y.offset or y.offset + y.words <= x.offset
    # No arena is smaller than what is alive at one time, nor larger than everything.
    alive = [sum(r.words for r in requests if r.first <= t <= r.last) for t in range(11)]
    assert max(1, *alive) <= total <= max(1, sum(r.words for r in requests))
    assert place(requests) == (buffers, total)


@pytest.mark.parametrize("seed", range(12))
def test_steps_do_not_overlap_and_sizes_add_up(seed: int) -> None:
    graph = random_graph(seed)
    plan = make_plan(graph)
    for step in plan.steps:
        spans = [
            (b.offset, b.offset + b.words) for b in (step.source, step.result, step.scratch) if b
        ]
        for i, a in enumerate(spans):
            assert a[1] <= plan.arena_words
            assert all(a[1] <= b[0] or b[1] <= a[0] for b in spans[:i])
        assert step.ram_bytes == 4 * sum(end - start for start, end in spans)
    assert plan.macs == sum(step.macs for step in plan.steps)
    # What the plan promises is what the C holds, counted in the text of the C.
    text = model_sources(plan)["bnn_model.c"].decode()
    width = {"uint32_t": 4, "int32_t": 4, "int16_t": 2}
    total = 0
    for kind, count, body in re.findall(
        r"static const (u?int\d+_t) bnn_layer\d+_\w+\[(\d+)\] = \{\n(.*?)\};", text, re.DOTALL
    ):
        assert body.count(",") == int(count)
        total += width[kind] * int(count)
    assert total == plan.flash_bytes > 0


def test_flash_is_what_was_packed() -> None:
    """By hand: 3 filters of 2x2x1 in int16, 5 of 1x1x3 bits, k = 4, and a 2x20 dense."""
    graph = _small()
    plan = make_plan(graph)
    assert [step.flash_bytes for step in plan.steps] == [
        3 * 4 * 2 + 3 * 4 + 4,
        5 * 1 * 4 * 4,
        2 * 20 * 2,
    ]
    assert [step.macs for step in plan.steps] == [4 * 3 * 4, 4 * 5 * 3, 40]
    # 4 positions of one word; then 20 sums; one window per position and the draw; 2 logits.
    assert [step.result.words for step in plan.steps] == [4, 20, 4]
    assert [step.scratch.words if step.scratch else 0 for step in plan.steps] == [1, 5, 0]
    assert plan.logit_bytes == 4
    assert plan.planes == 4


def _small(**changes: Any) -> Graph:
    rng = np.random.default_rng(0)
    first = rng.integers(-5, 6, (3, 2, 2, 1)).astype(np.int16)
    levels = rng.integers(0, 16, (5, 1, 1, 3)).astype(np.uint8)
    surrogate = Surrogate(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]), True)
    fields: dict[str, Any] = {
        "first": IntegerConv("first", INPUT, first, bits=8),
        "sign": Threshold(
            "sign",
            "first",
            np.array([1, -2, 3], dtype=np.int32),
            np.array([0, 1, 0], dtype=np.uint8),
            surrogate,
        ),
        "drawn": StochasticConv("drawn", "sign", levels, planes=4),
        "relu": Relu("relu", "drawn"),
        "dense": Dense("dense", "relu", rng.integers(-9, 9, (2, 20)).astype(np.int16)),
    }
    whole = {"name": "small", "input_shape": (3, 3, 1)}
    for key, value in changes.items():
        (fields if key in fields else whole)[key] = value
    return Graph(nodes=tuple(fields.values()), **whole)  # type: ignore[arg-type]


def _conv(name: str, source: str, inputs: int, kind: type[Conv], **more: Any) -> Conv:
    if kind is IntegerConv:
        return IntegerConv(name, source, np.ones((2, 1, 1, inputs), dtype=np.int16), **more)
    return kind(name, source, np.ones((2, 1, 1, inputs), dtype=np.uint8), **more)


def _sign(name: str, source: str) -> Threshold:
    return Threshold(name, source, np.zeros(2, dtype=np.int32), np.zeros(2, dtype=np.uint8))


def _dense(name: str, source: str, inputs: int = 2, outputs: int = 2) -> Dense:
    return Dense(name, source, np.ones((outputs, inputs), dtype=np.int16))


_FIRST = _conv("a", INPUT, 1, IntegerConv)
_REFUSED: dict[str, tuple[tuple[Node, ...], str]] = {
    "branch": ((_FIRST, _conv("b", INPUT, 1, IntegerConv), _dense("d", "b")), "branches"),
    "skip": ((_FIRST, Relu("r", "a"), _dense("d", "a")), "branches"),
    "two relus": ((_FIRST, Relu("r", "a"), Relu("s", "r"), _dense("d", "s")), "s: Relu"),
    "relu, threshold": ((_FIRST, Relu("r", "a"), _sign("t", "r"), *(
        (_conv("b", "t", 2, BinaryConv), _dense("d", "b")))), "t: Threshold"),
    "two dense layers": ((_FIRST, _dense("d", "a"), _dense("e", "d")), "d: "),
    "dense, threshold": (
        (_FIRST, _dense("d", "a"), _sign("t", "d"), _conv("b", "t", 2, BinaryConv),
         _dense("e", "b")), "d: "),
    "two k": (
        (_FIRST, _sign("t", "a"), _conv("b", "t", 2, StochasticConv, planes=4), _sign("u", "b"),
         _conv("c", "u", 2, StochasticConv, planes=5), _dense("d", "c")), "bit-planes"),
}  # fmt: skip


@pytest.mark.parametrize("case", _REFUSED)
def test_plan_refuses_what_no_kernel_can(case: str) -> None:
    nodes, words = _REFUSED[case]
    graph = Graph("n", (1, 1, 1), nodes)  # a sound graph: the reference can run it
    with pytest.raises(UnsupportedModelError) as caught:
        make_plan(graph)
    assert words in str(caught.value)


def test_too_many_layers_are_refused() -> None:
    nodes: list[Node] = [_FIRST]
    for i in range(255):
        nodes += [_sign(f"t{i}", nodes[-1].name), _conv(f"b{i}", f"t{i}", 2, BinaryConv)]
    with pytest.raises(UnsupportedModelError, match="257 layers"):
        make_plan(Graph("deep", (1, 1, 1), (*nodes, _dense("d", nodes[-1].name))))


def test_layer_names_cannot_take_each_others_memory() -> None:
    """A layer may be called like another one's scratch memory would be."""
    for name in ("a.scratch", "a_scratch", "scratch"):
        graph = Graph("n", (1, 1, 1), (_FIRST, _dense(name, "a")))
        first, last = make_plan(graph).steps
        assert first.scratch is not None
        assert last.result is not first.scratch
        spans = [(b.offset, b.offset + b.words) for b in (first.result, last.result)]
        assert spans[0][1] <= spans[1][0] or spans[1][1] <= spans[0][0]


def test_logits_are_as_wide_as_they_must_be() -> None:
    """16,384 * 131,070 is the largest multiple below 2^31."""
    for weight, width in ((16_384, 4), (16_385, 8)):
        # Two sums of up to 257 * 255 = 65,535.
        first = IntegerConv("a", INPUT, np.full((2, 1, 1, 1), 257, dtype=np.int16))
        weights = np.full((1, 2), weight, dtype=np.int16)
        plan = make_plan(Graph("n", (1, 1, 1), (first, Dense("d", "a", weights))))
        assert plan.logit_bytes == width
        assert plan.steps[-1].kernel == f"bnn_dense_i{8 * width}"


@pytest.mark.parametrize("seed", range(6))
def test_graph_files_keep_everything(seed: int, tmp_path: Path) -> None:
    graph = _small(logit_scale=0.125) if seed == 0 else random_graph(seed)
    data = save_graph_bytes(graph)
    path = tmp_path / "graph.safetensors"
    path.write_bytes(data)
    loaded = load_graph(path)
    assert save_graph_bytes(loaded) == data
    assert graph_sha256(loaded) == graph_sha256(graph)
    assert loaded.logit_scale == graph.logit_scale
    assert model_sources(make_plan(loaded)) == model_sources(make_plan(graph))
    if seed == 0:
        surrogate = loaded.nodes[1].surrogate  # type: ignore[attr-defined]
        assert surrogate.slope.tolist() == [1.0, 2.0, 3.0]
        assert surrogate.offset.tolist() == [0.0, 1.0, 2.0]
        assert surrogate.rectified is True


def _node(name: str) -> Any:
    return next(node for node in _small().nodes if node.name == name)


def _with(name: str, **changes: Any) -> Graph:
    return _small(**{name: dataclasses.replace(_node(name), **changes)})


def _bumped(name: str, attribute: str) -> Graph:
    array = getattr(_node(name), attribute).copy()
    array.flat[0] ^= 1
    return _with(name, **{attribute: array})


_DECIDING = {
    "first weights": lambda: _bumped("first", "weights"),
    "threshold value": lambda: _bumped("sign", "value"),
    "threshold kind": lambda: _bumped("sign", "kind"),
    "levels": lambda: _bumped("drawn", "weights"),
    "dense weights": lambda: _bumped("dense", "weights"),
    "planes": lambda: _with("drawn", planes=5),
    "kind of layer": lambda: _small(drawn=BinaryConv("drawn", "sign", _node("drawn").weights % 2)),
    "binary weights as levels": lambda: _small(
        drawn=StochasticConv("drawn", "sign", _node("drawn").weights % 2, planes=2)
    ),
    "generator": lambda: _small(generator="taus88"),
    # Strides, paddings and input shapes that give the same shapes behind them.
    "padding": lambda: _with("first", padding=(1, 1, 0, 0), stride=(2, 2)),
    "padding side": lambda: _with("first", padding=(0, 0, 1, 1), stride=(2, 2)),
    "padding alone": lambda: _small(
        input_shape=(2, 3, 1), first=dataclasses.replace(_node("first"), padding=(1, 0, 0, 0))
    ),
    "input shape": lambda: _small(input_shape=(2, 5, 1)),
    "layer name": lambda: _small(
        relu=Relu("other", "drawn"), dense=dataclasses.replace(_node("dense"), source="other")
    ),
}


@pytest.mark.parametrize("field", _DECIDING)
def test_fingerprint_covers_what_decides(field: str) -> None:
    assert graph_sha256(_DECIDING[field]()) != graph_sha256(_small())


def test_fingerprints_are_all_different() -> None:
    assert len({graph_sha256(make()) for make in _DECIDING.values()}) == len(_DECIDING)


def test_fingerprint_ignores_what_the_device_never_sees() -> None:
    same = graph_sha256(_small())
    assert len(same) == 32
    assert graph_sha256(_small(name="renamed")) == same
    assert graph_sha256(_small(logit_scale=7.0)) == same
    assert graph_sha256(_with("sign", surrogate=None)) == same
    fixed = {"drawn": BinaryConv("drawn", "sign", _node("drawn").weights % 2)}
    assert graph_sha256(_small(**fixed)) == graph_sha256(_small(**fixed, generator="lfsr113"))


def _broken(change: Any) -> bytes:
    """A graph file with its description edited."""
    data = save_graph_bytes(_small())
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    graph = json.loads(header["__metadata__"]["graph"])
    replaced = change(graph)
    text = json.dumps(graph) if replaced is None else replaced
    header["__metadata__"]["graph"] = text
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + length :]


def _set(key: str, value: Any) -> Any:
    return lambda graph: graph.update({key: value})


def _set_node(key: str, value: Any, index: int = 0) -> Any:
    return lambda graph: graph["nodes"][index].update({key: value})


_HOSTILE = {
    "not json": lambda graph: "{",
    "a list": lambda graph: "[]",
    "deep": lambda graph: "[" * 100_000,
    "other format": _set("format", "x"),
    "other version": _set("version", 2),
    "no nodes": _set("nodes", []),
    "nodes of numbers": _set("nodes", [1, 2]),
    "unknown operation": _set_node("kind", "python"),
    "operation of wrong type": _set_node("kind", ["x"]),
    "name of wrong type": _set_node("name", 5),
    "bad name": _set_node("name", "a;b"),
    "extra field": _set_node("evil", 1),
    "no source": lambda graph: graph["nodes"][0].pop("source") and None,
    "stride too short": _set_node("stride", [1]),
    "no stride": _set_node("stride", []),
    "padding too short": _set_node("padding", [0, 0]),
    "stride infinite": _set_node("stride", [float("inf"), 1]),
    "stride of words": _set_node("stride", ["x", 1]),
    "bits of words": _set_node("bits", "14"),
    "bits a fraction": _set_node("bits", 14.5),
    "planes a fraction": _set_node("planes", 4.5, 2),
    "shape of words": _set("input_shape", "abc"),
    "shape too short": _set("input_shape", [3, 3]),
    "shape huge": _set("input_shape", [10**30, 3, 1]),
    "scale not a number": _set("logit_scale", float("nan")),
    "scale of words": _set("logit_scale", "x"),
    "generator of wrong type": _set("generator", []),
    "name of graph": _set("name", "*/ int x; /*"),
    "no rectified": _set("rectified", {}),
}


@pytest.mark.parametrize("case", _HOSTILE)
def test_hostile_graph_files_are_refused(case: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    path.write_bytes(_broken(_HOSTILE[case]))
    with pytest.raises((GraphError, ModelFileError)):
        load_graph(path)


def test_damaged_graph_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    with pytest.raises(ModelFileError, match="no such file"):
        load_graph(path)
    data = save_graph_bytes(_small())
    for cut in (0, 4, 8, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(BnnmcuError):
            load_graph(path)
    path.write_bytes(_broken(lambda graph: None))
    assert graph_sha256(load_graph(path)) == graph_sha256(_small()), "the editing itself breaks it"
