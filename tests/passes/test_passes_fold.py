"""Folding, against brute force over every integer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnmcu.graph import ALWAYS, GE, LE, NEVER
from bnnmcu.lfsr import level_probability
from bnnmcu.passes.lower.chain import Chain, Limit, Line
from bnnmcu.passes.lower.fold import (
    bisect_threshold,
    quantize_dense,
    quantize_per_channel,
    quantize_probability,
    signs_of,
)


def _bits(sums: npt.NDArray[np.int64], value: int, kind: int) -> npt.NDArray[np.bool_]:
    if kind in (ALWAYS, NEVER):
        return np.full(sums.shape, kind == ALWAYS)
    return sums >= value if kind == GE else sums <= value


def _check(slope: float, offset: float, rectified: bool, low: int, high: int) -> int:
    """Fold one channel and compare with the float rule at every integer; returns the kind."""
    sums = np.arange(low, high + 1, dtype=np.int64)
    chain = Chain(1)
    if rectified:
        chain = chain.then(Limit("relu", 0.0, float("inf")))
    chain = chain.then(Line("norm", np.array([slope]), np.array([offset])))
    value, kind = bisect_threshold(
        lambda x: chain.apply(x) >= 0,
        np.array([low], dtype=np.int64),
        np.array([high], dtype=np.int64),
    )
    assert value.dtype == np.int32
    assert kind.dtype == np.uint8
    # Written out again here, not taken from the code under test.
    expected = [slope * (max(s, 0) if rectified else s) + offset >= 0 for s in sums.tolist()]
    assert np.array_equal(_bits(sums, int(value[0]), int(kind[0])), expected)
    return int(kind[0])


@pytest.mark.parametrize(
    ("slope", "offset", "rectified", "kind"),
    [
        pytest.param(0.5, -3.0, False, GE, id="ties at 6"),
        pytest.param(-0.5, 3.0, False, LE, id="negative slope, ties at 6"),
        pytest.param(0.5, 3.0, True, ALWAYS, id="rectified, threshold below zero"),
        pytest.param(0.5, 0.0, True, ALWAYS, id="rectified, tie at zero gives 1"),
        pytest.param(-0.5, 0.0, True, LE, id="negative slope, tie at zero gives 1"),
        pytest.param(-0.5, -1e-9, True, NEVER, id="rectified, never"),
        pytest.param(0.5, -1e-9, True, GE, id="rectified, any positive sum"),
        pytest.param(0.0, 0.0, False, ALWAYS, id="zero slope, zero offset"),
        pytest.param(-0.0, -0.0, True, ALWAYS, id="negative zeros"),
        pytest.param(0.0, -1e-30, False, NEVER, id="zero slope, negative offset"),
        pytest.param(1e-300, -1.0, False, NEVER, id="never reached"),
        pytest.param(1 / np.sqrt(3e-24 + 1e-5), -0.1, True, GE, id="dead channel"),
        pytest.param(1.0, 40.0, False, ALWAYS, id="always at the lower bound"),
        pytest.param(1.0, -40.0, False, GE, id="only at the upper bound"),
        pytest.param(-1.0, -40.0, False, LE, id="only at the lower bound"),
    ],
)
def test_table(slope: float, offset: float, rectified: bool, kind: int) -> None:
    assert _check(slope, offset, rectified, -40, 40) == kind


@given(
    slope=st.floats(-1e6, 1e6),
    offset=st.floats(-1e6, 1e6),
    rectified=st.booleans(),
    low=st.integers(-200, 0),
    high=st.integers(0, 200),
)
def test_any_channel(slope: float, offset: float, rectified: bool, low: int, high: int) -> None:
    _check(slope, offset, rectified, low, high)


@given(
    slope=st.floats(1e-3, 1e3),
    at=st.integers(-100, 100),
    sign=st.sampled_from([-1.0, 1.0]),
    ulps=st.integers(-2, 2),
    rectified=st.booleans(),
)
def test_thresholds_that_nearly_tie(
    slope: float, at: int, sign: float, ulps: int, rectified: bool
) -> None:
    """An offset within two ulps of an integer's value: where rounding would show."""
    offset = -sign * slope * at
    for _ in range(abs(ulps)):
        offset = float(np.nextafter(offset, np.inf if ulps > 0 else -np.inf))
    _check(sign * slope, offset, rectified, -120, 120)


def test_channels_are_independent_and_bounds_may_be_wide() -> None:
    rng = np.random.default_rng(0)
    slope, offset = rng.normal(size=300), rng.normal(size=300) * 1e8
    low = -rng.integers(0, 2**31 - 1, 300)
    high = rng.integers(0, 2**31 - 1, 300)
    low[:20] = high[:20] = 0
    value, kind = bisect_threshold(lambda x: slope * x + offset >= 0, low, high)
    assert set(kind.tolist()) == {GE, LE, ALWAYS, NEVER}
    for c in range(300):
        near = {int(value[c]) + d for d in (-1, 0, 1)} | {int(low[c]), int(high[c]), 0}
        sums = np.array(sorted(s for s in near if low[c] <= s <= high[c]))
        expected = slope[c] * sums + offset[c] >= 0
        assert np.array_equal(_bits(sums, int(value[c]), int(kind[c])), expected)


