"""Kernels that give logits: two words each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.kernels.base import Candidate, Fields, Kernel, Offer, Option, Site, table
from bnnmcu.graph import INT32_MAX, Dense, Node, TensorSpec

__all__ = ["CANDIDATES", "OFFERS", "copy_logits", "logit_bytes", "pair_weights"]

#: Inputs and outputs to which bnn_dense_in_pairs fills up.
_INPUTS, _OUTPUTS = 8, 2
_INT16_MAX = (1 << 15) - 1


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


def pair_weights(weights: npt.NDArray[np.int16]) -> npt.NDArray[np.uint32]:
    """Weights (O, inputs) in the order of ``bnn_dense_in_pairs``: [O / 2][pairs / 2][2][2]."""
    outputs, inputs = weights.shape
    filled = np.zeros(
        (outputs + outputs % _OUTPUTS, -(-inputs // _INPUTS) * _INPUTS), dtype=np.uint32
    )
    filled[:outputs, :inputs] = weights.view(np.uint16)
    pairs = filled[:, ::2] | filled[:, 1::2] << np.uint32(16)
    ordered: npt.NDArray[np.uint32] = pairs.reshape(-1, _OUTPUTS, pairs.shape[1] // 2, 2).transpose(
        0, 2, 1, 3
    )
    return ordered


def in_pairs(site: Site) -> Iterator[Option]:
    """Integers that fit 16 bits: two products an instruction."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, Dense)
    if source.kind != "int" or source.low < -_INT16_MAX - 1 or source.high > _INT16_MAX:
        return
    outputs = len(node.weights)
    weights = pair_weights(np.ascontiguousarray(node.weights).reshape(outputs, -1))
    tables = [table("weights", weights)]
    if node.bias is not None and node.bias.any():
        tables.append(table("bias", node.bias))
    inputs = source.size
    fields: Fields = {"inputs": inputs, "outputs": outputs, **{t.role: t.role for t in tables}}
    blocks, pairs = weights.shape[0], 2 * weights.shape[1]
    kernel = Kernel(
        function="bnn_dense_in_pairs",
        struct="bnn_dense_pairs_t",
        fields=fields,
        constants=tuple(tables),
        result_words=2 * site.out.size,
        scratch_words=pairs,
        macs=int(node.weights.size),
        header="bnn_dense.h",
    )
    work = {"call": 1.0, "input": float(inputs), "pair": float(blocks * pairs), "block": blocks}
    yield Option("dense-pairs", kernel, work)


CANDIDATES: dict[type[Node], tuple[Candidate, ...]] = {Dense: (dense,)}

OFFERS: dict[type[Node], tuple[Offer, ...]] = {Dense: (in_pairs,)}
