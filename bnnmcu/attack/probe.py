"""A look at a model before it is attacked: does it answer the same twice?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from bnnmcu.attack.model import Draws, GradientModel

__all__ = ["repeatable"]

# Of the largest logit: what the order of sums on another core or GPU may change.
_CLOSE = 1e-4


def repeatable(
    model: GradientModel, images: npt.NDArray[np.uint8], draws: Draws | None
) -> npt.NDArray[np.bool_]:
    """Which images get the same logits twice under the same draws, bool (N,).

    A model that is random beyond its draws gives noisy gradients, which an
    attack that does not know of it takes for good (AutoAttack's first check;
    Croce & Hein, 2020).  Numbers that are not finite are not compared.

    Args:
        images: uint8, shape (N, H, W, C).
        draws: of the stochastic weights; None for a deterministic network.
    """
    x = torch.from_numpy(images).to(model.device).float() / 255.0
    with torch.no_grad():
        first, again = (model(x, draws).double() for _ in range(2))
    finite = torch.isfinite(first) & torch.isfinite(again)
    apart = torch.where(finite, (first - again).abs(), 0.0)
    scale = torch.where(finite, first.abs(), 0.0).amax(-1, keepdim=True)
    same: npt.NDArray[np.bool_] = (apart <= _CLOSE * scale).all(-1).all(0).cpu().numpy()
    return same
