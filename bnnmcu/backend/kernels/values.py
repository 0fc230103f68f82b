"""Kernels for what is done to single values."""

from __future__ import annotations

from bnnmcu.backend.kernels.base import Candidate, Fields, Kernel, Site, table, value_words
from bnnmcu.backend.kernels.thresholds import threshold_tables
from bnnmcu.graph import INT32_MAX, Add, Affine, Clamp, Node, Relu, TensorSpec, Threshold

__all__ = ["CANDIDATES", "KINDS"]

#: How the functions call the kinds of values that they read.
KINDS = {"u8": "pixels", "int": "ints", "bit": "bits"}


def _positions(spec: TensorSpec) -> Fields:
    height, width, channels = spec.shape
    return {"positions": height * width, "channels": channels}


def threshold(site: Site) -> Kernel:
    """Pixels or integers to bits."""
    assert isinstance(site.node, Threshold)
    tables = threshold_tables(site.node)
    return Kernel(
        function=f"bnn_threshold_{KINDS[site.sources[0].kind]}",
        struct="bnn_threshold_t",
        fields={**_positions(site.out), **{t.role: t.role for t in tables}},
        constants=tables,
        result_words=value_words(site.out),
    )


def affine(site: Site) -> Kernel:
    """Anything to integers."""
    node = site.node
    assert isinstance(node, Affine)
    tables = [table("mul", node.mul)]
    if node.neg is not None:
        tables.append(table("neg", node.neg))
    tables.append(table("add", node.add))
    return Kernel(
        function=f"bnn_affine_{KINDS[site.sources[0].kind]}",
        struct="bnn_affine_t",
        fields={**_positions(site.out), "shift": node.shift, **{t.role: t.role for t in tables}},
        constants=tuple(tables),
        result_words=value_words(site.out),
        in_place=True,
    )


def clamp(site: Site) -> Kernel:
    """A clamp, or a ReLU as one."""
    node = site.node
    low, high = (node.low, node.high) if isinstance(node, Clamp) else (0, INT32_MAX)
    return Kernel(
        function="bnn_clamp",
        struct="bnn_clamp_t",
        fields={"count": site.out.size, "low": low, "high": high},
        result_words=value_words(site.out),
        in_place=True,
    )


def add(site: Site) -> Kernel:
    """The sum of two values."""
    return Kernel(
        function="bnn_add", count=site.out.size, result_words=value_words(site.out), in_place=True
    )


CANDIDATES: dict[type[Node], tuple[Candidate, ...]] = {
    Threshold: (threshold,),
    Affine: (affine,),
    Clamp: (clamp,),
    Relu: (clamp,),
    Add: (add,),
}
