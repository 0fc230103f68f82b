"""From float parameters to integers: thresholds, first-layer and dense weights, levels.

All arithmetic is float64 on the float32 parameters as trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.graph import ALWAYS, GE, LE, NEVER, Surrogate

__all__ = [
    "fold_threshold",
    "quantize_dense",
    "quantize_per_channel",
    "quantize_probability",
    "surrogate_value",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def surrogate_value(surrogate: Surrogate, sums: npt.NDArray[Any]) -> Floats:
    """The float value that a threshold takes the sign of, at integer sums (..., C)."""
    value = np.asarray(sums, dtype=np.float64)
    if surrogate.rectified:
        value = np.maximum(value, 0.0)
    return np.asarray(surrogate.slope * value + surrogate.offset, dtype=np.float64)


def fold_threshold(
    surrogate: Surrogate, low: Ints, high: Ints
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """The integer comparison that equals ``surrogate_value(...) >= 0``.

    The value is monotone in the sum, so its sign changes at most once in
    [low, high]; the place is found by bisection over the integers themselves,
    which leaves no rounding of a threshold to argue about.

    Args:
        surrogate: slope and offset of each channel.
        low, high: bounds of the sum, int64, shape (C,).

    Returns:
        ``value`` (int32) and ``kind`` (uint8), shape (C,), as in
        :class:`bnnmcu.graph.Threshold`.
    """
    at_low = surrogate_value(surrogate, low) >= 0
    at_high = surrogate_value(surrogate, high) >= 0
    # Invariant: the bit at `left` is that at low, the bit at `right` that at high.
    left, right = low.copy(), high.copy()
    while np.any(right - left > 1):
        middle = (left + right) // 2
        like_high = (surrogate_value(surrogate, middle) >= 0) == at_high
        right = np.where(like_high, middle, right)
        left = np.where(like_high, left, middle)
    constant = at_low == at_high
    kind = np.select(
        [constant & at_high, constant, at_high], [ALWAYS, NEVER, GE], default=LE
    ).astype(np.uint8)
    value = np.select([constant, at_high], [np.zeros_like(right), right], default=right - 1)
    return value.astype(np.int32), kind


def quantize_per_channel(
    weights: npt.NDArray[Any], bits: int
) -> tuple[npt.NDArray[np.int16], Floats]:
    """Symmetric integers for each output channel (first axis).

    Every channel has a scale of its own, since its sum meets only its own
    threshold.

    Returns:
        int16 of the same shape and the scale (O,): weight = scale * integer.
    """
    wide = weights.astype(np.float64)
    largest = np.abs(wide.reshape(len(wide), -1)).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0) / ((1 << (bits - 1)) - 1)
    integers = np.rint(wide / scale.reshape(-1, *[1] * (wide.ndim - 1)))
    return integers.astype(np.int16), scale


def quantize_dense(weights: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int16], float]:
    """int16 with one scale for the whole matrix, so that logits stay comparable."""
    wide = weights.astype(np.float64)
    largest = float(np.abs(wide).max())
    scale = (largest if largest > 0 else 1.0) / 32_767
    return np.rint(wide / scale).astype(np.int16), scale


def quantize_probability(probability: Floats, planes: int) -> npt.NDArray[np.uint8]:
    """The nearest k-bit level to each P(weight = +1); halfway goes to the larger one.

    Level v stands for ``(v + msb(v)) / 2**k``: one half is not among them, and
    a weight with p = 0.5 leans to +1, as sign(0) does.
    """
    levels = np.arange(1 << planes)
    values = (levels + (levels >> (planes - 1))) / (1 << planes)
    middles = (values[:-1] + values[1:]) / 2
    return np.searchsorted(middles, probability, side="right").astype(np.uint8)
