"""Kernels for convolutions, each with the threshold or ReLU behind it."""

from __future__ import annotations

import math

import numpy as np

from bnnmcu.backend.kernels.base import (
    Candidate,
    Constant,
    Fields,
    Kernel,
    Site,
    table,
    value_words,
)
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.backend.kernels.thresholds import lane_tables, threshold_tables
from bnnmcu.graph import BinaryConv, Conv, IntegerConv, Node, Relu, StochasticConv, Threshold
from bnnmcu.packing import pack_bits, pack_planes, words_for

__all__ = ["CANDIDATES"]

#: BNN_LANE_PLANES of bnn_kernels.h.
_LANE_PLANES = 9


def _shape(site: Site, node: Conv) -> Fields:
    return shape_fields(node.window, site.sources[0], site.out, node.groups)


def _output(site: Site) -> tuple[Fields, tuple[Constant, ...]]:
    """``bnn_output_t`` and its tables."""
    tables = threshold_tables(site.tail) if isinstance(site.tail, Threshold) else ()
    relu = 1 if isinstance(site.tail, Relu) else 0
    return {**{t.role: t.role for t in tables}, "relu": relu}, tables


def _window_values(node: Conv) -> tuple[int, int]:
    """Taps of one window, and the channels of one group."""
    _, kh, kw, inputs = node.weights.shape
    return int(kh * kw), int(inputs)


def integer(site: Site) -> Kernel:
    """int16 weights, on whatever there is."""
    node = site.node
    assert isinstance(node, IntegerConv)
    taps, inputs = _window_values(node)
    kind = site.sources[0].kind
    output, tables = _output(site)
    tables = (table("weights", node.weights), *tables)
    fields: dict[str, int | str | Fields] = {"shape": _shape(site, node), "weights": "weights"}
    if node.fill is not None and node.fill.any():
        fields["fill"] = "fill"
        tables += (table("fill", node.fill),)
    return Kernel(
        function={"u8": "bnn_conv_pixels", "int": "bnn_conv_ints", "bit": "bnn_conv_signs"}[kind],
        struct="bnn_conv_integer_t",
        fields={**fields, "output": output},
        constants=tables,
        result_words=value_words(site.out),
        # A word for each integer, a byte for each pixel or sign.
        scratch_words=taps * inputs if kind == "int" else -(-taps * inputs // 4),
        macs=node.macs(site.sources[0].shape),
    )


def lanes(site: Site) -> Kernel | None:
    """One filter for each channel: lanes are channels."""
    node = site.node
    assert isinstance(node, BinaryConv)
    taps, inputs = _window_values(node)
    planes = (2 * taps).bit_length()
    if not (inputs == 1 < node.groups == len(node.weights)) or planes > _LANE_PLANES:
        return None
    tables = lane_tables(site.tail, taps, planes) if isinstance(site.tail, Threshold) else ()
    weights = node.weights.transpose(3, 1, 2, 0)[0]
    return Kernel(
        function="bnn_conv_lanes",
        struct="bnn_conv_lanes_t",
        fields={
            "shape": _shape(site, node),
            "weights": "weights",
            **{t.role: t.role for t in tables},
            "planes": planes,
            "relu": 1 if isinstance(site.tail, Relu) else 0,
        },
        constants=(table("weights", pack_bits(weights)), *tables),
        result_words=value_words(site.out),
        macs=node.macs(site.sources[0].shape),
    )


def binary(site: Site) -> Kernel:
    """Fixed or drawn signs on signs."""
    node = site.node
    assert isinstance(node, (BinaryConv, StochasticConv))
    taps, inputs = _window_values(node)
    window = taps * words_for(inputs)
    output, tables = _output(site)
    drawn = isinstance(node, StochasticConv)
    if isinstance(node, StochasticConv):
        weights = pack_planes(node.weights, node.planes)
    else:
        weights = pack_bits(node.weights)
    positions = int(math.prod(site.out.shape[:2]))
    return Kernel(
        function="bnn_conv_drawn" if drawn else "bnn_conv_bits",
        struct="bnn_conv_bits_t",
        fields={"shape": _shape(site, node), "weights": "weights", "output": output},
        constants=(table("weights", np.asarray(weights)), *tables),
        result_words=value_words(site.out),
        scratch_words=window * (positions + 1) if drawn else window,
        macs=node.macs(site.sources[0].shape),
        planes=node.planes if isinstance(node, StochasticConv) else 0,
    )


CANDIDATES: dict[type[Node], tuple[Candidate, ...]] = {
    IntegerConv: (integer,),
    BinaryConv: (lanes, binary),
    StochasticConv: (binary,),
}
