"""From the answers of one case to its figures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.metrics.case import Accuracies, Case, Distortion, Pair, Rounding, Spread
from bnnmcu.attack.metrics.intervals import Accuracy, interval
from bnnmcu.attack.metrics.planned import Planned
from bnnmcu.attack.metrics.votes import numbers, reaches_target, share, stays_right
from bnnmcu.store import Judged

__all__ = ["budget_of", "measure"]

_CLEAN = "clean"


def _accuracies(
    shares: npt.NDArray[np.float64],
    majority: npt.NDArray[np.float64],
    images: npt.NDArray[np.int64],
) -> Accuracies:
    worst = (shares == 1.0).astype(np.float64)
    return Accuracies(*(interval(values, images) for values in (shares, majority, worst)))


def _per_image(
    shares: npt.NDArray[np.float64],
    majority: npt.NDArray[np.float64],
    images: npt.NDArray[np.int64],
) -> Accuracies:
    """Each image under the worst of its targets."""
    own, member = np.unique(images, return_inverse=True)
    least, voted = np.ones(len(own)), np.ones(len(own))
    np.minimum.at(least, member, shares)
    np.minimum.at(voted, member, majority)
    return _accuracies(least, voted, own)


def _distortion(judged: Sequence[Judged]) -> Distortion | None:
    if not judged:
        return None
    linf, l2 = ([getattr(one, name) for one in judged] for name in ("linf", "l2"))
    return Distortion(
        examples=len(judged),
        linf_mean=float(np.mean(linf)),
        linf_median=float(np.median(linf)),
        l2_mean=float(np.mean(l2)),
        l2_median=float(np.median(l2)),
    )


def _rounding(judged: Sequence[Judged]) -> Rounding | None:
    keys = ("success_before", "success_after")
    both = [one for one in judged if all(numbers([one], key) for key in keys)]
    if not both:
        return None
    norms = [one for one in both if numbers([one], "l2_before")]
    return Rounding(
        examples=len(both),
        before=float(np.mean(numbers(both, keys[0]))),
        after=float(np.mean(numbers(both, keys[1]))),
        l2_before=float(np.mean(numbers(norms, "l2_before"))) if norms else None,
        l2_after=float(np.mean([one.l2 for one in norms])) if norms else None,
    )


def _pairs(judged: Sequence[Judged]) -> tuple[Pair, ...]:
    cells: dict[tuple[int, int], list[Judged]] = {}
    for one in judged:
        if one.target is not None:
            cells.setdefault((one.true_label, one.target), []).append(one)
    return tuple(
        Pair(
            source=source,
            target=target,
            examples=len(cell),
            mean=float(np.mean([np.mean(np.equal(one.labels, source)) for one in cell])),
            target_hit=float(np.mean([np.mean(np.equal(one.labels, target)) for one in cell])),
        )
        for (source, target), cell in sorted(cells.items())
    )


def budget_of(planned: Planned, levels: int) -> tuple[float, str]:
    """Epsilon and its norm; both empty without a budget."""
    if levels == 0 and "epsilon" not in planned.settings:
        return 0.0, ""
    in_l2 = planned.kind == "pgd-l2" or planned.settings.get("norm") == "l2"
    return levels / 255.0, "l2" if in_l2 else "linf"


def measure(judged: Sequence[Judged], right_when_clean: set[int] | None, planned: Planned) -> Case:
    """Figures of the answered examples of one case, at least one.

    Args:
        judged: of the case.
        right_when_clean: images that were right by majority; None where that is not known.
        planned: what was to be done.
    """
    first, count = judged[0], len(judged)
    images = np.array([one.image for one in judged], dtype=np.int64)
    shares = np.array([one.labels.count(one.true_label) / len(one.labels) for one in judged])
    majority = np.array([float(stays_right(one)) for one in judged])
    over_pairs = _accuracies(shares, majority, images)
    several = len(np.unique(images)) < count
    epsilon, norm = budget_of(planned, first.levels)
    clean = first.attack == _CLEAN
    aimed = [one for one in judged if one.target is not None]
    was_right = [] if clean else [one for one in judged if one.image in (right_when_clean or ())]
    lost = [one for one in was_right if not stays_right(one)]
    hits = np.array([one.labels.count(one.target) / len(one.labels) for one in aimed])
    reached = np.array([float(reaches_target(one)) for one in aimed])
    aimed_at = np.array([one.image for one in aimed], dtype=np.int64)
    ticks = [tick for one in judged for tick in one.ticks]
    queries = numbers(judged, "queries")
    seconds = [one.crafting_s or 0.0 for one in judged if one.crafting_s is not None]
    iterations = numbers(judged, "iterations")
    changes = _distortion(judged)
    assert changes is not None
    return Case(
        attack=first.attack,
        kind=planned.kind,
        adversary="" if clean else str(planned.settings.get("adversary", "eot")),
        levels=first.levels,
        epsilon=epsilon,
        norm=norm,
        targeted=bool(aimed),
        images=len(np.unique(images)),
        examples=count,
        draws=len(first.labels),
        mean=over_pairs.mean,
        majority=over_pairs.majority,
        worst=over_pairs.worst,
        # With one target an image, the two are the same, and intervals are slow.
        per_image=_per_image(shares, majority, images) if several else over_pairs,
        target_hit=interval(hits, aimed_at) if aimed else None,
        target_majority=interval(reached, aimed_at) if aimed else None,
        attack_success=_success(was_right) if was_right else None,
        unchanged=0.0 if clean else sum(one.linf == 0 for one in judged) / count,
        gave_up=sum(one.linf == 0 and stays_right(one) for one in was_right) / len(was_right)
        if was_right
        else None,
        linf=changes.linf_mean,
        linf_median=changes.linf_median,
        l2=changes.l2_mean,
        l2_median=changes.l2_median,
        successes=_distortion(lost),
        rounding=_rounding(judged),
        queries=Spread(float(np.mean(queries)), float(np.median(queries)), max(queries))
        if queries
        else None,
        queries_shared=any(one.details.get("queries_shared") is True for one in judged),
        seconds=sum(seconds) if seconds and not clean else None,
        ticks=int(np.median(ticks)) if ticks else None,
        zero_gradients=sum(one.zero_gradients > 0 for one in judged) / count,
        non_finite=sum(one > 0 for one in numbers(judged, "non_finite")) / count,
        saturated=share(judged, "saturated", True),
        unrepeatable=share(judged, "repeatable", False),
        kappa_unreachable=share(judged, "kappa_reachable", False),
        found=share(judged, "found", True),
        iterations=float(np.mean(iterations)) if iterations else None,
        disagreeing=sum(len(set(one.labels)) > 1 for one in judged) / count,
        seeded=all(one.seeded for one in judged),
        settings=dict(planned.settings),
        pairs=_pairs(aimed),
    )


def _success(was_right: Sequence[Judged]) -> Accuracy:
    lost = np.array([float(not stays_right(one)) for one in was_right])
    return interval(lost, np.array([one.image for one in was_right], dtype=np.int64))
