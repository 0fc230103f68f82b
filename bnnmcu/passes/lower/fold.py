"""From float functions to integer comparisons, and from weights to integers.

All arithmetic is float64 on the parameters as trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.graph import ALWAYS, GE, LE, NEVER

__all__ = [
    "bisect_threshold",
    "quantize_dense",
    "quantize_per_channel",
    "quantize_probability",
    "signs_of",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Weights below this have no float64 of their own once they are divided.
_NOTHING = 1e-300
Predicate = Callable[[Ints], npt.NDArray[np.bool_]]


def bisect_threshold(
    predicate: Predicate, low: Ints, high: Ints
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """The integer comparison that equals a monotone predicate.

    The predicate changes at most once in [low, high]; the place is found by
    bisection over the integers themselves, which leaves no rounding of a
    threshold to argue about.

    Args:
        predicate: takes one integer for each channel, int64 (C,), gives bools.
        low, high: bounds, int64, shape (C,).

    Returns:
        ``value`` (int32) and ``kind`` (uint8), shape (C,), as in
        :class:`bnnmcu.graph.Threshold`.
    """
    at_low, at_high = predicate(low), predicate(high)
    # Invariant: the bit at `left` is that at low, the bit at `right` that at high.
    left, right = low.copy(), high.copy()
    while np.any(right - left > 1):
        middle = (left + right) // 2
        like_high = predicate(middle) == at_high
        right = np.where(like_high, middle, right)
        left = np.where(like_high, left, middle)
    constant = at_low == at_high
    kind = np.select(
        [constant & at_high, constant, at_high], [ALWAYS, NEVER, GE], default=LE
    ).astype(np.uint8)
    value = np.select([constant, at_high], [np.zeros_like(right), right], default=right - 1)
    return value.astype(np.int32), kind


def signs_of(weights: Floats) -> tuple[npt.NDArray[np.uint8], Floats] | None:
    """Bits and scale a (O,) of weights that are +a or -a in each output channel.

    Returns:
        uint8 of the same shape and the scales; None if the weights are not of that kind.
        A channel without any weight has scale 0, whatever its bits, if another has some.
    """
    flat = np.abs(weights.reshape(len(weights), -1))
    scale = flat.max(axis=1)
    # Products of float32 factors differ in their last bits.
    if not scale.any() or np.any(flat < (scale * (1 - 1e-6))[:, np.newaxis]):
        return None
    return (weights > 0).astype(np.uint8), scale


def _on_grid(flat: Floats, top: int) -> tuple[Ints, Floats] | None:
    """Integers and steps (O,) of rows that are small multiples of their smallest weight."""
    magnitude = np.abs(flat)
    step = np.min(np.where(magnitude > 0, magnitude, np.inf), axis=1)
    step = np.where(np.isfinite(step), step, 1.0)
    ratio = flat / step[:, np.newaxis]
    integers = np.rint(ratio)
    if np.abs(integers).max() > top or not np.allclose(ratio, integers, rtol=1e-6, atol=0):
        return None
    return integers.astype(np.int64), step


def quantize_per_channel(
    weights: Floats, bits: int, moments: Floats | None = None
) -> tuple[npt.NDArray[np.int16], Floats]:
    """Symmetric integers for each output channel (first axis).

    Every channel has a scale of its own, since its sum meets only its own
    threshold.  Weights that lie on a grid of small integers keep it, and lose nothing.

    Args:
        bits: width of the integers.
        moments: second moments (n, n) of what a filter's n weights meet; with
            them each channel is clipped where that lowers the error of its sum.

    Returns:
        int16 of the same shape and the scale (O,): weight = scale * integer.
    """
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    top = (1 << (bits - 1)) - 1
    exact = _on_grid(flat, top)
    if exact is not None:
        return exact[0].reshape(weights.shape).astype(np.int16), exact[1]
    largest = np.abs(flat).max(axis=1)
    whole = np.where(largest > _NOTHING, largest, 1.0) / top
    candidates = [1.0] if moments is None else np.linspace(1.0, 0.5, 51).tolist()
    best_error = np.full(len(flat), np.inf)
    best, scale = np.zeros(flat.shape), whole
    for shrink in candidates:
        unit = whole * shrink
        integers = np.clip(np.rint(flat / unit[:, np.newaxis]), -top, top)
        difference = integers * unit[:, np.newaxis] - flat
        weighted = difference if moments is None else difference @ moments
        error = (weighted * difference).sum(axis=1)
        better = error < best_error
        best = np.where(better[:, np.newaxis], integers, best)
        scale = np.where(better, unit, scale)
        best_error = np.where(better, error, best_error)
    return best.reshape(weights.shape).astype(np.int16), scale


def quantize_dense(weights: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int16], float]:
    """int16 with one scale for the whole matrix, so that logits stay comparable."""
    wide = weights.astype(np.float64)
    largest = float(np.abs(wide).max())
    scale = (largest if largest > _NOTHING else 1.0) / 32_767
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
