"""Seeds of everything random in a campaign, each from the run's seed and its place.

A seed depends on where it is used and on nothing else, so a resumed run uses
the same ones.  Crafting and evaluation hash different words: the draws an
image is judged on are never those it was crafted on.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["crafting_seed", "evaluation_seeds"]


def _hash64(*parts: object) -> int:
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def crafting_seed(run_seed: int, attack: str, levels: int, chunk: int) -> int:
    """Of a chunk's starts and draws while crafting, 0 .. 2**63 - 1."""
    return _hash64("craft", run_seed, attack, levels, chunk) >> 1


def evaluation_seeds(
    run_seed: int, attack: str, levels: int, image: int, draws: int
) -> npt.NDArray[np.uint64]:
    """Device seeds an image is judged with, uint64, shape (draws,); all different."""
    seeds: list[int] = []
    attempt = 0
    while len(seeds) < draws:
        seed = _hash64("evaluate", run_seed, attack, levels, image, len(seeds), attempt)
        # Two equal draws of one image would count one answer twice.
        if seed in seeds:
            attempt += 1
            continue
        seeds.append(seed)
    return np.array(seeds, dtype=np.uint64)
