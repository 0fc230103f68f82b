"""Who decides whether an iterate of Carlini & Wagner's attack has fooled the network.

The authors' code asks the very pass that gave the gradient, and takes the image as it
is, before it becomes pixels.  Against drawn weights both flatter the attack's records
and ruin its images: a hundred steps are a hundred chances that one lucky draw is
fooled, and the image that was lucky is kept for being near.  So there are two judges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bnnmcu.attack.config import SuccessRule
from bnnmcu.attack.gradient import Objective

__all__ = ["FreshJudge", "Judge", "Record", "StepJudge", "fooled_share", "rounded"]

#: Draws at a time, to bound the memory that their weights take.
_DRAWS_AT_ONCE = 10


def rounded(x: Tensor) -> Tensor:
    """The nearest pixel levels, as multiples of 1 / 255."""
    return torch.round(x * 255.0) / 255.0


def fooled_share(objective: Objective, images: Sequence[Tensor], draws: int) -> Tensor:
    """Share of fresh draws (or of the fixed ones) that are fooled, (K, N).

    Args:
        images: K times (N, H, W, C); the draws are the same for all.
    """
    fixed = objective.fixed is not None or not objective.model.stochastic
    sizes = [1] if fixed else [_DRAWS_AT_ONCE] * (draws // _DRAWS_AT_ONCE)
    if not fixed and draws % _DRAWS_AT_ONCE:
        sizes.append(draws % _DRAWS_AT_ONCE)
    fooled = []
    for size in sizes:
        some = objective.draws(size)
        fooled.append(torch.stack([objective.margins(x, some) > 0 for x in images]))
    return torch.cat(fooled, 1).float().mean(1)


def _enough(share: Tensor, rule: SuccessRule) -> Tensor:
    """Whether a share of the draws suffices, bool, the same shape."""
    if rule == "any":
        return share > 0
    return share == 1 if rule == "all" else share > 0.5


@dataclass(eq=False)
class Record:
    """One image each, (N, H, W, C), and what is known of it.

    Attributes:
        x: unrounded, in [0, 1].
        distance: squared L2, (N,); infinite where there is none.
        share: of the draws that judged it, fooled, (N,).
        found: enough of them, bool (N,).
        constant: c of the descent that it comes from, (N,).
    """

    x: Tensor
    distance: Tensor
    share: Tensor
    found: Tensor
    constant: Tensor

    @classmethod
    def empty(cls, like: Tensor) -> Record:
        """Nothing found yet; the images are copies."""
        far = like.new_full((len(like),), torch.inf)
        none = torch.zeros(len(like), dtype=torch.bool, device=like.device)
        return cls(like.clone(), far, torch.zeros_like(far), none, torch.zeros_like(far))

    def beaten_by(self, other: Record) -> Tensor:
        """Where the other is the nearer one of those found, or fools more where none is."""
        nearer = other.found & (~self.found | (other.distance < self.distance))
        more = ~other.found & ~self.found & (other.share > self.share)
        return nearer | more

    def part(self, which: Tensor) -> Record:
        """Some of the entries, copied."""
        return Record(*(getattr(self, field.name)[which] for field in fields(self)))

    def put(self, other: Record, which: Tensor) -> None:
        """Replace the entries int64 (M,) by the M of the other."""
        for field in fields(self):
            getattr(self, field.name)[which] = getattr(other, field.name)

    def take(self, other: Record, where: Tensor) -> None:
        """Replace the entries that bool (N,) points at by the other's."""
        for field in fields(self):
            getattr(self, field.name)[where] = getattr(other, field.name)[where]


