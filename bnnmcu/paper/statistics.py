"""Seeds to a mean with its spread, and whether it agrees with a published figure.

The rule.  Two figures agree if they differ by no more than

    2 * sqrt(pm ** 2 + s ** 2)

``pm`` is the paper's plus-minus, which it does not define and which is read as
one standard deviation over trainings; where it prints none, it counts as 0.
``s`` is the sample standard deviation over our seeds; of a single seed, which
has none, the standard error of what was sampled (images, or pairs), so that a
few images agree with more than many do.  Of several seeds the standard
deviation holds that already.  Nothing is divided by the root of a number of
runs: what is compared is one training with another, not two means.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bnnmcu.errors import UsageError

__all__ = ["Agreement", "Estimate", "Verdict", "agreement", "estimate", "sampling_error"]

#: Of our figure against the paper's; ``better`` and ``worse`` where it is known which way is good.
Verdict = Literal["agrees", "higher", "lower", "better", "worse"]

_DEVIATIONS = 2.0
# Half of a two-sided 95 % interval, in standard errors.
_Z = 1.959963984540054
# Sums of decimal fractions: a difference that is exactly the bound agrees.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds.

    Attributes:
        mean: over seeds.
        sd: sample standard deviation over seeds (n - 1); None of a single one.
        n: how many seeds.
    """

    mean: float
    sd: float | None
    n: int


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and sample standard deviation; None of nothing.

    Raises:
        UsageError: a value is not finite.
    """
    if not all(math.isfinite(value) for value in values):
        raise UsageError("a figure is not finite")
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Estimate(statistics.fmean(values), sd, len(values))


def sampling_error(low: float, high: float) -> float:
    """Standard error that belongs to a 95 % interval.

    Raises:
        UsageError: the ends are not in order.
    """
    if not low <= high:
        raise UsageError(f"an interval from {low} to {high}")
    return (high - low) / (2.0 * _Z)


@dataclass(frozen=True)
class Agreement:
    """Our figure against the paper's.

    Attributes:
        verdict: see :data:`Verdict`.
        difference: ours minus the paper's.
        bound: by how much they may differ and still agree.
    """

    verdict: Verdict
    difference: float
    bound: float


def agreement(
    ours: Estimate | None,
    paper: float | None,
    plus_minus: float | None,
    *,
    sampling: float = 0.0,
    good: Literal["high", "low"] | None = None,
) -> Agreement | None:
    """Hold a figure against the paper's by the rule above; all in the same unit.

    Args:
        paper, plus_minus: as printed.
        sampling: standard error of one seed's figure; used where there is one seed only.
        good: whether a high figure is the better one, or a low one.

    Returns:
        None where either figure is missing.

    Raises:
        UsageError: a plus-minus or a standard error below 0.
    """
    if ours is None or paper is None:
        return None
    own = ours.sd if ours.sd is not None else sampling
    theirs = plus_minus or 0.0
    if min(own, theirs) < 0:
        raise UsageError(f"a spread below 0: {min(own, theirs)}")
    difference, bound = ours.mean - paper, _DEVIATIONS * math.hypot(theirs, own)
    if abs(difference) <= bound + _ROUNDING:
        return Agreement("agrees", difference, bound)
    higher = difference > 0
    if good is None:
        return Agreement("higher" if higher else "lower", difference, bound)
    return Agreement("better" if higher == (good == "high") else "worse", difference, bound)
