"""What attacks maximise: one number for every draw and image, larger is better.

With y the label to leave (or, targeted, t the label to reach) and z the logits:

* ``ce``: cross-entropy of ``z / temperature``.  Saturated logits make its
  gradient vanish; a higher temperature brings it back.
* ``margin``: ``max(z_i, i != y) - z_y``; does not know the logits' scale as far
  as the sign of its gradient goes.
* ``dlr``: the difference of logits ratio (Croce & Hein, 2020), scale-free:
  ``margin / (z_1 - z_3)`` with the logits in descending order.  Targeted, their
  ``(z_t - z_y) / (z_1 - (z_3 + z_4) / 2)`` with the best of all other logits
  instead of the true label's, so that it is above 0 where the target is reached.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from bnnmcu.attack.config import LossName
from bnnmcu.errors import UsageError

__all__ = ["at_its_top", "attack_loss", "break_ties"]

_TINY = 1e-12
#: What a tie that is won counts as: above zero, and below any lead.
WON = 1e-30
#: From this loss on a targeted cross-entropy has hardly anything to gain.
_REACHED = -1e-6


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


def break_ties(margins: Tensor, logits: Tensor, labels: Tensor, *, targeted: bool) -> Tensor:
    """Margins, above zero wherever the network's answer is wrong, or the target.

    Of equal logits the first is the answer, on the device as in the published code.
    A margin of zero is such a tie, and becomes a little more where it is won.

    Args:
        margins: the loss ``margin``, shape (D, N).
        logits, labels, targeted: as for :func:`attack_loss`.
    """
    each = labels.expand(logits.shape[:-1]).unsqueeze(-1)
    place = torch.arange(logits.shape[-1], device=logits.device)
    before = ((logits == logits.gather(-1, each)) & (place < each)).any(-1)
    won = ~before if targeted else before
    return torch.where((margins == 0) & won, WON, margins)


def at_its_top(name: LossName, loss: Tensor, *, targeted: bool) -> Tensor:
    """Where a loss may have no gradient because the image is fooled: bool, shape of ``loss``.

    DLR stays at 1 while the label's logit is the third largest, and the image is
    fooled from 0 on.  Cross-entropy ends at 0 where a target is reached; where a label
    is to be left, a loss of 0 is the masked gradient itself.
    """
    if name == "dlr":
        return loss > 0
    if name == "ce" and targeted:
        return loss > _REACHED
    return torch.zeros_like(loss, dtype=torch.bool)
