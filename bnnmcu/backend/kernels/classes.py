"""Binary convolutions by sign-pattern classes: the lists of ``bnn_classes.h``.

Relative to the first filter of a set, an input's class is the pattern of the
other filters that disagree there.  What is summed over a class is summed once
for all filters of the set, for 32 output positions at a time.
"""

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
    Offer,
    Option,
    Site,
    table,
    value_words,
)
from bnnmcu.backend.kernels.class_addends import addend_tables
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.backend.kernels.thresholds import normal_form
from bnnmcu.graph import BinaryConv, Node, Relu, Threshold
from bnnmcu.packing import LANES, pack_bits, words_for

__all__ = ["OFFERS", "classes"]

Array = npt.NDArray[Any]

_SETS = (4, 5, 6, 7)
#: Sets of so many are mixed with smaller ones, so that none is left over.
_MIXED = 7
#: Words behind the inputs.
_ROOM = 16
#: BNN_BLOCKS of bnn_class_inputs.c: words of inputs after which a zero stands.
_BLOCKS = 3
#: What the planes of a run can count.
_RUN = 127
_MAX_RUNS = 200
_QUAD = 4
_STEP = 255
#: Places are 16-bit, and so are 4 times these.
_MAX_INPUTS = 32000
_MOST_OFFSETS = 16384
_FUNCTIONS = {
    "classes": "bnn_conv_classes",
    "class_steps": "bnn_conv_class_steps",
    "class_offsets": "bnn_conv_class_offsets",
}
#: BNN_STRIDE of bnn_classes_internal.h, less the plane that an addition may write.
_MAX_PLANES = 15


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Where the inputs of a window stand.

    Attributes:
        place: (inputs,): of x; its complement follows.
        zeros: places of zero words, the first and the last one among them.
    """

    place: Array
    zeros: Array

    @property
    def words(self) -> int:
        """Words of all of them."""
        return int(self.zeros[-1]) + 1

    def starts(self, runs: int) -> list[int]:
        """Where the part of each run begins."""
        return [self.words * run // runs for run in range(runs)]

    @classmethod
    def of(cls, taps: int, channels: int) -> _Inputs:
        """The layout of ``bnn_class_inputs``."""
        place: list[int] = []
        zeros, at = [0], 1
        blocks = [
            min(LANES, channels - LANES * word)
            for _ in range(taps)
            for word in range(words_for(channels))
        ]
        for i, count in enumerate(blocks, 1):
            place += range(at, at + 2 * count, 2)
            at += 2 * count
            if i % _BLOCKS == 0:
                zeros.append(at)
                at += 1
        zeros.append(at)
        return cls(np.array(place), np.array(zeros))


@dataclass(frozen=True, eq=False)
class _Lists:
    """The lists of all sets.

    Attributes:
        runs: of each set.
        lists: the places of each set, run and class in turn.
        most: the most inputs in one run of a class.
    """

    runs: Array
    lists: list[Array]
    most: int

    @property
    def run_planes(self) -> int:
        """Bit-planes that hold the sum of a run; an octet alone needs four."""
        return max(4, self.most.bit_length())

    def starts(self, sizes: list[int], inputs: _Inputs) -> list[int]:
        """Where the steps of each list begin."""
        return [
            start
            for size, runs in zip(sizes, self.runs, strict=True)
            for start in inputs.starts(int(runs))
            for _ in range(1 << (size - 1))
        ]

    def sum_planes(self, sizes: list[int]) -> int:
        """The most bit-planes that the kernel writes for m, given the filters of each set."""
        most = (1 << self.run_planes) - 1
        return max(
            (most * int(runs)).bit_length() + size - 1
            for size, runs in zip(sizes, self.runs, strict=True)
        )


def _set_lists(filters: Array, inputs: _Inputs) -> tuple[int, list[Array], int]:
    """One set: its runs, the places of each run and class in turn, the largest run."""
    relative = filters ^ filters[0]
    weight = (1 << np.arange(len(filters))) >> 1
    kind = (relative.T.astype(np.int64) * weight).sum(axis=1)
    counts = np.bincount(kind, minlength=1 << (len(filters) - 1))
    # x counts where the filter is -1: it mismatches there if the input is +1.
    place = inputs.place + filters[0]
    members = np.split(place[np.argsort(kind, kind="stable")], np.cumsum(counts)[:-1])
    runs = -(-max(1, int(counts.max())) // _RUN)
    while True:
        # Each run has its part of the inputs, so that steps stay short.
        starts = inputs.starts(runs)
        parts = [np.split(list_, np.searchsorted(list_, starts[1:])) for list_ in members]
        lists = [parts[c][run] for run in range(runs) for c in range(len(parts))]
        most = max(len(list_) for list_ in lists)
        if most <= _RUN or runs > _MAX_RUNS:
            return runs, lists, most
        runs += 1


def _sizes(outputs: int, size: int) -> list[int]:
    """Filters of each set; none if the outputs cannot be divided so."""
    if size != _MIXED:
        return [min(size, outputs - first) for first in range(0, outputs, size)]
    sets, larger = divmod(outputs, size - 1)
    return [size] * larger + [size - 1] * (sets - larger) if 0 < larger <= sets else []


def _scratch(size: int) -> int:
    """BNN_CLASSES_WORDS of bnn_classes.h, for sets of so many even where none is full."""
    return 16 * (2 << (size - 1)) + 16 * _SETS[-1] + 32 * 4


def _lists(weights: Array, sizes: list[int], inputs: _Inputs) -> _Lists:
    runs, lists, most = [], [], 0
    for filters in np.split(weights, np.cumsum(sizes)[:-1]):
        own, more, largest = _set_lists(filters, inputs)
        runs.append(own)
        lists += more
        most = max(most, largest)
    return _Lists(np.array(runs, dtype=np.uint8), lists, most)


def _quads(entries: int) -> int:
    """Quads of a list: a list begins with an octet."""
    return max(2, -(-entries // _QUAD))


def _as_places(lists: list[Array], unit: int) -> tuple[Array, list[int]]:
    """Entries as multiples of their places; and the quads of each list."""
    out, quads = [], []
    for own in lists:
        count = _quads(len(own))
        filled = np.zeros(1 + count * _QUAD, dtype=np.uint16)
        filled[0] = count
        filled[1 : 1 + len(own)] = unit * own
        out.append(filled)
        quads.append(count)
    return np.concatenate(out), quads


def _as_steps(lists: list[Array], starts: list[int], zeros: Array) -> tuple[Array, list[int]]:
    """Entries as steps of at most 255; zero words bridge what is farther apart."""
    out, quads = bytearray(), []
    for own, start in zip(lists, starts, strict=True):
        steps, at = [], start
        for place in own.tolist():
            while place - at > _STEP:
                zero = int(zeros[np.searchsorted(zeros, at + _STEP, side="right") - 1])
                steps.append(zero - at)
                at = zero
            steps.append(place - at)
            at = place
        count = _quads(len(steps))
        while len(steps) < _QUAD * count:
            zero = int(zeros[np.searchsorted(zeros, at)])
            steps.append(zero - at)
            at = zero
        quads.append(count)
        out += bytes([count, *steps])
    return np.frombuffer(bytes(out), dtype=np.uint8), quads


def _planes(site: Site) -> tuple[int, int]:
    """Words of a channel's plane, and those before its bits; zeros where planes are of no use.

    At stride 1, in an output as wide as the input, every tap sees the same bits shifted.
    """
    node = site.node
    assert isinstance(node, BinaryConv)
    window, source, out = node.window, site.sources[0], site.out
    taps = window.kernel[0] * window.kernel[1]
    if window.stride != (1, 1) or source.shape[1] != out.shape[1] or taps < 2:
        return 0, 0
    width = source.shape[1]
    before = window.padding[0] * width + window.padding[1]
    groups = -(-prod(out.shape[:2]) // LANES)
    reach = (window.kernel[0] - 1) * window.dilation[0] * width
    reach += (window.kernel[1] - 1) * window.dilation[1] - before
    guard = -(-before // LANES)
    # The last word that a shift reads, and the last that holds positions.
    last = max(LANES * (groups - 1) + reach, 0) // LANES + 1
    words = max(last + 1, -(-prod(source.shape[:2]) // LANES))
    return guard + words, guard


def _folded_bits(filters: int, planes: int) -> int:
    """Bits that full adders handle in ``bnn_fold``."""
    bits = 0
    for k in range(filters - 1, 0, -1):
        half, wide = 1 << (k - 1), planes
        bits += half * planes
        while half > 1:
            half, wide = half // 2, wide + 1
            bits += half * (wide - 1)
        planes += 1
    return bits


def classes(site: Site) -> Iterator[Option]:
    """Every number of filters in a set, with lists as words of both kinds and as bytes."""
    node = site.node
    assert isinstance(node, BinaryConv)
    outputs, kh, kw, channels = node.weights.shape
    inputs = kh * kw * channels
    if node.groups != 1 or inputs > _MAX_INPUTS or outputs < 2:
        return
    where = _Inputs.of(kh * kw, channels)
    planes = inputs.bit_length() + 1
    weights = node.weights.reshape(outputs, inputs)
    for size in _SETS:
        sizes = _sizes(outputs, size)
        addends = addend_tables(site, sizes, planes) if sizes else None
        if addends is None or (size > outputs and size != _SETS[0]):
            continue
        lists = _lists(weights, sizes, where)
        if lists.most > _RUN or lists.sum_planes(sizes) > _MAX_PLANES:
            continue  # nearly equal filters: their classes are too large
        for family in _FUNCTIONS:
            if family != "class_offsets" or where.words <= _MOST_OFFSETS:
                yield _option(site, size, family, where, lists, planes, addends)


def _option(
    site: Site,
    size: int,
    family: str,
    where: _Inputs,
    lists: _Lists,
    planes: int,
    addends: tuple[Constant, ...],
) -> Option:
    node = site.node
    assert isinstance(node, BinaryConv)
    outputs, kh, kw, channels = node.weights.shape
    sizes = _sizes(outputs, size)
    narrow = family == "class_steps"
    if narrow:
        data, quads = _as_steps(lists.lists, lists.starts(sizes, where), where.zeros)
    else:
        data, quads = _as_places(lists.lists, 4 if family == "class_offsets" else 1)
    tables = [table("steps" if narrow else "places", data), table("runs", lists.runs), *addends]
    bits = isinstance(site.tail, Threshold)
    if isinstance(site.tail, Threshold):
        _, flip = normal_form(site.tail)
        if flip.any():
            tables.append(table("flip", pack_bits(flip.astype(np.uint8))))
    run_planes = lists.run_planes
    pitch, guard = _planes(site)
    fields: Fields = {
        "shape": shape_fields(node.window, site.sources[0], site.out, node.groups),
        **{t.role: t.role for t in tables},
        "words": where.words,
        "pitch": pitch,
        "guard": guard,
        "filters": size - 1 if size == _MIXED else size,
        "larger": sizes.count(_MIXED) if size == _MIXED else 0,
        "run_planes": run_planes,
        "planes": planes,
        "bits": int(bits),
        "relu": int(isinstance(site.tail, Relu)),
    }
    kernel = Kernel(
        function=_FUNCTIONS[family],
        struct="bnn_classes_t",
        fields=fields,
        constants=tuple(tables),
        result_words=value_words(site.out),
        scratch_words=_scratch(size)
        + LANES * words_for(outputs)
        + kw
        + LANES * words_for(channels) * pitch
        + where.words
        + _ROOM,
        macs=node.macs(site.sources[0].shape),
        header="bnn_classes.h",
    )
    groups = -(-prod(site.out.shape[:2]) // LANES)
    extra = sum(
        int(runs - 1) * 2 ** (own - 1) * (run_planes + 2)
        for own, runs in zip(sizes, lists.runs, strict=True)
    )
    folded = sum(
        _folded_bits(own, run_planes + int(runs - 1).bit_length())
        for own, runs in zip(sizes, lists.runs, strict=True)
    )
    work = {
        "call": 1.0,
        "group": float(groups * (kh + kw)),
        "shift" if pitch else "block": float(groups * kh * kw * words_for(channels)),
        "set": float(groups * len(sizes)),
        "octet": float(groups * sum(count // 2 for count in quads)),
        "quad": float(groups * sum(count % 2 for count in quads)),
        "list": float(groups * len(lists.lists)),
        "fold": float(groups * (folded + extra)),
        "plane" if bits else "value": float(groups * outputs * planes),
    }
    return Option(f"{family}/{size}", kernel, work)


OFFERS: dict[type[Node], tuple[Offer, ...]] = {BinaryConv: (classes,)}
