"""Shapes: what flattens or keeps, pads, and what a network ends with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from bnnmcu.frontend.trace.draws import Uniform
from bnnmcu.frontend.trace.hints import KEEP_SHAPE, explain
from bnnmcu.frontend.trace.naming import label_of
from bnnmcu.frontend.trace.pools import strided
from bnnmcu.frontend.trace.tracer import OpaqueError, Tracer, handles
from bnnmcu.frontend.trace.values import Value, layout_of
from bnnmcu.network.ops import Flatten, Pad

__all__: list[str] = []


def _reshape(t: Tracer, node: Any, x: Value) -> Value:
    """The same elements, in the same order, in another shape."""
    shape = tuple(int(n) for n in node.meta["val"].shape)
    channels, height, width = x.layout
    if shape == x.shape:
        return x
    flat = len(shape) <= 2 and shape[-1] == math.prod(shape)
    order = x.order
    if x.axes is not None:
        moved = _moved(x)
        # Axes of length one move nothing.
        if not np.array_equal(moved, np.arange(moved.size)):
            if not flat:
                raise OpaqueError(
                    f"reshapes a permuted activation to {shape}", KEEP_SHAPE, weak=True
                )
            order = moved
    if flat:
        if (height, width) == (1, 1):
            return Value(x.form, shape, x.node, order=order)
        op = Flatten(t.builder.fresh(node, "flatten"), t.builder.name(x.form, x.node))
        layout = (channels * height * width, 1, 1)
        return Value(t.builder.emit(op, layout, node), shape, node, order=order)
    long = [n for n in shape if n != 1] == [n for n in x.layout if n != 1]
    if order is None and (long or shape == (1, channels, height * width)):
        # Axes of length one come and go.  Of a merged view, averages and flattening are known.
        return Value(x.form, shape, x.node)
    raise OpaqueError(
        f"reshapes an activation of shape {x.shape} to {shape}", KEEP_SHAPE, weak=True
    )


def _moved(x: Value) -> Any:
    """The network's flat index of each element, in torch's order."""
    assert x.axes is not None
    back = np.argsort(x.axes)
    before = tuple(x.shape[i] for i in back)
    return np.arange(math.prod(before)).reshape(before).transpose(x.axes).reshape(-1)


@handles("view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints",
         "squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default",
         "view_copy.default", "unflatten.int")  # fmt: skip
def _view(t: Tracer, node: Any, a: Any) -> Value:
    return _reshape(t, node, a.input)


@handles("expand.default", "expand_as.default")
def _expand(t: Tracer, node: Any, a: Any) -> Value:
    if tuple(node.meta["val"].shape) != a.input.shape:
        raise OpaqueError("repeats an activation", explain("aten.repeat.default", [])[1])
    value: Value = a.input
    return value


@handles("permute.default", "transpose.int", "t.default", "numpy_T.default", "adjoint.default",
         "mT.default")  # fmt: skip
def _permute(t: Tracer, node: Any, a: Any) -> Value:
    x = a.input
    rank = len(x.shape)
    axes = list(range(rank))
    if hasattr(a, "dims"):
        axes = [d % rank for d in a.dims]
    elif hasattr(a, "dim0"):
        one, other = a.dim0 % rank, a.dim1 % rank
        axes[one], axes[other] = other, one
    elif rank >= 2:
        axes = [*axes[:-2], axes[-1], axes[-2]]
    before = x.axes or tuple(range(rank))
    total = tuple(before[i] for i in axes)
    shape = tuple(int(n) for n in node.meta["val"].shape)
    if x.axes is None and layout_of(x.shape) != x.layout:
        raise OpaqueError("permutes a reshaped activation", KEEP_SHAPE, weak=True)
    if total == tuple(range(rank)):
        return Value(x.form, shape, x.node, order=x.order)
    if x.order is not None or axes[0] != 0 or rank > 4:
        raise OpaqueError(
            f"moves the batch or the features of an activation to {axes}", KEEP_SHAPE, weak=True
        )
    return Value(x.form, shape, x.node, axes=total)


@handles("slice.Tensor")
def _slice(t: Tracer, node: Any, a: Any) -> Value:
    x = a.input
    axis = a.dim % len(x.shape)
    size = x.shape[axis]
    start, end = a.start or 0, size if a.end is None else a.end
    start, end = (max(0, n + size) if n < 0 else n for n in (start, end))
    if start == 0 and end >= size and a.step == 1:
        return Value(x.form, x.shape, x.node, order=x.order, axes=x.axes)
    if start == 0 and end >= size and axis >= 2 and x.regular:
        return strided(t, node, x, (a.step, 1) if axis == 2 and len(x.shape) == 4 else (1, a.step))
    if axis == 1:
        raise OpaqueError("takes some channels of an activation", explain("aten.split.x", [])[1])
    raise OpaqueError(
        "cuts a piece out of an activation", "use a convolution or pooling with stride"
    )


@handles("pad.default", "constant_pad_nd.default")
def _pad(t: Tracer, node: Any, a: Any) -> Value:
    x = a.input
    mode = getattr(a, "mode", "constant")
    if mode != "constant":
        raise OpaqueError(
            f"padding with mode {mode!r}",
            "use padding_mode='zeros', or F.pad with mode 'constant'",
        )
    source = t.regular(x)
    sides = [int(n) for n in a.pad] + [0] * (2 * len(x.shape) - len(a.pad))
    if len(x.shape) == 3:
        sides = [*sides[:2], 0, 0, *sides[2:]]
    left, right, top, bottom, *others = sides
    if any(others):
        raise OpaqueError(
            "pads the channels of an activation",
            "use a 1x1 convolution in the shortcut, which makes the channels it needs",
        )
    if min(left, right, top, bottom) < 0:
        raise OpaqueError("crops an activation", "use a convolution or pooling with stride")
    if not any(sides):
        same: Value = x
        return same
    op = Pad(t.builder.fresh(node, "pad"), source, (top, left, bottom, right), float(a.value or 0))
    layout = layout_of(tuple(node.meta["val"].shape))
    assert layout is not None
    return t.value(t.builder.emit(op, layout, node), node)


@handles("zeros_like.default", "ones_like.default", "full_like.default", "new_zeros.default",
         "new_ones.default", "new_full.default", "rand_like.default", "empty_like.default",
         "new_empty.default")  # fmt: skip
def _like(t: Tracer, node: Any, a: Any) -> Any:
    """Constants of an activation's shape."""
    example, kind = node.meta["val"], label_of(node)
    if kind == "rand_like":
        return Uniform(torch.ones(example.shape), torch.zeros(example.shape))
    fill = 1 if "ones" in kind else getattr(a, "fill_value", 0)
    return torch.full(tuple(example.shape), fill, dtype=example.dtype)


@handles("softmax.int", "log_softmax.int", "_softmax.default", "_log_softmax.default",
         elementwise=True)  # fmt: skip
def _softmax(t: Tracer, node: Any, a: Any) -> Value:
    if a.dim % len(a.input.shape) != min(1, len(a.input.shape) - 1):
        raise OpaqueError("a softmax that is not over the classes", "use dim=1, or leave it out")
    raise OpaqueError(
        f"{label_of(node)} in the middle of the network",
        "a softmax may only be the last layer, where it is left out",
        inner=a.input,
        note=f"the final {label_of(node)} is left out: outputs are logits, of the same order",
    )


@handles("argmax.default", elementwise=True)
def _argmax(t: Tracer, node: Any, a: Any) -> Value:
    raise OpaqueError(
        "an argmax in the middle of the network",
        "an argmax may only be the last layer, where it is left out",
        inner=a.input,
        note="the final argmax is left out: outputs are logits, and their largest is the class",
    )
