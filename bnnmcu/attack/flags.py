"""Warnings that an evaluation may look better, or other, than the model is.

In the manner of AutoAttack's flags (Croce & Hein, 2020): each has a code for
scripts, a threshold and a plain sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bnnmcu.attack.metrics import Case

__all__ = ["Flag", "find_flags"]

# Below these shares of images a flag would only be noise.
_ZERO_GRADIENTS = 0.01
_UNCHANGED = 0.01
# A budget at which an undefended image can be turned into another one.
_HUGE_EPSILON = 0.5
_STILL_RIGHT = 0.1


@dataclass(frozen=True)
class Flag:
    """One finding.

    Attributes:
        code: for scripts; does not change.
        severity: ``note`` says how figures came about, ``warning`` that they
            may not mean what they seem to.
        text: one plain sentence.
    """

    code: str
    severity: Literal["note", "warning"]
    text: str


def _name(case: Case) -> str:
    return f"{case.attack} at epsilon {case.epsilon:.3f}"


def _randomised(attacks: Sequence[Mapping[str, Any]], draws: int) -> list[Flag]:
    single = sorted({attack["attack"] for attack in attacks if attack["eot_draws"] == 1})
    several = sorted({attack["eot_draws"] for attack in attacks} - {1})
    flags = []
    if several or not attacks:
        used = f"; EOT used, over {', '.join(map(str, several))} draws a step" if several else ""
        text = f"randomised: weights are drawn{used}; judged on {draws} fresh draws an image"
        flags.append(Flag("randomised", "note", text))
    if single:
        text = (
            f"randomised, and {', '.join(single)} saw one draw a step only: an attacker who "
            "averages over draws does better, so these accuracies are too high"
        )
        flags.append(Flag("no-eot", "warning", text))
    return flags


def _of_case(case: Case) -> list[Flag]:
    flags = []
    if case.zero_gradients >= _ZERO_GRADIENTS:
        text = f"zero gradients on {case.zero_gradients:.1%} of the images ({_name(case)})"
        if case.mean.value > 0:
            text += ": what is still right there may be masked, not robust"
        # Where nothing is left right, nothing can look better than it is.
        severity: Literal["note", "warning"] = "warning" if case.mean.value > 0 else "note"
        flags.append(Flag("zero-gradients", severity, text))
    if case.levels > 0 and case.unchanged >= _UNCHANGED:
        text = f"{_name(case)} left {case.unchanged:.1%} of the images unchanged"
        flags.append(Flag("unchanged", "warning", text))
    if case.epsilon >= _HUGE_EPSILON and case.mean.value > _STILL_RIGHT:
        text = f"{_name(case)} leaves {case.mean.value:.1%} right: the attack fails, whatever it is"
        flags.append(Flag("huge-budget", "warning", text))
    return flags


def _comparisons(cases: Sequence[Case]) -> list[Flag]:
    flags = []
    by_name = {(case.attack, case.levels): case for case in cases}
    for case in cases:
        stronger = by_name.get(("fgsm", case.levels))
        if case.attack == "pgd" and stronger and stronger.mean.value < case.mean.low:
            text = (
                f"FGSM stronger than PGD at epsilon {case.epsilon:.3f} "
                f"({stronger.mean.value:.1%} against {case.mean.value:.1%}): PGD got stuck"
            )
            flags.append(Flag("fgsm-stronger", "warning", text))
    for case in cases:
        smaller = [
            other for other in cases if other.attack == case.attack and other.levels < case.levels
        ]
        best = min(smaller, key=lambda other: other.mean.value, default=None)
        if best and case.mean.low > best.mean.value:
            text = (
                f"{_name(case)} is weaker than with epsilon {best.epsilon:.3f} "
                f"({case.mean.value:.1%} against {best.mean.value:.1%})"
            )
            flags.append(Flag("not-monotone", "warning", text))
    return flags


def find_flags(
    cases: Sequence[Case], identity: Mapping[str, Any], *, complete: bool
) -> tuple[Flag, ...]:
    """All flags that a run's cases raise, the general ones first."""
    attacks = identity["config"]["attacks"]
    flags = []
    if not complete:
        text = "the run is not finished: the figures are of the images answered so far"
        flags.append(Flag("incomplete", "warning", text))
    if identity["model"]["stochastic"]:
        flags += _randomised(attacks, int(identity["config"]["draws"]))
    for case in cases:
        flags += _of_case(case)
    return tuple(flags + _comparisons(cases))
