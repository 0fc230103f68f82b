"""Fast kernels for convolutions of pixels with int16 weights: fast FIR filters and SMLAD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.kernels.base import (
    Constant,
    Fields,
    Kernel,
    Offer,
    Option,
    Site,
    table,
    value_words,
)
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.backend.kernels.thresholds import normal_form
from bnnmcu.graph import INT32_MAX, IntegerConv, Node, Relu, Threshold
from bnnmcu.packing import LANES, pack_bits, words_for

__all__ = ["OFFERS", "direct_weights", "fir_weights", "first_tables"]

Array = npt.NDArray[Any]

_HEADER = "bnn_first.h"
#: Sides of the kernels that the fast FIR filter takes.
_FIR_KERNEL = 8
#: BNN_FIR_PAIRS, BNN_FIR_FILTERS, BNN_FIR_SUMS and BNN_FIR_CHANNEL of bnn_first.h.
_FIR_PAIRS, _FIR_FILTERS = 7, 32
_FIR_SUMS = 6 * _FIR_FILTERS * _FIR_PAIRS
_FIR_CHANNEL = 6 * 17 + 9 * 32
#: BNN_DIRECT_POSITIONS.
_DIRECT_POSITIONS = 3
_INT16 = (-(1 << 15), (1 << 15) - 1)


def _words(pairs: Array) -> npt.NDArray[np.uint32]:
    """Pairs (..., 2) of int16 as words, the first in the low half."""
    wide = pairs.astype(np.int64) & 0xFFFF
    return (wide[..., 0] | wide[..., 1] << 16).astype(np.uint32)


def first_tables(site: Site, node: IntegerConv) -> tuple[Constant, ...] | None:
    """Fill, bias and flip; None if a sum with its bias could leave int32."""
    tables: list[Constant] = []
    if node.fill is not None and node.fill.any():
        tables.append(table("fill", node.fill))
    if not isinstance(site.tail, Threshold):
        return tuple(tables)
    threshold, flip = normal_form(site.tail)
    weights = node.weights.astype(np.int64).reshape(len(node.weights), -1)
    low = 255 * np.minimum(weights, 0).sum(axis=1)
    high = 255 * np.maximum(weights, 0).sum(axis=1)
    # Beyond these, a threshold is met always or never: so it is by the nearest of them.
    bias = -np.clip(threshold.astype(np.int64), low, high + 1)
    if np.any(low + bias < -INT32_MAX - 1) or np.any(high + bias > INT32_MAX):
        return None
    # A kernel's bit says that the sum is too small.
    tables.append(table("bias", bias.astype(np.int32)))
    tables.append(table("flip", pack_bits((~flip).astype(np.uint8))))
    return tuple(tables)


def _kernel(
    site: Site, node: IntegerConv, function: str, weights: Array, scratch_words: int
) -> Kernel | None:
    tables = first_tables(site, node)
    if tables is None:
        return None
    tables = (table("weights", weights), *tables)
    fields: Fields = {
        "shape": shape_fields(node.window, site.sources[0], site.out),
        **{t.role: t.role for t in tables},
        "relu": 1 if isinstance(site.tail, Relu) else 0,
    }
    return Kernel(
        function=function,
        struct="bnn_first_t",
        fields=fields,
        constants=tables,
        result_words=value_words(site.out),
        scratch_words=scratch_words,
        macs=node.macs(site.sources[0].shape),
        header=_HEADER,
    )


def _fir_parts(weights: Array) -> Array:
    """Weights (O, KH, KW, I) in parts: int64 (column part, row part, O, s, a, t, b, I)."""
    outputs, kh, kw, channels = weights.shape
    # Filters come in pairs: the last may be one of zeros.
    taps = np.zeros((outputs + outputs % 2, _FIR_KERNEL, _FIR_KERNEL, channels), dtype=np.int64)
    taps[:outputs, :kh, :kw] = weights
    # Row 4 s + 2 q + a, column 4 t + 2 r + b.
    taps = taps.reshape(len(taps), 2, 2, 2, 2, 2, 2, channels)
    rows = np.stack([taps.sum(axis=2), taps[:, :, 0], taps[:, :, 1]])
    parts: Array = np.stack([rows[:, :, :, :, :, 0], rows.sum(axis=5), rows[:, :, :, :, :, 1]])
    return parts


def fir_weights(weights: Array) -> npt.NDArray[np.uint32] | None:
    """Weights (O, KH, KW, I) in the order of ``bnn_first_fir``; None if one leaves int16."""
    made = _fir_parts(weights)
    if made.min() < _INT16[0] or made.max() > _INT16[1]:
        return None
    made = made.reshape(9, *made.shape[2:])
    groups = [
        _words(made[:, first : first + _FIR_FILTERS].transpose(0, 6, 1, 2, 3, 4, 5)).reshape(-1)
        for first in range(0, len(weights), _FIR_FILTERS)
    ]
    return np.concatenate(groups)


def _fir_signs_fit(weights: Array, bias: Array) -> bool:
    """Whether the sums of every column part, the middle one's with the bias, are within 2^30."""
    sizes = np.abs(_fir_parts(weights)).sum(axis=(3, 4, 5, 6, 7))[:, :, : len(bias)]
    # Pixels and their differences are at most 255, differences of these twice as much.
    sizes *= np.array([[255, 510, 510], [255, 255, 255], [255, 510, 510]])[:, :, np.newaxis]
    sums = sizes[:, 0] + sizes[:, 1:].max(axis=1)
    sums[1] += np.abs(bias.astype(np.int64))
    return bool(sums.max() < 1 << 30)


