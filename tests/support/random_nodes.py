"""Random parts of networks: windows, weights, and operations on single values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.graph import (
    ALWAYS,
    GE,
    INT32_MAX,
    INT64_MAX,
    LE,
    NEVER,
    Affine,
    Clamp,
    Dense,
    TensorSpec,
    Threshold,
)

__all__ = ["affine", "clamp", "dense", "integer_weights", "levels", "threshold", "window"]

Array = npt.NDArray[Any]
Rng = np.random.Generator
_LOWEST = -INT32_MAX - 1


def _side(rng: Rng, size: int, dilated: bool) -> tuple[int, int, int, int, int]:
    """Kernel, stride, padding before and after, dilation of one axis; a window fits."""
    kernel = int(rng.choice([1, 1, 2, 3, 3, 4, 5])) if size > 1 else int(rng.choice([1, 1, 1, 3]))
    if size <= 6 and rng.random() < 0.1:
        kernel = size
    dilation = int(rng.choice([1, 1, 1, 2, 3])) if dilated else 1
    extent = (kernel - 1) * dilation + 1
    before = after = 0
    style = rng.random()
    if style < 0.4:
        before, after = (int(n) for n in rng.integers(0, kernel, 2))
    elif style < 0.55:
        before, after = (int(n) for n in rng.integers(0, extent + 3, 2))
    if extent > size + before + after:
        missing = extent - size
        before = max(before, int(rng.integers(0, missing + 1)))
        after = max(after, missing - before)
    stride = int(rng.choice([1, 1, 1, 2, 2, 3, 4, kernel + 1]))
    return kernel, stride, before, after, dilation


def window(rng: Rng, shape: tuple[int, int, int], *, dilated: bool = True) -> dict[str, Any]:
    """Kernel, stride, padding and dilation of a window on an image of this shape."""
    dilated = dilated and bool(rng.random() < 0.5)
    kh, sy, top, bottom, dy = _side(rng, shape[0], dilated)
    kw, sx, left, right, dx = _side(rng, shape[1], dilated)
    return {
        "kernel": (kh, kw),
        "stride": (sy, sx),
        "padding": (top, left, bottom, right),
        "dilation": (dy, dx),
    }


def levels(rng: Rng, shape: tuple[int, ...], planes: int) -> npt.NDArray[np.uint8]:
    """Levels with exact zeros and ones among them."""
    some = rng.integers(0, 1 << planes, shape, dtype=np.uint8)
    ends = np.where(rng.random(shape) < 0.5, 0, (1 << planes) - 1).astype(np.uint8)
    return np.where(rng.random(shape) < 0.2, ends, some).astype(np.uint8)


def integer_weights(
    rng: Rng, shape: tuple[int, ...], low: int, high: int
) -> tuple[npt.NDArray[np.int16], int] | None:
    """Weights (O, KH, KW, I) for values in [low, high], and a width that holds them.

    Often small; sometimes so large that sums reach the end of int32.  None where even a
    single tap of one could not be bounded.
    """
    taps, bound = int(np.prod(shape[1:])), max(-low, high, 1)
    # Worst case of a filter: every product at its largest.
    top = INT32_MAX // (taps * bound)
    weights = np.zeros(shape, dtype=np.int64)
    if top >= 1:
        top = min(top, 32_767)
        reach = top if rng.random() < 0.3 else min(top, int(rng.choice([1, 3, 100])))
        weights = rng.integers(-reach, reach + 1, shape)
        if rng.random() < 0.5:
            # Filters that drive the sum to both ends.
            weights[0], weights[-1] = top, -top
    elif INT32_MAX // bound >= 1:
        flat = weights.reshape(shape[0], -1)
        flat[np.arange(shape[0]), rng.integers(0, taps, shape[0])] = rng.choice([-1, 1], shape[0])
    else:
        return None
    weights[rng.random(shape[0]) < 0.05] = 0
    needed = max(2, int(np.abs(weights).max()).bit_length() + 1)
    return weights.astype(np.int16), int(rng.integers(needed, 17))


def threshold(rng: Rng, name: str, source: str, values: Array) -> Threshold:
    """Thresholds that values (N, H, W, C) really meet, of all kinds, some at int32's ends."""
    channels = values.shape[-1]
    flat = values.reshape(-1, channels)
    value = flat[rng.integers(0, len(flat), channels), np.arange(channels)].astype(np.int64)
    value += rng.choice([0, 0, 1, -1], channels)
    kind = rng.choice([GE, LE, GE, LE, GE, LE, ALWAYS, NEVER], channels).astype(np.uint8)
    # The ends of int32 are where "<= v" as "not >= v + 1" would overflow.
    edge = rng.random(channels)
    value = np.where(edge < 0.04, INT32_MAX, np.where(edge > 0.96, _LOWEST, value))
    value = np.clip(value, _LOWEST, INT32_MAX).astype(np.int32)
    return Threshold(name, source, value, kind)