@pytest.mark.parametrize("bits", [2, 8, 12, 14, 16])
def test_first_layer_weights(bits: int) -> None:
    weights = np.random.default_rng(bits).normal(size=(6, 3, 3, 2)).astype(np.float32)
    weights[2] = 0
    weights[3] *= 1e-30
    weights[4] *= 1e30
    integers, scale = quantize_per_channel(weights, bits)
    top = 2 ** (bits - 1) - 1
    assert integers.dtype == np.int16
    assert (np.abs(integers.reshape(6, -1)).max(axis=1) == [top, top, 0, top, top, top]).all()
    error = np.abs(weights - integers * scale.reshape(6, 1, 1, 1))
    assert (error <= scale.reshape(6, 1, 1, 1) * 0.5 * (1 + 1e-9)).all()


@pytest.mark.parametrize("step", [1.0, 0.125, 3e-7])
def test_weights_on_a_grid_lose_nothing(step: float) -> None:
    grid = np.random.default_rng(1).integers(-7, 8, (5, 3, 3, 2)).astype(np.float64)
    grid[:, 0, 0, 0] = 1
    integers, scale = quantize_per_channel(np.float32(step) * grid, 8)
    assert np.array_equal(integers, grid)
    assert np.allclose(scale, np.float32(step), rtol=1e-12)


def test_calibration_lowers_the_error_it_is_asked_to_lower() -> None:
    rng = np.random.default_rng(3)
    weights = rng.standard_t(3, size=(8, 5, 5, 1))
    inputs = rng.random((400, 25))
    moments = inputs.T @ inputs / len(inputs)

    def error(moments_used: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
        integers, scale = quantize_per_channel(weights, 8, moments_used)
        difference = (integers * scale.reshape(-1, 1, 1, 1) - weights).reshape(8, -1)
        return ((difference @ inputs.T) ** 2).mean(axis=1)

    plain, calibrated = error(None), error(moments)
    assert (calibrated <= plain * (1 + 1e-9)).all()
    assert (calibrated < plain * 0.9).any()


@pytest.mark.parametrize(
    ("weights", "binary"),
    [
        ([[0.5, -0.5], [2.0, 2.0]], True),
        ([[0.5, -0.5000001], [1.0, 1.0]], True),
        ([[0.5, -0.5001], [1.0, 1.0]], False),
        ([[0.5, 0.0], [1.0, 1.0]], False),
        ([[0.0, 0.0], [1.0, 1.0]], True),
        ([[0.0, 0.0], [0.0, 0.0]], False),
    ],
)
def test_binary_weights_are_recognised(weights: list[list[float]], binary: bool) -> None:
    found = signs_of(np.array(weights).reshape(2, 1, 1, 2))
    assert (found is not None) == binary
    if found is not None:
        bits, scale = found
        assert np.array_equal(bits.reshape(2, 2), np.array(weights) > 0)
        assert np.allclose(scale, np.abs(weights).max(axis=1))


def test_dense_weights() -> None:
    weights = np.random.default_rng(0).normal(size=(10, 30))
    integers, scale = quantize_dense(weights)
    assert integers.dtype == np.int16
    assert np.abs(integers).max() == 32767
    assert (np.abs(weights - scale * integers) <= 0.5 * scale * (1 + 1e-9)).all()
    zeros, scale = quantize_dense(weights * 0)
    assert not zeros.any()
    assert scale > 0


@pytest.mark.parametrize("planes", range(2, 9))
def test_probabilities_go_to_the_nearest_level(planes: int) -> None:
    all_levels = np.arange(1 << planes, dtype=np.uint8)
    values = level_probability(all_levels, planes)
    p = np.concatenate([np.linspace(0, 1, 4001), np.random.default_rng(0).random(500)])
    level = quantize_probability(p, planes)
    assert level.dtype == np.uint8
    distance = np.abs(p[:, np.newaxis] - values)
    assert np.allclose(distance[np.arange(p.size), level], distance.min(axis=1), atol=0)
    # Halfway goes to the larger one: exact in binary, so a strict test.
    middles = (values[:-1] + values[1:]) / 2
    assert np.array_equal(quantize_probability(middles, planes), all_levels[1:])
    below = np.nextafter(middles, 0)
    assert np.array_equal(quantize_probability(below, planes), all_levels[:-1])
    ends = quantize_probability(np.array([0.0, 1.0, 0.5]), planes)
    assert ends.tolist() == [0, (1 << planes) - 1, 1 << (planes - 1)]
