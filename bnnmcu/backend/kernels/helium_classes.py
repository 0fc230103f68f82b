"""Binary convolutions by sign-pattern classes for Helium: the lists of ``bnn_classes_mve.h``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

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
from bnnmcu.graph import BinaryConv, Relu, Threshold
from bnnmcu.packing import LANES, pack_bits, words_for

__all__ = ["classes"]

Array = npt.NDArray[Any]

#: Words of a vector: the sets of filters of one.
_SETS = 4
#: The most filters of a set, of each variant.
_SIZES = (4, 5, 6)
#: BNN_CLASSES_MVE_WORDS of bnn_classes_mve.h.
_WORDS = 32 * 7
#: Words behind the inputs, and the zero before them.
_ROOM = 66
_QUAD = 4
#: Places are 16-bit, and there are two for each input.
_MAX_INPUTS = 32000
#: Planes of sums: addends are 16-bit.
_MAX_PLANES = 16


@dataclass(frozen=True, eq=False)
class _Vectors:
    """Filters in sets, and these in vectors.

    Attributes:
        sizes: filters of each set of a vector.
        filters: (slots,): the filter of each slot, set after set of vector after vector;
            what is beyond the last filter repeats the first ones.
        firsts: (slots,): the first filter of each one's set.
        quads: (vectors, classes) of each vector: quads of its lists.
        places: the lists as ``bnn_classes_mve.h`` describes them.
        most: the most inputs of a class.
    """

    sizes: list[int]
    filters: Array
    firsts: Array
    quads: list[Array]
    places: Array
    most: int


def _sizes(outputs: int, most: int) -> list[int]:
    """Filters of a set, for each vector: as many vectors as necessary, evenly filled."""
    filters = -(-outputs // _SETS)
    vectors = -(-filters // most)
    return [filters // vectors + (i < filters % vectors) for i in range(vectors)]


def _lists(filters: Array) -> list[Array]:
    """The places of each class of one set: filters (size, inputs)."""
    weight = (1 << np.arange(len(filters))) >> 1
    kind = ((filters ^ filters[0]).T.astype(np.int64) * weight).sum(axis=1)
    # x counts where the filter is -1: it mismatches there if the input is +1.
    place = 1 + 2 * np.arange(filters.shape[1]) + filters[0]
    counts = np.bincount(kind, minlength=1 << (len(filters) - 1))
    return np.split(place[np.argsort(kind, kind="stable")], np.cumsum(counts)[:-1])


def _vectors(weights: Array, most: int) -> _Vectors:
    outputs = len(weights)
    sizes = _sizes(outputs, most)
    slots = _SETS * sum(sizes)
    filters = np.arange(slots) % outputs
    firsts, quads, parts, largest = [], [], [], 0
    start = 0
    for size in sizes:
        sets = []
        for _ in range(_SETS):
            own = filters[start : start + size]
            sets.append(_lists(weights[own]))
            firsts += [own[0]] * size
            start += size
        counts = []
        for lists in zip(*sets, strict=True):
            longest = max(len(own) for own in lists)
            count = -(-longest // _QUAD)
            entries = np.zeros((count * _QUAD, _SETS), dtype=np.uint16)
            for lane, own in enumerate(lists):
                entries[: len(own), lane] = own
            parts += [np.array([count], dtype=np.uint16), entries.reshape(-1)]
            counts.append(count)
            largest = max(largest, longest)
        quads.append(np.array(counts))
    return _Vectors(sizes, filters, np.array(firsts), quads, np.concatenate(parts), largest)


def _inside(site: Site) -> Array:
    """bool (positions, taps): whether a tap lies inside the input."""
    node = site.node
    assert isinstance(node, BinaryConv)
    window = node.window
    axes = []
    for axis in range(2):
        at = np.arange(site.out.shape[axis])[:, None] * window.stride[axis]
        at = at + np.arange(window.kernel[axis]) * window.dilation[axis] - window.padding[axis]
        axes.append((at >= 0) & (at < site.sources[0].shape[axis]))
    rows, cols = axes
    both = rows[:, None, :, None] & cols[None, :, None, :]
    inside: Array = both.reshape(len(rows) * len(cols), -1)
    return inside


def _addends(site: Site, vectors: _Vectors) -> Array:
    """int64 (positions, slots): what is added to m - 2 M."""
    node = site.node
    assert isinstance(node, BinaryConv)
    outputs, kh, kw, channels = node.weights.shape
    taps = node.weights.reshape(outputs, kh * kw, channels).astype(np.int64)
    differing = (taps[vectors.filters] ^ taps[vectors.firsts]).sum(axis=2)
    inside = _inside(site).astype(np.int64)
    disagreeing: Array = inside @ differing.T
    if not isinstance(site.tail, Threshold):
        return disagreeing
    threshold, _ = normal_form(site.tail)
    there = inside.sum(axis=1)[:, None] * channels
    # n - 2 m >= t is m <= (n - t) / 2; -1 and n stand for never and always.
    most = np.clip((there - threshold.astype(np.int64)[vectors.filters]) >> 1, -1, there)
    addends: Array = disagreeing - most - 1
    return addends


def _by_vector(values: Array, sizes: list[int]) -> Array:
    """(..., slots) set after set to (..., slots / 4, 4): the four sets side by side."""
    parts, start = [], 0
    for size in sizes:
        own = values[..., start : start + _SETS * size]
        parts.append(own.reshape(*own.shape[:-1], _SETS, size).swapaxes(-1, -2))
        start += _SETS * size
    return np.concatenate(parts, axis=-2)


def _addend_tables(site: Site, vectors: _Vectors, planes: int) -> tuple[Constant, ...] | None:
    """One number a filter, or bit-planes over the lanes of each kind of group; None: too many."""
    less = ~_by_vector(_addends(site, vectors), vectors.sizes)
    if (less == less[0]).all():
        turned = sum((less[0] >> plane & 1) << (15 - plane) for plane in range(planes))
        return (table("addend", np.asarray(turned).astype(np.uint16)),)
    positions, slots = len(less), less.shape[1] * _SETS
    groups = -(-positions // LANES)
    padded = np.zeros((groups * LANES, slots), dtype=np.int64)
    padded[:positions] = less.reshape(positions, slots)
    kinds, edge = np.unique(padded.reshape(groups, LANES, slots), axis=0, return_inverse=True)
    if len(kinds) > 256:
        return None
    # (kinds, lanes, slots / 4, sets, planes) to (kinds, slots / 4, planes, sets, lanes)
    bits = (kinds.reshape(len(kinds), LANES, -1, _SETS, 1) >> np.arange(planes)) & 1
    edges = pack_bits(bits.transpose(0, 2, 4, 3, 1).astype(np.uint8))
    return (table("edges", edges), table("edge", edge.reshape(-1).astype(np.uint8)))


def _added(size: int, planes: int) -> tuple[int, int]:
    """Numbers that folding a vector adds up, and their planes."""
    numbers = bits = 0
    for k in range(size - 1, 0, -1):
        half, wide = 1 << (k - 1), planes
        numbers, bits = numbers + half, bits + half * planes
        while half > 1:
            half //= 2
            numbers, bits, wide = numbers + half, bits + half * wide, wide + 1
        planes += 1
    return numbers, bits


def classes(site: Site) -> Iterator[Option]:
    """Sign-pattern classes, for every largest number of filters in a set."""
    node = site.node
    assert isinstance(node, BinaryConv)
    outputs, kh, kw, channels = node.weights.shape
    inputs = kh * kw * channels
    planes = inputs.bit_length() + 1
    if node.groups != 1 or inputs > _MAX_INPUTS or planes > _MAX_PLANES:
        return
    weights = node.weights.reshape(outputs, inputs)
    tried = []
    for most in _SIZES:
        vectors = _vectors(weights, most)
        addends = _addend_tables(site, vectors, planes)
        if addends is None or len(vectors.sizes) > 255 or vectors.sizes in tried:
            continue
        tried.append(vectors.sizes)
        yield _option(site, most, vectors, planes, addends)


def _option(
    site: Site, most: int, vectors: _Vectors, planes: int, addends: tuple[Constant, ...]
) -> Option:
    node = site.node
    assert isinstance(node, BinaryConv)
    outputs, kh, kw, channels = node.weights.shape
    sizes, slots = vectors.sizes, len(vectors.filters)
    tables = [
        table("places", vectors.places),
        table("sizes", np.array(sizes, dtype=np.uint8)),
        *addends,
    ]
    bits = isinstance(site.tail, Threshold)
    if isinstance(site.tail, Threshold):
        _, flip = normal_form(site.tail)
        if flip.any():
            tables.append(table("flip", pack_bits(flip.astype(np.uint8))))
    # The carry of eight goes to a fourth plane.
    run_planes = max(4, vectors.most.bit_length())
    largest = max(sizes)
    stride = max(planes, run_planes + largest - 1)
    fields: Fields = {
        "shape": shape_fields(node.window, site.sources[0], site.out, node.groups),
        **{t.role: t.role for t in tables},
        "slots": slots,
        "vectors": len(sizes),
        "run_planes": run_planes,
        "planes": planes,
        "stride": stride,
        "bits": int(bits),
        "relu": int(isinstance(site.tail, Relu)),
    }
    lists = 1 << (largest - 1)
    kernel = Kernel(
        function="bnn_conv_classes_mve",
        struct="bnn_classes_mve_t",
        fields=fields,
        constants=tuple(tables),
        result_words=value_words(site.out),
        scratch_words=_SETS * stride * (lists + (lists + 3) // 4 + largest)
        + _WORDS
        + max(LANES * words_for(outputs), slots)
        + kh
        + kw
        + 2 * kh * kw * channels
        + _ROOM,
        macs=node.macs(site.sources[0].shape),
        header="bnn_classes_mve.h",
    )
    groups = -(-prod(site.out.shape[:2]) // LANES)
    quads = np.concatenate(vectors.quads)
    added = [_added(size, run_planes) for size in sizes]
    work = {
        "call": 1.0,
        "group": float(groups),
        "edge": 0.0 if _inside(site).all() else float(groups * (kh + kw)),
        "block": float(groups * kh * kw * words_for(channels)),
        "sixteen": float(groups * (quads // 4).sum()),
        "ripple": float(groups * (quads // 4).sum() * (run_planes - 4)),
        "octet": float(groups * (quads % 4 // 2).sum()),
        "quad": float(groups * (quads % 2).sum()),
        "list": float(groups * len(quads)),
        "number": float(groups * sum(numbers for numbers, _ in added)),
        "fold": float(groups * sum(wide for _, wide in added)),
        "plane" if bits else "value": float(groups * slots // _SETS * planes),
    }
    return Option(f"classes-mve/{most}", kernel, work)
