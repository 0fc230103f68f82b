"""Plans: what runs in which order, what is computed together, and where everything lies."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_dags import random_dag
from random_graphs import random_graph

from bnnmcu.backend.arena import Placed, Request, place
from bnnmcu.backend.emit import model_sources
from bnnmcu.backend.plan import Plan, Step, make_plan
from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import (
    INPUT,
    Add,
    Affine,
    BinaryConv,
    Clamp,
    Conv,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    Threshold,
)

_REQUESTS = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 6), st.integers(0, 3)), min_size=0, max_size=12
)


def _apart(a: Placed, b: Placed) -> bool:
    return a.offset + a.words <= b.offset or b.offset + b.words <= a.offset


@given(_REQUESTS)
def test_buffers_alive_together_are_disjoint(rows: list[tuple[int, int, int]]) -> None:
    requests = [
        Request(f"b{i}", words, first, first + length)
        for i, (words, first, length) in enumerate(rows)
    ]
    buffers, total = place(requests)
    assert list(buffers) == [request.name for request in requests]
    assert total >= 1
    for request in requests:
        buffer = buffers[request.name]
        assert (buffer.words, buffer.first, buffer.last) == (
            request.words,
            request.first,
            request.last,
        )
        assert 0 <= buffer.offset <= total - buffer.words
    for i, a in enumerate(buffers.values()):
        for b in list(buffers.values())[:i]:
            assert _apart(a, b) or a.last < b.first or b.last < a.first
    # No arena is smaller than what is alive at one time, nor larger than everything.
    alive = [sum(r.words for r in requests if r.first <= t <= r.last) for t in range(11)]
    assert max(1, *alive) <= total <= max(1, sum(r.words for r in requests))
    assert place(requests) == (buffers, total)


_PLANS = [f"chain {i}" for i in range(12)] + [f"dag {i}" for i in range(80)]


def _plan(case: str) -> Plan:
    kind, seed = case.split()
    return make_plan(random_graph(int(seed)) if kind == "chain" else random_dag(int(seed)))


class _Memory:
    """The arena as it is while a plan runs: what wrote each word last."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.words: list[str | None] = [None] * plan.arena_words
        # The value that a node's reader wants is the result of the step that computes it.
        self.makers = {step.nodes[-1]: step for step in plan.steps if step.nodes}
        self.readers = {node.name: node for node in plan.graph.nodes}

    def holds(self, buffer: Placed, value: str) -> bool:
        return self.words[buffer.offset : buffer.offset + buffer.words] == [value] * buffer.words

    def write(self, buffer: Placed, value: str) -> None:
        self.words[buffer.offset : buffer.offset + buffer.words] = [value] * buffer.words

    def run(self, first: int) -> None:
        """Every step from first on finds its values, and no other step's."""
        for step in self.plan.steps[first:]:
            wanted = (
                self.readers[step.nodes[0]].sources
                if step.nodes
                else (self.plan.graph.nodes[-1].name,)
            )
            for name, source in zip(wanted, step.sources, strict=True):
                if source is None:
                    assert name == INPUT
                    assert first == 0, "a redraw would read the image again"
                else:
                    assert source is self.makers[name].result
                    assert self.holds(source, name), f"{step.name} finds no {name}"
            if step.scratch is not None:
                self.write(step.scratch, "scratch")
            self.write(step.result, step.nodes[-1] if step.nodes else step.name)


@pytest.mark.parametrize("case", _PLANS)
def test_every_step_finds_what_it_reads(case: str) -> None:
    """Word by word, for an inference and for two further draws of the same image."""
    plan = _plan(case)
    memory = _Memory(plan)
    memory.run(0)
    memory.run(plan.first_drawn)
    memory.run(plan.first_drawn)
    assert memory.holds(plan.steps[-1].result, (*plan.steps[-1].nodes, plan.steps[-1].name)[0])


@pytest.mark.parametrize("case", _PLANS)
def test_steps_cover_the_graph_in_a_sound_order(case: str) -> None:
    plan = _plan(case)
    graph = plan.graph
    nodes = [name for step in plan.steps for name in step.nodes]
    assert sorted(nodes) == sorted(node.name for node in graph.nodes)
    drawn = [step.name for step in plan.steps if step.planes]
    assert drawn == [node.name for node in graph.stochastic], "another order draws other weights"
    assert len({step.name for step in plan.steps}) == len(plan.steps)
    # What depends on a draw, found out anew.
    depends: set[str] = set()
    for node in graph.nodes:
        if isinstance(node, StochasticConv) or depends.intersection(node.sources):
            depends.add(node.name)
    for step in plan.steps[: plan.first_drawn]:
        assert not depends.intersection(step.nodes)
    for step in plan.steps[plan.first_drawn : -1]:
        assert depends.issuperset(step.nodes)
    assert [step.logits for step in plan.steps] == [False] * (len(plan.steps) - 1) + [True]


