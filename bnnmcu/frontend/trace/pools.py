"""Pooling: largest, average, global, and reductions that are pools."""

from __future__ import annotations

import itertools
from typing import Any

from bnnmcu.frontend.trace.hints import KEEP_SHAPE, MEAN
from bnnmcu.frontend.trace.naming import label_of
from bnnmcu.frontend.trace.tracer import OpaqueError, Tracer, handles
from bnnmcu.frontend.trace.values import Value, layout_of
from bnnmcu.network.model import Shape
from bnnmcu.network.ops import AvgPool, MaxPool

__all__ = ["strided"]

_Pair = tuple[int, int]


def _pair(given: Any, lines: bool) -> _Pair:
    numbers = [int(n) for n in given] if isinstance(given, list | tuple) else [int(given)]
    return (1, numbers[0]) if lines else (numbers[0], numbers[-1])


def _lines(x: Value) -> bool:
    return len(x.shape) == 3


def _settings(x: Value, a: Any) -> tuple[_Pair, _Pair, _Pair]:
    """(kernel, stride, padding), vertical and horizontal."""
    kernel = _pair(a.kernel_size, _lines(x))
    stride = _pair(a.stride, _lines(x)) if a.stride else kernel
    padding = (0, _pair(a.padding, True)[1]) if _lines(x) else _pair(a.padding, False)
    return kernel, stride, padding


def _extra(sizes: _Pair, outputs: _Pair, extent: _Pair, stride: _Pair, padding: _Pair) -> _Pair:
    """What ceil_mode adds at the end: rows and columns that windows reach beyond the padding."""
    out = []
    for n, o, k, s, p in zip(sizes, outputs, extent, stride, padding, strict=True):
        out.append(max(0, (o - 1) * s + k - (n + 2 * p)))
    return out[0], out[1]


def _spatial(node: Any) -> Shape:
    example = node.meta["val"]
    example = example[0] if isinstance(example, tuple | list) else example
    layout = layout_of(tuple(example.shape))
    if layout is None:
        raise OpaqueError(f"pools to shape {tuple(example.shape)}", KEEP_SHAPE)
    return layout


def _emit_max(t: Tracer, node: Any, x: Value, kernel: _Pair, stride: _Pair,
              padding: tuple[int, int, int, int] = (0, 0, 0, 0),
              dilation: _Pair = (1, 1)) -> Value:  # fmt: skip
    op = MaxPool(t.builder.fresh(node, "max_pool"), t.regular(x), kernel, stride, padding, dilation)
    layout = _spatial(node)
    shape = (1, *layout) if len(x.shape) == 4 else (1, layout[0], layout[2])
    return Value(t.builder.emit(op, layout, node), shape, node)


def strided(t: Tracer, node: Any, x: Value, stride: _Pair) -> Value:
    """Every n-th row and column: windows of one."""
    return _emit_max(t, node, x, (1, 1), stride)


@handles("max_pool2d.default", "max_pool1d.default", "max_pool2d_with_indices.default",
         "max_pool1d_with_indices.default")  # fmt: skip
def _max_pool(t: Tracer, node: Any, a: Any) -> Any:
    x = a.input
    t.regular(x)
    kernel, stride, padding = _settings(x, a)
    dilation = _pair(a.dilation, _lines(x))
    outputs = _spatial(node)[1:]
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    more = _extra(x.layout[1:], outputs, (extent[0], extent[1]), stride, padding)
    # Padding holds nothing, so that more of it at the end is what ceil_mode means.
    sides = (*padding, padding[0] + more[0], padding[1] + more[1])
    made = _emit_max(t, node, x, kernel, stride, sides, dilation)
    return (made,) if label_of(node).endswith("indices") else made


@handles("avg_pool2d.default", "avg_pool1d.default")
def _avg_pool(t: Tracer, node: Any, a: Any) -> Value:
    x = a.input
    source = t.regular(x)
    kernel, stride, padding = _settings(x, a)
    outputs = _spatial(node)[1:]
    divisor = getattr(a, "divisor_override", None)
    more = _extra(x.layout[1:], outputs, kernel, stride, padding)
    if divisor is None and any(padding) and not a.count_include_pad:
        raise OpaqueError(
            "average pooling that divides by fewer at the border",
            "use count_include_pad=True, or no padding",
        )
    if divisor is None and any(more):
        raise OpaqueError(
            "average pooling with ceil_mode, whose last windows are smaller",
            "use ceil_mode=False, with padding or an input size that the stride divides",
        )
    sides = (*padding, padding[0] + more[0], padding[1] + more[1])
    name = t.builder.fresh(node, "avg_pool")
    op = AvgPool(name, source, kernel, stride, sides, None if divisor is None else int(divisor))
    return t.value(t.builder.emit(op, _spatial(node), node), node)


