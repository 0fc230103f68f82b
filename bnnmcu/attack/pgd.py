"""Projected gradient descent in L-infinity (Madry et al., 2018).

The iterate lives on pixel levels: steps are whole levels, the ball is
``floor(255 * epsilon)`` levels wide, so no rounding comes after the attack.
Every step averages the loss over fresh draws (expectation over transformation;
Athalye et al., 2018); an image without any gradient takes a random step.  The
best iterate of a start by its expected loss and the last one are kept; those of
all starts are then compared once more, on draws that none was chosen by.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config import Crafted, Estimator, PgdConfig
from bnnmcu.attack.gradient import Objective, keep_best, prepare, random_signs
from bnnmcu.attack.losses import at_its_top
from bnnmcu.attack.model import Draws, GradientModel

__all__ = ["pgd"]


def _start(pixels: Tensor, low: Tensor, high: Tensor, objective: Objective, random: bool) -> Tensor:
    if not random:
        return pixels.clone()
    # Uniform over the levels that the ball and the pixels' range leave.
    uniform = torch.rand(pixels.shape, generator=objective.generator).to(pixels.device)
    width = (high - low + 1).float()
    return torch.minimum(low + torch.floor(uniform * width).to(torch.int16), high)


def _ascend(
    objective: Objective, start: Tensor, low: Tensor, high: Tensor, attack: PgdConfig
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Candidates (best iterate, last iterate), zero gradients and broken ones, shares (N,)."""
    now = start
    best, best_loss = start, torch.full((len(start),), -torch.inf, device=start.device)
    zeros = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    broken = torch.zeros_like(zeros)
    for _ in range(attack.steps):
        step = objective.gradient(now)
        # Without any finite loss so far a later iterate is as good as any.
        better = (step.loss > best_loss) | torch.isneginf(best_loss)
        best = torch.where(better.view(-1, 1, 1, 1), now, best)
        best_loss = torch.where(better, step.loss.float(), best_loss)
        zero = step.zero
        zeros += zero & ~at_its_top(objective.loss, step.loss, targeted=objective.targeted)
        broken += step.broken
        signs = step.gradient.sign().to(torch.int16)
        if bool(zero.any()):
            # Where nothing points anywhere, going anywhere beats standing still.
            coins = random_signs(signs.shape, objective.generator).to(signs.device)
            signs = torch.where(zero.view(-1, 1, 1, 1), coins, signs)
        now = torch.minimum(torch.maximum(now + attack.step * signs, low), high)
    return [best, now], zeros / attack.steps, broken / attack.steps


def pgd(
    model: GradientModel,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    attack: PgdConfig,
    seed: int,
    targets: npt.NDArray[np.int64] | None = None,
    draws: Draws | None = None,
) -> Crafted:
    """Craft one adversarial example for every image.

    Args:
        model: the network; the attack says which estimators are used.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,): the true ones, which the examples shall leave.
        attack: budget, steps, starts, loss and draws.
        seed: of starts and draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead; never the true one.
        draws: the weights to attack, where they are known.

    Raises:
        UsageError: arguments out of range or of the wrong shape.
        UnsupportedModelError: the graph gives no gradients.
    """
    pixels, objective = prepare(model, attack, images, labels, targets, seed, draws=draws)
    low = (pixels - attack.levels).clamp_(0, 255)
    high = (pixels + attack.levels).clamp_(0, 255)
    candidates: list[Tensor] = []
    zeros: list[Tensor] = []
    broken: list[Tensor] = []
    estimators: list[Estimator] = []
    for setting in attack.settings:
        view = objective.using(setting)
        for _ in range(attack.restarts):
            start = _start(pixels, low, high, objective, attack.random_start)
            found, zero, bad = _ascend(view, start, low, high, attack)
            candidates += found
            zeros += [zero] * len(found)
            broken += [bad] * len(found)
            estimators += [setting.estimator] * len(found)
    return keep_best(objective, candidates, zeros, estimators, broken)
