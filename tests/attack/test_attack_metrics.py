"""Figures, from answers written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.attack.metrics import Accuracy, Spread, Summary, cluster_bootstrap, summarize, wilson
from bnnmcu.attack.metrics.intervals import interval
from bnnmcu.attack.metrics.planned import read_plan
from bnnmcu.errors import StoreError
from bnnmcu.store import Example, Store


def _identity(images: int, attacks: list[dict[str, Any]], **model: Any) -> dict[str, Any]:
    return {
        "config": {"attacks": attacks, "draws": 4},
        "data": {"images": images},
        "model": {"stochastic": False, **model},
    }


Row = tuple[int, int, int | None, tuple[int, ...], int, dict[str, Any]]


def _summary(
    path: Path,
    attacks: list[dict[str, Any]],
    cases: dict[tuple[str, int], list[Row]],
    images: int,
    **model: Any,
) -> Summary:
    """``cases``: of each row image, truth, target, labels of the draws, change and details."""
    with Store.open(path, _identity(images, attacks, **model)) as store:
        for (attack, levels), rows in cases.items():
            pixels = np.zeros((1, 1, 1), np.uint8)
            store.add_examples(
                [
                    Example(attack, levels, image, truth, pixels, linf, linf / 2, 0.0, told, target)
                    for image, truth, target, _, linf, told in rows
                ],
                seconds=3.0 * len(rows),
            )
            answers = {(image, target): labels for image, _, target, labels, _, _ in rows}
            for one in store.unanswered(attack, levels, (1, 1, 1)):
                labels = answers[one.image, one.target]
                if labels:
                    logits = np.eye(5, dtype=np.int64)[list(labels)]
                    seeds = np.arange(len(labels), dtype=np.uint64)
                    store.add_answer(one.row, seeds, logits, None, False)
    with Store.read(path) as store:
        return summarize(store)


def row(
    image: int, labels: tuple[int, ...], linf: int = 0, target: int | None = None, **told: Any
) -> Row:
    """Of an image of class 1."""
    return image, 1, target, labels, linf, told


CLEAN = [
    row(0, (1, 1, 1, 1)), row(1, (1, 1, 2, 0)), row(2, (1, 1, 2, 2)), row(3, (2, 2, 2, 1)),
]  # fmt: skip


def test_mean_majority_worst_and_distortion_over_successes(tmp_path: Path) -> None:
    pgd = {"attack": "pgd", "eot_draws": 5, "adversary": "eot"}
    attacked = [
        row(0, (1, 1, 1, 1)), row(1, (0, 0, 1, 1), 7), row(2, (1, 1, 1, 1), 9),
        row(3, (0, 0, 0, 0)),
    ]  # fmt: skip
    cases = {("clean", 0): CLEAN, ("pgd", 9): attacked}
    summary = _summary(tmp_path / "run.db", [pgd], cases, 4, stochastic=True)
    clean, pgd_case = summary.cases
    assert summary.complete
    assert (clean.images, clean.draws, clean.ticks, clean.attack_success) == (4, 4, None, None)
    assert (clean.kind, clean.adversary, clean.seconds, clean.successes) == (
        "clean",
        "",
        None,
        None,
    )
    assert clean.mean.value == 9 / 16
    # 2:1:1 wins, the tie 2:2 goes to the attacker.
    assert clean.majority == wilson(2, 4)
    assert clean.worst == wilson(1, 4)
    assert clean.disagreeing == 3 / 4
    # Images 0 and 1 were right when clean; 1 fell to a tie, 0 was left as it was, as was 3.
    assert pgd_case.attack_success == wilson(1, 2)
    assert (pgd_case.unchanged, pgd_case.gave_up) == (2 / 4, 1 / 2)
    assert (pgd_case.linf, pgd_case.linf_median, pgd_case.l2, pgd_case.l2_median) == (
        4,
        3.5,
        2,
        1.75,
    )
    # Image 3 was wrong before: its change is no success's.
    assert pgd_case.successes is not None
    assert (pgd_case.successes.examples, pgd_case.successes.linf_mean) == (1, 7)
    assert pgd_case.successes.l2_median == 3.5
    assert (pgd_case.targeted, pgd_case.target_hit, pgd_case.pairs) == (False, None, ())
    assert (pgd_case.kind, pgd_case.adversary, pgd_case.norm) == ("pgd", "eot", "linf")
    assert (pgd_case.epsilon, pgd_case.seconds) == (9 / 255, 12.0)
    assert {flag.code for flag in summary.flags} == {"randomised", "unchanged"}
    assert json.loads(json.dumps(summary.to_dict()))["cases"][1]["settings"]["eot_draws"] == 5


def test_true_label_and_target_apart_by_pair_and_by_image(tmp_path: Path) -> None:
    cw = {
        "attack": "cw", "case": "cw-paper", "levels": 0, "eot_draws": 10, "adversary": "paper",
        "targets": "all", "images": 2,
    }  # fmt: skip
    # Truth 1, targets 0 and 2: image 0 holds but under one of them; image 1 loses to a third class.
    attacked = [
        row(0, (1, 1, 1, 1), 2, 0, queries=7, found=True), row(0, (2, 2, 1, 1), 4, 2, queries=9),
        row(1, (0, 0, 3, 1), 6, 0, queries=30, found=False), row(1, (3, 3, 3, 1), 8, 2),
    ]  # fmt: skip
    cases = {("clean", 0): CLEAN, ("cw-paper", 0): attacked}
    summary = _summary(tmp_path / "run.db", [cw], cases, 4, stochastic=True)
    case = summary.cases[1]
    # Five classes, so four targets of two images were to be tried.
    assert not summary.complete
    assert (case.kind, case.adversary, case.step_draws, case.norm) == ("cw", "paper", 1, "")
    assert (case.images, case.examples, case.targeted) == (2, 4, True)
    assert case.mean.value == (4 + 2 + 1 + 1) / 16
    assert (case.majority.value, case.worst.value) == (1 / 4, 1 / 4)
    assert case.per_image.mean.value == (2 / 4 + 1 / 4) / 2
    assert (case.per_image.majority, case.per_image.worst) == (wilson(0, 2), wilson(0, 2))
    assert case.target_hit is not None
    assert case.target_hit.value == (0 + 2 + 2 + 0) / 16
    # The tie 2:2 is the attacker's; 2:1:1 is a win.
    assert case.target_majority is not None
    assert case.target_majority.value == 2 / 4
    assert case.attack_success is not None
    assert case.attack_success.value == 3 / 4
    assert [(one.source, one.target, one.examples) for one in case.pairs] == [(1, 0, 2), (1, 2, 2)]
    assert [(one.mean, one.target_hit) for one in case.pairs] == [(5 / 8, 2 / 8), (3 / 8, 2 / 8)]
    assert case.queries == Spread(mean=46 / 3, median=9, largest=30)
    assert (case.found, case.queries_shared) == (1 / 2, False)
    assert case.successes is not None
    assert (case.successes.examples, case.successes.linf_median) == (3, 6)


def test_what_attacks_told_is_gathered_and_nonsense_left_out(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = [
        {"success_before": 1.0, "success_after": 0.5, "l2_before": 1.0, "saturated": True,
         "repeatable": False, "non_finite": 0.25, "iterations": 40, "kappa_reachable": False},
        {"success_before": 0.5, "success_after": 0.0, "saturated": False, "non_finite": 0.0,
         "iterations": 20, "repeatable": True, "kappa_reachable": True, "queries_shared": True},
        {"success_before": 1.0, "saturated": "yes", "queries": "many", "iterations": None},
        {},
    ]  # fmt: skip
    rows = [row(i, (1,), 6 + i, **one) for i, one in enumerate(told)]
    attacks = [{"attack": "jsma", "eot_draws": 1, "levels": 0, "case": "j"}]
    (case,) = _summary(tmp_path / "run.db", attacks, {("j", 0): rows}, 4).cases
    rounding = case.rounding
    assert rounding is not None
    assert (rounding.examples, rounding.before, rounding.after) == (2, 0.75, 0.25)
    assert (rounding.l2_before, rounding.l2_after) == (1.0, 3.0)
    assert (case.saturated, case.unrepeatable, case.kappa_unreachable) == (0.5, 0.5, 0.5)
    assert (case.non_finite, case.iterations, case.queries) == (0.25, 30, None)
    assert case.queries_shared
    # Nobody knows which images were right when clean.
    assert (case.attack_success, case.gave_up, case.successes) == (None, None, None)


@pytest.mark.parametrize(
    ("settings", "levels", "epsilon", "norm"),
    [
        ({"attack": "pgd", "epsilon": 0.3}, 76, 76 / 255, "linf"),
        ({"attack": "pgd-l2", "epsilon": 1.5, "levels": 382}, 382, 382 / 255, "l2"),
        ({"attack": "apgd", "epsilon": 2, "norm": "l2", "levels": 510}, 510, 2.0, "l2"),
        ({"attack": "apgd", "epsilon": 0.2, "norm": "linf", "levels": 51}, 51, 0.2, "linf"),
        ({"attack": "hopskipjump", "norm": "l2", "levels": 0}, 0, 0.0, ""),
        ({"attack": "cw", "levels": 0}, 0, 0.0, ""),
    ],
)
def test_budgets(
    tmp_path: Path, settings: dict[str, Any], levels: int, epsilon: float, norm: str
) -> None:
    attacks = [{"eot_draws": 1, "case": "x"} | settings]
    (case,) = _summary(tmp_path / "run.db", attacks, {("x", levels): [row(0, (1,))]}, 1).cases
    assert (case.epsilon, case.norm, case.kind) == (epsilon, norm, settings["attack"])


def test_a_run_is_complete_when_every_case_has_what_was_planned(tmp_path: Path) -> None:
    """Fewer images for some, held-out ones for others; and a case never begun."""
    attacks = [
        {"attack": "fgsm", "eot_draws": 1, "levels": 25, "case": "f", "images": 1},
        {"attack": "substitute", "eot_draws": 1, "levels": 25, "case": "s", "held_out": 1},
    ]
    rows = [row(0, (1,)), row(1, (1,))]
    cases: dict[tuple[str, int], list[Row]] = {("clean", 0): rows, ("f", 25): rows[:1]}
    short = _summary(tmp_path / "a.db", attacks, cases, 2)
    assert not short.complete
    assert short.flags[0].code == "incomplete"
    assert _summary(tmp_path / "b.db", attacks, cases | {("s", 25): rows[:1]}, 2).complete
    cut = cases | {("s", 25): rows[:1], ("clean", 0): [row(0, (1,)), row(1, ())]}
    assert not _summary(tmp_path / "c.db", attacks, cut, 2).complete
    every = [{"attack": "cw", "case": "cw", "levels": 0, "eot_draws": 1, "targets": "all"}]
    # Of five classes.
    aimed = [row(0, (1,), 1, target) for target in (0, 2, 3, 4)]
    for count in (3, 4):
        cases = {("clean", 0): rows[:1], ("cw", 0): aimed[:count]}
        summary = _summary(tmp_path / f"{count}.db", every, cases, 1)
        assert (summary.complete, summary.planned) == (count == 4, 5)


def test_an_empty_store_gives_no_figures(tmp_path: Path) -> None:
    summary = _summary(tmp_path / "run.db", [], {}, 2)
    assert (summary.cases, summary.complete) == ((), False)


@pytest.mark.parametrize(
    "identity",
    [
        {},
        {"config": 3},
        _identity(1, [{"attack": "pgd"}]),
        _identity(1, [{"attack": "pgd", "eot_draws": "2"}]),
        _identity(True, []),
        _identity(1, [], stochastic=1),
    ],
)
def test_identities_of_no_campaign(identity: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="which campaign"):
        read_plan(Path("run.db"), identity)


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


def test_the_bootstrap_resamples_images_and_not_their_draws() -> None:
    """Against the textbook's standard error of a mean over clusters."""
    rng = np.random.default_rng(1)
    images = np.arange(400).repeat(21)
    chances = rng.beta(0.3, 0.7, 400).repeat(21)
    values = (rng.random(len(images)) < chances).astype(float)
    found = cluster_bootstrap(values, images)
    means = values.reshape(400, 21).mean(1)
    half = 1.96 * means.std(ddof=1) / math.sqrt(400)
    assert found.value == values.mean()
    assert found.high - found.low == pytest.approx(2 * half, rel=0.08)
    # As if all were independent, it would be less than half as wide.
    assert found.high - found.low > 2 * (wilson(values.sum(), len(values)).high - found.value)
    assert cluster_bootstrap(values, images) == found
    order = rng.permutation(len(images))
    assert cluster_bootstrap(values[order], images[order]).low == pytest.approx(found.low, abs=0.01)


