"""The specification against a second one: numpy against loops over Python integers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from graph_features import WANTED, features
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_graph import plain_evaluate, plain_run
from random_dags import random_dag
from random_graphs import random_graph, random_images
from random_nodes import affine, clamp, dense, integer_weights, levels, threshold

from bnnmcu import reference
from bnnmcu.errors import GraphError
from bnnmcu.graph import (
    INT32_MAX,
    Add,
    BinaryConv,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    TensorSpec,
    infer,
    infer_node,
)
from bnnmcu.graphfile import save_graph_bytes

_KINDS = {
    "u8": ("integer", "threshold", "affine", "max", "sum", "dense"),
    "bit": ("integer", "binary", "stochastic", "affine", "max", "sum", "dense"),
    "int": ("integer", "threshold", "relu", "clamp", "affine", "add", "max", "sum", "dense"),
}
CASES = [(kind, operation) for kind, operations in _KINDS.items() for operation in operations]
_IMAGES = 2
_REFUSALS = ("can reach", "on an input", "padding alone", "64 bit")


def _source(rng: np.random.Generator, kind: str, shape: tuple[int, int, int]) -> Any:
    """Spec and values of a source, at both ends of its bounds among others."""
    if kind == "int":
        ends = [0, 1, 7, 300, 70_000, INT32_MAX]
        low, high = sorted(int(rng.choice([-1, 1])) * int(rng.choice(ends)) for _ in range(2))
        spec = TensorSpec(shape, "int", low, high)
    else:
        spec = TensorSpec(shape, kind, 0, 255 if kind == "u8" else 1)  # type: ignore[arg-type]
    values = rng.integers(spec.low, spec.high, (_IMAGES, *shape), endpoint=True)
    ends = rng.random(values.shape)
    values = np.where(ends < 0.2, spec.low, np.where(ends > 0.8, spec.high, values))
    return spec, values.astype(np.int64 if kind == "int" else np.uint8)


@st.composite
def _windows(draw: st.DrawFn) -> dict[str, Any]:
    small = st.tuples(st.integers(1, 3), st.integers(1, 3))
    return {
        "kernel": draw(small),
        "stride": draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        "padding": draw(st.tuples(*[st.integers(0, 4)] * 4)),
        "dilation": draw(small),
    }


def _node(
    rng: np.random.Generator, operation: str, spec: TensorSpec, values: Any, where: Any
) -> Node | None:
    """One operation on the value ``x``."""
    channels = spec.shape[2]
    if operation in ("integer", "binary", "stochastic"):
        groups = int(rng.choice([n for n in (1, 1, 2, 3, channels) if channels % n == 0]))
        shape = (groups * int(rng.integers(1, 3)), *where.pop("kernel"), channels // groups)
        if operation == "binary":
            weights = rng.integers(0, 2, shape, dtype=np.uint8)
            return BinaryConv("n", "x", weights, groups=groups, **where)
        if operation == "stochastic":
            return StochasticConv("n", "x", levels(rng, shape, 3), groups=groups, planes=3, **where)
        made = integer_weights(rng, shape, *spec.bounds)
        if made is None:
            return None
        fill = rng.integers(0, 256, channels, dtype=np.uint8) if spec.kind == "u8" else None
        fill = fill if rng.random() < 0.7 else None
        return IntegerConv("n", "x", made[0], groups=groups, bits=made[1], fill=fill, **where)
    if operation == "max":
        minimum = rng.integers(0, 2, channels, dtype=np.uint8) if rng.random() < 0.7 else None
        return MaxPool("n", "x", minimum=minimum, **where)
    if operation == "sum":
        del where["dilation"]
        return SumPool("n", "x", **where)
    simple = {
        "threshold": lambda: threshold(rng, "n", "x", values),
        "clamp": lambda: clamp(rng, "n", "x", values),
        "affine": lambda: affine(rng, "n", "x", spec),
        "dense": lambda: dense(rng, "n", "x", spec, 500),
        "relu": lambda: Relu("n", "x"),
        "add": lambda: Add("n", "x", "y"),
    }
    return simple[operation]()


@pytest.mark.parametrize(("kind", "operation"), CASES)
@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 6)),
    where=_windows(),
)
def test_every_operation(
    kind: str, operation: str, seed: int, shape: tuple[int, int, int], where: dict[str, Any]
) -> None:
    rng = np.random.default_rng(seed)
    spec, values = _source(rng, kind, shape)
    other_spec, other = _source(rng, kind, shape)
    node = _node(rng, operation, spec, values, dict(where))
    if node is None:
        return
    try:
        out = infer_node(node, {"x": spec, "y": other_spec})
    except GraphError as error:
        # Only for these reasons: the operations are well formed.
        if any(words in str(error) for words in _REFUSALS):
            return
        raise
    drawn = None
    if isinstance(node, StochasticConv):
        drawn = rng.integers(0, 2, (_IMAGES, *node.weights.shape), dtype=np.uint8)
    got = reference.evaluate(node, {"x": values, "y": other}, spec, drawn)
    for i in range(_IMAGES):
        plain = plain_evaluate(
            node,
            {"x": values[i].tolist(), "y": other[i].tolist()},
            spec,
            None if drawn is None else drawn[i],
        )
        assert got[i].reshape(out.shape).tolist() == plain
        flat = [x for row in plain for pixel in row for x in pixel]
        assert out.low <= min(flat)
        assert max(flat) <= out.high


def _work(graph: Graph) -> int:
    """Steps of the loops, roughly."""
    specs = infer(graph)
    return sum(
        node.macs(specs[node.source].shape) if hasattr(node, "macs") else specs[node.source].size
        for node in graph.nodes
    )


def _compare(graph: Graph, seed: int) -> None:
    """Every value of one image and one draw, and its bounds."""
    image = random_images(graph, 3, seed)[seed % 3]
    seeds = np.array([[seed]], dtype=np.uint64)
    words = reference.sampled_words(graph, seeds[0])
    drawn = {
        node.name: reference.sampled_weights(node, words[node.name])[0] for node in graph.stochastic
    }
    seen: dict[str, Any] = {}
    logits = reference.run(
        graph, image[np.newaxis], seeds, on_value=lambda name, v: seen.setdefault(name, v[0])
    )
    assert logits.dtype == np.int64
    plain, specs = plain_run(graph, image, drawn), infer(graph)
    assert plain.keys() - {"input"} == seen.keys()
    for name, value in seen.items():
        spec = specs[name]
        assert value.reshape(spec.shape).tolist() == plain[name], f"{graph.name} {name}"
        assert spec.low <= value.min(), f"{graph.name} {name}"
        assert value.max() <= spec.high, f"{graph.name} {name}"
    assert logits[0, 0].tolist() == plain[graph.nodes[-1].name][0][0]


@pytest.mark.parametrize("part", range(4))
def test_random_graphs(part: int) -> None:
    compared = 0
    for seed in range(part, 160, 4):
        graph = random_dag(seed)
        if _work(graph) <= 50_000:  # more takes too long in plain Python
            _compare(graph, seed)
            compared += 1
    assert compared > 30


def test_random_chains() -> None:
    """The networks that other tests are fed with: convolutions, signs, and a dense layer."""
    chosen = [graph for graph in map(random_graph, range(600, 620)) if _work(graph) <= 50_000]
    assert len(chosen) >= 5
    for seed, graph in enumerate(chosen):
        _compare(graph, seed)


def test_random_graphs_are_repeatable() -> None:
    for seed in range(20):
        assert save_graph_bytes(random_dag(seed)) == save_graph_bytes(random_dag(seed))


def test_random_graphs_cover_everything() -> None:
    """300 seeds, as many as the tests of the C compile: no turn of any operation is left out."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        seen.update(features(random_dag(seed)))
    assert sorted(WANTED - seen.keys()) == []
    # The common ones not only once.
    rare = {word: seen[word] for word in WANTED if " on " in word and seen[word] < 10}
    assert rare == {}


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_partial_sums_of_float_products_are_exact(depth: int) -> None:
    """Weights and values whose products fill int32 in every order of adding them."""
    rng = np.random.default_rng(depth)
    for value in (2**12, 2**20, 2**30, INT32_MAX):
        taps = 64 * depth
        top = max(1, min(32_767, INT32_MAX // (taps * value)))
        weights = np.zeros((2, 1, 1, taps), np.int16)
        count = min(taps, INT32_MAX // (top * value))
        weights[0, 0, 0, :count], weights[1, 0, 0, :count] = top, -top
        for row in weights:
            rng.shuffle(row[0, 0])
        node = IntegerConv("n", "x", weights, bits=16)
        spec = TensorSpec((1, 1, taps), "int", 0, value)
        out = infer_node(node, {"x": spec})
        got = reference.evaluate(node, {"x": np.full((1, 1, 1, taps), value)}, spec)
        assert got[0, 0, 0].tolist() == [out.high, out.low]
        assert out.high == top * value * count > INT32_MAX // 2


def test_the_first_of_equal_logits_wins() -> None:
    logits = np.array([[1, 5, 5], [7, 7, 7], [-3, -3, -9]])
    assert reference.argmax(logits).tolist() == [1, 0, 0]
