"""The fast kernel for drawn sign convolutions with one output position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bnnmcu.backend.kernels.base import Offer, Option, Site
from bnnmcu.backend.kernels.convs import binary
from bnnmcu.graph import Node, StochasticConv
from bnnmcu.packing import words_for

__all__ = ["OFFERS"]


def single(site: Site) -> Iterator[Option]:
    """One output position, no groups, nothing in the padding."""
    node = site.node
    assert isinstance(node, StochasticConv)
    if site.out.shape[:2] != (1, 1) or node.groups != 1:
        return
    outputs, kh, kw, inputs = node.weights.shape
    rows, cols = node.window.taps_inside(site.sources[0].shape, node.name)
    if (rows[0], cols[0]) != (kh, kw):
        return
    size = kh * kw * words_for(inputs)
    kernel = replace(
        binary(site),
        function="bnn_conv_drawn_single",
        scratch_words=2 * size + size // 16,
        header="bnn_drawn.h",
    )
    words = float(outputs * size)
    work = {"call": 1.0, "word": words, "sum": float(outputs), "draw": words * node.planes}
    yield Option("drawn-single", kernel, work)


OFFERS: dict[type[Node], tuple[Offer, ...]] = {StochasticConv: (single,)}
