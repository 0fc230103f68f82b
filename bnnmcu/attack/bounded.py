"""Attacks within a ball: every setting and start climbs, the best of all is kept.

The iterates are real numbers; what comes out is on the pixel grid and still in
the ball.  The candidates are rounded first and judged then, so nothing that
rounding breaks is chosen, and what it cost is told: the share of fresh draws
that is fooled before and after, and the distance before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bnnmcu.attack.balls import Ball
from bnnmcu.attack.config import Crafted, GradientConfig
from bnnmcu.attack.gradient import Objective, Step, keep_best, random_signs
from bnnmcu.attack.losses import at_its_top

__all__ = ["Climb", "Climbed", "blind", "climb_and_keep", "moving"]


@dataclass(frozen=True, eq=False)
class Climbed:
    """What one start came to.

    Attributes:
        candidates: points worth keeping, float32 pixel levels (N, H, W, C) each.
        zeros: share of the steps that found no gradient (:func:`blind`), float64 (N,).
        broken: share of those with a loss or gradient that was not finite, float64 (N,).
    """

    candidates: tuple[Tensor, ...]
    zeros: Tensor
    broken: Tensor


#: From a starting point upwards: the objective, the ball, and the point.
Climb = Callable[[Objective, Ball, Tensor], Climbed]


def blind(objective: Objective, step: Step) -> Tensor:
    """Bool (N,): there is no gradient, and the loss does not explain it."""
    return step.zero & ~at_its_top(objective.loss, step.loss, targeted=objective.targeted)


def moving(step: Step, generator: torch.Generator) -> Tensor:
    """The step's gradient; random signs where it is zero: going anywhere beats standing still."""
    zero = step.zero
    if not bool(zero.any()):
        return step.gradient
    signs = random_signs(step.gradient.shape, generator).to(step.gradient)
    return torch.where(zero.view(-1, 1, 1, 1), signs, step.gradient)


def climb_and_keep(
    objective: Objective,
    ball: Ball,
    clean: Tensor,
    climb: Climb,
    attack: GradientConfig,
    *,
    restarts: int,
    random_start: bool = True,
) -> Crafted:
    """Run every start of every setting, and keep the best candidate of each image.

    Args:
        objective: of the images; its loss, temperature and estimator are replaced
            by those of the attack's settings.
        ball: round the clean images.
        clean: pixel levels (N, H, W, C).
        climb: the attack itself.
    """
    settings = attack.settings
    raw: list[Tensor] = []
    estimators, zeros, broken = [], [], []
    for estimator, loss, temperature in settings:
        view = replace(objective, estimator=estimator, loss=loss, temperature=temperature)
        for _ in range(restarts):
            start = ball.start(objective.generator) if random_start else clean.float()
            climbed = climb(view, ball, start)
            raw += climbed.candidates
            count = len(climbed.candidates)
            zeros += [climbed.zeros] * count
            broken += [climbed.broken] * count
            estimators += [estimator] * count
    rounded = [ball.round(one) for one in raw]
    crafted = keep_best(objective, rounded, zeros, estimators, broken, tell=False)
    kept = torch.from_numpy(crafted.images).to(clean)
    details = _rounding(objective, clean, raw, rounded, kept)
    merged = (dict(old) | new for old, new in zip(crafted.details, details, strict=True))
    return replace(crafted, details=tuple(merged))


def _rounding(
    objective: Objective, clean: Tensor, raw: list[Tensor], rounded: list[Tensor], kept: Tensor
) -> list[dict[str, Any]]:
    """What rounding cost each image: distances on [0, 1], shares of the same fresh draws."""
    same = torch.stack([(one == kept).flatten(1).all(1) for one in rounded])
    # The first of equals, as in choosing; of one candidate there is nothing to choose.
    first = same.to(torch.int8).argmax(0)
    before = torch.stack(raw)[first, torch.arange(len(kept), device=first.device)]
    distance = (before - clean).flatten(1).double().norm(dim=1) / 255.0
    draws = objective.draws()
    shares = [
        (objective.margins(x.float() / 255.0, draws) > 0).double().mean(0) for x in (before, kept)
    ]
    return [
        {"l2_before": length, "success_before": unrounded, "success_after": after}
        for length, unrounded, after in zip(
            distance.tolist(), shares[0].tolist(), shares[1].tolist(), strict=True
        )
    ]
