"""What one answered example says: by majority of its draws, and by its attack's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from bnnmcu.store import Judged

__all__ = ["numbers", "reaches_target", "right_images", "share", "stays_right"]

#: Of a number that an attack tells: sums of these do not overflow.
_MOST = 1e12


def stays_right(one: Judged) -> bool:
    """The true label has strictly more draws than every other."""
    votes = Counter(one.labels)
    own = votes.pop(one.true_label, 0)
    return own > max(votes.values(), default=0)


def reaches_target(one: Judged) -> bool:
    """No label has more draws than the target."""
    votes = Counter(one.labels)
    own = votes.pop(-1 if one.target is None else one.target, 0)
    return own >= max(votes.values(), default=0)


def right_images(clean: Iterable[Judged]) -> set[int]:
    """Images that are right by majority."""
    return {one.image for one in clean if stays_right(one)}


def numbers(judged: Iterable[Judged], key: str) -> list[float]:
    """What attacks told under a key; the file may be anybody's."""
    told = (one.details.get(key) for one in judged)
    kept = (one for one in told if isinstance(one, int | float) and type(one) is not bool)
    return [float(one) for one in kept if 0 <= one <= _MOST]


def share(judged: Iterable[Judged], key: str, wanted: bool) -> float | None:
    """Share of a yes or no among those that told it."""
    told = [one.details[key] for one in judged if isinstance(one.details.get(key), bool)]
    return told.count(wanted) / len(told) if told else None
