"""Bounds that no value can leave, and shapes, of the integer network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnmcu import reference
from bnnmcu.errors import GraphError
from bnnmcu.graph import (
    INPUT,
    Affine,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    SumPool,
    Window,
    infer,
)
from bnnmcu.graphfile import graph_sha256

WHITE = np.full((1, 1, 1, 1), 255, np.uint8)


def _graph(*nodes: Node, shape: Any = (1, 1, 1)) -> Graph:
    return Graph("n", shape, nodes)


def _vector(dtype: Any, *values: int) -> Any:
    return np.array(values, dtype=dtype)


def _first(outputs: int = 2, value: int = 1, side: int = 1, **more: Any) -> IntegerConv:
    weights = np.full((outputs, side, side, more.pop("inputs", 1)), value, dtype=np.int16)
    return IntegerConv("a", INPUT, weights, **more)


def _ends(mul: int, add: int, shift: int = 0) -> Graph:
    """An affine map of a pixel, 0 to 255."""
    return _graph(Affine("f", INPUT, _vector(np.int32, mul), _vector(np.int64, add), shift))


def test_the_largest_sum_that_fits_is_accepted() -> None:
    first = _first(value=32_767, inputs=257, bits=16)
    assert infer(_graph(first, shape=(1, 1, 257)))["a"].high == 32_767 * 257 * 255


def test_the_ends_of_int32_are_accepted_and_reached() -> None:
    for mul, add, end in ((8_421_504, 127, 2**31 - 1), (-8_421_504, -127, -(2**31) + 1)):
        graph = _ends(mul, add)
        spec = infer(graph)["f"]
        assert end in (spec.low, spec.high)
        assert reference.run(graph, WHITE).tolist() == [[[end]]]


def test_the_ends_of_int64_are_accepted_and_reached() -> None:
    for weight, bias, end in ((1, 2**63 - 256, 2**63 - 1), (-1, -(2**63) + 256, -(2**63) + 1)):
        layer = Dense("d", INPUT, np.full((1, 1), weight, np.int16), _vector(np.int64, bias))
        assert reference.run(_graph(layer), WHITE).tolist() == [[[end]]]
    # Shifted, what needs 64 bits on the way fits 32 in the end.
    graph = _ends(2**31 - 1, 2**62 - 255 * (2**31 - 1) - 1, 31)
    assert reference.run(graph, WHITE).tolist() == [[[2**31 - 1]]]


def test_products_alone_are_bounded_too() -> None:
    """Whether an executor adds the bias first or last, no partial sum leaves the bounds."""
    layer = Dense("d", INPUT, np.full((1, 1), 9, np.int16), _vector(np.int64, -2_000))
    spec = infer(_graph(layer))["d"]
    assert (spec.low, spec.high) == (-2_000, 9 * 255)


def test_values_become_plain() -> None:
    """Frontends hand over lists and numpy's integers; the fingerprint is taken from JSON."""
    conv = _first(stride=[np.int64(2), 1], padding=[0, 0, 0, np.int32(1)], groups=np.uint8(1))
    assert (conv.stride, conv.padding, conv.groups) == ((2, 1), (0, 0, 0, 1), 1)
    assert {type(n) for n in (*conv.stride, *conv.padding, conv.groups)} == {int}
    graph = Graph("n", [1, np.int64(2), 1], [SumPool("p", INPUT, [1, 2], [1, 1])])  # type: ignore[arg-type]
    assert graph.input_shape == (1, 2, 1)
    assert isinstance(graph.nodes, tuple)
    assert graph.nodes[0].kernel == (1, 2)  # type: ignore[attr-defined]
    wanted = Graph("n", (1, 2, 1), (SumPool("p", INPUT, (1, 2), (1, 1)),))
    assert graph_sha256(graph) == graph_sha256(wanted)


def test_a_huge_window_costs_nothing_to_check() -> None:
    """A file may name a kernel of 65,535 x 65,535; it is refused or bounded, not listed."""
    huge = MaxPool("p", INPUT, (65_535, 65_535), (1, 1), (0, 0, 65_534, 65_534))
    with pytest.raises(GraphError, match="last layer must give one integer"):
        _graph(huge, shape=(65_535, 65_535, 1))


@settings(max_examples=300)
@given(
    st.tuples(*[st.integers(1, 7)] * 2),
    st.tuples(*[st.integers(1, 4)] * 2),
    st.tuples(*[st.integers(0, 9)] * 4),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.tuples(*[st.integers(1, 9)] * 2),
)
def test_taps_inside_are_counted(
    kernel: Any, stride: Any, padding: Any, dilation: Any, size: Any
) -> None:
    where = Window(kernel, stride, padding, dilation)
    shape = (*size, 1)
    try:
        sides = where.output_side(shape, "w")
    except GraphError:
        assert any(
            (kernel[a] - 1) * dilation[a] + 1 > size[a] + padding[a] + padding[a + 2]
            for a in (0, 1)
        )
        return
    for axis, counts in enumerate(where.taps_inside(shape, "w")):
        expected = [
            sum(
                0 <= out * stride[axis] - padding[axis] + k * dilation[axis] < size[axis]
                for k in range(kernel[axis])
            )
            for out in range(sides[axis])
        ]
        assert counts.tolist() == expected


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
        (3, (2, 1), (5, 0, 4, 7), (1, 1, 1), (4, 6, 2)),
    ],
)
def test_output_shapes(side: int, stride: Any, padding: Any, shape: Any, expected: Any) -> None:
    conv = _first(side=side, stride=stride, padding=padding)
    assert conv.output_shape(shape) == expected
    assert conv.macs(shape) == expected[0] * expected[1] * 2 * side * side


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
