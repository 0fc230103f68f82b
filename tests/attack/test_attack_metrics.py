"""Figures and flags, from answers written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.attack.flags import find_flags
from bnnmcu.attack.metrics import Case, summarize, wilson
from bnnmcu.store import Example, Store


def _identity(images: int, attacks: list[dict[str, Any]], **model: Any) -> dict[str, Any]:
    return {
        "config": {"attacks": attacks, "draws": 4},
        "data": {"images": images},
        "model": {"stochastic": False, **model},
    }


def _write(path: Path, identity: dict[str, Any], answers: dict[tuple[str, int], Any]) -> None:
    """``answers``: case to (labels of the draws, largest change) for each image; truth is 1."""
    with Store.open(path, identity) as store:
        for (attack, levels), images in answers.items():
            store.add_examples(
                [
                    Example(attack, levels, i, 1, np.zeros((1, 1, 1), np.uint8), linf, linf / 2.0)
                    for i, (_, linf) in enumerate(images)
                ]
            )
            for row, image, _ in store.unanswered(attack, levels, (1, 1, 1)):
                labels = images[image][0]
                if labels:
                    logits = np.eye(4, dtype=np.int64)[list(labels)]
                    seeds = np.arange(len(labels), dtype=np.uint64)
                    store.add_answer(row, seeds, logits, None, False)


def test_mean_majority_and_worst(tmp_path: Path) -> None:
    identity = _identity(4, [{"attack": "pgd", "eot_draws": 5}], stochastic=True)
    clean = [((1, 1, 1, 1), 0), ((1, 1, 2, 0), 0), ((1, 1, 2, 2), 0), ((2, 2, 2, 1), 0)]
    attacked = [((1, 1, 1, 1), 0), ((0, 0, 1, 1), 7), ((1, 1, 1, 1), 9), ((0, 0, 0, 0), 8)]
    _write(tmp_path / "run.db", identity, {("clean", 0): clean, ("pgd", 9): attacked})
    with Store.read(tmp_path / "run.db") as store:
        summary = summarize(store)
    first, second = summary.cases
    assert summary.complete
    assert (first.images, first.draws, first.ticks, first.attack_success) == (4, 4, None, None)
    assert first.mean.value == 9 / 16
    # 2:1:1 wins, the tie 2:2 goes to the attacker.
    assert first.majority.value == 2 / 4
    assert first.worst.value == 1 / 4
    # Images 0 and 1 were right; 1 fell to a tie.
    assert second.attack_success == 1 / 2
    assert second.unchanged == 1 / 4
    assert second.linf == 6
    assert second.l2 == 3
    assert {flag.code for flag in summary.flags} == {"randomised", "unchanged"}


def test_a_run_cut_short_says_so(tmp_path: Path) -> None:
    answers = {("clean", 0): [((1,), 0), ((), 0)]}
    _write(tmp_path / "run.db", _identity(2, [{"attack": "fgsm", "eot_draws": 1}]), answers)
    with Store.read(tmp_path / "run.db") as store:
        summary = summarize(store)
    assert not summary.complete
    assert summary.cases[0].images == 1
    assert [flag.code for flag in summary.flags] == ["incomplete"]


def test_an_empty_store_gives_no_figures(tmp_path: Path) -> None:
    _write(tmp_path / "run.db", _identity(2, []), {})
    with Store.read(tmp_path / "run.db") as store:
        assert summarize(store).cases == ()


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # Wilson (1927) as tabulated by R's prop.test(correct = FALSE).
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson(successes: float, count: int, low: float, high: float) -> None:
    interval = wilson(successes, count)
    assert interval.value == successes / count
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


def _case(attack: str, levels: int, right: float, **more: Any) -> Case:
    share = wilson(right * 100, 100)
    case = Case(attack, levels, levels / 255, 100, 4, share, share, share, 0.5, 0, 0, 0, 0, None)
    return replace(case, **more)


STOCHASTIC = {"stochastic": True}


@pytest.mark.parametrize(
    ("cases", "identity", "codes"),
    [
        ([_case("clean", 0, 0.97)], _identity(100, []), []),
        (
            [_case("fgsm", 25, 0.5), _case("pgd", 25, 0.3), _case("pgd", 51, 0.1)],
            _identity(100, []),
            [],
        ),
        ([_case("fgsm", 25, 0.3), _case("pgd", 25, 0.6)], _identity(100, []), ["fgsm-stronger"]),
        ([_case("fgsm", 25, 0.3), _case("pgd", 25, 0.31)], _identity(100, []), []),
        ([_case("pgd", 25, 0.2), _case("pgd", 51, 0.5)], _identity(100, []), ["not-monotone"]),
        (
            [_case("pgd", 25, 0.5, zero_gradients=0.2)],
            _identity(100, []),
            ["zero-gradients"],
        ),
        ([_case("pgd", 25, 0.5, unchanged=0.2)], _identity(100, []), ["unchanged"]),
        ([_case("pgd", 153, 0.5)], _identity(100, []), ["huge-budget"]),
        ([], _identity(100, [{"attack": "pgd", "eot_draws": 1}], **STOCHASTIC), ["no-eot"]),
        ([], _identity(100, [{"attack": "pgd", "eot_draws": 9}], **STOCHASTIC), ["randomised"]),
        ([], _identity(100, [{"attack": "pgd", "eot_draws": 1}]), []),
    ],
)
def test_flags(cases: list[Case], identity: dict[str, Any], codes: list[str]) -> None:
    flags = find_flags(cases, identity, complete=True)
    assert [flag.code for flag in flags] == codes
    assert all(flag.text for flag in flags)
