"""Convolutions of pixels with int16 weights for Helium: eight products an instruction."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from bnnmcu.backend.kernels.base import (
    Constant,
    Fields,
    Kernel,
    Option,
    Site,
    table,
    value_words,
)
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.backend.kernels.thresholds import normal_form
from bnnmcu.graph import INT32_MAX, IntegerConv, Relu, Threshold
from bnnmcu.packing import pack_bits

__all__ = ["first"]

#: Products of an instruction.
_CHUNK = 8
#: BNN_FIRST_MVE_WINDOWS of bnn_first_mve.h, and words of their sums.
_WINDOWS, _SUMS = 7, 8


def _tables(site: Site, node: IntegerConv) -> tuple[Constant, ...] | None:
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
    flips = pack_bits((~flip).astype(np.uint8))
    return (*tables, table("bias", bias.astype(np.int32)), table("flip", flips))


def first(site: Site) -> Iterator[Option]:
    """Pixels with any window: eight products an instruction."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, IntegerConv)
    if source.kind != "u8" or node.groups != 1:
        return
    tables = _tables(site, node)
    if tables is None:
        return
    outputs, kh, kw, channels = node.weights.shape
    inputs = kh * kw * channels
    chunks = -(-inputs // _CHUNK)
    weights = np.zeros((outputs, chunks * _CHUNK), dtype=np.int16)
    weights[:, :inputs] = node.weights.reshape(outputs, inputs)
    ordered = weights.reshape(outputs, chunks, _CHUNK).transpose(1, 0, 2)
    tables = (table("weights", ordered), *tables)
    fields: Fields = {
        "shape": shape_fields(node.window, source, site.out),
        **{t.role: t.role for t in tables},
        "chunks": chunks,
        "relu": int(isinstance(site.tail, Relu)),
    }
    sides = [
        (site.out.shape[i] - 1) * node.window.stride[i]
        + (node.window.kernel[i] - 1) * node.window.dilation[i]
        + 1
        for i in range(2)
    ]
    seen = prod(sides) * channels
    kernel = Kernel(
        function="bnn_first_vectors",
        struct="bnn_first_mve_t",
        fields=fields,
        constants=tables,
        result_words=value_words(site.out),
        scratch_words=_SUMS * outputs + 2 * _WINDOWS * chunks + 2 + -(-(seen + 8) // 4),
        macs=node.macs(source.shape),
        header="bnn_first_mve.h",
    )
    rows, cols, _ = site.out.shape
    turns = -(-rows * cols // _WINDOWS)
    runs = kh if node.window.dilation[1] == 1 else kh * kw
    bits = isinstance(site.tail, Threshold)
    work = {
        "call": 1.0,
        "pixel": float(seen),
        "run": float(rows * cols * runs),
        "copy": float(rows * cols * runs * -(-inputs // (runs * _CHUNK))),
        "chunk": float(turns * chunks),
        "product": float(turns * chunks * outputs),
        "sign" if bits else "sum": float(turns * outputs if bits else rows * cols * outputs),
    }
    yield Option("vmladav", kernel, work)