@pytest.mark.parametrize("case", _PLANS)
def test_memory_adds_up(case: str) -> None:
    plan = _plan(case)
    for i, a in enumerate(plan.buffers):
        assert 0 <= a.first <= a.last < len(plan.steps)
        assert a.offset + a.words <= plan.arena_words
        for b in plan.buffers[:i]:
            assert _apart(a, b) or a.last < b.first or b.last < a.first
    for i, step in enumerate(plan.steps):
        alive = [buffer for buffer in plan.buffers if buffer.alive(i)]
        assert step.ram_bytes == 4 * sum(buffer.words for buffer in alive)
        mine = {id(b) for b in (*step.sources, step.result, step.scratch) if b is not None}
        assert mine <= {id(buffer) for buffer in alive}
        assert step.scratch is None or step.scratch is not step.result
    assert plan.macs == sum(step.macs for step in plan.steps)
    # What the plan promises is what the C holds, counted in the text of the C.
    text = model_sources(plan)["bnn_model.c"].decode()
    width = {"uint32_t": 4, "int32_t": 4, "int16_t": 2, "uint8_t": 1, "int64_t": 8}
    total = 0
    for kind, count, body in re.findall(
        r"static const (u?int\d+_t) bnn_layer\d+_\w+\[(\d+)\] = \{\n(.*?)\};", text, re.DOTALL
    ):
        assert body.count(",") == int(count)
        total += width[kind] * int(count)
    assert total == plan.flash_bytes


def _ints(*values: int, dtype: Any = np.int32) -> Any:
    return np.array(values, dtype=dtype)


def _first(name: str = "a", outputs: int = 2, side: int = 1, **more: Any) -> IntegerConv:
    return IntegerConv(name, INPUT, np.ones((outputs, side, side, 1), dtype=np.int16), **more)


def _conv(kind: type[Conv], name: str, source: str, inputs: int = 2, **more: Any) -> Conv:
    return kind(name, source, np.ones((2, 1, 1, inputs), dtype=np.uint8), **more)


def _sign(name: str, source: str, value: int = 0) -> Threshold:
    return Threshold(name, source, _ints(value, value), np.zeros(2, dtype=np.uint8))


def _scale(name: str, source: str, mul: int = 3) -> Affine:
    return Affine(name, source, _ints(mul, mul), _ints(0, 0, dtype=np.int64))


def _dense(name: str, source: str, inputs: int = 2, outputs: int = 2) -> Dense:
    return Dense(name, source, np.ones((outputs, inputs), dtype=np.int16))


def _steps(*nodes: Node, shape: tuple[int, int, int] = (1, 1, 1)) -> dict[str, Step]:
    return {step.name: step for step in make_plan(Graph("n", shape, nodes)).steps}


