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

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnmcu.nn.frozen import FrozenNet
from bnnmcu.nn.paper import PaperNet
from bnnmcu.nn.training_config import AdversarialConfig, FgsmScale, Method

__all__ = ["AdversarialConfig", "FgsmScale", "Method", "adversarial_batch", "fgsm_epsilons"]

#: Spread of FGSM's epsilon before its sign is dropped, in pixel levels, and where it is cut.
_SIGMA_LEVELS = 39.0
_CUT_SIGMAS = 2.0


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
        x: float32, shape (N, C, H, W), in [0, 1], on the network's device.
        generator: of epsilons and starts; the CPU's.

    Returns:
        the same shape, in [0, 1], without a gradient.
    """
    frozen = FrozenNet(net)
    if config.method == "fgsm":
        epsilon = fgsm_epsilons(len(x), config, generator).view(-1, 1, 1, 1).to(x.device)
        gradient, _ = _gradient(frozen, x, None)
        return (x + epsilon * gradient.sign()).clamp_(0.0, 1.0)
    with torch.no_grad():
        labels = frozen(x).argmax(1)
    low, high = (x - config.epsilon).clamp_min_(0.0), (x + config.epsilon).clamp_max_(1.0)
    start = (2.0 * torch.rand(x.shape, generator=generator) - 1.0) * config.epsilon
    moved = (x + start.to(x.device)).clamp_(0.0, 1.0)
    for _ in range(config.iterations):
        gradient, _ = _gradient(frozen, moved, labels)
        moved = torch.minimum(torch.maximum(moved + config.step * gradient.sign(), low), high)
    return moved
