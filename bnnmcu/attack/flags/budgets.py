"""Whether accuracy falls as an attack may do more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bnnmcu.attack.flags.flag import Flag, percent, reaches

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.case import Case

__all__ = ["flags_of_budgets"]

#: A budget that is so many times another one should leave less right ...
GROWTH = 1.5
#: ... unless it is still small (L-infinity, L2), ...
SMALL = {"linf": 0.1, "l2": 1.5}
#: ... or hardly anything is left.
STILL_RIGHT = 0.1

# Settings that say how long an attack goes on, with their names for people.
_STEPS = {"steps": "steps", "iterations": "iterations", "budget": "queries"}
#: So many times as many steps should not leave as much right, unless hardly anything is.
MORE_STEPS = 2

# What differs between cases of one attack with several budgets.
_EPSILON = ("epsilon",)


def flags_of_budgets(attacks: Sequence[Case]) -> list[Flag]:
    """Of the same attack with several budgets, or numbers of steps or queries."""
    return [
        *(flag for case in attacks for flag in _of_epsilon(case, attacks)),
        *(flag for case in attacks for flag in _of_steps(case, attacks)),
    ]


def _alike(case: Case, other: Case, apart: tuple[str, ...]) -> bool:
    """The same attack but for some settings."""

    def rest(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in apart}

    return (
        (case.kind, case.norm, case.targeted) == (other.kind, other.norm, other.targeted)
        and case.images == other.images
        and rest(case.settings) == rest(other.settings)
    )


def _of_epsilon(case: Case, attacks: Sequence[Case]) -> list[Flag]:
    smaller = [
        other for other in attacks
        if other.epsilon < case.epsilon and _alike(case, other, _EPSILON)
    ]  # fmt: skip
    best = min(smaller, key=lambda other: other.mean.value, default=None)
    if best is None:
        return []
    if case.mean.low > best.mean.value:
        text = (
            f"{case.name} is weaker than with epsilon {best.epsilon:.3f}: "
            f"{percent(case.mean.value)} are right against {percent(best.mean.value)} (threshold: "
            f"its interval begins above, at {percent(case.mean.low)}); more room cannot make a "
            "sound attack weaker"
        )
        return [Flag("not-monotone", "warning", text)]
    # Both were rounded down: 0.2 and 0.3 are 51 and 76 levels.
    grown = case.levels + 1 >= GROWTH * best.levels and reaches(case, SMALL[case.norm])
    if grown and case.mean.value >= best.mean.value and case.mean.value > STILL_RIGHT:
        text = (
            f"{case.name} leaves as many right as with epsilon {best.epsilon:.3f}: "
            f"{percent(case.mean.value)} against {percent(best.mean.value)} (threshold: the same, "
            f"at {GROWTH} times the budget and above {percent(STILL_RIGHT)}); the attack is stuck"
        )
        return [Flag("not-monotone", "warning", text)]
    return []


def _of_steps(case: Case, attacks: Sequence[Case]) -> list[Flag]:
    flags = []
    for key in _STEPS:
        own = case.settings.get(key)
        fewer = [
            other for other in attacks
            if other.levels == case.levels and type(own) is int
            and type(other.settings.get(key)) is int and other.settings[key] < own
            and _alike(case, other, (key,))
        ]  # fmt: skip
        best = min(fewer, key=lambda other: other.mean.value, default=None)
        if best is not None and case.mean.low > best.mean.value:
            text = (
                f"{case.name} with {own} {_STEPS[key]} is weaker than with {best.settings[key]}: "
                f"{percent(case.mean.value)} are right against {percent(best.mean.value)} "
                f"(threshold: its interval begins above, at {percent(case.mean.low)}); an attack "
                "that gets worse by going on is unsound"
            )
            flags.append(Flag("more-steps-weaker", "warning", text))
        elif best is not None and _no_better(case, best, key):
            flags.append(_stuck(case, best, key))
    return flags


def _no_better(case: Case, best: Case, key: str) -> bool:
    return (
        case.settings[key] >= MORE_STEPS * best.settings[key]
        and case.mean.value >= best.mean.value
        and case.mean.value > STILL_RIGHT
    )


def _stuck(case: Case, best: Case, key: str) -> Flag:
    text = (
        f"{case.name} leaves as many right with {case.settings[key]} {_STEPS[key]} as with "
        f"{best.settings[key]}: {percent(case.mean.value)} against {percent(best.mean.value)} "
        f"(threshold: the same, at {MORE_STEPS} times as many and above {percent(STILL_RIGHT)}); "
    )
    if case.stopped_early:
        text += f"it stops early, after {case.iterations:.0f} on average, and so never made them"
        return Flag("more-steps-no-better", "warning", text)
    text += "it has converged, or is stuck: only another attack can tell which"
    return Flag("more-steps-no-better", "note", text)
