"""What a run says it is of: each value within what a campaign can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bnnmcu.store.values import MAX_LEVELS, Checker

__all__ = ["check_facts"]

# The bounds of CampaignConfig and of the attacks' settings.
_MAX_DRAWS = 1000
_MAX_CHUNK = 10_000
_MAX_SEED = 2**63 - 1
_MAX_IMAGES = 2**31
#: A data set is called by its files' paths.
_MAX_NAME = 10_000


def _integer(low: int, high: int) -> Callable[[Checker, str, Any], object]:
    return lambda check, name, value: check.integer(name, value, low, high)


def _name(check: Checker, name: str, value: Any) -> None:
    # Control characters stay out of sight where it is printed, not here.
    if not isinstance(value, str) or len(value) > _MAX_NAME:
        raise check.fail(f"{name} is {value!r:.40}, not a name of at most {_MAX_NAME:,} characters")


def _boolean(check: Checker, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise check.fail(f"{name} is {value!r:.40}, neither true nor false")


def _attacks(check: Checker, name: str, value: Any) -> None:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise check.fail(f"{name} is {value!r:.40}, not a list of attacks")
    for i, one in enumerate(value):
        check.word(f"{name}.{i}.attack", one.get("attack"))
        if "case" in one:
            check.word(f"{name}.{i}.case", one["case"])
        if "levels" in one:
            check.integer(f"{name}.{i}.levels", one["levels"], 0, MAX_LEVELS)
        if "eot_draws" in one:
            check.integer(f"{name}.{i}.eot_draws", one["eot_draws"], 1, _MAX_DRAWS)


_FACTS: dict[str, dict[str, Callable[[Checker, str, Any], object]]] = {
    "config": {
        "draws": _integer(1, _MAX_DRAWS),
        "seed": _integer(0, _MAX_SEED),
        "chunk": _integer(1, _MAX_CHUNK),
        "attacks": _attacks,
    },
    "model": {"name": _name, "stochastic": _boolean},
    "data": {"name": _name, "images": _integer(0, _MAX_IMAGES)},
    "oracle": {"name": _name, "label": _name},
}
# Of these, what every campaign writes and people are shown.
_SHOWN = {
    "config": ("draws", "attacks"),
    "model": ("name", "stochastic"),
    "data": ("name", "images"),
    "oracle": ("name", "label"),
}


def check_facts(path: Path, identity: Mapping[str, Any], *, whole: bool = False) -> None:
    """Raise a StoreError for a fact that no campaign has.

    Args:
        path: of the file, for messages.
        identity: may lack any fact, and have others, which nobody interprets.
        whole: all that is shown of a run must be there.
    """
    check = Checker(path, "the run's identity")
    for group, facts in _FACTS.items():
        if group not in identity and not whole:
            continue
        found = identity.get(group)
        if not isinstance(found, Mapping):
            raise check.fail(f"{group} is {found!r:.40}, not a group of facts")
        for name, look in facts.items():
            if name in found or (whole and name in _SHOWN[group]):
                look(check, f"{group}.{name}", found.get(name))
