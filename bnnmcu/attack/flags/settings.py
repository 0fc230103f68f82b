"""How far the accuracy depends on the setting of one attack, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnnmcu.attack.flags.flag import Flag, percent, points, shown

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.case import Case

__all__ = ["flags_of_settings"]

#: Accuracy that one setting leaves more than another.
GAP = 0.05
#: A share of images that differs by less between settings explains nothing.
EXPLAINS = 0.02

# Told apart from the settings themselves, or of no consequence.
_ASIDE = ("name", "images", "targets", "adversary", "eot_draws", "early_abort", "candidate_seeds")


def flags_of_settings(attacks: Sequence[Case]) -> list[Flag]:
    """Of cases of one kind with the same budget: each against the strongest."""
    flags = []
    for case in attacks:
        alike = [
            other for other in attacks
            if (other.kind, other.norm, other.epsilon, other.targeted)
            == (case.kind, case.norm, case.epsilon, case.targeted)
        ]  # fmt: skip
        flags += _against(case, [other for other in alike if not other.knows_seed], known=False)
        flags += _against(case, [other for other in alike if other.knows_seed], known=True)
    return flags


def _against(case: Case, others: Sequence[Case], *, known: bool) -> list[Flag]:
    best = min(others, key=lambda other: other.mean.value, default=None)
    if best is None:
        return []
    gap = case.mean.value - best.mean.value
    # On other images chance moves both.
    least = best.mean.value if case.images == best.images else best.mean.high
    if gap < GAP or case.mean.low <= least or _only_transferred(case, best):
        return []
    start = (
        f"{case.name} leaves {percent(case.mean.value)} right and {best.attack} "
        f"{percent(best.mean.value)}, a gap of {points(gap)} (threshold {points(GAP)})"
    )
    if known and not case.knows_seed:
        text = f"{start}: what it is worth to know the seed that judges ({best.adversary})"
        return [Flag("weaker-setting", "note", text)]
    if case.knows_seed and not known:
        text = f"{start}, although it knows the seed that judges: it got stuck"
        return [Flag("weaker-setting", "warning", text)]
    if (case.adversary, best.adversary) == ("seed-known", "seed-chosen"):
        text = f"{start}: what it is worth to choose the seed that judges"
        return [Flag("weaker-setting", "note", text)]
    text = (
        f"{start}, which is the attack's setting and not the network's robustness: "
        f"{'; '.join(_reasons(case, best)) or 'the settings are the same'}"
    )
    return [Flag("weaker-setting", "warning", text)]


def _only_transferred(case: Case, best: Case) -> bool:
    """How another model's gradients do is why transfer is measured at all."""
    changed = [
        key for key in case.settings.keys() | best.settings.keys()
        if key not in ("name", "images") and case.settings.get(key) != best.settings.get(key)
    ]  # fmt: skip
    return changed == ["model"]


def _reasons(case: Case, best: Case) -> list[str]:
    """What is different, and measured to be, each as a clause."""
    found = []
    if case.step_draws != best.step_draws:
        draws = f"{case.step_draws} draw{'s' if case.step_draws > 1 else ''}"
        found.append(f"{draws} a step against {best.step_draws}")
    if case.settings.get("early_abort") and not best.settings.get("early_abort"):
        found.append("early stop" + _after(case))
    if (case.gave_up or 0.0) - (best.gave_up or 0.0) >= EXPLAINS:
        found.append(
            f"{percent(case.gave_up or 0.0)} of the right images left unchanged against "
            f"{percent(best.gave_up or 0.0)}"
        )
    fooled = None if case.attack_success is None else case.attack_success.value
    if case.found is not None and fooled is not None and case.found - fooled >= EXPLAINS:
        found.append(
            f"it took {percent(case.found)} of the images for fooled, and on fresh draws "
            f"{percent(fooled)} of those that were right are"
        )
    keys = sorted((case.settings.keys() & best.settings.keys()) - set(_ASIDE))
    for key in keys:
        mine, theirs = case.settings[key], best.settings[key]
        if mine != theirs:
            what = shown(key.replace("_", " "))
            # An empty name stands for the network that answers.
            found.append(f"{what} {shown(mine) or 'own'} against {shown(theirs) or 'own'}")
    return found


def _after(case: Case) -> str:
    if not case.stopped_early:
        return ""
    return f" (after {case.iterations:.0f} of {case.planned_iterations} iterations, mean)"
