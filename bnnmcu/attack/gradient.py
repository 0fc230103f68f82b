"""What gradient attacks share: checks, the gradient of an expected loss, and choosing.

No NaN spreads: where an image's loss or gradient is not finite, its gradient is
replaced by random signs and its loss by minus infinity, and this is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config import Crafted, Estimator, LossName
from bnnmcu.attack.config.gradient import Setting
from bnnmcu.attack.losses import attack_loss, break_ties
from bnnmcu.attack.model import Draws, GradientModel
from bnnmcu.errors import UsageError

__all__ = [
    "Attack",
    "Objective",
    "Step",
    "generator_of",
    "join",
    "keep_best",
    "prepare",
    "random_signs",
    "saturated",
]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

# Top probability from which a softmax hardly has a gradient left.
_SATURATED = 1.0 - 1e-6


class Attack(Protocol):
    """As much of an attack's configuration as an objective needs."""

    @property
    def step_draws(self) -> int:
        """Draws that a step averages over."""


class Step(NamedTuple):
    """A gradient, made safe to follow.

    Attributes:
        loss: expected loss, (N,); minus infinity where it was not finite.
        gradient: by x in [0, 1], (N, H, W, C); random signs where it was not finite.
        broken: bool (N,): loss or gradient was not finite.
    """

    loss: Tensor
    gradient: Tensor
    broken: Tensor

    @property
    def zero(self) -> Tensor:
        """Bool (N,): the whole gradient of an image is zero."""
        return (self.gradient == 0).flatten(1).all(1)


def generator_of(seed: int) -> torch.Generator:
    """A generator of our own, on the CPU: nobody else's random numbers move ours.

    Raises:
        UsageError: the seed is not within 0 .. 2**63 - 1.
    """
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed} is not between 0 and 2**63 - 1")
    return torch.Generator().manual_seed(seed)


def random_signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """-1 or +1 with equal chances, int16, on the CPU."""
    coins = torch.randint(0, 2, tuple(shape), generator=generator, dtype=torch.int16)
    return 2 * coins - 1


@dataclass(frozen=True)
class Objective:
    """The expected loss of images over draws.

    Attributes:
        model: the network attacked.
        step_draws: how many draws a step averages over.
        labels: int64, shape (N,): to leave, or to reach.
        targeted: whether ``labels`` are to be reached.
        generator: of the draws.
        loss, temperature: see :mod:`bnnmcu.attack.losses`.
        estimator: of the gradients; None for the model's own.
        fixed: the draws of every step and every choice, where the attacker knows
            them; None for fresh ones each time.
    """

    model: GradientModel
    step_draws: int
    labels: Tensor
    targeted: bool
    generator: torch.Generator
    loss: LossName = "ce"
    temperature: float = 1.0
    estimator: Estimator | None = None
    fixed: Draws | None = None

    def using(self, setting: Setting) -> Self:
        """The same with another estimator, loss and temperature; the generator is shared."""
        return replace(self, **setting._asdict())

    def part(self, which: slice | Tensor) -> Self:
        """The same for some of the images; the generator is shared."""
        return replace(self, labels=self.labels[which])

    def draws(self, count: int | None = None) -> Draws | None:
        """Draws of a step: the fixed ones, or ``count`` fresh ones.

        None for a deterministic network, which needs none.
        """
        if not self.model.stochastic:
            return None
        if self.fixed is not None:
            return self.fixed
        return self.model.sample(count or self.step_draws, self.generator)

    def losses(self, logits: Tensor) -> Tensor:
        """The loss to ascend, (D, N), of logits (D, N, classes)."""
        return attack_loss(
            self.loss,
            logits,
            self.labels,
            temperature=self.temperature,
            targeted=self.targeted,
        )

    def gradient(self, pixels: Tensor) -> Step:
        """Expected loss of pixel levels (N, H, W, C) and its gradient, on a step's draws.

        Images do not mix: the gradient of each is that of its own loss.
        """
        x = (pixels.float() / 255.0).requires_grad_()
        return self._step(x, self.model(x, self.draws(), self.estimator))

    def own_labels(self, pixels: Tensor) -> tuple[Self, Step]:
        """The objective to leave the network's own labels, and its first step.

        One pass gives both: the labels are those of the mean logits over the
        step's draws.
        """
        x = (pixels.float() / 255.0).requires_grad_()
        logits = self.model(x, self.draws(), self.estimator)
        leaving = replace(self, labels=logits.detach().mean(0).argmax(-1), targeted=False)
        return leaving, leaving._step(x, logits)

    def _step(self, x: Tensor, logits: Tensor) -> Step:
        loss = self.losses(logits).mean(0)
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        return self.safe(loss.detach(), gradient)

    def safe(self, loss: Tensor, gradient: Tensor) -> Step:
        """A step whose loss and gradient an attack may follow without looking at them."""
        # A sum is finite only if all of its terms are; float32 terms do not overflow it.
        sums = gradient.flatten(1).double().sum(1)
        broken = ~(torch.isfinite(sums) & torch.isfinite(loss))
        if bool(broken.any()):
            signs = random_signs(gradient.shape, self.generator).to(gradient)
            gradient = torch.where(broken.view(-1, 1, 1, 1), signs, gradient)
            loss = torch.where(broken, -torch.inf, loss)
        return Step(loss, gradient, broken)

    def margins(self, x: Tensor, draws: Draws | None) -> Tensor:
        """By how much each draw is fooled, (D, N); not finite logits count as not fooled.

        Above 0 an image has left its label, or reached its target.
        """
        with torch.no_grad():
            logits = self.model(x, draws)
            each = attack_loss("margin", logits, self.labels, targeted=self.targeted)
            each = break_ties(each, logits, self.labels, targeted=self.targeted)
        return torch.where(torch.isfinite(each), each, -torch.inf)

    def fooled(self, x: Tensor, count: int | None = None) -> Tensor:
        """Share of ``count`` fresh draws (or the fixed ones) fooled, float64 (N,)."""
        return (self.margins(x, self.draws(count)) > 0).double().mean(0)

    def judge(self, candidates: Sequence[Tensor]) -> Tensor:
        """Index of the best candidate for each image, int64 (N,).

        By the mean margin over fresh draws, the same for all candidates; of
        equals the first.  The margin, whatever loss made them, since it never
        saturates: a cross-entropy can be exactly 0 for all of them.

        Args:
            candidates: each pixel levels (N, H, W, C).
        """
        draws = self.draws()
        margins = torch.stack([self.margins(c.float() / 255.0, draws) for c in candidates])
        # A draw that gave no number says nothing for or against a candidate.
        there = torch.isfinite(margins)
        sums = torch.where(there, margins, 0.0).sum(1)
        means = torch.where(there.any(1), sums / there.sum(1).clamp_min(1), -torch.inf)
        return means.argmax(0)


