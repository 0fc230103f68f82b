"""What stands between a sum and a sign becomes part of the decision."""

from __future__ import annotations

from typing import ClassVar

from bnnmcu.network import ops
from bnnmcu.network.ops import Op
from bnnmcu.passes.base import Rewrite, View

__all__ = ["FoldSigns"]


class FoldSigns:
    """Takes batch norm, ReLU, hardtanh, PReLU and scales before a sign into it.

    Quantisation turns the whole into one integer comparison a channel.
    """

    name: ClassVar[str] = "fold-signs"
    text: ClassVar[str] = "batch norm, bias, scale and activation before a sign join it"

    @staticmethod
    def match(op: Op, view: View) -> bool:
        if isinstance(op, ops.Sign):
            return True
        before = view.producer(op)
        return isinstance(op, ops.Decide) and isinstance(before, ops.Affine | ops.Clamp | ops.PRelu)

    @staticmethod
    def transform(op: Op, view: View) -> Rewrite:
        if isinstance(op, ops.Sign):
            return Rewrite({op.name: (ops.Decide(op.name, op.source, (), op.zero),)}, {})
        assert isinstance(op, ops.Decide)
        before = view.producer(op)
        assert before is not None
        decide = ops.Decide(op.name, before.source, (before, *op.steps), op.zero)
        return Rewrite({before.name: (), op.name: (decide,)}, {})
