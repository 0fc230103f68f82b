"""Batch norms, biases and scales in a row become one."""

from __future__ import annotations

from typing import ClassVar

from bnnmcu.network import ops
from bnnmcu.network.ops import Op
from bnnmcu.passes.base import Rewrite, View

__all__ = ["MergeLines"]


class MergeLines:
    """Merges an affine operation with the one before it."""

    name: ClassVar[str] = "merge-lines"
    text: ClassVar[str] = "batch norms, biases and scales in a row become one affine operation"

    @staticmethod
    def match(op: Op, view: View) -> bool:
        return isinstance(op, ops.Affine) and isinstance(view.producer(op), ops.Affine)

    @staticmethod
    def transform(op: Op, view: View) -> Rewrite:
        before = view.producer(op)
        assert isinstance(op, ops.Affine)
        assert isinstance(before, ops.Affine)
        merged = ops.Affine(
            op.name, before.source, op.scale * before.scale, op.scale * before.offset + op.offset
        )
        return Rewrite({before.name: (), op.name: (merged,)}, {})
