"""What a graph node can be while the graph is walked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.frontend.trace.forms import Form
from bnnmcu.network.model import Shape

__all__ = ["Value", "layout_of"]


def layout_of(shape: tuple[int, ...]) -> Shape | None:
    """(C, H, W) of a torch shape (1, C), (1, C, L), (1, C, H, W) or (C,); else None."""
    if len(shape) == 1:
        return shape[0], 1, 1
    if not 2 <= len(shape) <= 4 or shape[0] != 1:
        return None
    if len(shape) == 3:
        return shape[1], 1, shape[2]
    return (shape[1], 1, 1) if len(shape) == 2 else (shape[1], shape[2], shape[3])


@dataclass(frozen=True, eq=False)
class Value:
    """An activation.

    Attributes:
        form: what it is; its layout (C, H, W) is the network's.
        shape: torch's shape.
        node: the graph node that has this value.
        order: torch's feature i is the network's feature ``order[i]``; None if equal.
        axes: pending permutation: torch's axis i is axis ``axes[i]`` of the layout's shape.
        inner: what a final softmax or argmax was taken of, if this is one.
        note: what is said if that is left out.
    """

    form: Form
    shape: tuple[int, ...]
    node: Any
    order: npt.NDArray[np.int64] | None = None
    axes: tuple[int, ...] | None = None
    inner: Value | None = None
    note: str = ""

    @property
    def layout(self) -> Shape:
        return self.form.layout

    @property
    def regular(self) -> bool:
        """Whether torch's axes are the network's."""
        return self.axes is None and layout_of(self.shape) == self.layout

    def with_form(self, form: Form, node: Any) -> Value:
        """Another value of the same shape."""
        return replace(self, form=form, node=node, inner=None, note="")
