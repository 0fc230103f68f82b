"""Executes a float network in numpy, in float64.

Not a specification: the yardstick for what quantisation changes.  Frontends
compare it with the framework's own answer, so that a misread layer is noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError
from bnnmcu.network.model import Network
from bnnmcu.network.ops import (
    INPUT,
    Add,
    Affine,
    AvgPool,
    Clamp,
    Conv,
    Decide,
    Flatten,
    Floats,
    Linear,
    MaxPool,
    Op,
    Pad,
    Padding,
    PRelu,
    Sign,
)

__all__ = ["evaluate", "run", "to_float"]

# Images computed at a time, to bound the memory that windows take.
_AT_ONCE = 16


def _column(values: Floats) -> Floats:
    return values.reshape(-1, 1, 1)


def _windows(
    x: Floats,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: Padding,
    dilation: tuple[int, int],
    fill: float,
) -> Floats:
    """(N, C, H, W) to (N, C, OH, OW, KH, KW)."""
    top, left, bottom, right = padding
    pads = ((0, 0), (0, 0), (top, bottom), (left, right))
    padded = np.pad(x, pads, constant_values=fill)
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
    rows, cols = stride
    return view[:, :, ::rows, ::cols, :: dilation[0], :: dilation[1]]


def _conv(op: Conv, x: Floats, weights: Floats) -> Floats:
    outputs, inputs, kh, kw = weights.shape
    view = _windows(x, (kh, kw), op.stride, op.padding, op.dilation, 0.0)
    each = outputs // op.groups
    out = []
    for group in range(op.groups):
        mine = view[:, group * inputs : (group + 1) * inputs].transpose(0, 2, 3, 1, 4, 5)
        flat = mine.reshape(*mine.shape[:3], -1)
        matrix = weights[group * each : (group + 1) * each].reshape(each, -1)
        out.append(np.moveaxis(flat @ matrix.T, -1, 1))
    return np.concatenate(out, axis=1)


def evaluate(
    op: Op, values: Mapping[str, Floats], drawn: Mapping[str, Floats] | None = None
) -> Floats:
    """One operation on (N, C, H, W) values.

    Args:
        drawn: -1 / +1 weights of layers that draw theirs.

    Raises:
        UsageError: a layer draws its weights and none are given.
    """
    x = values[op.source]
    if isinstance(op, Conv | Linear):
        weights = op.weights
        if op.drawn:
            if drawn is None or op.name not in drawn:
                raise UsageError("draws its weights: give them", where=op.name)
            weights = drawn[op.name]
        if isinstance(op, Conv):
            result = _conv(op, x, weights)
        else:
            result = (x[:, :, 0, 0] @ weights.T)[..., np.newaxis, np.newaxis]
        return result if op.bias is None else result + _column(op.bias)
    if isinstance(op, Affine):
        return _column(op.scale) * x + _column(op.offset)
    if isinstance(op, Sign):
        return np.where(x > 0, 1.0, np.where(x < 0, -1.0, float(op.zero)))
    if isinstance(op, Clamp):
        return np.clip(x, op.low, op.high)
    if isinstance(op, PRelu):
        return np.where(x >= 0, x, _column(op.slope) * x)
    if isinstance(op, Add):
        return np.asarray(x + values[op.other])
    if isinstance(op, MaxPool):
        view = _windows(x, op.kernel, op.stride, op.padding, op.dilation, -np.inf)
        return np.asarray(view.max(axis=(4, 5)))
    if isinstance(op, AvgPool):
        view = _windows(x, op.kernel, op.stride, op.padding, (1, 1), 0.0)
        divisor = op.kernel[0] * op.kernel[1] if op.divisor is None else op.divisor
        return np.asarray(view.sum(axis=(4, 5)) / divisor)
    if isinstance(op, Flatten):
        return x.reshape(len(x), -1, 1, 1)
    if isinstance(op, Decide):
        chain = {op.source: x}
        for step in op.steps:
            chain[op.source] = evaluate(replace(step, source=op.source), chain)
        return np.where(
            chain[op.source] > 0, 1.0, np.where(chain[op.source] < 0, -1.0, float(op.zero))
        )
    assert isinstance(op, Pad)
    top, left, bottom, right = op.padding
    pads = ((0, 0), (0, 0), (top, bottom), (left, right))
    return np.pad(x, pads, constant_values=op.value)


def to_float(network: Network, images: npt.NDArray[np.uint8]) -> Floats:
    """What pixels (N, H, W, C) stand for: (N, C, H, W)."""
    channels = images.transpose(0, 3, 1, 2).astype(np.float64)
    return np.asarray(_column(network.input_scale) * channels + _column(network.input_offset))


def run(
    network: Network,
    images: npt.NDArray[np.uint8],
    *,
    drawn: Mapping[str, Floats] | None = None,
    on_value: Callable[[str, Floats], Any] | None = None,
) -> Floats:
    """Float logits (N, classes) of images.

    Args:
        images: uint8, shape (N, H, W, C).
        drawn: -1 / +1 weights of layers that draw theirs, by name.
        on_value: is given every value (n, C, H, W), in chunks of images.

    Raises:
        UsageError: images of another shape, or drawn weights missing.
    """
    channels, height, width = network.input_shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        raise UsageError(
            f"images are {images.dtype} {images.shape}, "
            f"{network.name} takes uint8 (N, {height}, {width}, {channels})"
        )
    logits = [np.zeros((0, network.classes))]
    for start in range(0, len(images), _AT_ONCE):
        values = {INPUT: to_float(network, images[start : start + _AT_ONCE])}
        for op in network.ops:
            values[op.name] = evaluate(op, values, drawn)
            if on_value:
                on_value(op.name, values[op.name])
        logits.append(values[network.ops[-1].name].reshape(len(values[INPUT]), -1))
    return np.concatenate(logits)
