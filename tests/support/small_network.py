"""A small float network with known weights, and how to damage one of its parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnnmcu.network import Affine, Conv, Flatten, Linear, Network, Sign

__all__ = ["IMAGES", "changed", "small_network"]

#: Six images that it takes.
IMAGES = np.random.default_rng(5).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


def small_network(*, drawn: bool = False) -> Network:
    """Real, binary and dense layers; one channel of the first is constant."""
    rng = np.random.default_rng(3)
    second = rng.uniform(size=(5, 6, 3, 3)) if drawn else rng.choice([-1.0, 1.0], (5, 6, 3, 3))
    offset = rng.normal(size=6)
    offset[2] = 1000.0
    return Network(
        "small",
        (1, 8, 8),
        (
            Conv("first", "input", rng.normal(size=(6, 1, 3, 3)), padding=(1, 1, 1, 1)),
            Affine("norm1", "first", rng.uniform(0.5, 2, 6), offset),
            Sign("sign1", "norm1"),
            Conv("second", "sign1", second, drawn=drawn),
            Affine(
                "norm2", "second", rng.uniform(0.5, 2, 5) * [1, -1, 1, 1, -1], rng.normal(size=5)
            ),
            Sign("sign2", "norm2"),
            Flatten("flat", "sign2"),
            Linear("head", "flat", rng.normal(size=(4, 180))),
        ),
        np.full(1, 1 / 255),
        np.zeros(1),
    )


def changed(network: Network, layer: str, field: str, channel: int, factor: float) -> Network:
    """With the parameters of one channel of a layer multiplied."""
    ops = []
    for op in network.ops:
        if op.name == layer:
            values = getattr(op, field).copy()
            values[channel] *= factor
            op = replace(op, **{field: values})
        ops.append(op)
    return replace(network, ops=tuple(ops))
