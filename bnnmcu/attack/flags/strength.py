"""Whether an attack that knows less did better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnnmcu.attack.flags.flag import Flag, percent

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.case import Case

__all__ = ["flags_of_strength"]

_ITERATIVE = ("pgd", "apgd")
# May change a few pixels only, so that others can well do better.
_FEW_PIXELS = "jsma"


def flags_of_strength(attacks: Sequence[Case]) -> list[Flag]:
    """Of answers against gradients, and of one step against many."""
    flags = []
    with_gradients = [case for case in attacks if not case.by_queries and case.kind != _FEW_PIXELS]
    with_own = [case for case in with_gradients if not case.transferred]
    for case in attacks:
        if not case.by_queries and not case.transferred:
            continue
        best = _strongest(case, with_gradients if case.by_queries else with_own)
        if best is not None and _below(case, best):
            # Without a budget, a search that is too short looks like one without a gradient.
            why = "are masked" if case.norm else "are masked, or that attack gave up too soon"
            by = "answers alone" if case.by_queries else "another model's gradients"
            text = (
                f"{case.name}, by {by}, leaves {percent(case.mean.value)} right, fewer than "
                f"{best.name} by gradients ({percent(best.mean.value)}; threshold: its interval "
                f"begins above, at {percent(best.mean.low)}): those gradients {why}, so the "
                "network is weaker than they show"
            )
            flags.append(Flag("black-box-stronger", "warning", text))
    for case in attacks:
        best = _strongest(case, [other for other in with_own if other.kind == "fgsm"])
        if case.kind in _ITERATIVE and best is not None and _below(best, case):
            text = (
                f"{best.name} is stronger than {case.name}: {percent(best.mean.value)} are right "
                f"against {percent(case.mean.value)} (threshold: that interval begins above, at "
                f"{percent(case.mean.low)}); the longer attack got stuck"
            )
            flags.append(Flag("fgsm-stronger", "warning", text))
    return flags


def _below(case: Case, other: Case) -> bool:
    """Surely fewer are right; on other images chance moves both."""
    same = case.images == other.images
    return (case.mean.value if same else case.mean.high) < other.mean.low


def _strongest(case: Case, others: Sequence[Case]) -> Case | None:
    """Of those with the same goal, budget and knowledge of the seed, or free as this one is."""
    alike = [
        other for other in others
        if (other.norm, other.epsilon, other.targeted, other.knows_seed)
        == (case.norm, case.epsilon, case.targeted, case.knows_seed)
    ]  # fmt: skip
    return min(alike, key=lambda other: other.mean.value, default=None)