def test_large_clusters_count_for_more() -> None:
    """A tenth of all answers are right, though half of the images are."""
    values, images = np.repeat([1.0, 0.0], [50, 450]), np.r_[0:50, np.arange(50, 100).repeat(9)]
    found = cluster_bootstrap(values, images)
    assert found.value == 0.1
    assert 0.05 < found.low < 0.1 < found.high < 0.2


def test_the_targets_of_an_image_are_not_independent() -> None:
    values, images = np.tile([1.0, 0.0], 50).repeat(9), np.arange(100).repeat(9)
    found, alone = interval(values, images), wilson(450, 900)
    assert found.high - found.low > 2 * (alone.high - alone.low)


def test_one_odd_draw_makes_nobody_certain() -> None:
    values = np.zeros(4200)
    values[0] = 1.0
    assert cluster_bootstrap(values, np.arange(200).repeat(21)).high > 0.018


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_clusters_that_all_agree_are_not_certain(share: float) -> None:
    found = cluster_bootstrap(np.tile([1.0, 0, 0, 0], 30) if share == 0.25 else np.full(120, share),
                              np.arange(30).repeat(4))  # fmt: skip
    assert found == wilson(share * 30, 30)
    assert isinstance(found, Accuracy)
    assert found.high - found.low > 0.1
