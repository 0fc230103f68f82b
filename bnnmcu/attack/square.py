"""The Square attack on scores (Andriushchenko, Croce, Flammarion & Hein, 2020), L-infinity.

Random search: the first guess is vertical stripes of plus and minus the budget;
after that a square at a random place gets a random sign in each channel, and
stays if it lowers the margin.  The squares shrink along the published schedule.
All candidates lie on corners of the budget's box, clipped to the pixels'
range, so that they are whole levels.

What differs from the published attack is what randomness asks for: where the
network draws its weights, one low margin may be luck, and an image that was
lucky once would never be left again.  So one that seems better is asked
``recheck`` times more, and given up as soon as its mean is not better; one that
fools the network is asked again until it did so ``confirm`` times in a row.
The mean of all margins that an image showed is its score.

Accuracy (mean over 21 draws, majority) of the example S64 on 100 digits at
epsilon 0.3, 500 inferences each, by ``python benchmarks/black_box_settings.py
--model examples/models/s64.pt --attack square``: 28.5 and 28 % as published, 15
and 14 % with ``confirm`` 10, 13.3 and 13 % with ``recheck`` 8 besides.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import Crafted, SquareConfig
from bnnmcu.attack.query import QueryOracle
from bnnmcu.errors import UsageError

__all__ = ["square", "square_side"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Levels = npt.NDArray[np.int16]

# Of 10,000 iterations, those after which the share of pixels is halved.
_HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
# A tie that fools: below zero, and above any lead.
_TIE = 1e-30


def square_side(p_init: float, step: int, steps: int, shape: tuple[int, int]) -> int:
    """Side of the square in pixels, 1 up to one less than the image's shorter side.

    Args:
        p_init: share of the pixels at the start.
        step: 0 for the first square, which follows the stripes.
        steps: of the whole search.
        shape: rows and columns of the image.
    """
    at = int(10_000 * step / steps)
    share = p_init / 2 ** sum(at > mark for mark in _HALVED_AT)
    side = round(float(np.sqrt(share * shape[0] * shape[1])))
    return max(1, min(side, min(shape) - 1))


@dataclass(eq=False)
class _Image:
    """One image on its way, whose search asks for one margin at a time.

    Attributes:
        low, high: int16, shape (H, W, C): the budget's box within the pixels' range.
        now: what was best so far, and the sum and the count of the margins it showed.
        found: its success was confirmed.
    """

    low: Levels
    high: Levels
    now: Levels
    rng: np.random.Generator
    total: float = float("inf")
    asked: int = 1
    found: bool = False

    def stripes(self) -> Levels:
        """The first guess."""
        up = self.rng.integers(0, 2, (1, *self.now.shape[1:]), dtype=np.int8) > 0
        return np.where(up, self.high, self.low)

    def with_square(self, side: int) -> Levels:
        """The best so far with a new square, at a place where it changes something."""
        height, width, channels = self.now.shape
        tried = self.now.copy()
        # Some squares change nothing; a query for them would be wasted.
        for _ in range(100):
            top, left = self.rng.integers(0, (height - side + 1, width - side + 1))
            part = np.s_[top : top + side, left : left + side]
            up = self.rng.integers(0, 2, channels, dtype=np.int8) > 0
            tried[part] = np.where(up, self.high[part], self.low[part])
            if not np.array_equal(tried, self.now):
                break
        return tried

    def search(
        self, attack: SquareConfig, steps: int, stochastic: bool
    ) -> Generator[Levels, float, None]:
        """Yields what to ask about, and is sent its margin; ends early with success only."""
        rechecks, confirmations = (attack.recheck, attack.confirm) if stochastic else (0, 0)
        for step in range(steps):
            if step == 0:
                tried = self.stripes()
            else:
                # By guesses, not by queries: on draws, large squares serve longer.
                side = square_side(attack.p_init, step - 1, steps, self.now.shape[:2])
                tried = self.with_square(side)
            best = self.total / self.asked
            total, asked = (yield tried), 1
            while total / asked < best and asked <= rechecks:
                total += yield tried
                asked += 1
            if total / asked >= best:
                continue
            self.now, self.total, self.asked = tried, total, asked
            confirmed = total < 0
            for _ in range(confirmations if confirmed else 0):
                margin = yield tried
                self.total += margin
                self.asked += 1
                confirmed = margin < 0
                if not confirmed:
                    break
            if confirmed:
                self.found = True
                return


def _margins(
    query: QueryOracle, pixels: Images, index: Labels, wanted: Labels, targeted: bool
) -> npt.NDArray[np.float64]:
    """How far each image is from fooling the network; below 0 it does."""
    scores = query.scores(pixels, index)
    answers = scores.argmax(1)
    each = np.arange(len(index))
    own = scores[each, wanted[index]]
    scores[each, wanted[index]] = -np.inf
    gap: npt.NDArray[np.float64] = own - scores.max(1)
    gap = -gap if targeted else gap
    # Of equals the first is the answer: a tie fools, or it does not.
    fooled = (answers == wanted[index]) == targeted
    return np.where((gap == 0) & fooled, -_TIE, gap)


def square(
    query: QueryOracle,
    images: Images,
    labels: Labels,
    *,
    attack: SquareConfig,
    seed: int,
    targets: Labels | None = None,
) -> Crafted:
    """Craft one adversarial example for every image; all of them are asked about in one call.

    Args:
        query: gives logits; its budget is what ends the search.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,): the true ones, which the examples shall leave.
        attack: budget in pixels, first square, confirmation.
        seed: of the search, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead.

    Raises:
        UsageError: the oracle gives labels only, or has no limit.
        LinkError: the oracle failed.
    """
    if query.budget is None:
        raise UsageError("the Square attack ends with its budget: give the oracle one")
    clean = images.astype(np.int16)
    low = np.clip(clean - attack.levels, 0, 255).astype(np.int16)
    high = np.clip(clean + attack.levels, 0, 255).astype(np.int16)
    begun = query.queries.copy()
    searches = [
        _Image(low[i], high[i], clean[i], np.random.default_rng((seed, i)))
        for i in range(len(images))
    ]
    wanted = labels if targets is None else targets
    # Each live search with what it asks; without a budget in pixels there is nothing to search.
    running = {}
    for i, search in enumerate(searches):
        if attack.levels and query.left(i):
            steps = search.search(attack, query.left(i), query.stochastic)
            running[i] = (steps, next(steps))
    while running:
        index = np.array(list(running), dtype=np.int64)
        pixels = np.stack([tried for _, tried in running.values()]).astype(np.uint8)
        margins = _margins(query, pixels, index, wanted, targets is not None)
        for i, margin in zip(index.tolist(), margins.tolist(), strict=True):
            steps, _ = running.pop(i)
            try:
                asks = steps.send(margin)
            except StopIteration:
                continue
            if query.left(i):
                running[i] = (steps, asks)
    details = tuple(
        {"queries": int(spent), "found": search.found}
        for search, spent in zip(searches, query.queries - begun, strict=True)
    )
    pixels = np.stack([search.now for search in searches]).astype(np.uint8)
    return Crafted(pixels, np.zeros(len(images)), details=details)
