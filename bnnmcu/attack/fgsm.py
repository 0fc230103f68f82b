"""The fast gradient sign method (Goodfellow et al., 2015).

One step of the whole budget along the sign of the expected loss's gradient,
clipped to the pixels' range.  The result is on the pixel grid by construction.
No estimator of the thresholds' gradients is the best on every network, so with
``strongest`` the step is taken with each, and the best is kept for each image;
so it is with several losses or temperatures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnnmcu.attack.config import Crafted, FgsmConfig
from bnnmcu.attack.gradient import Objective, join, keep_best, prepare
from bnnmcu.attack.losses import at_its_top
from bnnmcu.attack.model import Draws, GradientModel

__all__ = ["fgsm"]

# Images computed together: what lies between two layers stays in the cache.
_BATCH = 128


def _batch(objective: Objective, pixels: Tensor, attack: FgsmConfig) -> Crafted:
    candidates, zeros, broken, estimators = [], [], [], []
    own = attack.label == "prediction" and not objective.targeted
    for setting in attack.settings:
        view = objective.using(setting)
        if own:
            # Later settings leave the label that the first pass gave.
            objective, step = view.own_labels(pixels)
            own = False
        else:
            step = view.gradient(pixels)
        change = attack.levels * step.gradient.sign().to(torch.int16)
        candidates.append((pixels + change).clamp_(0, 255))
        zeros.append(
            (step.zero & ~at_its_top(setting.loss, step.loss, targeted=view.targeted)).double()
        )
        broken.append(step.broken.double())
        estimators.append(setting.estimator)
    return keep_best(objective, candidates, zeros, estimators, broken)


def fgsm(
    model: GradientModel,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    attack: FgsmConfig,
    seed: int,
    targets: npt.NDArray[np.int64] | None = None,
    draws: Draws | None = None,
) -> Crafted:
    """Craft one adversarial example for every image.

    Args:
        model: the network; the attack says which estimators are used.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,), the true ones.
        attack: budget, loss, draws and whose label to leave.
        seed: of all draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead; never the true one.
        draws: the weights to attack, where they are known.

    Raises:
        UsageError: arguments out of range or of the wrong shape.
        UnsupportedModelError: the graph gives no gradients.
    """
    pixels, objective = prepare(model, attack, images, labels, targets, seed, draws=draws)
    parts = [slice(start, start + _BATCH) for start in range(0, len(pixels), _BATCH)]
    return join([_batch(objective.part(part), pixels[part], attack) for part in parts])
