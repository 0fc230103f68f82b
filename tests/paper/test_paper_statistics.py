"""Means over seeds, and the rule that says whether two figures agree."""

from __future__ import annotations

import math

import pytest

from bnnmcu.errors import UsageError
from bnnmcu.paper.statistics import Estimate, agreement, estimate, sampling_error


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], None),
        ([3.0], Estimate(3.0, None, 1)),
        # n - 1: the squares 1, 0 and 1 over 2.
        ([1.0, 2.0, 3.0], Estimate(2.0, 1.0, 3)),
        ([0.5, 0.5], Estimate(0.5, 0.0, 2)),
    ],
)
def test_mean_and_sample_deviation(values: list[float], wanted: Estimate | None) -> None:
    assert estimate(values) == wanted


def test_the_error_of_a_95_percent_interval() -> None:
    assert sampling_error(0.5 - 1.96 * 0.02, 0.5 + 1.96 * 0.02) == pytest.approx(0.02, rel=1e-4)


def test_what_is_no_figure() -> None:
    for values in ([math.nan], [1.0, math.inf]):
        with pytest.raises(UsageError, match="not finite"):
            estimate(values)
    for low, high in ((1.0, 0.0), (math.nan, 1.0)):
        with pytest.raises(UsageError, match="interval"):
            sampling_error(low, high)
    for spread in ({"plus_minus": -1.0}, {"plus_minus": 1.0, "sampling": -1.0}):
        with pytest.raises(UsageError, match="below 0"):
            agreement(Estimate(1.0, None, 1), 1.0, **spread)


_SEEDS = Estimate(10.0, 3.0, 4)
_ONE = Estimate(10.0, None, 1)


@pytest.mark.parametrize(
    ("ours", "paper", "plus_minus", "more", "wanted"),
    [
        # 2 * sqrt(4 ** 2 + 3 ** 2) is 10, the bound included.
        (_SEEDS, 20.0, 4.0, {}, ("agrees", -10.0, 10.0)),
        (_SEEDS, 20.1, 4.0, {}, ("lower", -10.1, 10.0)),
        (_SEEDS, -0.1, 4.0, {}, ("higher", 10.1, 10.0)),
        # Several seeds hold what was sampled already; one seed has nothing else.
        (_SEEDS, 20.1, 4.0, {"sampling": 9.0}, ("lower", -10.1, 10.0)),
        (_ONE, 20.0, 4.0, {"sampling": 3.0}, ("agrees", -10.0, 10.0)),
        (_ONE, 18.1, 4.0, {}, ("lower", -8.1, 8.0)),
        (_SEEDS, 16.0, None, {}, ("agrees", -6.0, 6.0)),
        # Which way is good turns the word, not the rule.
        (_SEEDS, 20.1, 4.0, {"good": "low"}, ("better", -10.1, 10.0)),
        (_SEEDS, 20.1, 4.0, {"good": "high"}, ("worse", -10.1, 10.0)),
        (_SEEDS, -0.1, 4.0, {"good": "high"}, ("better", 10.1, 10.0)),
        (_SEEDS, -0.1, 4.0, {"good": "low"}, ("worse", 10.1, 10.0)),
        (_SEEDS, 20.0, 4.0, {"good": "high"}, ("agrees", -10.0, 10.0)),
    ],
)
def test_the_rule(
    ours: Estimate,
    paper: float,
    plus_minus: float | None,
    more: dict[str, float | str],
    wanted: tuple[str, float, float],
) -> None:
    found = agreement(ours, paper, plus_minus, **more)  # type: ignore[arg-type]
    assert found is not None
    assert found.verdict == wanted[0]
    assert (found.difference, found.bound) == pytest.approx(wanted[1:])


def test_nothing_is_said_of_what_is_missing() -> None:
    assert agreement(None, 1.0, 0.1) is None
    assert agreement(_SEEDS, None, None) is None
