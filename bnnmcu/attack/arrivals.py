"""Answers of an oracle as they come, each checked for its shape; none too many, none missing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.oracle import Answer, Farm, Oracle, TakenBack
from bnnmcu.errors import LinkError

__all__ = ["arrivals"]


def arrivals(
    oracle: Oracle, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64], classes: int
) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
    """Index and answer of every image: in order from one board, in any order from a farm.

    Args:
        images: uint8, (N, H, W, C).
        seeds: uint64, (N, D).
        classes: of the network.

    Raises:
        LinkError: an answer of another shape, twice the same, or not for every image.
    """
    expected = (seeds.shape[1], classes)
    given: set[int] = set()
    with closing(_any(oracle, images, seeds)) as answers:
        for one in answers:
            if isinstance(one, TakenBack):
                given = {index for index in given if index not in one.images}
                yield one
                continue
            index, answer = one
            if answer.logits.shape != expected:
                raise LinkError(
                    f"logits of shape {answer.logits.shape}, not {expected}", where=oracle.name
                )
            if index in given or not 0 <= index < len(images):
                raise LinkError(f"an answer too many, to image {index}", where=oracle.name)
            given.add(index)
            yield one
    if len(given) != len(images):
        raise LinkError(
            f"{len(given)} answers to {len(images)} images",
            where=oracle.name,
            hint="start the run again: it goes on where it stopped",
        )


def _any(
    oracle: Oracle, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
    if isinstance(oracle, Farm):
        yield from oracle.arrivals(images, seeds)
    else:
        yield from enumerate(oracle.logits(images, seeds))
