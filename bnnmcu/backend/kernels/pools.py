"""Kernels for pools."""

from __future__ import annotations

from bnnmcu.backend.kernels.base import Candidate, Kernel, Site, table, value_words
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.backend.kernels.values import KINDS
from bnnmcu.graph import MaxPool, Node, SumPool
from bnnmcu.packing import pack_bits

__all__ = ["CANDIDATES"]


def max_pool(site: Site) -> Kernel:
    """The largest, in some channels the smallest."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, MaxPool)
    chosen = node.minimum is not None and bool(node.minimum.any())
    tables = (table("minimum", pack_bits(node.minimum)),) if node.minimum is not None else ()
    tables = tables if chosen else ()
    return Kernel(
        function=f"bnn_max_pool_{KINDS[source.kind]}",
        struct="bnn_pool_t",
        fields={
            "shape": shape_fields(node.window, source, site.out),
            **{t.role: t.role for t in tables},
        },
        constants=tables,
        result_words=value_words(site.out),
    )


def sum_pool(site: Site) -> Kernel:
    """The sum of each window."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, SumPool)
    return Kernel(
        function=f"bnn_sum_pool_{KINDS[source.kind]}",
        struct="bnn_pool_t",
        fields={"shape": shape_fields(node.window, source, site.out)},
        result_words=value_words(site.out),
    )


CANDIDATES: dict[type[Node], tuple[Candidate, ...]] = {
    MaxPool: (max_pool,),
    SumPool: (sum_pool,),
}
