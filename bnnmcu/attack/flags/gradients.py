"""Whether an attack had gradients to follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnnmcu.attack.flags.flag import Flag, Severity, percent, points

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.case import Case

__all__ = ["flags_of_gradients"]

#: Shares of images; below the first a flag would only be noise.
ZERO_GRADIENTS = 0.01
SATURATED = 0.05
NON_FINITE = 0.0
#: Of the draws fooled before rounding to pixels, in points lost by it.
ROUNDING = 0.05


def flags_of_gradients(case: Case) -> list[Flag]:
    """Of an attack's own numbers."""
    flags = []
    # Where nothing is left right, nothing can look better than it is.
    severity: Severity = "warning" if case.mean.value > 0 else "note"
    if case.zero_gradients >= ZERO_GRADIENTS:
        text = (
            f"{case.name}: no gradient at all in some step on {percent(case.zero_gradients)} of "
            f"the images (threshold {percent(ZERO_GRADIENTS)})"
        )
        if case.mean.value > 0:
            text += ": what is still right there may be masked, not robust"
        flags.append(Flag("zero-gradients", severity, text))
    if case.non_finite > NON_FINITE:
        text = (
            f"{case.name}: a loss or gradient that is no finite number on "
            f"{percent(case.non_finite)} of the images (threshold {percent(NON_FINITE)}): those "
            "steps went anywhere, so the model may be weaker than it looks"
        )
        flags.append(Flag("non-finite", severity, text))
    if (case.saturated or 0.0) >= SATURATED:
        flags.append(_saturated(case))
    rounding = case.rounding
    if rounding is not None and rounding.before - rounding.after >= ROUNDING:
        lost = points(rounding.before - rounding.after)
        text = (
            f"{case.name}: {percent(rounding.before)} of the draws were fooled before rounding to "
            f"pixels and {percent(rounding.after)} after, {lost} less (threshold "
            f"{points(ROUNDING)}): the rounding resists, not the network"
        )
        flags.append(Flag("rounding", "warning", text))
    return flags


def _saturated(case: Case) -> Flag:
    share = percent(case.saturated or 0.0)
    start = (
        f"{case.name}: the softmax of the clean image is all but certain on {share} of the images "
        f"(threshold {percent(SATURATED)})"
    )
    # Cooler logits have gradients again; CW and JSMA do not use the cross-entropy.
    temperatures = case.settings.get("temperatures") or [case.settings.get("temperature", 1.0)]
    losses = case.settings.get("losses") or [case.settings.get("loss")]
    blind = losses == ["ce"] and temperatures == [1.0]
    if blind and case.mean.value > 0:
        return Flag(
            "saturated",
            "warning",
            f"{start}, where cross-entropy has hardly a gradient: what is still right may be "
            "masked; attack with a higher temperature, or with the loss dlr or margin",
        )
    return Flag("saturated", "note", f"{start}; its loss does not depend on that")
