"""Padding of its own becomes part of the convolution or pool behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.network import ops
from bnnmcu.network.ops import Op
from bnnmcu.passes.base import Rewrite, View

__all__ = ["FoldPadding"]


def _keeps_zero(op: Op) -> bool:
    """Zeros in, zeros out: padding may change places with it."""
    if isinstance(op, ops.Sign):
        return op.zero == 0
    return isinstance(op, ops.PRelu) or (isinstance(op, ops.Clamp) and op.low <= 0 <= op.high)


class FoldPadding:
    """Moves zero padding behind what keeps zeros, and into what pads."""

    name: ClassVar[str] = "fold-padding"
    text: ClassVar[str] = "zero padding becomes part of the convolution or average pool behind it"

    @staticmethod
    def match(op: Op, view: View) -> bool:
        return isinstance(op, ops.Pad)

    @staticmethod
    def transform(op: Op, view: View) -> Rewrite:
        assert isinstance(op, ops.Pad)
        readers = view.readers(op.name)
        if not any(op.padding):
            channels = view.shapes[op.name][0]
            one = ops.Affine(op.name, op.source, np.ones(channels), np.zeros(channels))
            return Rewrite({op.name: (one,)}, {})
        if not readers:
            return Rewrite({op.name: ()}, {})
        if op.value != 0:
            raise UnsupportedModelError(
                f"pads with {op.value:g}; only zeros can stand around an image",
                where=op.name,
                hint="pad with zeros: they are computed exactly, as neither +1 nor -1",
            )
        if len(readers) == 1 and _keeps_zero(readers[0]):
            return _swap(op, readers[0], view.fresh(readers[0].name, ":inner"))
        folded: dict[str, tuple[Op, ...]] = {op.name: ()}
        for reader in readers:
            if not isinstance(reader, ops.Conv | ops.AvgPool | ops.Pad):
                raise UnsupportedModelError(
                    f"zero padding before {type(reader).__name__.lower()} cannot be expressed",
                    where=op.name,
                    hint="pad right before a convolution: Conv2d(..., padding=...)",
                )
            total = tuple(a + b for a, b in zip(op.padding, reader.padding, strict=True))
            folded[reader.name] = (replace(reader, padding=total),)  # type: ignore[arg-type]
        return Rewrite(folded, {op.name: op.source})


def _swap(pad: ops.Pad, reader: Op, name: str) -> Rewrite:
    """``pad, reader`` becomes ``reader, pad``; each keeps its name's meaning for others."""
    # The pad takes over the reader's name, so that whoever reads it stays as it is.
    inner = replace(reader, name=name, source=pad.source)
    outer = replace(pad, name=reader.name, source=inner.name)
    return Rewrite({pad.name: (), reader.name: (inner, outer)}, {})
