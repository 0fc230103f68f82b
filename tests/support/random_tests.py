"""Statistical tests of random words, each giving a z-score: 0 is typical, 1 a standard deviation.

All expect fair bits.  Where a test looks at many figures, it gives the largest
of them in magnitude, and its limit is set for that many.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["LIMITS", "battery", "linear_complexity", "marginals", "to_bits", "worst"]

Words = npt.NDArray[np.uint32]
LANES = 32
#: Distance between words that are compared: within a weight's planes, and from word to word.
LAGS = range(1, 9)
BLOCK = 128
#: Largest z-score of each test. Single figures: one chance in 16,000; the others see up to 8,192
#: figures, of which the largest exceeds 6 once in 60,000 times.
LIMITS = {
    "monobit": 4.0,
    "lanes": 5.0,
    "runs": 4.0,
    "runs of a lane": 5.0,
    "blocks": 4.0,
    "lane with lane": 5.5,
    "word with later word": 6.0,
    "a bit of the seed": 4.5,
    "a bit of the seed with a bit of the words": 6.0,
    "levels": 4.0,
    "weights": 4.0,
    "lanes of drawn weights": 4.5,
    "positions": 4.5,
    "filters": 4.5,
    "ones of a draw": 4.0,
    "lane with lane of drawn weights": 5.0,
    "word with later word of drawn weights": 5.5,
    "draw with next draw": 4.0,
}


def to_bits(words: Words) -> npt.NDArray[np.uint8]:
    """(..., N) words to (..., N, 32) bits, lane 0 first."""
    octets = np.ascontiguousarray(words.astype("<u4")).view(np.uint8)
    return np.unpackbits(octets.reshape(*words.shape, 4), axis=-1, bitorder="little")


def worst(scores: npt.NDArray[np.float64]) -> float:
    """The largest z-score in magnitude."""
    return float(np.abs(scores).max())


def battery(words: Words) -> dict[str, float]:
    """Every test of one stream of words, shape (N,), by its name in :data:`LIMITS`."""
    bits = to_bits(words)
    n = len(bits)
    stream = bits.reshape(-1)
    signs = 1.0 - 2.0 * bits.astype(np.float32)
    found = {
        "monobit": abs(2.0 * float(stream.sum()) - stream.size) / np.sqrt(stream.size),
        "lanes": worst((2.0 * bits.sum(axis=0, dtype=np.int64) - n) / np.sqrt(n)),
    }
    # A run ends where a bit differs from the next: in half of the places.
    changes = float((stream[1:] != stream[:-1]).sum())
    found["runs"] = abs(2.0 * changes - (stream.size - 1)) / np.sqrt(stream.size - 1)
    per_lane = (bits[1:] != bits[:-1]).sum(axis=0, dtype=np.int64)
    found["runs of a lane"] = worst((2.0 * per_lane - (n - 1)) / np.sqrt(n - 1))
    # Ones in blocks of 128 bits: a sum of squares, chi-square with a degree for each block. The
    # square of a standardised sum of 128 signs has variance 2 - 2 / 128.
    blocks = stream[: stream.size // BLOCK * BLOCK].reshape(-1, BLOCK).sum(axis=1, dtype=np.int64)
    squares = (2.0 * blocks - BLOCK) ** 2 / BLOCK
    found["blocks"] = abs(float((squares - 1).sum())) / np.sqrt((2 - 2 / BLOCK) * len(blocks))
    same = signs.T @ signs / np.sqrt(n)
    found["lane with lane"] = worst(same[~np.eye(LANES, dtype=bool)].astype(np.float64))
    found["word with later word"] = max(
        worst((signs[lag:].T @ signs[:-lag]).astype(np.float64) / np.sqrt(n - lag)) for lag in LAGS
    )
    return {name: float(score) for name, score in found.items()}


def marginals(
    draws: Iterable[Words], levels: npt.NDArray[np.uint8], planes: int, correlated: int = 200
) -> dict[str, float]:
    """Tests of drawn weights against their probabilities, by their names in :data:`LIMITS`.

    Args:
        draws: packed words of a whole layer, each draw of shape (W,).
        levels: (filters, rows, columns, channels), channels a multiple of 32.
        planes: k.
        correlated: draws whose weights are compared with each other.
    """
    filters = len(levels)
    v = levels.reshape(-1, LANES).astype(np.int64)
    p = (v + (v >> (planes - 1))) / (1 << planes)
    free = (p > 0) & (p < 1)
    sigma = np.sqrt(p * (1 - p))
    scale = np.where(free, 1 / np.where(free, sigma, 1), 0).astype(np.float32)
    mean = p.astype(np.float32)
    count = np.zeros(p.shape, dtype=np.int32)
    ones: list[int] = []
    lanes = np.zeros((LANES, LANES))
    later = np.zeros((len(LAGS), LANES))
    next_draw, before = 0.0, None
    for words in draws:
        bits = to_bits(words)
        count += bits
        ones.append(int(bits.sum(dtype=np.int64)))
        if len(ones) > correlated:
            continue
        rest = (bits - mean) * scale
        lanes += rest.T @ rest
        for row, lag in zip(later, LAGS, strict=True):
            row += (rest[lag:] * rest[:-lag]).sum(axis=0)
        if before is not None:
            next_draw += float((rest * before).sum(dtype=np.float64))
        before = rest
    n, variance = len(ones), p * (1 - p)
    assert (count[p == 0] == 0).all()
    assert (count[p == 1] == n).all()
    rest_count = count - n * p

    def pooled(which: tuple[int, ...], rest: npt.NDArray[np.float64]) -> float:
        spread = np.sqrt(n * variance.reshape(rest.shape).sum(axis=which))
        return worst(rest.sum(axis=which)[spread > 0] / spread[spread > 0])

    by_level = [v == level for level in np.unique(v[free])]
    z = [rest_count[at].sum() / np.sqrt(n * variance[at].sum()) for at in by_level]
    # The square of a standardised binomial has mean 1 and this variance.
    free_variance = variance[free]
    squares = rest_count[free] ** 2 / (n * free_variance)
    spread = 2 + (1 - 6 * free_variance) / (n * free_variance)
    total = variance.sum()
    shares = (np.array(ones) - p.sum()) ** 2 / total
    pairs = min(n, correlated)
    weights = int(free.sum())
    both = lanes[~np.eye(LANES, dtype=bool)] / np.sqrt(pairs * len(v))
    lagged = [row / np.sqrt(pairs * (len(v) - lag)) for row, lag in zip(later, LAGS, strict=True)]
    return {
        "levels": worst(np.array(z)),
        "weights": abs(float((squares - 1).sum() / np.sqrt(spread.sum()))),
        "lanes of drawn weights": pooled((0,), rest_count),
        "positions": pooled((0, 2), rest_count.reshape(filters, -1, LANES)),
        "filters": pooled((1, 2), rest_count.reshape(filters, -1, LANES)),
        "ones of a draw": abs(float((shares - 1).sum())) / np.sqrt(2 * n),
        "lane with lane of drawn weights": worst(both),
        "word with later word of drawn weights": worst(np.concatenate(lagged)),
        "draw with next draw": abs(next_draw) / np.sqrt((pairs - 1) * weights),
    }


def linear_complexity(bits: npt.NDArray[np.uint8]) -> int:
    """Length of the shortest linear recurrence over GF(2) that gives these bits.

    Berlekamp and Massey (Massey 1969), polynomials as Python integers.  Random bits
    have about half their number.
    """
    now, before, length, since = 1, 1, 0, 1
    seen = 0  # bit i is the bit i places back
    for i, bit in enumerate(bits.tolist()):
        seen = seen << 1 | bit
        if (now & seen).bit_count() & 1:
            kept = now
            now ^= before << since
            if 2 * length <= i:
                length, before, since = i + 1 - length, kept, 1
                continue
        since += 1
    return length
