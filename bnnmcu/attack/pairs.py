"""Which images an attack is tried on, and which labels they are to reach.

A targeted attack is measured over pairs of a source and a target class.  With
``pairs`` every image has one target, and those of the images of one class go
round all other classes, so that the cells fill evenly from the first image on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import AttackConfig, SubstituteConfig
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError

__all__ = ["Chunk", "Place", "chunks_of", "held_out", "pair_targets", "places_of"]


@dataclass(frozen=True)
class Place:
    """One example of a case: an image, and the label it is to reach, if any."""

    image: int
    target: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Examples that are crafted together.

    Attributes:
        number: of the chunk in its case.
        places: at least one; all have a target, or none has.
    """

    number: int
    places: tuple[Place, ...]

    @property
    def images(self) -> list[int]:
        """Indices in the data set."""
        return [place.image for place in self.places]

    @property
    def targets(self) -> npt.NDArray[np.int64] | None:
        """int64, shape (N,); None for an untargeted attack."""
        found = [place.target for place in self.places if place.target is not None]
        return np.array(found, dtype=np.int64) if found else None


def pair_targets(labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """One wrong label for each image, int64, shape (N,).

    The k-th image of class c gets the k-th of the labels c + 1, c + 2, ...,
    counted round.  What follows an image does not change its target.
    """
    targets = np.empty_like(labels)
    for label in np.unique(labels):
        own = labels == label
        turn = np.arange(own.sum()) % (classes - 1)
        targets[own] = (label + 1 + turn) % classes
    return targets


def held_out(attack: AttackConfig) -> int:
    """Images at the end of the data that an attack trains on, and that it is not judged on."""
    return attack.held_out if isinstance(attack, SubstituteConfig) else 0


def places_of(attack: AttackConfig | None, dataset: Dataset, classes: int) -> tuple[Place, ...]:
    """All examples of a case, by image and target; None stands for the clean case.

    Raises:
        UsageError: no images are left, or there is no other label to reach.
    """
    if attack is None:
        return tuple(Place(image) for image in range(len(dataset)))
    count = len(dataset) - held_out(attack)
    if count < 1:
        raise UsageError(
            f"{attack.case} trains on {held_out(attack)} images, and there are {len(dataset)}",
            hint="give the run more images",
        )
    if attack.images is not None:
        count = min(count, attack.images)
    if attack.targets == "none":
        return tuple(Place(image) for image in range(count))
    if classes < 2:
        raise UsageError(f"{attack.case} has targets, but there is one class only")
    labels = dataset.labels[:count]
    if attack.targets == "pairs":
        each = pair_targets(labels, classes)
        return tuple(Place(image, int(target)) for image, target in enumerate(each))
    return tuple(
        Place(image, target)
        for image in range(count)
        for target in range(classes)
        if target != labels[image]
    )


def chunks_of(places: Sequence[Place], size: int) -> list[Chunk]:
    """The examples of a case in chunks of ``size``; the last may be smaller."""
    starts = range(0, len(places), size)
    return [Chunk(k, tuple(places[start : start + size])) for k, start in enumerate(starts)]
