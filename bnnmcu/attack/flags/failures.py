"""Whether an attack did what it was for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnnmcu.attack.flags.flag import Flag, percent, reaches, shown

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.case import Case

__all__ = ["flags_of_failures"]

#: Share of the right images left as they were.
UNCHANGED = 0.01
#: Share of images out of reach of the confidence asked for.
UNREACHABLE = 0.01
#: Success below which an attack with enough room counts as failed.
FAILED = 0.05
#: What is enough room: L-infinity, and L2 in units of [0, 1].
ROOM = {"linf": 0.1, "l2": 1.5}
#: A budget at which an undefended image can be turned into another one, and what may be left.
HUGE_EPSILON = 0.5
STILL_RIGHT = 0.1


def flags_of_failures(case: Case) -> list[Flag]:
    """Of an attack that gave up, could not succeed, or had every chance to."""
    flags = []
    left = case.unchanged if case.gave_up is None else case.gave_up
    if left >= UNCHANGED:
        text = (
            f"{case.name} left {percent(left)} of the right images unchanged (threshold "
            f"{percent(UNCHANGED)}): a failed attack, which counts as a right answer"
        )
        flags.append(Flag("unchanged", "warning", text))
    if (case.kappa_unreachable or 0.0) >= UNREACHABLE:
        text = (
            f"{case.name}: on {percent(case.kappa_unreachable or 0.0)} of the images (threshold "
            f"{percent(UNREACHABLE)}) no logits can lead by the confidence asked for, "
            f"{shown(case.settings.get('confidence'))}: the attack cannot succeed there, whatever "
            "the network is, and its accuracy says nothing"
        )
        flags.append(Flag("unreachable-kappa", "warning", text))
    if _failed(case):
        flags.append(_attack_failed(case))
    huge = case.norm == "linf" and reaches(case, HUGE_EPSILON)
    if huge and case.mean.value > STILL_RIGHT:
        text = (
            f"{case.name} leaves {percent(case.mean.value)} right, where a budget of "
            f"{HUGE_EPSILON} or more should leave at most {percent(STILL_RIGHT)}: the attack "
            "fails, whatever the network is"
        )
        flags.append(Flag("huge-budget", "warning", text))
    return flags


def _failed(case: Case) -> bool:
    success = case.attack_success
    # Within a small budget there may be nothing to find.
    room = not case.norm or reaches(case, ROOM[case.norm])
    return success is not None and room and success.value < FAILED


def _attack_failed(case: Case) -> Flag:
    assert case.attack_success is not None
    text = (
        f"{case.name} succeeded on {percent(case.attack_success.value)} of the images that were "
        f"right (threshold {percent(FAILED)})"
    )
    if case.by_queries or case.transferred:
        text += ": so few answers, or that other model, did not tell it enough"
        return Flag("attack-failed", "note", text)
    text += ", although its budget leaves room: take it for a failed attack, not for robustness"
    return Flag("attack-failed", "warning", text)
