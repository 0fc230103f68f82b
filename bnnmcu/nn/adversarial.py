"""Adversarial examples of a batch, made while a network is trained (paper, section 4).

FGSM (Goodfellow et al., 2015) draws an epsilon for each example, PGD (Madry et
al., 2018) begins at random in the ball.  Both leave the label that the network
itself gives, so that no label leaks into the image (Kurakin et al., 2017); what is
trained on the image is the true one.  The network is attacked as in evaluation:
statistics of batch normalisation are used and not touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnmcu.errors import UsageError
from bnnmcu.nn.frozen import FrozenNet
from bnnmcu.nn.paper import PaperNet

__all__ = ["AdversarialConfig", "FgsmScale", "Method", "adversarial_batch", "fgsm_epsilons"]

Method = Literal["fgsm", "pgd"]
FgsmScale = Literal["paper", "published"]

#: Spread of FGSM's epsilon before its sign is dropped, in pixel levels, and where it is cut.
_SIGMA_LEVELS = 39.0
_CUT_SIGMAS = 2.0


@dataclass(frozen=True)
class AdversarialConfig:
    """How adversarial examples take part in training.

    Attributes:
        method: ``fgsm`` or ``pgd``.
        after: clean epochs before the first one with adversarial examples.
        fgsm_scale: ``paper`` draws epsilon from |N(0, 39/255)| cut at two sigma;
            ``published`` forgets the division, as the authors' code does, so
            that nearly every pixel becomes black or white.
        epsilon: radius of PGD's ball, of pixels in [0, 1].
        step: of one iteration of PGD.
        iterations: of PGD.
    """

    method: Method
    after: int = 10
    fgsm_scale: FgsmScale = "paper"
    epsilon: float = 0.3
    step: float = 0.01
    iterations: int = 20

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(f"adversarial training by {self.method!r}; use fgsm or pgd")
        if self.fgsm_scale not in get_args(FgsmScale):
            raise UsageError(f"FGSM scale {self.fgsm_scale!r}; use paper or published")
        if self.after < 0 or self.iterations < 1:
            raise UsageError("clean epochs must be at least 0, iterations at least 1")
        if not 0 < self.epsilon <= 1 or not 0 < self.step <= 1:
            raise UsageError(
                f"epsilon {self.epsilon} and step {self.step} must be above 0 and at most 1"
            )


def fgsm_epsilons(count: int, config: AdversarialConfig, generator: torch.Generator) -> Tensor:
    """One epsilon for each example, float32, shape (count,): at most 78/255 by the paper."""
    # |z| of a normal z cut at two sigma has the distribution function erf(z / sqrt 2), scaled.
    share = torch.rand(count, generator=generator, dtype=torch.float64)
    sigmas = math.sqrt(2.0) * torch.erfinv(share * math.erf(_CUT_SIGMAS / math.sqrt(2.0)))
    levels = 255.0 if config.fgsm_scale == "paper" else 1.0
    return (sigmas * (_SIGMA_LEVELS / levels)).float()


def _gradient(
    logits_of: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Gradient of each example's own loss, and the labels; None for those the network gives."""
    x = x.detach().requires_grad_()
    logits = logits_of(x)
    given = logits.detach().argmax(1) if labels is None else labels
    # A sum, not a mean: examples have nothing to do with each other.
    loss = F.cross_entropy(logits, given, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    return gradient, given


def adversarial_batch(
    net: PaperNet, x: Tensor, config: AdversarialConfig, generator: torch.Generator
) -> Tensor:
    """One adversarial example for each image of a batch.

    Args:
        net: is not changed; drawn weights come from its own generator, anew for
            each gradient.
        x: float32, shape (N, C, H, W), in [0, 1].
        generator: of epsilons and starts.

    Returns:
        the same shape, in [0, 1], without a gradient.
    """
    frozen = FrozenNet(net)
    if config.method == "fgsm":
        epsilon = fgsm_epsilons(len(x), config, generator).view(-1, 1, 1, 1)
        gradient, _ = _gradient(frozen, x, None)
        return (x + epsilon * gradient.sign()).clamp_(0.0, 1.0)
    with torch.no_grad():
        labels = frozen(x).argmax(1)
    low, high = (x - config.epsilon).clamp_min_(0.0), (x + config.epsilon).clamp_max_(1.0)
    start = (2.0 * torch.rand(x.shape, generator=generator) - 1.0) * config.epsilon
    moved = (x + start).clamp_(0.0, 1.0)
    for _ in range(config.iterations):
        gradient, _ = _gradient(frozen, moved, labels)
        moved = torch.minimum(torch.maximum(moved + config.step * gradient.sign(), low), high)
    return moved
