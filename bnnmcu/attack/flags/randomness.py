"""Whether randomness could have fooled an attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnnmcu.attack.flags.flag import Flag, percent

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.case import Case

__all__ = ["flags_of_randomness"]

#: Share of images with draws of different labels from which a network that draws
#: no weights counts as randomised.
DISAGREEING = 0.0
#: Share of images to which the attacked model gave two answers.
UNREPEATABLE = 0.0
#: Draws a step from which an attack averages.
FEWEST_EOT = 2


def flags_of_randomness(cases: Sequence[Case], stochastic: bool, draws: int) -> list[Flag]:
    """Of a network that draws weights, or one that should not and answers as if it did."""
    flags = [flag for case in cases for flag in _undeclared(case, stochastic)]
    by_gradients = [
        case for case in cases if not case.clean and not case.by_queries and not case.knows_seed
    ]
    if not stochastic:
        return flags
    several = sorted({case.step_draws for case in by_gradients} - {1})
    single = sorted({case.attack for case in by_gradients if case.step_draws < FEWEST_EOT})
    if several or not single:
        used = f"; EOT used, over {', '.join(map(str, several))} draws a step" if several else ""
        share = max((case.disagreeing for case in cases), default=0.0)
        one = (
            ", or the one that its attacker knew" if any(case.knows_seed for case in cases) else ""
        )
        text = (
            f"randomised: weights are drawn, and up to {percent(share)} of the images of a case "
            f"have draws of different labels{used}; judged on {draws} fresh draws an image{one}"
        )
        flags.append(Flag("randomised", "note", text))
    if single:
        text = (
            f"randomised, and {', '.join(single)} saw one draw a step only ({FEWEST_EOT} or more "
            "count as averaging): an attacker who averages over draws does better, so these "
            "accuracies are too high"
        )
        flags.append(Flag("no-eot", "warning", text))
    return flags


def _undeclared(case: Case, stochastic: bool) -> list[Flag]:
    flags = []
    if not stochastic and case.disagreeing > DISAGREEING:
        text = (
            f"randomised: the network draws no weights, but {percent(case.disagreeing)} of the "
            f"images of {case.name} have draws of different labels (threshold "
            f"{percent(DISAGREEING)}): something else is random, which no attack averaged over"
        )
        flags.append(Flag("randomised", "warning", text))
    if (case.unrepeatable or 0.0) > UNREPEATABLE:
        text = (
            f"randomised: the model that {case.name} attacked gave two answers to one image on "
            f"{percent(case.unrepeatable or 0.0)} of them, under the same draws (threshold "
            f"{percent(UNREPEATABLE)}): its gradients are noisy, so what is still right may be luck"
        )
        flags.append(Flag("randomised", "warning", text))
    return flags
