"""Every refusal of a graph, and bounds that no input can leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import random_graph, random_images

from bnnmcu import reference
from bnnmcu.errors import GraphError
from bnnmcu.graph import (
    INPUT,
    BinaryConv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
    Surrogate,
    Threshold,
    infer,
)


def _first(outputs: int = 2, value: int = 1, side: int = 1, **more: Any) -> IntegerConv:
    weights = np.full((outputs, side, side, more.pop("inputs", 1)), value, dtype=np.int16)
    return IntegerConv("a", INPUT, weights, **more)


def _sign(source: str = "a", channels: int = 2, kind: int = 0, **more: Any) -> Threshold:
    value = np.zeros(channels, dtype=np.int32)
    return Threshold("t", source, value, np.full(channels, kind, dtype=np.uint8), **more)


def _bits(cls: Any = BinaryConv, value: int = 1, inputs: int = 2, **more: Any) -> Any:
    return cls("b", "t", np.full((2, 1, 1, inputs), value, dtype=np.uint8), **more)


def _dense(source: str = "a", inputs: int = 2, name: str = "d", outputs: int = 2) -> Dense:
    return Dense(name, source, np.ones((outputs, inputs), dtype=np.int16))


def _graph(*nodes: Node, shape: Any = (1, 1, 1), **more: Any) -> Graph:
    return Graph(more.pop("name", "n"), shape, nodes, **more)


class Strange(Node):
    """An operation nobody has heard of."""


_REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    # Nodes by themselves.
    "no name": (lambda: Relu("", "a"), "no name for a layer"),
    "name of the image": (lambda: Relu("input", "a"), "'input'"),
    "name with a quote": (lambda: Relu('a"', "a"), "no name for a layer"),
    "name with a newline": (lambda: Relu("a\n", "a"), "no name for a layer"),
    "name of 49": (lambda: Relu("a" * 49, "a"), "no name for a layer"),
    "weights of rank 3": (
        lambda: BinaryConv("b", "t", np.ones((1, 1, 1), dtype=np.uint8)), "shape (1, 1, 1)"),
    "no filters": (
        lambda: BinaryConv("b", "t", np.ones((0, 1, 1, 1), dtype=np.uint8)), "shape (0, 1"),
    "stride 0": (lambda: _first(stride=(0, 1)), "a: stride"),
    "one stride": (lambda: _first(stride=(1,)), "a: stride"),
    "negative padding": (lambda: _first(side=3, padding=(0, -1, 0, 0)), "a: stride"),
    "three paddings": (lambda: _first(side=3, padding=(0, 0, 0)), "a: stride"),
    "padding as tall as the kernel": (
        lambda: _first(side=3, padding=(3, 0, 0, 0)), "not smaller than the kernel 3x3"),
    "padding as wide as the kernel": (
        lambda: _first(side=3, padding=(0, 0, 0, 3)), "not smaller than the kernel 3x3"),
    "float weights": (lambda: IntegerConv("a", INPUT, np.ones((1, 1, 1, 1))), "float64, not int16"),
    "weights of 15 bits in 14": (lambda: _first(value=8192), "do not fit 14 bits"),
    "smallest int16": (lambda: _first(value=-32768, bits=16), "do not fit 16 bits"),
    "17 bits": (lambda: _first(bits=17), "17 bits"),
    "binary 2": (lambda: _bits(value=2), "must be 0 or 1"),
    "signed binary": (
        lambda: BinaryConv("b", "t", np.ones((1, 1, 1, 1), dtype=np.int8)), "int8, not uint8"),
    "k = 1": (lambda: _bits(StochasticConv, planes=1), "1 bit-planes"),
    "k = 9": (lambda: _bits(StochasticConv, planes=9), "9 bit-planes"),
    "level beyond k": (lambda: _bits(StochasticConv, value=8, planes=3), "do not fit 3 bits"),
    "thresholds of int64": (
        lambda: Threshold("t", "a", np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.uint8)),
        "int64, not int32"),
    "two lengths": (
        lambda: Threshold("t", "a", np.zeros(2, dtype=np.int32), np.zeros(3, dtype=np.uint8)),
        "one length"),
    "threshold kind 4": (lambda: _sign(kind=4), "unknown threshold kind"),
    "surrogate of another length": (
        lambda: _sign(surrogate=Surrogate(np.ones(3), np.ones(3), True)), "another length"),
    "surrogate in float32": (
        lambda: Surrogate(np.ones(3, dtype=np.float32), np.ones(3), True), "float32, not float64"),
    "dense of rank 1": (lambda: Dense("d", "a", np.ones(3, dtype=np.int16)), "shape (3,)"),
    "dense of int32": (
        lambda: Dense("d", "a", np.ones((1, 3), dtype=np.int32)), "int32, not int16"),
    # Networks.
    "network name": (lambda: _graph(_first(), _dense(), name="a b"), "no name for a network"),
    "network name of 32": (lambda: _graph(_first(), _dense(), name="a" * 32), "no name"),
    "generator": (lambda: _graph(_first(), _dense(), generator="rand"), "unknown generator"),
    "scale 0": (lambda: _graph(_first(), _dense(), logit_scale=0.0), "logit scale"),
    "scale nan": (lambda: _graph(_first(), _dense(), logit_scale=float("nan")), "logit scale"),
    "scale infinite": (lambda: _graph(_first(), _dense(), logit_scale=float("inf")), "logit scale"),
    "image of rank 2": (lambda: _graph(_first(), _dense(), shape=(1, 1)), "input shape"),
    "empty image": (lambda: _graph(_first(), _dense(), shape=(0, 1, 1)), "input shape"),
    "wide image": (lambda: _graph(_first(), _dense(), shape=(65_536, 1, 1)), "input shape"),
    "no layers": (lambda: _graph(), "last layer must be a dense"),
    "no dense layer": (lambda: _graph(_first()), "last layer must be a dense"),
    "dense layer not last": (
        lambda: _graph(_first(), _dense(), Relu("r", "d")), "last layer must be a dense"),
    "same name twice": (lambda: _graph(_first(), Relu("a", "a"), _dense()), "two layers"),
    "source unknown": (lambda: _graph(_first(), _dense("x")), "'x' does not come before"),
    "source later": (
        lambda: _graph(_first(), Relu("r", "d"), _dense("r")), "'d' does not come before"),
    "own source": (lambda: _graph(_first(), Relu("r", "r"), _dense("r")), "'r' does not come"),
    "unknown operation": (
        lambda: _graph(_first(), Strange("s", "a"), _dense("s")), "unknown operation Strange"),
    "channels": (lambda: _graph(_first(inputs=3), _dense()), "takes 3 channels, gets 1"),
    "kernel larger than the image": (
        lambda: _graph(_first(side=3), _dense(), shape=(2, 5, 1)), "kernel 3x3 on an input of 2x5"),
    "dense size": (lambda: _graph(_first(), _dense(inputs=3)), "takes 3 values, gets 2"),
    "threshold count": (
        lambda: _graph(_first(), _sign(channels=3), _bits(inputs=3), _dense("b")),
        "3 thresholds for 2 channels"),
    "binary layer on pixels": (
        lambda: _graph(
            BinaryConv("a", INPUT, np.ones((2, 1, 1, 1), dtype=np.uint8)), _dense()),
        "takes bit values, gets u8"),
    "binary layer on sums": (
        lambda: _graph(_first(), Relu("t", "a"), _bits(), _dense("b")), "takes bit values"),
    "integer layer on bits": (
        lambda: _graph(
            _first(), _sign(), IntegerConv("c", "t", np.ones((2, 1, 1, 2), dtype=np.int16)),
            _dense("c")),
        "takes u8 values, gets bit"),
    "threshold on bits": (
        lambda: _graph(_first(), _sign(), Threshold(
            "u", "t", np.zeros(2, dtype=np.int32), np.zeros(2, dtype=np.uint8)), _dense()),
        "takes int values, gets bit"),
    "relu on bits": (lambda: _graph(_first(), _sign(), Relu("r", "t"), _dense("r")), "gets bit"),
    "dense layer on bits": (lambda: _graph(_first(), _sign(), _dense("t")), "gets bit"),
    "dense layer on pixels": (lambda: _graph(_dense(INPUT, 1)), "gets u8"),
    # 258 taps of 32,767 * 255 are the first to pass 2^31 - 1.
    "int32 sum overflows": (
        lambda: _graph(_first(value=32_767, inputs=258, bits=16), _dense(), shape=(1, 1, 258)),
        "a: a sum can reach 2155740930"),
    "negative int32 sum overflows": (
        lambda: _graph(_first(value=-32_767, inputs=258, bits=16), _dense(), shape=(1, 1, 258)),
        "a: a sum can reach 2155740930"),
    "classes": (lambda: _graph(_first(1), _dense(inputs=1, outputs=65_536)), "65,535 classes"),
}  # fmt: skip


@pytest.mark.parametrize("case", _REFUSED)
def test_refusals(case: str) -> None:
    make, words = _REFUSED[case]
    with pytest.raises(GraphError) as caught:
        make()
    assert words in str(caught.value)


def test_the_largest_sum_that_fits_is_accepted() -> None:
    first = _first(value=32_767, inputs=257, bits=16)
    assert infer(_graph(first, _dense(), shape=(1, 1, 257)))["a"].high == 32_767 * 257 * 255


def test_logits_that_overflow_int64_are_refused() -> None:
    """Stacked dense layers are the only way there; the bound itself exceeds 64 bits."""
    nodes: list[Node] = [_first(value=32_767, inputs=257, bits=16)]
    for i in range(4):
        weights = np.full((2, 2), 32_767, dtype=np.int16)
        nodes.append(Dense(f"d{i}", nodes[-1].name, weights))
    with pytest.raises(GraphError, match=r"d2: a sum can reach \d{19,}"):
        _graph(*nodes, shape=(1, 1, 257))


def test_arrays_are_private_and_read_only() -> None:
    weights = np.ones((2, 1, 1, 1), dtype=np.int16)
    conv = IntegerConv("a", INPUT, weights)
    weights[:] = 7
    assert (conv.weights == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        conv.weights[0] = 3


@pytest.mark.parametrize(
    ("side", "stride", "padding", "shape", "expected"),
    [
        (8, (2, 2), (3, 3, 3, 3), (28, 28, 1), (14, 14, 2)),
        (6, (2, 2), (0, 0, 0, 0), (14, 14, 1), (5, 5, 2)),
        (3, (2, 3), (1, 0, 2, 0), (5, 7, 1), (3, 2, 2)),
        (2, (9, 9), (0, 0, 0, 0), (4, 4, 1), (1, 1, 2)),
        (3, (1, 1), (2, 2, 2, 2), (1, 1, 1), (3, 3, 2)),
    ],
)
def test_output_shapes(side: int, stride: Any, padding: Any, shape: Any, expected: Any) -> None:
    conv = _first(side=side, stride=stride, padding=padding)
    assert conv.output_shape(shape) == expected
    assert conv.macs(shape) == expected[0] * expected[1] * 2 * side * side


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_no_value_leaves_its_bounds(seed: int) -> None:
    graph = random_graph(seed % 400)
    specs = infer(graph)
    images = random_images(graph, 3, seed)
    # The image that drives one filter of the first layer to its bound.
    first = graph.nodes[0]
    assert isinstance(first, IntegerConv)
    top, left = first.padding[:2]
    kernel = first.weights[seed % len(first.weights)]
    height, width, _ = graph.input_shape
    part = kernel[top : top + height, left : left + width]
    images[2] = 0
    images[2, : part.shape[0], : part.shape[1]] = np.where(part > 0, 255, 0)
    seen: dict[str, Any] = {}
    seeds = np.full((3, 1), seed, dtype=np.uint64)
    reference.run(graph, images, seeds, on_value=lambda name, v: seen.setdefault(name, v))
    assert seen.keys() == {node.name for node in graph.nodes}
    for name, value in seen.items():
        spec = specs[name]
        assert value.shape[1:] == spec.shape or value.shape[1:] == spec.shape[2:]
        assert spec.low <= value.min()
        assert value.max() <= spec.high


def test_bounds_are_reached() -> None:
    """Not only true but tight: first layer, binary layer and logits meet their bounds."""
    weights = np.array([[[[3], [-2]]]], dtype=np.int16)
    graph = Graph(
        "n",
        (1, 2, 1),
        (IntegerConv("a", INPUT, weights), Dense("d", "a", np.array([[2], [-5]], dtype=np.int16))),
    )
    images = np.array([[[[255], [0]]], [[[0], [255]]]], dtype=np.uint8)
    specs = infer(graph)
    assert (specs["a"].low, specs["a"].high) == (-510, 765)
    assert reference.run(graph, images)[:, 0].tolist() == [[1530, -3825], [-1020, 2550]]
    assert (specs["d"].low, specs["d"].high) == (-3825, 2550)


def _by_hand(graph: Graph, image: Any, drawn: dict[str, Any]) -> list[int]:
    """The network in loops over Python integers, from the docstring of bnnmcu.graph alone."""
    value: Any = image.astype(int).tolist()
    for node in graph.nodes:
        if isinstance(node, IntegerConv | BinaryConv | StochasticConv):
            weights = drawn.get(node.name, node.weights)
            outputs, kh, kw, inputs = weights.shape
            top, left, bottom, right = node.padding
            height, width = len(value), len(value[0])
            out = []
            for y in range(-top, height + bottom - kh + 1, node.stride[0]):
                row = []
                for x in range(-left, width + right - kw + 1, node.stride[1]):
                    sums = [0] * outputs
                    for o in range(outputs):
                        for i in range(kh):
                            for j in range(kw):
                                if 0 <= y + i < height and 0 <= x + j < width:
                                    for c in range(inputs):
                                        a, w = value[y + i][x + j][c], int(weights[o, i, j, c])
                                        if not isinstance(node, IntegerConv):
                                            a, w = 2 * a - 1, 2 * w - 1
                                        sums[o] += a * w
                    row.append(sums)
                out.append(row)
            value = out
        elif isinstance(node, Threshold):
            rules = [lambda s, v: s >= v, lambda s, v: s <= v, lambda s, v: 1, lambda s, v: 0]
            rows = list(zip(node.value.tolist(), node.kind.tolist(), strict=True))
            value = [
                [[int(rules[k](s, v)) for s, (v, k) in zip(p, rows, strict=True)] for p in row]
                for row in value
            ]
        elif isinstance(node, Relu):
            value = [[[max(s, 0) for s in p] for p in row] for row in value]
        else:
            assert isinstance(node, Dense)
            flat = [s for row in value for p in row for s in p]
            value = [
                sum(w * s for w, s in zip(r, flat, strict=True)) for r in node.weights.tolist()
            ]
    return list(value)


@pytest.mark.parametrize("seed", range(600, 610))
def test_reference_against_loops(seed: int) -> None:
    graph = random_graph(seed)
    if sum(node.weights.size for node in graph.nodes if hasattr(node, "weights")) > 40_000:
        pytest.skip("too slow in plain Python")
    images = random_images(graph, 3, seed)[2:]
    seeds = np.array([[seed]], dtype=np.uint64)
    words = reference.sampled_words(graph, seeds[0])
    drawn = {
        node.name: reference.sampled_weights(node, words[node.name])[0] for node in graph.stochastic
    }
    logits = reference.run(graph, images, seeds)
    assert logits.dtype == np.int64
    assert logits[0, 0].tolist() == _by_hand(graph, images[0], drawn)


def test_the_first_of_equal_logits_wins() -> None:
    logits = np.array([[1, 5, 5], [7, 7, 7], [-3, -3, -9]])
    assert reference.argmax(logits).tolist() == [1, 0, 0]