def _with_even_bias(kernel: Kernel, node: IntegerConv) -> Kernel | None:
    """The bias of a filter of zeros is added where there is one; None if sums are too large."""
    constants = list(kernel.constants)
    for i, constant in enumerate(constants):
        if constant.role == "bias":
            if not _fir_signs_fit(node.weights, constant.data):
                return None
            constants[i] = table("bias", np.pad(constant.data, (0, len(constant.data) % 2)))
    return replace(kernel, constants=tuple(constants))


def fir(site: Site) -> Iterator[Option]:
    """Stride 2 and kernels of 5 to 8 taps a side: a two-dimensional fast FIR filter."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, IntegerConv)
    (kh, kw), window = node.window.kernel, node.window
    if (
        source.kind != "u8"
        or node.groups != 1
        or window.stride != (2, 2)
        or window.dilation != (1, 1)
        or not (4 < kh <= _FIR_KERNEL and 4 < kw <= _FIR_KERNEL)
    ):
        return
    weights = fir_weights(node.weights)
    if weights is None:
        return
    channels = source.shape[2]
    kernel = _kernel(site, node, "bnn_first_fir", weights, _FIR_SUMS + channels * _FIR_CHANNEL)
    if kernel is not None:
        kernel = _with_even_bias(kernel, node)
    if kernel is None:
        return
    rows, cols, outputs = site.out.shape
    turns = -(-rows // 2) * -(-cols // (2 * _FIR_PAIRS))
    bits = isinstance(site.tail, Threshold)
    work = {
        "call": 1.0,
        "row": float(turns * outputs * 9 * channels),
        "pixels": float((turns + 1) * channels),
        "bit" if bits else "sum": float(rows * cols * words_for(outputs) * LANES),
    }
    yield Option("fir", kernel, work)


def direct_weights(weights: Array) -> npt.NDArray[np.uint32]:
    """Weights (O, KH, KW, I) in the order of ``bnn_first_direct``: [filters / 2][pairs][2]."""
    outputs, kh, kw, channels = weights.shape
    row = -(-kw * channels // 2)
    pairs = kh * row + kh * row % 2
    rows = np.zeros((outputs + outputs % 2, kh, 2 * row), dtype=np.int16)
    rows[:outputs, :, : kw * channels] = weights.reshape(outputs, kh, kw * channels)
    words = np.zeros((len(rows), pairs), dtype=np.uint32)
    words[:, : kh * row] = _words(rows.reshape(len(rows), kh * row, 2))
    return words.reshape(-1, 2, pairs).transpose(0, 2, 1)


def direct(site: Site) -> Iterator[Option]:
    """Pixels with any window: two products an instruction."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, IntegerConv)
    if source.kind != "u8" or node.groups != 1:
        return
    weights = direct_weights(node.weights)
    blocks, pairs, _ = weights.shape
    kernel = _kernel(site, node, "bnn_first_direct", weights, _DIRECT_POSITIONS * pairs)
    if kernel is None:
        return
    rows, cols, outputs = site.out.shape
    turns = -(-rows * cols // _DIRECT_POSITIONS)
    bits = isinstance(site.tail, Threshold)
    work = {
        "call": 1.0,
        "pair": float(turns * blocks * pairs),
        "block": float(turns * blocks),
        "gather": float(rows * cols * pairs),
        "bit" if bits else "sum": float(rows * cols * outputs),
    }
    yield Option("smlad", kernel, work)


OFFERS: dict[type[Node], tuple[Offer, ...]] = {IntegerConv: (fir, direct)}
