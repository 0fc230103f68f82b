"""A secret seed of a few bits, found by trying all: what answers must be seen for it.

The device of this study draws each inference from a raw seed of s bits that
goes up by one from inference to inference: no key, no pseudorandom function.
Whoever has the network can compute what it would answer from every seed, and
strikes out those that would have answered otherwise.

With H bits of entropy in an answer, over draws and averaged over the images,
the answers that single a seed out are a code for s bits, so that their mean
number is at least s / H.  That bound holds for any method; this one looks at all
2**s seeds, which ends somewhere near s = 24 on one machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError
from bnnmcu.reference import argmax

__all__ = [
    "MAX_BITS",
    "AnswerKind",
    "Ask",
    "Found",
    "Needed",
    "answer_entropy",
    "codes",
    "find",
    "needed",
]

#: What is seen of an answer.
AnswerKind = Literal["label", "logits"]
#: Images (N, H, W, C) and seeds (N, D) to logits, int64, (N, D, classes).
Ask = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint64]], npt.NDArray[np.int64]]
Images = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint64]

#: Longer seeds are not searched.
MAX_BITS = 24
# Draws of an image asked for at a time: bounds the memory of their logits.
_SEEDS_AT_ONCE = 1 << 16
# Further answers that the last seed left must have given, too.
_CONFIRM = 4
# Makes the odd numbers that turn logits into one number.  Of 2**24 different answers, two share
# a number once in 2**17 searches.
_HASH_SEED = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class Needed:
    """Answers until a seed is singled out, for every seed there is.

    Attributes:
        bits: s; the secrets are 0 .. 2**s - 1.
        answers: int64, shape (2**s,): answers that single this secret out; 0
            where so many were not asked for.
        asked: the most that were asked for.
        entropy: H, bits of an answer, averaged over the answers that were used.
        inferences: computed for it.
    """

    bits: int
    answers: npt.NDArray[np.int64]
    asked: int
    entropy: float
    inferences: int

    @property
    def bound(self) -> float:
        """s / H: the mean number of answers cannot be less; infinite if answers never vary."""
        return self.bits / self.entropy if self.entropy > 0 else float("inf")

    @property
    def mean(self) -> float:
        """Mean number of answers over all secrets; at least that where some are not resolved."""
        return float(np.where(self.answers > 0, self.answers, self.asked).mean())

    @property
    def resolved(self) -> float:
        """Share of the secrets that were singled out."""
        return float((self.answers > 0).mean())


@dataclass(frozen=True)
class Found:
    """An exhaustive search.

    Attributes:
        seeds: that would have given all the answers; empty if none would.
        answers: until one seed at most was left, or all there were.
        inferences: computed for it.
        seconds: of one core that they took.
    """

    seeds: tuple[int, ...]
    answers: int
    inferences: int
    seconds: float


def _check(bits: int) -> None:
    if not 1 <= bits <= MAX_BITS:
        raise UsageError(
            f"a seed of {bits} bits is not searched; 1 to {MAX_BITS} are possible",
            hint="longer ones are extrapolated",
        )


def codes(logits: npt.NDArray[np.int64], kind: AnswerKind) -> Codes:
    """What is seen of answers (..., classes), as one number each, uint64, shape (...).

    Raises:
        UsageError: another kind than ``label`` and ``logits``.
    """
    if kind not in get_args(AnswerKind):
        raise UsageError(f"answers are 'label' or 'logits', not {kind!r}")
    if kind == "label":
        return argmax(logits).astype(np.uint64)
    odd = np.random.default_rng(_HASH_SEED).integers(0, 1 << 63, logits.shape[-1], dtype=np.uint64)
    mixed = logits.astype(np.uint64) * (2 * odd + np.uint64(1))
    return np.asarray(mixed.sum(axis=-1, dtype=np.uint64))


def _answers(ask: Ask, image: npt.NDArray[np.uint8], seeds: Codes, kind: AnswerKind) -> Codes:
    """Codes of one image for many seeds (D,)."""
    parts = [
        codes(ask(image[np.newaxis], seeds[np.newaxis, i : i + _SEEDS_AT_ONCE])[0], kind)
        for i in range(0, len(seeds), _SEEDS_AT_ONCE)
    ]
    return np.concatenate(parts)


def _seeds_at(secrets: Codes, inference: int, bits: int) -> Codes:
    """Seeds of an inference for each secret: counted up, modulo 2**bits."""
    return np.asarray((secrets + np.uint64(inference)) & np.uint64((1 << bits) - 1))


def answer_entropy(drawn: Codes) -> npt.NDArray[np.float64]:
    """Entropy of each image's answers over draws, in bits.

    The plug-in estimate, which is too low by about (kinds - 1) / (2 D ln 2).

    Args:
        drawn: codes, shape (N, D).

    Returns:
        float64, shape (N,).
    """
    result = np.empty(len(drawn))
    for i, row in enumerate(drawn):
        share = np.unique(row, return_counts=True)[1] / len(row)
        result[i] = max(0.0, -float((share * np.log2(share)).sum()))
    return result


def needed(
    ask: Ask,
    images: Images,
    entropies: npt.NDArray[np.float64],
    bits: int,
    *,
    kind: AnswerKind = "label",
    most: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Needed:
    """How many answers single out each of all seeds.

    Answer i is drawn from ``secret + i`` and is to image i; after the last image
    comes the first one again.  Seeds that no answer so far tells apart stay in
    one class; a class of one is done.

    Args:
        images: uint8, shape (N, H, W, C).
        entropies: of an answer to each image, in bits, float64, shape (N,).
        most: answers to ask for at most; None for one to each image.
        progress: is told how many of the 2**bits seeds are singled out.

    Raises:
        UsageError: ``bits`` is not 1 to :data:`MAX_BITS`.
    """
    _check(bits)
    count = 1 << bits
    answers = np.zeros(count, dtype=np.int64)
    left = np.arange(count, dtype=np.uint64)
    classes = np.zeros(count, dtype=np.int64)
    asked, inferences, information = 0, 0, 0.0
    for i in range(len(images) if most is None else most):
        if not len(left):
            break
        seen = _answers(ask, images[i % len(images)], _seeds_at(left, i, bits), kind)
        asked, inferences = i + 1, inferences + len(left)
        information += len(left) * float(entropies[i % len(images)])
        kinds = np.unique(seen, return_inverse=True)[1].astype(np.int64)
        pairs = classes * (int(kinds.max()) + 1) + kinds
        _, classes, sizes = np.unique(pairs, return_inverse=True, return_counts=True)
        alone = sizes[classes] == 1
        answers[left[alone].astype(np.int64)] = asked
        left, classes = left[~alone], classes[~alone]
        if progress:
            progress(count - len(left))
    return Needed(bits, answers, asked, information / max(1, inferences), inferences)


def find(
    ask: Ask,
    answered: Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]],
    bits: int,
    *,
    kind: AnswerKind = "label",
) -> Found:
    """The secret seed behind some answers, by trying all.

    Args:
        ask: what the network would answer: the attacker's own copy of it.
        answered: images (H, W, C) and the device's logits (classes,), in order;
            no more are taken than needed, and a few to confirm.

    Raises:
        UsageError: ``bits`` is not 1 to :data:`MAX_BITS`.
    """
    _check(bits)
    seconds, inferences, used = 0.0, 0, 0
    left = np.arange(1 << bits, dtype=np.uint64)
    for i, (image, logits) in enumerate(answered):
        # CPU time: what the device takes to answer, or others of this machine, is no part of it.
        started = time.thread_time()
        would = _answers(ask, image, _seeds_at(left, i, bits), kind)
        inferences += len(left)
        if len(left) > 1:
            used = i + 1
        left = left[would == codes(logits, kind)]
        seconds += time.thread_time() - started
        if not len(left) or (len(left) == 1 and i + 1 >= used + _CONFIRM):
            break
    return Found(tuple(left.tolist()), used, inferences, seconds)
