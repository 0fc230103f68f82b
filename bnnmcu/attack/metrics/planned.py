"""What a run set out to do, as its identity says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnmcu.errors import StoreError

__all__ = ["Plan", "Planned", "read_plan"]

_CLEAN = "clean"
# Of an attack's entry, what is told apart from its settings.
_HEAD = ("attack", "case", "levels", "name")


@dataclass(frozen=True)
class Planned:
    """One case.

    Attributes:
        attack: its name; ``clean`` for the images as they are.
        levels: its budget in pixel levels; None where an old file does not say.
        kind: of attack.
        images: how many of the run's.
        targets: ``none``, ``pairs`` or ``all``.
        settings: of the attack, as plain values.
    """

    attack: str
    levels: int | None
    kind: str
    images: int
    targets: str
    settings: Mapping[str, Any]

    @property
    def clean(self) -> bool:
        """No attack."""
        return self.attack == _CLEAN

    def is_of(self, case: tuple[str, int]) -> bool:
        """Whether a stored case is this one."""
        return self.attack == case[0] and self.levels in (None, case[1])

    def examples(self, classes: int) -> int:
        """Images, each as often as it has targets."""
        return self.images * (classes - 1 if self.targets == "all" else 1)


@dataclass(frozen=True)
class Plan:
    """A whole run.

    Attributes:
        cases: clean first, then the attacks in their order.
        stochastic: the network draws weights.
        draws: with which an image is judged.
    """

    cases: tuple[Planned, ...]
    stochastic: bool
    draws: int

    def find(self, case: tuple[str, int]) -> Planned:
        """What was planned for a stored case; an empty plan for one that nobody planned."""
        for one in self.cases:
            if one.is_of(case):
                return one
        return Planned(*case, case[0], self.cases[0].images, "none", {})


def read_plan(path: Path, identity: Mapping[str, Any]) -> Plan:
    """The plan in a run's identity, as far as figures rest on it.

    Raises:
        StoreError: it says what no campaign does.
    """
    try:
        config, model = identity["config"], identity["model"]
        images, draws, stochastic = identity["data"]["images"], config["draws"], model["stochastic"]
        sound = type(images) is int and type(draws) is int and type(stochastic) is bool
        cases = [Planned(_CLEAN, 0, _CLEAN, images, "none", {})]
        for one in config["attacks"]:
            sound = sound and type(one["eot_draws"]) is int and isinstance(one["attack"], str)
            cases.append(_planned(one, images))
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise StoreError(
            "the file does not say which campaign it is of",
            where=str(path),
            hint="move it away and start a new run",
        )
    return Plan(tuple(cases), stochastic, draws)


def _levels_of(epsilon: object) -> int | None:
    """Of a budget in L-infinity, the only one in files without levels."""
    if not isinstance(epsilon, int | float) or not 0 <= epsilon <= 1:
        return None
    return math.floor(255.0 * epsilon + 1e-9)


def _planned(one: Mapping[str, Any], images: int) -> Planned:
    wanted, levels, held_out = (one.get(key) for key in ("images", "levels", "held_out"))
    # Images that an attack trains on are at the end, and it is not judged on them.
    left = images - held_out if type(held_out) is int else images
    return Planned(
        attack=str(one.get("case", one["attack"])),
        levels=levels if type(levels) is int else _levels_of(one.get("epsilon")),
        kind=one["attack"],
        images=min(wanted, left) if type(wanted) is int else left,
        targets=str(one.get("targets", "none")),
        settings={key: value for key, value in one.items() if key not in _HEAD},
    )
