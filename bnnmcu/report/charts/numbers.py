"""What charts show, as plain numbers: the same for pages, notebooks and terminals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.metrics import Case
from bnnmcu.attack.metrics.votes import numbers, stays_right
from bnnmcu.report.stored import StoredRun

__all__ = [
    "Confusion",
    "Curve",
    "accuracy_by_epsilon",
    "accuracy_by_iterations",
    "confusion",
    "distortions",
    "fooled_by_queries",
    "norms_of",
    "strongest",
]

# Settings that say how long an attack goes on.
_LENGTHS = ("iterations", "steps")


@dataclass(frozen=True)
class Curve:
    """Points of one line.

    Attributes:
        label: of the line.
        x: ascending.
        y: shares within [0, 1], one for each x.
        low, high: their 95 % intervals; empty where there are none.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Confusion:
    """True labels against answers.

    Attributes:
        case: name of the case.
        shares: float64 (classes, classes): of the draws of a true label's images, the share that
            each label got; rows of labels without images are NaN.
        images: int64 (classes,): of each true label.
    """

    case: str
    shares: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]


def norms_of(runs: Sequence[StoredRun]) -> list[str]:
    """Norms that budgets were given in, ``linf`` before ``l2``."""
    found = {case.norm for run in runs for case in run.summary.cases if case.norm}
    return sorted(found, key=lambda norm: norm != "linf")


def accuracy_by_epsilon(run: StoredRun, norm: str) -> list[Curve]:
    """A line for each attack with a budget of this norm, which begins at the clean accuracy.

    x is epsilon as it really was, in units of the pixels' range [0, 1]; y the mean over draws.
    """
    cases = run.summary.cases
    clean = [case for case in cases if case.clean]
    lines: dict[str, list[Case]] = {}
    for case in cases:
        if case.norm == norm:
            lines.setdefault(case.attack, []).append(case)
    return [
        _curve(name, [(case.epsilon, case) for case in (*clean, *line)])
        for name, line in lines.items()
    ]


def accuracy_by_iterations(run: StoredRun) -> list[Curve]:
    """A line for each attack of which cases differ in nothing but the number of iterations."""
    lines: dict[str, list[tuple[float, Case]]] = {}
    for case in run.summary.cases:
        asked = [case.settings.get(name) for name in _LENGTHS]
        steps = [one for one in asked if type(one) is int and one > 0]
        if case.clean or not steps:
            continue
        others = {name: value for name, value in case.settings.items() if name not in _LENGTHS}
        # What a case was called follows from the rest.
        others.pop("case", None)
        key = json.dumps([case.kind, case.levels, others], sort_keys=True, default=str)
        lines.setdefault(key, []).append((float(steps[0]), case))
    found = []
    for line in lines.values():
        if len({steps for steps, _ in line}) > 1:
            first = line[0][1]
            budget = f", epsilon {first.epsilon:.3g}" if first.norm else ""
            adversary = f" ({first.adversary})" if first.adversary else ""
            found.append(_curve(f"{first.kind}{adversary}{budget}", line))
    return found


def _curve(label: str, points: Sequence[tuple[float, Case]]) -> Curve:
    ordered = sorted(points, key=lambda point: point[0])
    found = [case.mean for _, case in ordered]
    return Curve(
        label,
        tuple(x for x, _ in ordered),
        tuple(one.value for one in found),
        tuple(one.low for one in found),
        tuple(one.high for one in found),
    )


def strongest(run: StoredRun) -> Case | None:
    """The attack that leaves least, by the mean over draws; None where there was none."""
    attacks = [case for case in run.summary.cases if not case.clean]
    return min(attacks, key=lambda case: case.mean.value, default=None)


def confusion(run: StoredRun, case: Case) -> Confusion:
    """Who was taken for whom under one case."""
    judged = run.judged[case.attack, case.levels]
    classes = max(one.classes for one in judged)
    counts = np.zeros((classes, classes), np.float64)
    images = np.zeros(classes, np.int64)
    for one in judged:
        images[one.true_label] += 1
        for label, votes in Counter(one.labels).items():
            counts[one.true_label, label] += votes / len(one.labels)
    shares = np.full_like(counts, np.nan)
    there = images > 0
    shares[there] = counts[there] / images[there, None]
    return Confusion(case.attack, shares, images)


def distortions(run: StoredRun) -> dict[str, list[float]]:
    """For each case, the L2 norms of what fooled images that were right when clean."""
    right = run.right
    found: dict[str, list[float]] = {}
    for case in run.summary.cases:
        if case.clean:
            continue
        judged = run.judged[case.attack, case.levels]
        norms = [one.l2 for one in judged if one.image in right and not stays_right(one)]
        if norms:
            found[named(case)] = sorted(norms)
    return found


def fooled_by_queries(run: StoredRun) -> list[Curve]:
    """Of images right when clean, the share that was fooled with so many queries or fewer.

    Of attacks that ask the network; queries are inferences.  Those of a substitute, which all
    images share, are no curve.
    """
    right = run.right
    found = []
    for case in run.summary.cases:
        if case.clean or case.queries is None or case.queries_shared:
            continue
        judged = [one for one in run.judged[case.attack, case.levels] if one.image in right]
        fooled = [one for one in judged if not stays_right(one)]
        asked = sorted(numbers(fooled, "queries"))
        if judged and asked:
            steps = range(1, len(asked) + 1)
            share = tuple(count / len(judged) for count in (0, *steps))
            found.append(Curve(named(case), (asked[0], *asked), share))
    return found


def named(case: Case) -> str:
    """A case with its budget."""
    return case.attack + (f", epsilon {case.epsilon:.3g}" if case.norm else "")
