"""The study of short seeds as a table: measured where that is cheap, else extrapolated."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.oracle import Oracle
from bnnmcu.attack.study.search import (
    MAX_BITS,
    AnswerKind,
    Ask,
    answer_entropy,
    codes,
    find,
    needed,
)
from bnnmcu.errors import UsageError

__all__ = ["BUDGET", "ImageSet", "SeedRow", "measure_set", "study_seeds"]

Images = npt.NDArray[np.uint8]

#: Longer seeds than those that were tried, to extrapolate to.
FURTHER = (16, 20, 24, 32, 48, 64)
#: Inferences of a search: half a minute for a small network on one core.
BUDGET = 400_000
# Answers asked for at most, as a multiple of what a seed should need, and some more.
_SLACK = 6
_SPARE = 16
# Answers that vary so little are not waited for.
_MOST_ANSWERS = 20_000
_ENTROPY_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images that a device of the study is asked.

    Attributes:
        name: ``clean``, ``adversarial`` or whatever they are.
        images: uint8, shape (N, H, W, C).
        entropies: of a label over draws, in bits, float64, shape (N,).
    """

    name: str
    images: Images
    entropies: npt.NDArray[np.float64]

    @property
    def entropy(self) -> float:
        """H: bits of a label, averaged over the images."""
        return float(self.entropies.mean())


@dataclass(frozen=True)
class SeedRow:
    """What a raw seed of some bits costs to find.

    Attributes:
        images: name of the set that was asked.
        kind: what was seen of the answers.
        bits: s.
        bound: s / H, the least mean number of labels; None for logits.
        mean: answers that single a secret out, on average over all 2**s secrets;
            None where that was not computed.
        most: the largest number, over all secrets; None where one of them takes
            more than were asked for, so that the mean is too low.
        answers: that the search for the device's secret took.
        found: the search gave the device's secret and no other.
        inferences: of the search.
        seconds: of the search, of one core of this machine.
        extrapolated: from the longest seed that was searched.
    """

    images: str
    kind: AnswerKind
    bits: int
    bound: float | None
    mean: float | None
    most: int | None
    answers: int | None
    found: bool | None
    inferences: float
    seconds: float
    extrapolated: bool

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def measure_set(
    ask: Ask, name: str, images: Images, *, draws: int, rng: np.random.Generator
) -> ImageSet:
    """Images with the entropy of their labels, over draws of random 64-bit seeds."""
    entropies = []
    for start in range(0, len(images), _ENTROPY_AT_ONCE):
        part = images[start : start + _ENTROPY_AT_ONCE]
        seeds = rng.integers(0, 1 << 64, (len(part), draws), dtype=np.uint64)
        entropies.append(answer_entropy(codes(ask(part, seeds), "label")))
    return ImageSet(name, images, np.concatenate(entropies))


def _answered(
    oracle: Oracle, images: Images, secret: int, bits: int, count: int
) -> Generator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
    """The device's answers, one for each seed from the secret on."""
    asked = images[np.arange(count) % len(images)]
    seeds = (np.arange(count, dtype=np.uint64) + np.uint64(secret)) & np.uint64((1 << bits) - 1)
    answers = oracle.logits(asked, seeds[:, np.newaxis])
    for image, answer in zip(asked, answers, strict=True):
        yield image, answer.logits[0]


def _row(
    ask: Ask,
    oracle: Oracle,
    chosen: ImageSet,
    kind: AnswerKind,
    bits: int,
    secret: int,
    budget: int,
) -> SeedRow | None:
    """Measured; None where it would take more inferences than the budget."""
    labels = kind == "label"
    information = chosen.entropy if labels else float(bits)
    if information == 0 or bits > MAX_BITS:
        return None
    # Each answer leaves 2**-H of the seeds, so that a search looks at so many in all.
    search = (1 << bits) / (1 - 2.0**-information)
    most = int(_SLACK * bits / information) + _SPARE
    if search > budget or most > _MOST_ANSWERS:
        return None
    with closing(_answered(oracle, chosen.images, secret, bits, most)) as answered:
        found = find(ask, answered, bits, kind=kind)
    bound = bits / information if labels else None
    mean = largest = None
    if (1 << bits) * bits / information <= budget:
        table = needed(ask, chosen.images, chosen.entropies, bits, kind=kind, most=most)
        mean = table.mean
        largest = int(table.answers.max()) if table.resolved == 1 else None
        bound = table.bound if labels else None
    return SeedRow(
        chosen.name,
        kind,
        bits,
        bound,
        mean,
        largest,
        found.answers,
        found.seeds == (secret,),
        found.inferences,
        found.seconds,
        False,
    )


def _extrapolated(measured: Sequence[SeedRow], chosen: ImageSet, bits: int) -> SeedRow:
    """Each further bit doubles the search, and takes 1 / H answers more."""
    last = measured[-1]
    factor = 2.0 ** (bits - last.bits)
    mean = bound = None
    if last.kind == "label":
        bound = bits / chosen.entropy
        for row in measured:
            if row.mean is not None:
                mean = row.mean + (bits - row.bits) / chosen.entropy
    return SeedRow(
        last.images,
        last.kind,
        bits,
        bound,
        mean,
        None,
        None,
        None,
        last.inferences * factor,
        last.seconds * factor,
        True,
    )


def study_seeds(
    ask: Ask,
    oracle: Oracle,
    sets: Sequence[ImageSet],
    bits: Sequence[int],
    *,
    rng: np.random.Generator,
    budget: int = BUDGET,
    progress: Callable[[str], object] | None = None,
) -> list[SeedRow]:
    """Search for secret seeds of a device, and count the answers that takes.

    Args:
        ask: the attacker's copy of the network.
        oracle: the device, whose secrets ``rng`` chooses.
        sets: images to ask.
        bits: lengths of seeds to try.
        budget: a search, or a table of all secrets, that would take more
            inferences is not done.
        progress: is told what is done next.

    Returns:
        for each set and kind of answer: measured rows, then extrapolated ones.

    Raises:
        UsageError: no length to try.
    """
    if not bits:
        raise UsageError("no length of a seed to try")
    rows: list[SeedRow] = []
    kinds: tuple[AnswerKind, ...] = get_args(AnswerKind)
    for chosen, kind in product(sets, kinds):
        measured: list[SeedRow] = []
        for length in sorted(set(bits)):
            secret = int(rng.integers(0, 1 << length))
            if progress:
                progress(f"{chosen.name} images, {kind}: {length} bits")
            row = _row(ask, oracle, chosen, kind, length, secret, budget)
            if row is not None:
                measured.append(row)
        rows += measured
        if measured:
            further = [n for n in sorted({*FURTHER, *bits}) if n > measured[-1].bits]
            rows += [_extrapolated(measured, chosen, length) for length in further]
    return rows
