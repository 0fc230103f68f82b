"""Shares with their 95 % intervals.

A yes or no for each image has Wilson's interval (Wilson, 1927).  Where an image
counts more than once (a mean over draws, several targets), its answers are
alike, so images are resampled, not answers: the bootstrap over clusters
(Davison & Hinkley, 1997), by percentiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Accuracy", "cluster_bootstrap", "interval", "wilson"]

#: Of a two-sided 95 % interval.
_Z = 1.959963984540054
_TAILS = (2.5, 97.5)
_RESAMPLES = 2000
# Fixed, so that a report is the same whenever it is made.
_SEED = 20180207
#: Clusters unlike the others from which resampling tells how much they differ.
_FEW = 5
#: Images drawn in one array: 16 MB of indices.
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Accuracy:
    """A share of images with its 95 % interval, all within [0, 1]."""

    value: float
    low: float
    high: float


def wilson(successes: float, count: int) -> Accuracy:
    """Wilson's score interval at 95 %.

    Args:
        successes: may be a sum of shares.
        count: independent trials, at least one.
    """
    share = successes / count
    z2 = _Z * _Z / count
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    # At 0 and 1 the formula is exact but for its last bit.
    return Accuracy(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))


def cluster_bootstrap(values: npt.NDArray[np.float64], clusters: npt.NDArray[np.int64]) -> Accuracy:
    """Mean of shares, with the interval that resampling whole clusters gives.

    Where all clusters agree but a few, resampling gives an interval of hardly any
    width, which would claim too much: Wilson's over clusters then takes its place.

    Args:
        values: float64, shape (N,), each within [0, 1]; at least one.
        clusters: int64, shape (N,): which values belong together.
    """
    _, member = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(member, values), np.bincount(member)
    value, number = float(values.mean()), len(counts)
    means = sums / counts
    _, alike = np.unique(means.round(12), return_counts=True)
    if number - alike.max() < _FEW:
        return wilson(value * number, number)
    generator = np.random.default_rng(_SEED)
    found = np.empty(_RESAMPLES)
    step = max(1, _AT_ONCE // number)
    for start in range(0, _RESAMPLES, step):
        part = found[start : start + step]
        chosen = generator.integers(0, number, (len(part), number))
        part[:] = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = (float(one) for one in np.percentile(found, _TAILS))
    return Accuracy(value, min(low, value), max(high, value))


def interval(values: npt.NDArray[np.float64], images: npt.NDArray[np.int64]) -> Accuracy:
    """Mean of shares over examples, with the interval that suits them.

    Args:
        values: float64, shape (N,), each within [0, 1]; at least one.
        images: int64, shape (N,): of which image each is.
    """
    if len(np.unique(images)) == len(images) and bool(np.isin(values, (0.0, 1.0)).all()):
        return wilson(float(values.sum()), len(values))
    return cluster_bootstrap(values, images)
