"""From stored answers to figures that cannot flatter a model by accident.

Accuracies are against the true label, images that were wrong when clean count
as wrong, and with D draws for each image three figures stand side by side:

* *mean*: share of right answers over images and draws;
* *majority*: share of images whose true label has strictly more draws than
  every other label.  A tie for the first place is wrong, whatever the labels:
  breaking it by the smallest label would make the figure depend on numbering;
* *worst*: share of images that are right in all D draws.

Intervals are Wilson's at 95 %, over images.  For the mean over draws this is
on the safe side: draws of one image differ less than images do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bnnmcu.attack.flags import Flag, find_flags
from bnnmcu.errors import StoreError
from bnnmcu.store import Judged, Store

__all__ = ["Accuracy", "Case", "Summary", "summarize", "wilson"]

#: Of a two-sided 95 % interval.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """A share of images with its 95 % interval, all within [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Case:
    """One attack with one budget, or the clean images.

    Attributes:
        attack: ``clean`` or the attack's name.
        levels: the budget in pixel levels.
        epsilon: the budget that these levels really are, levels / 255.
        images, draws: how many were answered.
        mean, majority, worst: accuracies, see the module's text.
        attack_success: of the images right by majority when clean, the share
            that is not any more; None for the clean case, or if there are none.
        zero_gradients: share of images that lacked any gradient in some step.
        unchanged: share of images that the attack left as they were.
        linf: largest change used, in pixel levels, mean over images.
        l2: Euclidean norm of the change in units of [0, 1], mean over images.
        ticks: median over draws of the device's counter; None without clean counts.
    """

    attack: str
    levels: int
    epsilon: float
    images: int
    draws: int
    mean: Accuracy
    majority: Accuracy
    worst: Accuracy
    attack_success: float | None
    zero_gradients: float
    unchanged: float
    linf: float
    l2: float
    ticks: int | None


@dataclass(frozen=True)
class Summary:
    """What a results file says.

    Attributes:
        identity: of the run: configuration, model, data, oracle.
        complete: every image of every case was answered.
        cases: clean first, then the attacks in the order of the run.
        flags: warnings; read them before the figures.
    """

    identity: dict[str, Any]
    complete: bool
    cases: tuple[Case, ...]
    flags: tuple[Flag, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


def wilson(successes: float, count: int) -> Accuracy:
    """Wilson's score interval at 95 %.

    Args:
        successes: may be a sum of shares.
        count: independent trials, at least one.
    """
    share = successes / count
    z2 = _Z * _Z / count
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    # At 0 and 1 the formula is exact but for its last bit.
    return Accuracy(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))


def _majority_right(one: Judged) -> bool:
    votes = Counter(one.labels)
    own = votes.pop(one.true_label, 0)
    return own > max(votes.values(), default=0)


def _case(judged: Sequence[Judged], right_when_clean: set[int]) -> Case:
    first, count = judged[0], len(judged)
    shares = [np.mean([label == one.true_label for label in one.labels]) for one in judged]
    majority = {one.image for one in judged if _majority_right(one)}
    ticks = [tick for one in judged for tick in one.ticks]
    attacked = right_when_clean & {one.image for one in judged}
    success = None
    if first.attack != "clean" and attacked:
        success = len(attacked - majority) / len(attacked)
    return Case(
        attack=first.attack,
        levels=first.levels,
        epsilon=first.levels / 255.0,
        images=count,
        draws=len(first.labels),
        mean=wilson(float(np.sum(shares)), count),
        majority=wilson(len(majority), count),
        worst=wilson(sum(share == 1.0 for share in shares), count),
        attack_success=success,
        zero_gradients=sum(one.zero_gradients > 0 for one in judged) / count,
        unchanged=0.0 if first.attack == "clean" else sum(one.linf == 0 for one in judged) / count,
        linf=float(np.mean([one.linf for one in judged])),
        l2=float(np.mean([one.l2 for one in judged])),
        ticks=int(np.median(ticks)) if ticks else None,
    )


def summarize(store: Store) -> Summary:
    """Figures and flags of what a store holds, finished or not.

    Raises:
        StoreError: it holds what no campaign writes.
    """
    images, attacks = _wanted(store)
    groups: dict[tuple[str, int], list[Judged]] = {}
    for one in store.judged():
        groups.setdefault((one.attack, one.levels), []).append(one)
    clean = groups.get(("clean", 0), [])
    right = {one.image for one in clean if _majority_right(one)}
    cases = tuple(_case(group, right) for group in groups.values())
    identity = store.identity
    complete = len(cases) == 1 + attacks and all(case.images == images for case in cases)
    return Summary(identity, complete, cases, find_flags(cases, identity, complete=complete))


def _wanted(store: Store) -> tuple[int, int]:
    """Images and attacks of a run, after a look at all of its identity that figures rest on."""
    try:
        config, model = store.identity["config"], store.identity["model"]
        images = store.identity["data"]["images"]
        attacks = [(one["attack"], one["eot_draws"]) for one in config["attacks"]]
        sound = (
            all(type(value) is int for value in (images, config["draws"]))
            and type(model["stochastic"]) is bool
            and all(isinstance(name, str) and type(draws) is int for name, draws in attacks)
        )
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise StoreError(
            "the file does not say which campaign it is of",
            where=str(store.path),
            hint="move it away and start a new run",
        )
    return images, len(attacks)