def _windows(size: int, outputs: int) -> _Pair | None:
    """(kernel, stride) of adaptive pooling on one axis, if all windows are alike."""
    starts = [i * size // outputs for i in range(outputs)]
    ends = [-(-(i + 1) * size // outputs) for i in range(outputs)]
    widths = {end - start for start, end in zip(starts, ends, strict=True)}
    steps = {b - a for a, b in itertools.pairwise(starts)} or {size}
    return (widths.pop(), steps.pop()) if len(widths) == len(steps) == 1 else None


@handles("adaptive_avg_pool2d.default", "adaptive_avg_pool1d.default",
         "_adaptive_avg_pool2d.default", "adaptive_max_pool2d.default",
         "adaptive_max_pool1d.default")  # fmt: skip
def _adaptive(t: Tracer, node: Any, a: Any) -> Any:
    x = a.input
    source = t.regular(x)
    layout = _spatial(node)
    both = [_windows(n, o) for n, o in zip(x.layout[1:], layout[1:], strict=True)]
    rows, cols = both
    if rows is None or cols is None:
        raise OpaqueError(
            f"adaptive pooling from {x.layout[1:]} to {layout[1:]}, with windows of several sizes",
            "pool to size 1, or to a size that divides the input's",
        )
    kernel, stride = (rows[0], cols[0]), (rows[1], cols[1])
    if "max" in label_of(node):
        return (_emit_max(t, node, x, kernel, stride),)
    op = AvgPool(t.builder.fresh(node, "avg_pool"), source, kernel, stride)
    return t.value(t.builder.emit(op, layout, node), node)


def _reduced(x: Value, dims: Any) -> _Pair:
    """Kernel that covers the reduced axes.

    Raises:
        OpaqueError: they are not height and width.
    """
    given = [dims] if isinstance(dims, int) else list(dims or [])
    axes = {d % len(x.shape) for d in given}
    merged = len(x.shape) == 3 and x.axes is None and x.shape[2] == x.layout[1] * x.layout[2]
    if merged and axes == {2}:
        return x.layout[1], x.layout[2]
    if not x.regular or x.order is not None or not axes or not axes <= {2, 3}:
        what = "over the batch" if 0 in axes else "over channels" if 1 in axes else "over all"
        raise OpaqueError(f"reduces an activation {what}", MEAN)
    if len(x.shape) == 3:
        return 1, x.layout[2]
    height, width = x.layout[1:]
    return (height if 2 in axes else 1), (width if 3 in axes else 1)


def _after(node: Any, x: Value, kernel: _Pair) -> tuple[Shape, tuple[int, ...]]:
    """(layout, torch shape) after a reduction; removed axes must leave the layout alone."""
    example = node.meta["val"]
    example = example[0] if isinstance(example, tuple | list) else example
    shape = tuple(example.shape)
    layout = (x.layout[0], x.layout[1] // kernel[0], x.layout[2] // kernel[1])
    if layout_of(shape) != layout:
        raise OpaqueError("reduces over width before height", "reduce over both: x.mean((2, 3))")
    return layout, shape


@handles("mean.dim", "sum.dim_IntList")
def _mean(t: Tracer, node: Any, a: Any) -> Value:
    x = a.input
    kernel = _reduced(x, a.dim)
    layout, shape = _after(node, x, kernel)
    divisor = 1 if label_of(node) == "sum" else None
    op = AvgPool(t.builder.fresh(node, label_of(node)), t.name(x), kernel, kernel, divisor=divisor)
    return Value(t.builder.emit(op, layout, node), shape, node)


@handles("mean.default", "sum.default")
def _total(t: Tracer, node: Any, a: Any) -> Value:
    raise OpaqueError("reduces an activation over everything", MEAN)


@handles("amax.default", "max.dim")
def _amax(t: Tracer, node: Any, a: Any) -> Any:
    x = a.input
    kernel = _reduced(x, a.dim)
    layout, shape = _after(node, x, kernel)
    op = MaxPool(t.builder.fresh(node, "max"), t.name(x), kernel, kernel)
    made = Value(t.builder.emit(op, layout, node), shape, node)
    return (made,) if label_of(node) == "max" else made
