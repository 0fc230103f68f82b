"""Chains of piecewise linear steps, against the steps applied one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnmcu.passes.lower.chain import Chain, Kink, Limit, Line, Step

_NUMBERS = st.floats(-8, 8).map(lambda x: round(x * 64) / 64)
_STEPS = st.one_of(
    st.tuples(st.just("line"), st.lists(_NUMBERS, min_size=4, max_size=4)),
    st.tuples(st.just("limit"), st.lists(_NUMBERS, min_size=2, max_size=2)),
    st.tuples(st.just("relu"), st.just([])),
    st.tuples(st.just("kink"), st.lists(_NUMBERS, min_size=2, max_size=2)),
)


def _step(kind: str, numbers: list[float]) -> Step:
    if kind == "line":
        return Line("line", np.array(numbers[:2]), np.array(numbers[2:]))
    if kind == "limit":
        return Limit("limit", min(numbers), max(numbers))
    if kind == "relu":
        return Limit("relu", 0.0, math.inf)
    return Kink("kink", np.array(numbers))


def _plain(steps: list[Step], x: float, channel: int) -> float:
    for step in steps:
        if isinstance(step, Line):
            x = step.scale[channel] * x + step.offset[channel]
        elif isinstance(step, Limit):
            x = min(max(x, step.low), step.high)
        else:
            x = x if x >= 0 else step.slope[channel] * x
    return x


@given(st.lists(_STEPS, max_size=6))
def test_merging_changes_nothing(drawn: list[tuple[str, list[float]]]) -> None:
    steps = [_step(*item) for item in drawn]
    chain = Chain(2)
    for step in steps:
        chain = chain.then(step)
    xs = np.arange(-20, 21)
    values = chain.apply(xs[:, np.newaxis] * np.ones(2))
    expected = np.array([[_plain(steps, float(x), c) for c in range(2)] for x in xs])
    assert np.allclose(values, expected, rtol=1e-12, atol=1e-12)
    lows, highs = chain.bounds(-20, 20)
    slack = 1e-9 * np.maximum(np.abs(expected).max(axis=0), 1)
    assert (lows - slack <= expected.min(axis=0)).all()
    assert (highs + slack >= expected.max(axis=0)).all()
    direction = chain.direction
    if direction is not None:
        rises = np.diff(expected, axis=0) * direction
        assert (rises >= -slack).all()
    if chain.line is not None:
        scale, offset = chain.line
        assert np.allclose(scale * xs[:, np.newaxis] + offset, expected, rtol=1e-12, atol=1e-12)


def test_what_is_merged() -> None:
    line = Line("a", np.array([2.0, 3.0]), np.zeros(2))
    relu, kink = Limit("r", 0.0, math.inf), Kink("k", np.array([0.1, 0.2]))
    chain = Chain(2).then(line).then(relu).then(Line("b", np.array([-1.0, 1.0]), np.ones(2)))
    assert [step.name for step in chain.steps] == ["r", "b"]
    assert chain.starts_rectified
    assert [step.name for step in Chain(2).then(line).then(kink).steps] == ["k", "a"]
    # A ReLU does not pass a negative scale, nor an offset.
    for other in (
        Line("n", np.array([-1.0, 1.0]), np.zeros(2)),
        Line("o", np.ones(2), np.array([0.0, 1.0])),
    ):
        assert [step.name for step in Chain(2).then(other).then(relu).steps] == [other.name, "r"]
    assert Chain(2).then(Line("one", np.ones(2), np.zeros(2))).steps == ()


@pytest.mark.parametrize(("slope", "monotone"), [(0.1, True), (0.0, True), (-0.1, False)])
def test_a_negative_slope_turns_round(slope: float, monotone: bool) -> None:
    chain = Chain(1).then(Kink("k", np.array([slope])))
    assert (chain.direction is not None) == monotone
