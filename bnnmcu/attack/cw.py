"""The L2 attack of Carlini & Wagner (2017): the least change that is classified otherwise.

With m the lead of the label to reach (or of the best wrong label), it minimises

    |x - x0|**2 + c * mean over draws of max(0, kappa - m),      x = (tanh(w) + 1) / 2,

over w with Adam, and searches for the least c that does.  Details follow the authors'
and cleverhans' code: x0 shrunk by 1e-6 before it goes to tanh space, Adam with its
epsilon outside of the bias correction, constants times ten until one suffices, then
bisected.  ``CwConfig.paper()`` is what Galloway et al. (2018) ran, early abort and all;
``CwConfig.adaptive()`` differs by who judges (:mod:`bnnmcu.attack.cw_judges`), by
averaging over draws, by not stopping early, and by beginning again where an image is
stuck, since Adam's memory of large gradients outlasts a whole descent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config import Crafted, CwConfig
from bnnmcu.attack.config.gradient import Setting
from bnnmcu.attack.cw_judges import FreshJudge, Judge, Record, StepJudge, fooled_share, rounded
from bnnmcu.attack.gradient import Objective, prepare
from bnnmcu.attack.losses import break_ties
from bnnmcu.attack.model import Draws, GradientModel

__all__ = ["cw"]

#: Keeps black and white pixels at a finite place in tanh space.
_SHRINK = 0.999999
#: Upper end of the search over c, as in the authors' code.
_LARGEST = 1e10
#: From so many steps on, the last one repeats the best constant that is known.
_REPEAT_FROM = 10
#: A tenth of the loss's steps must lower it by this factor.
_STILL = 0.9999
#: How far from an image a descent begins again, in L-infinity.
_NEAR = 0.1
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class _Adam:
    """Adam as in TensorFlow (Kingma & Ba, 2015, end of section 2), in place.

    Args:
        value: (N, H, W, C); is changed.
        rate: of learning.
    """

    def __init__(self, value: Tensor, rate: float) -> None:
        self.value, self.rate = value, rate
        self.mean, self.square = torch.zeros_like(value), torch.zeros_like(value)
        self.steps = value.new_zeros(len(value), 1, 1, 1)

    def step(self, gradient: Tensor) -> None:
        self.steps += 1
        self.mean.lerp_(gradient, 1.0 - _BETA1)
        self.square.mul_(_BETA2).addcmul_(gradient, gradient, value=1.0 - _BETA2)
        correction = (1.0 - _BETA2**self.steps).sqrt_() / (1.0 - _BETA1**self.steps)
        root = self.square.sqrt().add_(_EPSILON)
        self.value.addcdiv_(self.mean * correction, root, value=-self.rate)

    def restart(self, where: Tensor, value: Tensor) -> None:
        """Begin again where bool (N,) says so, from ``value``."""
        self.value[where] = value[where]
        for moment in (self.mean, self.square, self.steps):
            moment[where] = 0.0


@dataclass(eq=False)
class _Tally:
    """Of each image, float64 (N,).

    Attributes:
        steps: in all.
        zeros, broken: of them, those without a gradient, and those with none that is finite.
        lead: the greatest mean lead of a step.
    """

    steps: Tensor
    zeros: Tensor
    broken: Tensor
    lead: Tensor

    @classmethod
    def empty(cls, count: int, device: torch.device) -> _Tally:
        none = torch.zeros(count, dtype=torch.float64, device=device)
        return cls(none, none.clone(), none.clone(), none - torch.inf)

    def add(self, other: _Tally, which: Tensor) -> None:
        """What was seen of the images int64 (M,)."""
        self.steps[which] += other.steps
        self.zeros[which] += other.zeros
        self.broken[which] += other.broken
        self.lead[which] = torch.maximum(self.lead[which], other.lead)


def _tanh_space(x: Tensor) -> Tensor:
    return torch.atanh((2.0 * x - 1.0) * _SHRINK)


def _near(clean: Tensor, generator: torch.Generator) -> Tensor:
    """A random place near each image, in tanh space."""
    noise = torch.rand(clean.shape, generator=generator).to(clean)
    return _tanh_space((clean + _NEAR * (2.0 * noise - 1.0)).clamp(0.0, 1.0))


def _descend(
    objective: Objective,
    attack: CwConfig,
    judge: Judge,
    clean: Tensor,
    constant: Tensor,
    tally: _Tally,
) -> Tensor:
    """One run of Adam with one constant for each image; bool (N,): it fooled them."""
    start = _tanh_space(clean)
    origin = torch.sigmoid(2.0 * start)
    adam = _Adam(start, attack.learning_rate)
    tenth = max(1, attack.iterations // 10)
    before = torch.inf
    judge.start()
    for index in range(attack.iterations):
        # (tanh(w) + 1) / 2, which is more exact and faster this way.
        x = torch.sigmoid(2.0 * adam.value)
        change = x - origin
        distance = change.square().flatten(1).sum(1)
        seen = judge.look(x).detach().requires_grad_()
        logits = objective.model(seen, objective.draws(), objective.estimator)
        margins = objective.losses(logits)
        hinge = constant * (attack.confidence - margins).clamp_min(0.0).mean(0)
        (gradient,) = torch.autograd.grad(hinge.sum(), seen)
        step = objective.safe(hinge.detach(), gradient)
        tally.steps += 1
        tally.broken += step.broken
        # No gradient where nothing is left to gain is no sign of a masked one.
        stuck = step.zero & (step.loss > 0)
        tally.zeros += stuck
        if attack.early_abort and index % tenth == 0:
            total = float(distance.double().sum() + step.loss[~step.broken].double().sum())
            if total > _STILL * before:
                break
            before = total
        margins = margins.detach()
        margins = torch.where(torch.isfinite(margins), margins, -torch.inf)
        tally.lead = torch.maximum(tally.lead, margins.mean(0).to(tally.lead))
        wins = break_ties(margins, logits.detach(), objective.labels, targeted=objective.targeted)
        judge.see(x, distance, wins, constant)
        if (index + 1) % tenth == 0:
            judge.settle()
        # Through x = sigmoid(2 w).
        slope = (1.0 - x).mul_(x).mul_(2.0)
        adam.step((step.gradient + 2.0 * change).mul_(slope))
        if attack.restart_stuck and bool(stuck.any()):
            adam.restart(stuck, _near(clean, objective.generator))
    return judge.settle()


class _Constants:
    """The binary search over c, of each image."""

    def __init__(self, count: int, attack: CwConfig, device: torch.device) -> None:
        full = torch.full((count,), attack.initial_constant, device=device)
        self.now = full
        self.low, self.high = torch.zeros_like(full), torch.full_like(full, _LARGEST)

    def repeat(self) -> None:
        """Once more with the least constant that has sufficed."""
        self.now = self.high.clone()

    def learn(self, fooled: Tensor) -> None:
        """What the present constants have led to, bool (N,)."""
        self.high = torch.where(fooled, torch.minimum(self.high, self.now), self.high)
        self.low = torch.where(fooled, self.low, torch.maximum(self.low, self.now))
        known = self.high < 0.1 * _LARGEST
        between = 0.5 * (self.low + self.high)
        self.now = torch.where(known, between, torch.where(fooled, self.now, 10.0 * self.now))


def _judge(attack: CwConfig, objective: Objective, clean: Tensor) -> Judge:
    if attack.judge == "step":
        return StepJudge(objective, clean, attack.success, attack.confidence)
    return FreshJudge(objective, clean, attack.success, attack.fresh_draws)


def _search(objective: Objective, attack: CwConfig, clean: Tensor) -> tuple[Record, _Tally]:
    """The attack with one estimator, on images that are multiples of 1 / 255."""
    judge = _judge(attack, objective, clean)
    tally = _Tally.empty(len(clean), clean.device)
    constants = _Constants(len(clean), attack, clean.device)
    for index in range(attack.search_steps):
        if index + 1 == attack.search_steps >= _REPEAT_FROM:
            constants.repeat()
        constants.learn(_descend(objective, attack, judge, clean, constants.now, tally))
    return judge.best, tally


def _details(
    attack: CwConfig, objective: Objective, clean: Tensor, best: Record, tally: _Tally
) -> tuple[dict[str, Any], ...]:
    """What is worth knowing of each image; shares by draws that chose nothing."""
    shares = fooled_share(objective, [best.x, rounded(best.x)], attack.fresh_draws).tolist()
    unrounded = (best.x - clean).double().flatten(1).norm(dim=1).tolist()
    # A lead that no step came near, although the image was fooled, was asked in vain, unless
    # the judge did without it.
    asked = (tally.lead < attack.confidence) & (tally.lead > 0)
    reachable = (~asked | best.found).tolist()
    details = []
    for index, (before, after) in enumerate(zip(*shares, strict=True)):
        one: dict[str, Any] = {
            "found": bool(best.found[index]),
            "success_before": before,
            "success_after": after,
            "l2_before": unrounded[index],
            "iterations": int(tally.steps[index]),
            "kappa_reachable": reachable[index],
        }
        if best.share[index] > 0:
            one["constant"] = float(best.constant[index])
        if tally.broken[index] > 0:
            one["non_finite"] = float(tally.broken[index] / tally.steps[index])
        details.append(one)
    return tuple(details)


def cw(
    model: GradientModel,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    attack: CwConfig,
    seed: int,
    targets: npt.NDArray[np.int64] | None = None,
    draws: Draws | None = None,
) -> Crafted:
    """Craft one adversarial example for every image; the clean one where none is found.

    With ``judge="fresh"`` an image that fools some draws, but fewer than
    ``attack.success`` asks for, is given as well; ``found`` is false for it.

    Args:
        model: the network; the attack says which estimators are used.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,): the true ones, which the examples shall leave.
        attack: the setting.
        seed: of all draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead; never the true one.
        draws: the weights to attack, where they are known.

    Raises:
        UsageError: arguments out of range or of the wrong shape.
        UnsupportedModelError: the graph gives no gradients.
    """
    pixels, objective = prepare(model, attack, images, labels, targets, seed, draws=draws)
    clean = pixels.float() / 255.0
    best, tally = Record.empty(clean), _Tally.empty(len(clean), clean.device)
    made_by = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
    which = torch.arange(len(clean), device=clean.device)
    for number, estimator in enumerate(attack.estimators):
        view = objective.part(which).using(Setting(estimator, "margin", 1.0))
        found, seen = _search(view, attack, clean[which])
        tally.add(seen, which)
        better = best.part(which).beaten_by(found)
        best.put(found.part(better), which[better])
        made_by[which[better]] = number
        which = (~best.found).nonzero().flatten()
        if not len(which):
            break
    return Crafted(
        torch.round(best.x * 255.0).to(torch.uint8).cpu().numpy(),
        (tally.zeros / tally.steps).cpu().numpy(),
        tuple(attack.estimators[number] for number in made_by.tolist()),
        _details(attack, objective, clean, best, tally),
    )
