"""The Jacobian-based saliency map attack (Papernot et al., 2016), on pixel levels.

Each step raises the pair of pixels that the saliency map of the moment ranks
first (:mod:`bnnmcu.attack.saliency`), until the network gives the target or the
budget of pixels is used up.  Two gradients give all of the map: of the target's
output, and of the sum of all outputs.  Where no pair scores, the paper's attack
is at its end; this one goes on with the pair that gains the most, or with any.

With drawn weights the outputs are means over a step's draws, and an image is
done when all of those draws are fooled: draws that no pixel was chosen with.
With one draw a step that is the attack as published, which stops at the first
lucky draw.  Of an image that never was done, the point with the largest mean
margin that fooled any draw is kept; one that fooled none is given back as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config import Crafted, JsmaConfig
from bnnmcu.attack.gradient import Objective, prepare
from bnnmcu.attack.losses import attack_loss, break_ties
from bnnmcu.attack.model import Draws, GradientModel
from bnnmcu.attack.saliency import best_pairs
from bnnmcu.errors import UsageError

__all__ = ["jsma"]


@dataclass(frozen=True, eq=False)
class _Map:
    """Of n images at one point.

    Attributes:
        fooled: share of the draws that are, float64 (n,).
        margin: by how much, the mean over draws, float64 (n,).
        target, others: derivatives of the target's output and of the sum of all
            others, float64 (n, P), finite.
        zero, broken: which have no derivative at all, or one that was not finite.
    """

    fooled: Tensor
    margin: Tensor
    target: Tensor
    others: Tensor
    zero: Tensor
    broken: Tensor


def _saliency(objective: Objective, attack: JsmaConfig, levels: Tensor, targets: Tensor) -> _Map:
    """Everything a step needs, from one forward pass and two backwards."""
    x = (levels.float() / 255.0).requires_grad_()
    logits = objective.model(x, objective.draws(), attack.estimator)
    margins = attack_loss("margin", logits.detach(), objective.labels, targeted=objective.targeted)
    aim = targets.unsqueeze(1)
    if attack.output == "logits":
        outputs = logits.mean(0)
        (target,) = torch.autograd.grad(outputs.gather(1, aim).sum(), x, retain_graph=True)
        (every,) = torch.autograd.grad(outputs.sum(), x)
        others = every - target
    else:
        # The logarithm of a probability's mean: its derivatives are those of the
        # mean up to a factor above zero, which no ranking knows, and never underflow.
        each = (logits.double() / attack.temperature).log_softmax(-1)
        outputs = each.logsumexp(0).gather(1, aim)
        (target,) = torch.autograd.grad(outputs.sum(), x)
        # Probabilities sum to one.
        others = -target
    first, second = target.flatten(1).double(), others.flatten(1).double()
    broken = ~(torch.isfinite(first + second).all(1) & torch.isfinite(outputs).all(1))
    if bool(broken.any()):
        # Any pair at random: this one scores like no other.
        chance = torch.rand(first.shape, generator=objective.generator, dtype=torch.float64)
        first = torch.where(broken[:, None], chance.to(first.device), first)
        second = torch.where(broken[:, None], -first, second)
    zero = ((first == 0) & (second == 0)).all(1)
    wins = break_ties(margins, logits.detach(), objective.labels, targeted=objective.targeted)
    fooled = (wins > 0).double().mean(0)
    return _Map(fooled, margins.double().mean(0), first, second, zero, broken)


def _any_pairs(found: _Map, allowed: Tensor, objective: Objective) -> Tensor:
    """Where no pair scores: the two largest gains of the target over the others, or chance."""
    gains = found.target - found.others
    chance = torch.rand(gains.shape, generator=objective.generator, dtype=torch.float64)
    gains = torch.where(found.zero[:, None], chance.to(gains.device), gains)
    return gains.masked_fill(~allowed, -torch.inf).topk(2, dim=1).indices


def _runner_up(objective: Objective, levels: Tensor) -> Tensor:
    """The most likely label that is not the one to leave, by the mean logits."""
    with torch.no_grad():
        logits = objective.model(levels.float() / 255.0, objective.draws()).mean(0)
    return logits.scatter(1, objective.labels.unsqueeze(1), -torch.inf).argmax(1)


def jsma(
    model: GradientModel,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    attack: JsmaConfig,
    seed: int,
    targets: npt.NDArray[np.int64] | None = None,
    draws: Draws | None = None,
) -> Crafted:
    """Craft one adversarial example for every image.

    Args:
        model: the network.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,): the true ones.
        attack: theta, gamma, whose derivatives, and draws.
        seed: of the draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach; None to leave the true one towards the label
            that comes second on the clean image.
        draws: to attack, where they are known; None for fresh ones in every step.

    Raises:
        UsageError: arguments out of range or of the wrong shape.
        UnsupportedModelError: the graph gives no gradients.
    """
    clean, objective = prepare(model, attack, images, labels, targets, seed, draws=draws)
    aims = objective.labels if objective.targeted else _runner_up(objective, clean)
    count, pixels = len(clean), clean[0].numel()
    if pixels < 2:
        raise UsageError("JSMA raises pixels in pairs, and these images have one")
    now, kept = clean.flatten(1).clone(), clean.flatten(1).clone()
    best = torch.full((count,), -torch.inf, dtype=torch.float64, device=clean.device)
    taken, maps, zeros, broken = (torch.zeros_like(best) for _ in range(4))
    left = torch.arange(count, device=clean.device)
    limit = attack.iterations(pixels)
    for done in range(limit + 1):
        view = replace(objective, labels=objective.labels[left])
        found = _saliency(view, attack, now[left].view(-1, *clean.shape[1:]), aims[left])
        # Done is done; before that the margin tells more than a share of few draws.
        worth = torch.where(found.fooled < 1.0, found.margin, torch.inf)
        better = (found.fooled > 0) & (worth > best[left])
        best[left[better]] = worth[better]
        kept[left[better]] = now[left[better]]
        taken[left[better]] = done
        allowed = now[left] < 255
        pairs, scored = best_pairs(found.target, found.others, allowed)
        pairs = torch.where(scored[:, None], pairs, _any_pairs(found, allowed, objective))
        going = (found.fooled < 1.0) & (allowed.sum(1) > 1)
        # A map is only looked at where the search goes on.
        maps[left] += going
        zeros[left] += going & found.zero
        broken[left] += going & found.broken
        left, pairs = left[going], pairs[going]
        if not len(left) or done == limit:
            break
        at = left.unsqueeze(1)
        now[at, pairs] = (now[at, pairs] + attack.step).clamp_max(255)
    maps.clamp_min_(1.0)
    result = kept.view_as(clean)
    after = objective.fooled(result.float() / 255.0)
    details: list[dict[str, Any]] = [
        {"found": value == np.inf, "iterations": int(steps), "success_after": fresh}
        for value, steps, fresh in zip(best.tolist(), taken.tolist(), after.tolist(), strict=True)
    ]
    for one, bad in zip(details, (broken / maps).tolist(), strict=True):
        if bad > 0:
            one["non_finite"] = bad
    return Crafted(
        result.to(torch.uint8).cpu().numpy(),
        (zeros / maps).cpu().numpy(),
        (attack.estimator,) * count,
        tuple(details),
    )
