"""AutoPGD (Croce & Hein, 2020): PGD with momentum that sets its own step.

The first step is twice the budget.  At fixed checkpoints, for each image, it is
halved, and the search goes on from the best point so far, if fewer than
``rho`` of the steps since the last checkpoint raised the loss, or if neither
the step nor the best loss has changed since then.  A step's loss and gradient
are means over the same fresh draws; the best point of each start and the last
one are judged on draws that none of them was found with.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.balls import Ball, ball_of
from bnnmcu.attack.bounded import Climbed, blind, climb_and_keep, moving
from bnnmcu.attack.config import ApgdConfig, Crafted
from bnnmcu.attack.gradient import Objective, Step, prepare
from bnnmcu.attack.model import Draws, GradientModel

__all__ = ["apgd", "checkpoints"]

#: Of the paper: weight of a new step against the momentum, and the first
#: checkpoint with the least distances between the next ones (shares of all steps).
_NEW = 0.75
_FIRST, _SHRINK, _LEAST = 0.22, 0.03, 0.06


def checkpoints(steps: int) -> tuple[int, ...]:
    """The steps after which the step size is looked at, ascending, at most ``steps``."""
    before, share = 0.0, _FIRST
    found: list[int] = []
    while share <= 1.0:
        # A last bit too many must not become a step too many.
        found.append(math.ceil(share * steps - 1e-9))
        before, share = share, share + max(share - before - _SHRINK, _LEAST)
    return tuple(sorted(set(found)))


class _Best:
    """The point with the largest loss of each image, with its gradient."""

    def __init__(self, point: Tensor, step: Step) -> None:
        self.point, self.gradient, self.loss = point, step.gradient, step.loss

    def update(self, point: Tensor, step: Step) -> None:
        better = step.loss > self.loss
        each = better.view(-1, 1, 1, 1)
        self.point = torch.where(each, point, self.point)
        self.gradient = torch.where(each, step.gradient, self.gradient)
        self.loss = torch.where(better, step.loss, self.loss)


def _climb(objective: Objective, ball: Ball, start: Tensor, *, steps: int, rho: float) -> Climbed:
    now = before = start
    step = objective.gradient(now)
    gradient, loss = moving(step, objective.generator), step.loss
    best = _Best(now, step._replace(gradient=gradient))
    zeros, broken = blind(objective, step).double(), step.broken.double()
    size = torch.full_like(zeros, 2.0 * ball.radius, dtype=torch.float32).view(-1, 1, 1, 1)
    looks, last = checkpoints(steps), 0
    rises, seen = torch.zeros_like(zeros), best.loss
    # Before the first checkpoint nothing counts as left unchanged.
    halved = torch.ones_like(step.broken)
    for done in range(1, steps + 1):
        ahead = ball.project(now + size * ball.direction(gradient))
        weight = _NEW if done > 1 else 1.0
        point = now + weight * (ahead - now) + (1.0 - weight) * (now - before)
        before, now = now, ball.project(point)
        step = objective.gradient(now)
        zeros += blind(objective, step)
        broken += step.broken
        gradient = moving(step, objective.generator)
        best.update(now, step._replace(gradient=gradient))
        rises += step.loss > loss
        loss = step.loss
        if done in looks:
            stuck = ~halved & (seen >= best.loss)
            halved = (rises < rho * (done - last)) | stuck
            each = halved.view(-1, 1, 1, 1)
            size = torch.where(each, size / 2.0, size)
            now = torch.where(each, best.point, now)
            gradient = torch.where(each, best.gradient, gradient)
            rises, seen, last = torch.zeros_like(rises), best.loss, done
    return Climbed((best.point, now), zeros / (steps + 1), broken / (steps + 1))


def apgd(
    model: GradientModel,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    attack: ApgdConfig,
    seed: int,
    targets: npt.NDArray[np.int64] | None = None,
    draws: Draws | None = None,
) -> Crafted:
    """Craft one adversarial example for every image.

    Args:
        model: the network; the attack says which estimators are used.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,): the true ones, which the examples shall leave.
        attack: norm, budget, steps, starts, losses and draws.
        seed: of starts and draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead; never the true one.
        draws: to attack, where they are known; None for fresh ones in every step.

    Raises:
        UsageError: arguments out of range or of the wrong shape, or the DLR loss
            with too few classes.
        UnsupportedModelError: the graph gives no gradients.
    """
    pixels, objective = prepare(model, attack, images, labels, targets, seed, draws=draws)
    ball = ball_of(attack.norm, pixels, attack.levels)
    climb = partial(_climb, steps=attack.steps, rho=attack.rho)
    return climb_and_keep(objective, ball, pixels, climb, attack, restarts=attack.restarts)
