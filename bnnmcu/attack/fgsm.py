"""The fast gradient sign method (Goodfellow et al., 2015) on the integer network.

One step of the whole budget along the sign of the expected loss's gradient,
clipped to the pixels' range.  The result is on the pixel grid by construction.
No estimator of the thresholds' gradients is the best on every network, so with
``strongest`` the step is taken with each, and the best is kept for each image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from bnnmcu.attack.config import Crafted, FgsmConfig
from bnnmcu.attack.gradient import Objective, keep_best, prepare
from bnnmcu.attack.twin import IntegerTwin

__all__ = ["fgsm"]


def _own_labels(objective: Objective, pixels: torch.Tensor) -> torch.Tensor:
    """The network's own labels: by the mean logits over draws."""
    with torch.no_grad():
        logits: torch.Tensor = objective.twin(pixels.float() / 255.0, objective.draws())
    return logits.mean(0).argmax(-1)


def fgsm(
    twin: IntegerTwin,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    attack: FgsmConfig,
    seed: int,
    targets: npt.NDArray[np.int64] | None = None,
) -> Crafted:
    """Craft one adversarial example for every image.

    Args:
        twin: the network; the attack says which estimators are used.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,), the true ones.
        attack: budget, loss, draws and whose label to leave.
        seed: of all draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead; never the true one.

    Raises:
        UsageError: arguments out of range or of the wrong shape.
        UnsupportedModelError: the graph gives no gradients.
    """
    pixels, objective = prepare(twin, attack, images, labels, targets, seed)
    if attack.label == "prediction" and targets is None:
        objective = replace(objective, labels=_own_labels(objective, pixels))
    candidates, zeros = [], []
    for estimator in attack.estimators:
        _, gradient = objective.using(estimator).gradient(pixels)
        step = attack.levels * gradient.sign().to(torch.int16)
        candidates.append((pixels + step).clamp_(0, 255))
        zeros.append((gradient.flatten(1) == 0).all(1).double())
    return keep_best(objective, candidates, zeros, attack.estimators)
