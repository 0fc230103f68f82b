"""What attacks maximise: one number for every draw and image, larger is better.

With y the label to leave (or, targeted, t the label to reach) and z the logits:

* ``ce``: cross-entropy of ``z / temperature``.  Saturated logits make its
  gradient vanish; a higher temperature brings it back.
* ``margin``: ``max(z_i, i != y) - z_y``; does not know the logits' scale as far
  as the sign of its gradient goes.
* ``dlr``: the difference of logits ratio (Croce & Hein, 2020), scale-free.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnmcu.attack.config import LossName
from bnnmcu.errors import UsageError

__all__ = ["attack_loss"]

_TINY = 1e-12


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    own = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    mask = F.one_hot(labels, logits.shape[-1]).bool()
    other = logits.masked_fill(mask, -torch.inf).amax(-1)
    return other - own


def _dlr(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    classes = logits.shape[-1]
    if classes < (4 if targeted else 3):
        raise UsageError(f"the DLR loss needs more than {classes} classes", hint="use 'margin'")
    ordered = logits.sort(dim=-1, descending=True).values
    if not targeted:
        spread = ordered[..., 0] - ordered[..., 2]
        return _margin(logits, labels) / (spread + _TINY)
    spread = ordered[..., 0] - 0.5 * (ordered[..., 2] + ordered[..., 3])
    # To reach a label is to raise it over the best of the others.
    return -_margin(logits, labels) / (spread + _TINY)


def attack_loss(
    name: LossName, logits: Tensor, labels: Tensor, *, temperature: float = 1.0, targeted: bool
) -> Tensor:
    """The loss to ascend.

    Args:
        logits: float, shape (D, N, classes).
        labels: int64, shape (N,): to leave, or to reach when ``targeted``.
        temperature: of the cross-entropy.

    Returns:
        shape (D, N).
    """
    each = labels.expand(logits.shape[:-1])
    if name == "dlr":
        return _dlr(logits, each, targeted)
    if name == "margin":
        loss = _margin(logits, each)
    else:
        scaled = (logits / temperature).flatten(0, -2)
        loss = F.cross_entropy(scaled, each.reshape(-1), reduction="none").view(each.shape)
    return -loss if targeted else loss
