"""Linear layers become convolutions whose kernel covers the whole input."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from bnnmcu.network import ops
from bnnmcu.network.ops import Floats, Op
from bnnmcu.passes.base import Rewrite, View

__all__ = ["LinearToConv", "MoveFlatten"]


def _per_channel(values: Floats, shape: tuple[int, int, int]) -> Floats | None:
    """Values of flattened maps (C * H * W,) as one for each channel, if they agree in it."""
    maps = values.reshape(shape[0], -1)
    if not np.array_equal(maps, np.broadcast_to(maps[:, :1], maps.shape)):
        return None
    return maps[:, 0].copy()


def _unflattened(op: Op, shape: tuple[int, int, int]) -> Op | None:
    """The operation on maps that equals it on flattened maps."""
    if isinstance(op, ops.Sign | ops.Clamp | ops.Flatten):
        return op
    if isinstance(op, ops.Affine):
        scale, offset = _per_channel(op.scale, shape), _per_channel(op.offset, shape)
        if scale is not None and offset is not None:
            return replace(op, scale=scale, offset=offset)
    if isinstance(op, ops.PRelu):
        slope = _per_channel(op.slope, shape)
        return None if slope is None else replace(op, slope=slope)
    return None


class MoveFlatten:
    """Moves flattening behind operations on single values, towards the linear layer."""

    name: ClassVar[str] = "move-flatten"
    text: ClassVar[str] = "flatten behind signs, batch norms and activations"

    @staticmethod
    def match(op: Op, view: View) -> bool:
        source = view.by_name.get(op.source)
        if not isinstance(source, ops.Flatten) or isinstance(op, ops.Linear):
            return False
        if op.name == view.network.ops[-1].name:
            # The logits are flat.
            return False
        return _unflattened(op, view.shapes[source.source]) is not None

    @staticmethod
    def transform(op: Op, view: View) -> Rewrite:
        flatten = view.by_name[op.source]
        moved = _unflattened(op, view.shapes[flatten.source])
        assert moved is not None
        if isinstance(op, ops.Flatten):
            return Rewrite({op.name: ()}, {op.name: op.source})
        # The operation keeps its name; what read it now reads the flattening behind it.
        behind, marker = view.fresh(op.name, ":flat"), view.fresh(op.name, ":moved")
        first = replace(moved, source=flatten.source)
        return Rewrite(
            {op.name: (first, ops.Flatten(behind, marker))},
            {op.name: behind, marker: op.name},
        )


def _lines_on_flat(op: ops.Linear, view: View) -> tuple[list[ops.Affine], ops.Flatten | None]:
    """The affine operations between a flattening and a linear layer, last first, and the former.

    Nothing where something else stands between, or weights are drawn.
    """
    lines: list[ops.Affine] = []
    before = view.by_name.get(op.source)
    while isinstance(before, ops.Affine) and not op.drawn:
        lines.append(before)
        before = view.by_name.get(before.source)
    return (lines, before) if isinstance(before, ops.Flatten) else ([], None)


class LinearToConv:
    """Flatten and linear as one convolution; affine parameters per feature go into it."""

    name: ClassVar[str] = "linear-to-conv"
    text: ClassVar[str] = "linear layers become convolutions over their whole input"

    @staticmethod
    def match(op: Op, view: View) -> bool:
        return isinstance(op, ops.Linear)

    @staticmethod
    def transform(op: Op, view: View) -> Rewrite:
        assert isinstance(op, ops.Linear)
        weights, bias, source = op.weights, op.bias, op.source
        lines, before = _lines_on_flat(op, view)
        for line in lines:
            # One factor for each feature: only a linear layer can take that in.
            extra = weights @ line.offset
            bias = extra if bias is None else bias + extra
            weights = weights * line.scale
        if before is not None:
            source = before.source
        shape = view.shapes[source]
        conv = ops.Conv(
            op.name, source, weights.reshape(len(weights), *shape), bias, drawn=op.drawn
        )
        return Rewrite({op.name: (conv,)}, {})
