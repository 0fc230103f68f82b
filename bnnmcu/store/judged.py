"""An answered example as figures need it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bnnmcu.store.rows import Stored
from bnnmcu.store.values import UNKNOWN_SEED

__all__ = ["Judged", "judge"]


@dataclass(frozen=True)
class Judged:
    """What metrics need of one answered example; see :class:`bnnmcu.store.Example`.

    Attributes:
        labels: the oracle's, one for each draw.
        ticks: likewise, without polluted counts; empty without a device.
        target: the class that the image was to become; None: any but its own.
        details: ``crafted_by``: parameters of the attack, and what it said of this image.
        crafting_s: seconds, of its chunk by its images; None if not measured.
        latency_s: of the request for all its draws; None without a device.
        seeded: the seeds of its draws are known.
        classes: how many the network has.
    """

    attack: str
    levels: int
    image: int
    true_label: int
    linf: int
    l2: float
    zero_gradients: float
    labels: tuple[int, ...]
    ticks: tuple[int, ...]
    target: int | None
    details: Mapping[str, Any]
    crafting_s: float | None
    latency_s: float | None
    seeded: bool
    classes: int


def judge(one: Stored) -> Judged:
    """The same of an example that has answers."""
    counts = (None if draw.polluted else draw.ticks for draw in one.draws)
    return Judged(
        attack=one.attack,
        levels=one.levels,
        image=one.image,
        true_label=one.true_label,
        linf=one.linf,
        l2=one.l2,
        zero_gradients=one.zero_gradients,
        labels=tuple(draw.label for draw in one.draws),
        ticks=tuple(count for count in counts if count is not None),
        target=one.target,
        details=json.loads(one.crafted_by),
        crafting_s=one.crafting_s,
        latency_s=one.draws[0].latency_s,
        seeded=all(draw.seed != UNKNOWN_SEED for draw in one.draws),
        classes=len(one.draws[0].logits),
    )
