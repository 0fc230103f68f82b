"""Kernels that give logits: two words each."""

from __future__ import annotations

from bnnmcu.backend.kernels.base import Candidate, Fields, Kernel, Site, table
from bnnmcu.graph import INT32_MAX, Dense, Node, TensorSpec

__all__ = ["CANDIDATES", "copy_logits", "logit_bytes"]


def logit_bytes(spec: TensorSpec) -> int:
    """4 or 8: the width that holds every logit."""
    return 4 if max(-spec.low, spec.high) <= INT32_MAX else 8


def dense(site: Site) -> Kernel:
    """A dense layer on whatever there is."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, Dense)
    # Of pixels and bits there are few, or few at a time: their sums are wide at little cost.
    names = {
        "u8": "bnn_dense_pixels",
        "bit": "bnn_dense_bits",
        "int": f"bnn_dense_i{8 * logit_bytes(site.out)}",
    }
    tables = [table("weights", node.weights)]
    if node.bias is not None and node.bias.any():
        tables.append(table("bias", node.bias))
    height, width, channels = source.shape
    fields: Fields = {
        "positions": height * width,
        "channels": channels,
        "outputs": len(node.weights),
        **{t.role: t.role for t in tables},
    }
    return Kernel(
        function=names[source.kind],
        struct="bnn_dense_t",
        fields=fields,
        constants=tuple(tables),
        result_words=2 * site.out.size,
        macs=int(node.weights.size),
    )


def copy_logits(spec: TensorSpec) -> Kernel:
    """Logits of a network that does not end in a dense layer."""
    return Kernel(function="bnn_logits", count=spec.size, result_words=2 * spec.size)


CANDIDATES: dict[type[Node], tuple[Candidate, ...]] = {Dense: (dense,)}