class Judge(ABC):
    """Sees every iterate, and keeps the best image of each.

    Args:
        objective: what is attacked.
        clean: the images, multiples of 1 / 255.
        rule: how many draws must be fooled.
    """

    def __init__(self, objective: Objective, clean: Tensor, rule: SuccessRule) -> None:
        self.objective, self.clean, self.rule = objective, clean, rule
        self.best = Record.empty(clean)

    @abstractmethod
    def look(self, x: Tensor) -> Tensor:
        """What of an iterate reaches the network, in the loss too."""

    @abstractmethod
    def start(self) -> None:
        """A new descent, with a new constant."""

    @abstractmethod
    def see(self, x: Tensor, distance: Tensor, margins: Tensor, constant: Tensor) -> None:
        """An iterate.

        Args:
            x: unrounded.
            distance: squared L2, of x, (N,).
            margins: of the step's draws, (D, N); minus infinity where not finite.
            constant: of the descent, (N,).
        """

    @abstractmethod
    def settle(self) -> Tensor:
        """After a tenth of a descent: bool (N,), which images it has fooled so far."""


class StepJudge(Judge):
    """As published: the step's own draw, the unrounded image, kappa included."""

    def __init__(
        self, objective: Objective, clean: Tensor, rule: SuccessRule, confidence: float
    ) -> None:
        super().__init__(objective, clean, rule)
        self.confidence = confidence
        self.start()

    def look(self, x: Tensor) -> Tensor:
        """As it is."""
        return x

    def start(self) -> None:
        """See :meth:`Judge.start`."""
        self._reached = torch.zeros_like(self.best.found)

    def see(self, x: Tensor, distance: Tensor, margins: Tensor, constant: Tensor) -> None:
        """See :meth:`Judge.see`."""
        # A tie that the label wins is a little above zero.
        fooled = (margins > 0) & (margins >= self.confidence)
        share = fooled.float().mean(0)
        ok = _enough(share, self.rule)
        self._reached |= ok
        nearer = ok & (distance < self.best.distance)
        self.best.take(Record(x, distance, share, ok, constant), nearer)

    def settle(self) -> Tensor:
        """See :meth:`Judge.settle`."""
        return self._reached


class FreshJudge(Judge):
    """Rounded images, believed only by draws that took no part in making them.

    A step's draws are new, so they may propose an iterate: of those that they call
    fooled the nearest, else the one with the greatest lead.  Every tenth of a descent
    the proposals are judged by other draws.  Where enough are fooled the nearest image
    is kept; where they never are, the one that fools most.
    """

    def __init__(self, objective: Objective, clean: Tensor, rule: SuccessRule, draws: int) -> None:
        super().__init__(objective, clean, rule)
        self.draws = draws
        self.start()

    def look(self, x: Tensor) -> Tensor:
        """Rounded to pixels; the gradient passes straight through."""
        return rounded(x)

    def start(self) -> None:
        """See :meth:`Judge.start`."""
        self._reached = torch.zeros_like(self.best.found)
        self._clear()

    def _clear(self) -> None:
        self._proposed = Record.empty(self.clean)
        self._lead = torch.full_like(self._proposed.distance, -torch.inf)

    def see(self, x: Tensor, distance: Tensor, margins: Tensor, constant: Tensor) -> None:
        """See :meth:`Judge.see`."""
        # The distance of what would be sent, not of what it was rounded from.
        distance = (rounded(x) - self.clean).square().flatten(1).sum(1)
        ok = _enough((margins > 0).float().mean(0), self.rule)
        lead = margins.to(self._lead).mean(0)
        old = self._proposed
        useful = ~self.best.found | (distance < self.best.distance)
        nearer = ok & (~old.found | (distance < old.distance))
        stronger = ~ok & ~old.found & (lead > self._lead)
        better = useful & (nearer | stronger)
        old.take(Record(x, distance, torch.zeros_like(distance), ok, constant), better)
        self._lead = torch.where(better, lead, self._lead)

    def settle(self) -> Tensor:
        """See :meth:`Judge.settle`."""
        proposed, best = self._proposed, self.best
        which = torch.isfinite(proposed.distance).nonzero().flatten()
        if len(which):
            part = self.objective.part(which)
            (share,) = fooled_share(part, [rounded(proposed.x[which])], self.draws)
            proposed.share[which] = share
            proposed.found = torch.isfinite(proposed.distance) & _enough(proposed.share, self.rule)
            self._reached |= proposed.found
            best.take(proposed, best.beaten_by(proposed))
        self._clear()
        return self._reached
