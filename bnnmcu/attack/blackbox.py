"""Any attack by queries, by its configuration; what it needs is imported when it is called."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import (
    AttackConfig,
    Crafted,
    HopSkipJumpConfig,
    SquareConfig,
    SubstituteConfig,
)
from bnnmcu.attack.query import QueryOracle
from bnnmcu.errors import UsageError

__all__ = ["craft_queries"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def craft_queries(
    query: QueryOracle,
    attack: AttackConfig,
    images: Images,
    labels: Labels,
    targets: Labels | None,
    seed: int,
    training: tuple[Images, Labels] | None = None,
) -> Crafted:
    """One adversarial example for every image.

    Args:
        query: who is asked; the k-th image has the k-th budget.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,), the true ones.
        targets: labels to reach, int64 (N,); None to leave the true ones.
        seed: of all that is random in the search, 0 .. 2**63 - 1.
        training: images and labels held out, for an attack that trains on some.

    Raises:
        MissingDependencyError: a package is missing; the message says which.
        UsageError: wrong shapes or labels, an attack that asks nobody, or one
            whose training images are missing.
        LinkError: the oracle failed.
    """
    count = len(images)
    if count == 0 or images.dtype != np.uint8 or images.ndim != 4:
        raise UsageError(f"images are {images.dtype} {images.shape}, not uint8 (N, H, W, C)")
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed} is not between 0 and 2**63 - 1")
    for name, given in (("labels", labels), ("targets", targets)):
        if given is None:
            continue
        if given.shape != (count,) or given.min() < 0 or given.max() >= query.classes:
            raise UsageError(f"{name} must be {count}, each of 0 .. {query.classes - 1}")
    if targets is not None and bool((targets == labels).any()):
        raise UsageError("a target is the image's own label")
    if isinstance(attack, SquareConfig):
        from bnnmcu.attack.square import square

        return square(query, images, labels, attack=attack, seed=seed, targets=targets)
    if isinstance(attack, HopSkipJumpConfig):
        from bnnmcu.attack.hopskipjump import hopskipjump

        return hopskipjump(query, images, labels, attack=attack, seed=seed, targets=targets)
    if isinstance(attack, SubstituteConfig):
        if training is None:
            raise UsageError("a substitute is trained on images held out: give 'training'")
        from bnnmcu.attack.substitute import substitute

        return substitute(
            query, images, labels, attack=attack, seed=seed, training=training, targets=targets
        )
    raise UsageError(f"{attack.kind} follows gradients, and asks no oracle")
