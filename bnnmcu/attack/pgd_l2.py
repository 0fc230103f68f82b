"""Projected gradient descent in the L2 ball (Madry et al., 2018).

As in L-infinity, but a step goes along the gradient itself and has a length in
L2.  Every step averages over fresh draws; the best iterate of a start by its
expected loss and the last one are kept and judged after rounding.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.balls import Ball, L2Ball
from bnnmcu.attack.bounded import Climbed, blind, climb_and_keep, moving
from bnnmcu.attack.config import Crafted, PgdL2Config
from bnnmcu.attack.gradient import Objective, prepare
from bnnmcu.attack.model import Draws, GradientModel

__all__ = ["pgd_l2"]


def _climb(
    objective: Objective, ball: Ball, start: Tensor, *, steps: int, length: float
) -> Climbed:
    now = best = start
    best_loss = torch.full((len(start),), -torch.inf, dtype=torch.float64, device=start.device)
    zeros, broken = torch.zeros_like(best_loss), torch.zeros_like(best_loss)
    for _ in range(steps):
        step = objective.gradient(now)
        better = step.loss > best_loss
        best = torch.where(better.view(-1, 1, 1, 1), now, best)
        best_loss = torch.where(better, step.loss.double(), best_loss)
        zeros += blind(objective, step)
        broken += step.broken
        direction = ball.direction(moving(step, objective.generator))
        now = ball.project(now + length * direction)
    return Climbed((best, now), zeros / steps, broken / steps)


def pgd_l2(
    model: GradientModel,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    attack: PgdL2Config,
    seed: int,
    targets: npt.NDArray[np.int64] | None = None,
    draws: Draws | None = None,
) -> Crafted:
    """Craft one adversarial example for every image.

    Args:
        model: the network; the attack says which estimators are used.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,): the true ones, which the examples shall leave.
        attack: budget, steps, starts, losses and draws.
        seed: of starts and draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead; never the true one.
        draws: to attack, where they are known; None for fresh ones in every step.

    Raises:
        UsageError: arguments out of range or of the wrong shape.
        UnsupportedModelError: the graph gives no gradients.
    """
    pixels, objective = prepare(model, attack, images, labels, targets, seed, draws=draws)
    ball = L2Ball(pixels.float(), attack.levels)
    climb = partial(_climb, steps=attack.steps, length=attack.share * attack.levels)
    return climb_and_keep(
        objective,
        ball,
        pixels,
        climb,
        attack,
        restarts=attack.restarts,
        random_start=attack.random_start,
    )
