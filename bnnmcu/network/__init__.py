"""The float network: what a frontend reads, before anything is integer.

A :class:`Network` keeps torch's conventions: shapes are (C, H, W), weights are
(O, I / groups, KH, KW), flattening runs over (C, H, W).  One-dimensional
signals (C, L) are (C, 1, L); vectors are (F, 1, 1).  Frontends produce it,
passes (:mod:`bnnmcu.passes`) rewrite it and turn it into an integer graph, and
:mod:`bnnmcu.network.execute` computes it in float64, to measure how far the
integer network is from it.
"""

from bnnmcu.network.model import Network, shapes
from bnnmcu.network.ops import (
    Add,
    Affine,
    AvgPool,
    Clamp,
    Conv,
    Decide,
    Flatten,
    Linear,
    MaxPool,
    Op,
    Pad,
    PRelu,
    Sign,
)

__all__ = [
    "Add",
    "Affine",
    "AvgPool",
    "Clamp",
    "Conv",
    "Decide",
    "Flatten",
    "Linear",
    "MaxPool",
    "Network",
    "Op",
    "PRelu",
    "Pad",
    "Sign",
    "shapes",
]
