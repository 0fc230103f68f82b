"""What gradient attacks share: checks, and the gradient of an expected loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config import AttackConfig, Crafted, Estimator
from bnnmcu.attack.losses import attack_loss
from bnnmcu.attack.twin import Draws, IntegerTwin
from bnnmcu.errors import UsageError

__all__ = ["Objective", "generator_of", "keep_best", "prepare"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def generator_of(seed: int) -> torch.Generator:
    """A generator of our own: nobody else's random numbers move ours.

    Raises:
        UsageError: the seed is not within 0 .. 2**63 - 1.
    """
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed} is not between 0 and 2**63 - 1")
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Objective:
    """The expected loss of images over draws.

    Attributes:
        twin: the network attacked.
        attack: loss, temperature, number of draws.
        labels: int64, shape (N,): to leave, or to reach.
        targeted: whether ``labels`` are to be reached.
        generator: of the draws.
        estimator: of the gradients; None for the twin's own.
    """

    twin: IntegerTwin
    attack: AttackConfig
    labels: Tensor
    targeted: bool
    generator: torch.Generator
    estimator: Estimator | None = None

    def using(self, estimator: Estimator) -> Self:
        """The same, its gradients by ``estimator``; the generator is shared."""
        return replace(self, estimator=estimator)

    def draws(self) -> Draws | None:
        """Fresh draws; None for a deterministic network, which needs none."""
        if not self.twin.stochastic:
            return None
        return self.twin.sample(self.attack.eot_draws, self.generator)

    def _loss(self, x: Tensor, draws: Draws | None) -> Tensor:
        logits = self.twin(x, draws, self.estimator)
        each = attack_loss(
            self.attack.loss,
            logits,
            self.labels,
            temperature=self.attack.temperature,
            targeted=self.targeted,
        )
        return each.mean(0)

    def choose(self, candidates: Sequence[Tensor]) -> Tensor:
        """Index of the best candidate for each image, int64, shape (N,).

        By the mean margin over fresh draws, the same for all candidates; of
        equals the first.  The margin, whatever loss made them, since it never
        saturates: a cross-entropy can be exactly 0 for all of them.

        Args:
            candidates: each pixel levels (N, H, W, C).
        """
        draws = self.draws()
        margins = []
        with torch.no_grad():
            for pixels in candidates:
                logits = self.twin(pixels.float() / 255.0, draws)
                each = attack_loss("margin", logits, self.labels, targeted=self.targeted)
                margins.append(each.mean(0))
        return torch.stack(margins).argmax(0)

    def gradient(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Expected loss (N,) and its gradient by x (N, H, W, C), on fresh draws.

        Images do not mix: the gradient of each is that of its own loss.
        """
        x = (pixels.float() / 255.0).requires_grad_()
        loss = self._loss(x, self.draws())
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        return loss.detach(), gradient


def prepare(
    twin: IntegerTwin,
    attack: AttackConfig,
    images: Images,
    labels: Labels,
    targets: Labels | None,
    seed: int,
) -> tuple[Tensor, Objective]:
    """Check what an attack was given.

    Returns:
        the pixel levels as int16 (N, H, W, C), and the objective for ``labels``
        or, where given, ``targets``.

    Raises:
        UsageError: wrong shapes, labels out of range, or a target equal to its label.
        UnsupportedModelError: the graph gives no gradients.
    """
    twin.require_gradients()
    if images.dtype != np.uint8 or images.shape[1:] != twin.graph.input_shape:
        raise UsageError(
            f"images are {images.dtype} {images.shape}, {twin.graph.name} takes uint8 "
            f"(N, {', '.join(map(str, twin.graph.input_shape))})"
        )
    if len(images) == 0:
        raise UsageError("no images to attack")
    if twin.graph.classes < 2:
        raise UsageError(f"{twin.graph.name} has one class: there is no other label to reach")
    for name, given in (("labels", labels), ("targets", targets)):
        if given is None:
            continue
        if given.shape != (len(images),) or given.dtype.kind not in "iu":
            raise UsageError(f"{len(images)} images, but {name} are {given.dtype} {given.shape}")
        if given.min() < 0 or given.max() >= twin.graph.classes:
            raise UsageError(f"{name} are not all within 0 .. {twin.graph.classes - 1}")
    if targets is not None and bool(np.any(targets == labels)):
        raise UsageError("a target is the image's own label")
    chosen = labels if targets is None else targets
    objective = Objective(
        twin=twin,
        attack=attack,
        labels=torch.from_numpy(chosen.astype(np.int64)),
        targeted=targets is not None,
        generator=generator_of(seed),
    )
    return torch.from_numpy(images.astype(np.int16)), objective


def keep_best(
    objective: Objective,
    candidates: Sequence[Tensor],
    zeros: Sequence[Tensor],
    estimators: Sequence[Estimator],
) -> Crafted:
    """For each of N images the best of K candidates, by :meth:`Objective.choose`.

    Args:
        objective: what they were made for.
        candidates: K tensors of pixel levels (N, H, W, C).
        zeros: of each, the share of steps without any gradient, float64 (N,).
        estimators: of each, which one made it.
    """
    count = len(candidates[0])
    chosen = torch.zeros(count, dtype=torch.int64)
    if len(candidates) > 1:
        chosen = objective.choose(candidates)
    place = (chosen, torch.arange(count))
    return Crafted(
        torch.stack(list(candidates))[place].to(torch.uint8).numpy(),
        torch.stack(list(zeros))[place].numpy(),
        tuple(estimators[k] for k in chosen.tolist()),
    )
