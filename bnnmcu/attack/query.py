"""An oracle as a black-box attacker sees it: few answers, counted, logits or labels.

A query is one image, answered by one or several draws of the weights; what is
counted are draws, since each is an inference of the board.  A query that would
pass its image's budget is refused before anything is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import get_args

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import Answers, SeedPolicy
from bnnmcu.attack.oracle import Oracle
from bnnmcu.errors import LinkError, QueryBudgetError, UsageError
from bnnmcu.reference import argmax

__all__ = ["QueryOracle"]

Images = npt.NDArray[np.uint8]
Index = npt.NDArray[np.int64]
Seeds = npt.NDArray[np.uint64]

# Queries of one image that have seeds of their own: far more than any budget.
_QUERIES_BITS = 40


def _mixed(numbers: Seeds) -> Seeds:
    """A bijection of 64-bit numbers without visible order: Stafford's mixer 13 (2011)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


class QueryOracle:
    """Answers, and counts what they cost each image.

    Args:
        oracle: who answers.
        images: how many images have a budget, each of its own.
        classes: of the network.
        answers: whether logits are seen, or labels only.
        draws: of a query.
        seeds: ``fresh``: no query has the draws of another one; ``fixed``: all
            have the same; ``known``: those of ``known``.
        seed: decides fresh and fixed seeds, 0 .. 2**63 - 1.
        budget: inferences an image may cost; None for no limit.
        logit_scale: of the logits, see :class:`bnnmcu.graph.Graph`.
        stochastic: whether the network draws weights; attacks repeat no query
            of one that does not.
        known: uint64, shape (images, draws), for the policy ``known``.

    Attributes:
        queries: int64, shape (images,): inferences so far.

    Raises:
        UsageError: arguments out of range or of the wrong shape, or seeds for a
            board that takes none.
    """

    def __init__(
        self,
        oracle: Oracle,
        *,
        images: int,
        classes: int,
        answers: Answers,
        seed: int,
        draws: int = 1,
        seeds: SeedPolicy = "fresh",
        budget: int | None = None,
        logit_scale: float = 1.0,
        stochastic: bool = True,
        known: Seeds | None = None,
    ) -> None:
        if answers not in get_args(Answers) or seeds not in get_args(SeedPolicy):
            raise UsageError(f"answers {answers!r} with seeds {seeds!r} are unknown")
        if images < 1 or draws < 1 or classes < 2:
            raise UsageError(f"{images} images, {draws} draws and {classes} classes: too few")
        if (known is not None) != (seeds == "known"):
            raise UsageError("known seeds are given with the policy 'known', and only with it")
        if known is not None and known.shape != (images, draws):
            raise UsageError(f"known seeds are {known.shape}, not ({images}, {draws})")
        if seeds != "fresh" and not getattr(oracle, "seeded", True):
            raise UsageError(
                f"{oracle.name} draws for itself and takes no seeds", hint="use seeds 'fresh'"
            )
        self.answers: Answers = answers
        self.classes = classes
        self.draws = draws
        self.budget = budget
        # The same draws again would give the same answer.
        self.stochastic = stochastic and seeds == "fresh"
        self.queries = np.zeros(images, dtype=np.int64)
        self._oracle = oracle
        self._scale = logit_scale
        self._policy: SeedPolicy = seeds
        self._known = known
        digest = hashlib.sha256(f"query\0{seed}".encode()).digest()
        self._base = np.uint64(int.from_bytes(digest[:8], "little"))

    def left(self, index: int) -> int:
        """Queries that the image's budget still allows; very many without a budget."""
        if self.budget is None:
            return 2**31
        return max(0, int(self.budget - self.queries[index])) // self.draws

    def scores(self, images: Images, index: Index) -> npt.NDArray[np.float64]:
        """Mean logits over the draws of each query, float64, shape (N, classes).

        Args:
            images: uint8, shape (N, H, W, C).
            index: int64, shape (N,): whose budget each query is charged to.

        Raises:
            UsageError: labels are all that this oracle gives; wrong shapes.
            QueryBudgetError: more than an image may cost; nothing was asked.
            LinkError: the oracle failed.
        """
        if self.answers == "label":
            raise UsageError("this oracle answers with labels only")
        mean: npt.NDArray[np.float64] = self._ask(images, index).mean(1, dtype=np.float64)
        return mean * self._scale

    def labels(self, images: Images, index: Index) -> Index:
        """The label that most draws of each query give, int64, shape (N,).

        Ties go to the larger mean logit where logits are seen, else to the lowest
        label.  Arguments and errors as for :meth:`scores`.
        """
        logits = self._ask(images, index)
        votes: npt.NDArray[np.float64] = np.zeros((len(logits), self.classes))
        rows = np.arange(len(logits))
        for label in argmax(logits).T:
            votes[rows, label] += 1
        if self.answers == "logits" and self.draws > 1:
            mean = logits.mean(1, dtype=np.float64)
            tied = votes == votes.max(1, keepdims=True)
            votes = np.where(tied, mean, -np.inf)
        return np.asarray(votes.argmax(1), dtype=np.int64)

    def _ask(self, images: Images, index: Index) -> npt.NDArray[np.int64]:
        """Logits, int64, shape (N, draws, classes)."""
        index = np.asarray(index, dtype=np.int64)
        if index.shape != (len(images),):
            raise UsageError(f"{len(images)} images, but an index of shape {index.shape}")
        if len(images) == 0:
            return np.zeros((0, self.draws, self.classes), dtype=np.int64)
        if index.min() < 0 or index.max() >= len(self.queries):
            raise UsageError(f"the index is not within 0 .. {len(self.queries) - 1}")
        after = self.queries + self.draws * np.bincount(index, minlength=len(self.queries))
        if self.budget is not None and after.max() > self.budget:
            worst = int(after.argmax())
            raise QueryBudgetError(
                f"image {worst} would cost {after[worst]} inferences, its budget is {self.budget}"
            )
        seeds = self._seeds(index)
        self.queries = after
        logits = np.empty((len(images), self.draws, self.classes), dtype=np.int64)
        given = 0
        answers = self._oracle.logits(images, seeds)
        try:
            for answer in answers:
                if given == len(images) or answer.logits.shape != logits.shape[1:]:
                    raise LinkError(
                        f"logits of shape {answer.logits.shape} as answer {given + 1} "
                        f"of {len(images)}",
                        where=self._oracle.name,
                    )
                logits[given] = answer.logits
                given += 1
        finally:
            # At once, so that a board is not left in the middle of a stream.
            if isinstance(answers, Generator):
                answers.close()
        if given != len(images):
            raise LinkError(f"{given} answers to {len(images)} queries", where=self._oracle.name)
        return logits

    def _seeds(self, index: Index) -> Seeds:
        """Seeds of the next queries, uint64, shape (N, draws)."""
        if self._known is not None:
            return self._known[index]
        each = np.arange(self.draws, dtype=np.uint64)
        if self._policy == "fixed":
            place = np.broadcast_to(each, (len(index), self.draws))
        else:
            # An image may be asked several times in one call: each time is one of its own.
            before = np.zeros(len(index), dtype=np.int64)
            for image in np.unique(index):
                mine = index == image
                before[mine] = np.arange(mine.sum())
            first = self.queries[index] + before * self.draws
            place = (index.astype(np.uint64) << np.uint64(_QUERIES_BITS)) + first.astype(np.uint64)
            place = place[:, np.newaxis] + each
        return _mixed(self._base + place)