def clamp(rng: Rng, name: str, source: str, values: Array) -> Clamp:
    """Bounds that cut some values off; sometimes an end of int32, or one point."""
    low, high = sorted(int(v) for v in rng.choice(values.reshape(-1), 2))
    style = rng.random()
    if style < 0.15:
        low = _LOWEST
    elif style < 0.3:
        high = INT32_MAX
    elif style < 0.35:
        low = high
    return Clamp(name, source, low, high)


def affine(rng: Rng, name: str, source: str, spec: TensorSpec) -> Affine:
    """Factors and shifts; sometimes so large that results reach the ends of int32."""
    low, high = spec.bounds
    channels, bound = spec.shape[2], max(-low, high, 1)
    shift = int(rng.choice([0, 0, 1, 4, 16, 31, rng.integers(0, 32)]))
    limit = INT32_MAX << shift
    top = min(INT32_MAX, limit // bound)
    if rng.random() < 0.6:
        top = min(top, int(rng.choice([1, 2, 9])) << min(shift, 24))
    mul = rng.integers(-top, top + 1, channels)
    ends = rng.random(channels) < 0.3
    mul = np.where(ends, rng.choice([-top, top], channels), mul)
    neg = None
    if rng.random() < 0.5:
        neg = rng.integers(-top, top + 1, channels)
        neg[rng.random(channels) < 0.2] = 0
    most = np.abs(mul) if neg is None else np.maximum(np.abs(mul), np.abs(neg))
    left = [limit - int(m) * bound for m in most.tolist()]
    if rng.random() < 0.6:
        left = [min(room, 1_000 << min(shift, 24)) for room in left]
    add = [int(rng.integers(-room, room, endpoint=True)) for room in left]
    return Affine(
        name,
        source,
        mul.astype(np.int32),
        np.array(add, dtype=np.int64),
        shift,
        None if neg is None else neg.astype(np.int32),
    )


def dense(rng: Rng, name: str, source: str, spec: TensorSpec, most_weights: int) -> Dense | None:
    """A dense layer, with equal rows among them: the first label must win."""
    most = min(12, most_weights // spec.size)
    if most < 1:
        return None
    classes = int(rng.integers(1, most + 1))
    reach = int(rng.choice([1, 3, 300, 32_767]))
    weights = rng.integers(-reach, reach + 1, (classes, spec.size)).astype(np.int16)
    if rng.random() < 0.1:
        weights[0] = -32_768
    bias = None
    if rng.random() < 0.5:
        products = 32_768 * spec.size * max(1, *map(abs, spec.bounds))
        room = min(int(rng.choice([1, 1_000, 1 << 29, 1 << 45, INT64_MAX])), INT64_MAX - products)
        bias = rng.integers(-room, room, classes, endpoint=True, dtype=np.int64)
    if classes > 2:
        weights[-1] = weights[0]
        if bias is not None:
            bias[-1] = bias[0]
    return Dense(name, source, weights, bias)
