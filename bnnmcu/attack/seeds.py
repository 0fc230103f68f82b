"""Seeds of everything random in a campaign, each from the run's seed and its place.

A seed depends on where it is used and on nothing else, so a resumed run uses
the same ones.  Crafting and evaluation hash different words: the draws an
image is judged on are never those it was crafted on, unless the adversary
knows them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["candidate_seeds", "crafting_seed", "evaluation_seeds"]


def _hash64(*parts: object) -> int:
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def crafting_seed(
    run_seed: int, attack: str, levels: int, chunk: int, example: int | None = None
) -> int:
    """Of a chunk's starts and draws while crafting, 0 .. 2**63 - 1.

    Args:
        attack: the case.
        example: its place in the chunk, where each is crafted alone.
    """
    alone = () if example is None else (example,)
    return _hash64("craft", run_seed, attack, levels, chunk, *alone) >> 1


def evaluation_seeds(
    run_seed: int, attack: str, levels: int, image: int, draws: int, target: int | None = None
) -> npt.NDArray[np.uint64]:
    """Device seeds an image is judged with, uint64, shape (draws,); all different."""
    place = (image,) if target is None else (image, target)
    return _different("evaluate", (run_seed, attack, levels, *place), draws)


def candidate_seeds(
    run_seed: int, attack: str, levels: int, image: int, count: int, target: int | None = None
) -> npt.NDArray[np.uint64]:
    """Device seeds that an adversary may choose from, uint64, shape (count,); all different."""
    place = (image,) if target is None else (image, target)
    return _different("candidate", (run_seed, attack, levels, *place), count)


def _different(word: str, place: tuple[object, ...], count: int) -> npt.NDArray[np.uint64]:
    seeds: list[int] = []
    attempt = 0
    while len(seeds) < count:
        seed = _hash64(word, *place, len(seeds), attempt)
        # Two equal draws of one image would count one answer twice.
        if seed in seeds:
            attempt += 1
            continue
        seeds.append(seed)
    return np.array(seeds, dtype=np.uint64)
