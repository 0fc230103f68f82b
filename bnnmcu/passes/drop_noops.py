"""Removes what changes nothing: unread values, identities, pools of one pixel."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from bnnmcu.network import ops
from bnnmcu.network.ops import Op
from bnnmcu.passes.base import Rewrite, View

__all__ = ["DropNoops"]


def _unread(op: Op, view: View) -> bool:
    return not view.readers(op.name) and op.name != view.network.ops[-1].name


def _identity(op: Op, view: View) -> bool:
    if isinstance(op, ops.Affine):
        return bool(np.all(op.scale == 1) and np.all(op.offset == 0))
    if isinstance(op, ops.PRelu):
        return bool(np.all(op.slope == 1))
    if isinstance(op, ops.Clamp):
        return op.low == -math.inf and op.high == math.inf
    if isinstance(op, ops.Flatten):
        return view.shapes[op.source][1:] == (1, 1)
    if isinstance(op, ops.MaxPool | ops.AvgPool):
        plain = op.kernel == (1, 1) and op.stride == (1, 1)
        divides = isinstance(op, ops.AvgPool) and op.divisor not in (None, 1)
        return plain and not any(op.padding) and not divides
    return False


class DropNoops:
    """Removes operations without effect."""

    name: ClassVar[str] = "drop-noops"
    text: ClassVar[str] = "remove unread values, identities and flattening of vectors"

    @staticmethod
    def match(op: Op, view: View) -> bool:
        if _unread(op, view):
            return True
        if not _identity(op, view):
            return False
        # The last one keeps its name, under which the logits are known.
        return op.name != view.network.ops[-1].name or not isinstance(op, ops.Affine)

    @staticmethod
    def transform(op: Op, view: View) -> Rewrite:
        if op.name == view.network.ops[-1].name:
            channels = view.shapes[op.name][0]
            one = ops.Affine(op.name, op.source, np.ones(channels), np.zeros(channels))
            return Rewrite({op.name: (one,)}, {})
        return Rewrite({op.name: ()}, {op.name: op.source})