_FUSED: dict[str, tuple[tuple[Node, ...], list[tuple[str, ...]]]] = {
    "threshold": (
        (_first(), _sign("t", "a"), _dense("d", "t")),
        [("a", "t"), ("d",)],
    ),
    "relu": ((_first(), Relu("r", "a"), _dense("d", "r")), [("a", "r"), ("d",)]),
    "two relus": (
        (_first(), Relu("r", "a"), Relu("s", "r"), _dense("d", "s")),
        [("a", "r"), ("s",), ("d",)],
    ),
    "not behind something else": (
        (_first(), Clamp("c", "a", 0, 9), _sign("t", "c"), _dense("d", "t")),
        [("a",), ("c",), ("t",), ("d",)],
    ),
    "two readers": (
        (_first(), _sign("t", "a"), Relu("r", "a"), _scale("x", "t"), Add("s", "r", "x")),
        [("a",), ("t",), ("r",), ("x",), ("s",), ()],
    ),
    "the same reader twice": ((_first(), Add("s", "a", "a")), [("a",), ("s",), ()]),
    "a conv alone": ((_first(),), [("a",), ()]),
    "a tail that comes later": (
        (_first(), _first("b"), Relu("r", "a"), Add("s", "r", "b")),
        [("a", "r"), ("b",), ("s",), ()],
    ),
    "dense on the image": ((_dense("d", INPUT, 1),), [("d",)]),
    "drawn layers last": (
        (_first(), _sign("t", "a"), _conv(StochasticConv, "b", "t"), _first("c"),
         Add("s", "b", "c"), Relu("u", "c"), Add("v", "s", "u")),
        [("a", "t"), ("c",), ("u",), ("b",), ("s",), ("v",), ()],
    ),
    "a dead drawn layer": (
        (_first(), _sign("t", "a"), _conv(StochasticConv, "b", "t"), _dense("d", "t")),
        [("a", "t"), ("b",), ("d",)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _FUSED)
def test_what_runs_together_and_when(case: str) -> None:
    nodes, expected = _FUSED[case]
    assert [step.nodes for step in _steps(*nodes).values()] == expected


_TAIL = (_sign("t", "x"), _dense("d", "t"))
# Whether the step "x" writes over its source "a".
_IN_PLACE: dict[str, tuple[tuple[Node, ...], bool]] = {
    "affine": ((_first(), _scale("x", "a"), *_TAIL), True),
    "clamp": ((_first(), Clamp("x", "a", 0, 9), *_TAIL), True),
    "relu": ((_first(), _first("b"), Add("z", "a", "b"), Relu("x", "z"), *_TAIL), True),
    "read again": (
        (_first(), _scale("x", "a"), Add("s", "x", "a"), _dense("d", "s")), False),
    "add": ((_first(), _first("b"), Add("x", "b", "a"), *_TAIL), True),
    "add to itself": ((_first(), Add("x", "a", "a"), *_TAIL), True),
    "of pixels": ((Affine("x", INPUT, _ints(3), _ints(0, dtype=np.int64)), _dense("d", "x", 1)),
                  False),
    "of bits": ((_first(), _sign("t", "a"), _scale("x", "t"), _dense("d", "x")), False),
    "max pool": ((_first(), MaxPool("x", "a", (1, 1), (1, 1)), *_TAIL), False),
    "threshold": ((_first(), Clamp("c", "a", 0, 9), _sign("x", "c"), _dense("d", "x")), False),
}  # fmt: skip


@pytest.mark.parametrize("case", _IN_PLACE)
def test_results_in_the_place_of_what_dies(case: str) -> None:
    nodes, expected = _IN_PLACE[case]
    step = _steps(*nodes)["x"]
    assert any(source is step.result for source in step.sources) is expected


def test_what_a_redraw_reads_is_not_written_over() -> None:
    """The addition reads "c" for the last time, but the next draw will read it again."""
    nodes = (_first(), _sign("t", "a"), _conv(StochasticConv, "b", "t"), _first("c"))
    steps = _steps(*nodes, Add("s", "c", "b"))
    kept = [step.result for step in steps.values() if not step.drawn and not step.logits]
    assert [buffer.last for buffer in kept] == [len(steps) - 1] * 2
    assert steps["s"].result is steps["b"].result
    alone = _steps(*nodes, Add("s", "c", "c"), Add("u", "s", "b"))
    assert alone["s"].result is alone["c"].result, "made before the first draw: may be replaced"


def test_equal_tables_are_held_once() -> None:
    nodes = [_first(), _scale("x", "a"), _scale("y", "x"), _scale("z", "y", mul=5)]
    plan = make_plan(Graph("n", (1, 1, 1), (*nodes, _dense("d", "z"))))
    x, y, z, dense = plan.steps[1:]
    # Two factors of 4 bytes and two summands of 8; the summands are zeros everywhere.
    assert [step.flash_bytes for step in (x, y, z)] == [8 + 16, 0, 8]
    assert [c.symbol for c in y.constants] == [c.symbol for c in x.constants]
    assert [c.shared for c in z.constants] == [False, True]
    # The first layer's weights are two ones, the dense layer's four.
    assert dense.flash_bytes == 8
    assert plan.flash_bytes == 4 + 24 + 8 + 8
    text = model_sources(plan)["bnn_model.c"].decode()
    assert text.count(".mul = bnn_layer1_mul") == 2
    assert "bnn_layer2_mul" not in text


_LONG = "features.denseblock1.denselayer1.conv"
_LABELS = {
    "short": (["conv1", "fc"], ["conv1", "fc"]),
    "31 bytes": (["a" * 31], ["a" * 31]),
    "the end of a long one": ([_LONG + "1"], ["~" + (_LONG + "1")[-30:]]),
    "two that end alike": (["x." + _LONG, "y." + _LONG], ["~" + _LONG[-30:], "~1~" + _LONG[-28:]]),
}


@pytest.mark.parametrize("case", _LABELS)
def test_labels_fit_the_wire(case: str) -> None:
    names, labels = _LABELS[case]
    nodes: list[Node] = []
    for name in names:
        # A clamp of a clamp of ..., so that every name is one step's.
        nodes.append(Clamp(name, nodes[-1].name if nodes else "a", 0, 9))
    plan = make_plan(Graph("n", (1, 1, 1), (_first(), *nodes, _dense("d", nodes[-1].name))))
    assert [step.label for step in plan.steps[1:-1]] == labels
    assert [step.name for step in plan.steps[1:-1]] == names
    text = model_sources(plan)["bnn_model.c"].decode()
    assert all(f'.name = "{label}"' in text for label in labels)


def test_layer_names_cannot_take_each_others_memory() -> None:
    """A layer may be called like another one's scratch memory would be."""
    for name in ("a.scratch", "a_scratch", "scratch"):
        first, last = make_plan(Graph("n", (1, 1, 1), (_first(), _dense(name, "a")))).steps
        assert first.scratch is not None
        assert last.result is not first.scratch
        assert _apart(first.result, last.result)


def test_flash_is_what_was_packed() -> None:
    """By hand: 3 filters of 2x2x1 in int16, 5 of 1x1x3 bits, k = 4, and a 2x20 dense."""
    rng = np.random.default_rng(0)
    plan = make_plan(
        Graph(
            "small",
            (3, 3, 1),
            (
                IntegerConv("first", INPUT, rng.integers(-5, 6, (3, 2, 2, 1)).astype(np.int16)),
                Threshold("sign", "first", _ints(1, -2, 3), _ints(0, 1, 0, dtype=np.uint8)),
                StochasticConv("drawn", "sign", rng.integers(0, 16, (5, 1, 1, 3), dtype=np.uint8)),
                Relu("relu", "drawn"),
                Dense("dense", "relu", rng.integers(-9, 9, (2, 20)).astype(np.int16)),
            ),
        )
    )
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


def test_logits_are_as_wide_as_they_must_be() -> None:
    """16,384 * 131,070 is the largest multiple below 2^31."""
    for weight, width in ((16_384, 4), (16_385, 8)):
        # Two sums of up to 257 * 255 = 65,535.
        first = IntegerConv("a", INPUT, np.full((2, 1, 1, 1), 257, dtype=np.int16))
        weights = np.full((1, 2), weight, dtype=np.int16)
        plan = make_plan(Graph("n", (1, 1, 1), (first, Dense("d", "a", weights))))
        assert plan.logit_bytes == width
        assert plan.steps[-1].kernel == f"bnn_dense_i{8 * width}"


def _deep(layers: int) -> Graph:
    nodes: list[Node] = [_first()]
    nodes += [_scale(f"x{i}", f"x{i - 1}" if i else "a", mul=1) for i in range(layers - 2)]
    return Graph("deep", (1, 1, 1), (*nodes, _dense("d", nodes[-1].name)))


def test_as_many_steps_as_the_protocol_can_count() -> None:
    assert len(make_plan(_deep(255)).steps) == 255
    with pytest.raises(UnsupportedModelError, match="256 steps; 255 are possible"):
        make_plan(_deep(256))


def test_different_bit_planes_are_refused() -> None:
    nodes = (
        _first(), _sign("t", "a"), _conv(StochasticConv, "b", "t", planes=4), _sign("u", "b"),
        _conv(StochasticConv, "c", "u", planes=5), _dense("d", "c"),
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match=r"bit-planes: \[4, 5\]"):
        make_plan(Graph("n", (1, 1, 1), nodes))


def test_more_memory_than_addresses_is_refused() -> None:
    pool = MaxPool("p", "a", (65_535, 65_535), (1, 1))
    graph = Graph("huge", (65_535, 65_535, 1), (_first(outputs=1), pool))
    with pytest.raises(UnsupportedModelError, match="its values take"):
        make_plan(graph)


def test_a_fixed_layer_draws_nothing() -> None:
    steps = _steps(_first(), _sign("t", "a"), _conv(BinaryConv, "b", "t"), _dense("d", "b"))
    assert not any(step.drawn or step.planes or step.sampled_words for step in steps.values())