def prepare(
    model: GradientModel,
    attack: Attack,
    images: Images,
    labels: Labels,
    targets: Labels | None,
    seed: int,
    *,
    draws: Draws | None = None,
) -> tuple[Tensor, Objective]:
    """Check what an attack was given.

    Args:
        draws: to attack, where they are known; None for fresh ones in every step.

    Returns:
        the pixel levels as int16 (N, H, W, C) on the model's device, and the
        objective for ``labels`` or, where given, ``targets``; its loss is plain
        cross-entropy, until :meth:`Objective.using` says otherwise.

    Raises:
        UsageError: wrong shapes, labels out of range, or a target equal to its label.
        UnsupportedModelError: the graph gives no gradients.
    """
    model.require_gradients()
    if images.dtype != np.uint8 or images.shape[1:] != model.input_shape:
        raise UsageError(
            f"images are {images.dtype} {images.shape}, {model.name} takes uint8 "
            f"(N, {', '.join(map(str, model.input_shape))})"
        )
    if len(images) == 0:
        raise UsageError("no images to attack")
    if model.classes < 2:
        raise UsageError(f"{model.name} has one class: there is no other label to reach")
    for name, given in (("labels", labels), ("targets", targets)):
        if given is None:
            continue
        if given.shape != (len(images),) or given.dtype.kind not in "iu":
            raise UsageError(f"{len(images)} images, but {name} are {given.dtype} {given.shape}")
        if given.min() < 0 or given.max() >= model.classes:
            raise UsageError(f"{name} are not all within 0 .. {model.classes - 1}")
    if targets is not None and bool(np.any(targets == labels)):
        raise UsageError("a target is the image's own label")
    chosen = labels if targets is None else targets
    objective = Objective(
        model=model,
        step_draws=attack.step_draws,
        labels=torch.from_numpy(chosen.astype(np.int64)).to(model.device),
        targeted=targets is not None,
        generator=generator_of(seed),
        fixed=draws,
    )
    return torch.from_numpy(images.astype(np.int16)).to(model.device), objective


def saturated(model: GradientModel, images: Images, draws: Draws | None) -> npt.NDArray[np.bool_]:
    """Which images' softmax has no gradient to speak of, at temperature 1, bool (N,).

    The mean over draws of the top probability is 1 - 1e-6 at least.
    """
    x = torch.from_numpy(images).to(model.device).float() / 255.0
    with torch.no_grad():
        top = model(x, draws).double().softmax(-1).amax(-1).mean(0)
    flat: npt.NDArray[np.bool_] = (top >= _SATURATED).cpu().numpy()
    return flat


def join(parts: Sequence[Crafted]) -> Crafted:
    """What several batches of one attack gave, in order; at least one."""
    return Crafted(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.zero_gradients for part in parts]),
        tuple(name for part in parts for name in part.estimators),
        tuple(one for part in parts for one in part.details),
    )


def keep_best(
    objective: Objective,
    candidates: Sequence[Tensor],
    zeros: Sequence[Tensor],
    estimators: Sequence[Estimator],
    non_finite: Sequence[Tensor] = (),
    *,
    tell: bool = True,
) -> Crafted:
    """For each of N images the best of K candidates, by :meth:`Objective.judge`.

    Args:
        objective: what they were made for.
        candidates: K tensors of pixel levels (N, H, W, C).
        zeros: of each, the share of steps without any gradient, float64 (N,).
        estimators: of each, which one made it.
        non_finite: of each, the share of steps with a loss or gradient that was
            not finite, float64 (N,); empty for none.
        tell: how many fresh draws the chosen one fools.
    """
    count = len(candidates[0])
    details: list[dict[str, Any]] = [{} for _ in range(count)]
    chosen = torch.zeros(count, dtype=torch.int64)
    images = candidates[0]
    if len(candidates) > 1:
        best = objective.judge(candidates)
        place = (best, torch.arange(count, device=best.device))
        images, chosen = torch.stack(list(candidates))[place], best.cpu()
        if tell:
            # On other draws than those that chose it.
            shares = objective.fooled(images.float() / 255.0)
            for one, share in zip(details, shares.tolist(), strict=True):
                one["success_after"] = share
    each = torch.arange(count)
    if non_finite:
        shares = torch.stack([one.cpu() for one in non_finite])[chosen, each]
        for one, share in zip(details, shares.tolist(), strict=True):
            if share > 0:
                one["non_finite"] = share
    return Crafted(
        images.to(torch.uint8).cpu().numpy(),
        torch.stack([one.cpu() for one in zeros])[chosen, each].numpy(),
        tuple(estimators[k] for k in chosen.tolist()),
        tuple(details),
    )
