"""Operators with weights or windows: convolution, dense layers, batch norm, pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bnnmcu.frontend.qonnx.builder import Builder, Tensor, Value
from bnnmcu.frontend.qonnx.fold import axes_of
from bnnmcu.frontend.qonnx.nodes import Node
from bnnmcu.network import AvgPool, Conv, Linear, MaxPool, Pad
from bnnmcu.network.ops import Padding

__all__ = ["HANDLERS"]

_Pair = tuple[int, int]
_MAX_SIDE = 65_535


def _pair(node: Node, name: str, axes: int, default: int | None = 1) -> _Pair:
    """An attribute with one number per spatial axis; a signal's height is 1."""
    values = node.integers(name)
    if values is None:
        if default is None:
            raise node.broken(f"attribute {name} is missing")
        values = (default,) * axes
    if len(values) != axes or not all(1 <= n <= _MAX_SIDE for n in values):
        raise node.broken(f"attribute {name} is {list(values)[:5]} for {axes} axes")
    return (values[0], values[1]) if axes == 2 else (1, values[0])


def _four(node: Node, values: tuple[int, ...], axes: int) -> Padding:
    """ONNX's begins and ends as top, left, bottom, right."""
    if len(values) != 2 * axes or not all(0 <= n <= _MAX_SIDE for n in values):
        raise node.broken(f"padding {list(values)[:9]} for {axes} axes")
    if axes == 1:
        return 0, values[0], 0, values[1]
    return values[0], values[1], values[2], values[3]


def _padding(
    node: Node, axes: int, size: _Pair, kernel: _Pair, stride: _Pair, dilation: _Pair
) -> Padding:
    """Padding from ``pads``, or worked out from ``auto_pad``."""
    auto = node.text("auto_pad", "NOTSET")
    pads = node.integers("pads")
    if auto in ("NOTSET", "VALID"):
        return (0, 0, 0, 0) if pads is None or auto == "VALID" else _four(node, pads, axes)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.broken(f"auto_pad {auto!r:.40}")
    sides = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        # As many windows as strides fit; what that lacks is shared, the odd one to one end.
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small = total // 2
        sides.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _conv(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    shape = b.geometry(node, source)
    weights = b.needed(node, 1, "the weight")
    bias = b.constant(node, 2, "the bias")
    axes = len(source.dims) - 1
    if weights.ndim != axes + 2:
        raise node.broken(f"weights of shape {list(weights.shape)} on {axes} axes")
    if axes == 1:
        weights = weights[:, :, np.newaxis, :]
    kernel = (weights.shape[2], weights.shape[3])
    if node.integers("kernel_shape") not in (None, kernel[2 - axes :]):
        raise node.broken("kernel_shape is not the shape of the weights")
    stride, dilation = _pair(node, "strides", axes), _pair(node, "dilations", axes)
    size = (shape[1], shape[2])
    return b.emit(
        node, Conv, source,
        weights=weights,
        bias=None if bias is None else bias.reshape(-1),
        stride=stride,
        dilation=dilation,
        padding=_padding(node, axes, size, kernel, stride, dilation),
        groups=node.integer("group", 1),
    )  # fmt: skip


def _features(b: Builder, node: Node, index: int) -> Value:
    source = b.value(node, index)
    if b.known[source.op] != (source.dims[0], 1, 1) or len(source.dims) != 1:
        raise node.unsupported(
            f"a dense layer on a value of shape {list(source.dims)} without the batch; it is "
            "supported on vectors",
            "flatten before it, or write a layer that is applied at every place as a "
            "convolution with kernel 1",
        )
    return source


def _gemm(b: Builder, node: Node) -> Tensor:
    source = _features(b, node, 0)
    weights = b.needed(node, 1, "the weight").astype(np.float64)
    bias = b.constant(node, 2, "the bias")
    if weights.ndim != 2 or node.integer("transA", 0):
        raise node.broken(f"weights of shape {list(weights.shape)}, transA set or both")
    if not node.integer("transB", 0):
        weights = weights.T
    if bias is not None:
        bias = bias.astype(np.float64) * node.number("beta", 1.0)
        if bias.size not in (1, len(weights)) or bias.ndim > 2 or bias.shape[:-1] not in ((), (1,)):
            raise node.broken(f"bias of shape {list(bias.shape)} for {len(weights)} outputs")
        bias = np.broadcast_to(bias.reshape(-1), len(weights))
    node.ignore("beta")
    weights = weights * node.number("alpha", 1.0)
    return b.emit(node, Linear, source, weights=weights, bias=bias)


def _matmul(b: Builder, node: Node) -> Tensor:
    source = _features(b, node, 0)
    weights = b.needed(node, 1, "the weight")
    if weights.ndim != 2:
        raise node.broken(f"weights of shape {list(weights.shape)}")
    return b.emit(node, Linear, source, weights=weights.T, bias=None)


def _batch_norm(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    names = ("the scale", "the bias", "the mean", "the variance")
    gamma, beta, mean, variance = (
        b.needed(node, index, name).astype(np.float64) for index, name in enumerate(names, start=1)
    )
    if any(part.shape != (source.dims[0],) for part in (gamma, beta, mean, variance)):
        raise node.broken(f"its parameters are not of shape [{source.dims[0]}]")
    if node.integer("training_mode", 0) or node.integer("spatial", 1) != 1:
        raise node.unsupported(
            "batch norm in training mode: it normalises with the batch's own statistics",
            "export after module.eval()",
        )
    node.ignore("momentum")
    with np.errstate(all="ignore"):
        # A negative variance gives NaN, which the next line's layer refuses.
        scale = gamma / np.sqrt(variance + node.number("epsilon", 1e-5))
    return b.affine(node, source, scale, beta - mean * scale)


def _ceil_room(node: Node, size: _Pair, kernel: _Pair, stride: _Pair, dilation: _Pair,
               padding: Padding) -> _Pair:  # fmt: skip
    """Rows and columns to add at the bottom and right for what ceil_mode adds."""
    extra = []
    begins, ends = padding[:2], padding[2:]
    for n, k, s, d, begin, end in zip(size, kernel, stride, dilation, begins, ends, strict=True):
        extent = (k - 1) * d + 1
        room = n + begin + end - extent
        count = -(-room // s) + 1
        if (count - 1) * s >= n + begin:
            # As torch: a window that would start behind the image is left out.
            count -= 1
        extra.append(max((count - 1) * s + extent - (n + begin + end), 0))
    return extra[0], extra[1]


def _max_pool(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    shape = b.geometry(node, source)
    axes = len(source.dims) - 1
    node.ignore("storage_order")
    kernel = _pair(node, "kernel_shape", axes, None)
    stride, dilation = _pair(node, "strides", axes), _pair(node, "dilations", axes)
    size = (shape[1], shape[2])
    padding = _padding(node, axes, size, kernel, stride, dilation)
    if node.integer("ceil_mode", 0):
        rows, cols = _ceil_room(node, size, kernel, stride, dilation, padding)
        top, left, bottom, right = padding
        padding = (top, left, bottom + rows, right + cols)
    return b.emit(
        node, MaxPool, source, kernel=kernel, stride=stride, padding=padding, dilation=dilation
    )


def _average_pool(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    shape = b.geometry(node, source)
    axes = len(source.dims) - 1
    kernel, stride = _pair(node, "kernel_shape", axes, None), _pair(node, "strides", axes)
    if _pair(node, "dilations", axes) != (1, 1):
        raise node.unsupported("average pooling with dilation", "use dilation 1")
    size = (shape[1], shape[2])
    padding = _padding(node, axes, size, kernel, stride, (1, 1))
    if node.integer("ceil_mode", 0) and any(
        _ceil_room(node, size, kernel, stride, (1, 1), padding)
    ):
        raise node.unsupported(
            f"average pooling with ceil_mode on {size[0]}x{size[1]}: windows at the end are "
            "smaller and divide by less",
            "use ceil_mode=False, or an input size that the windows fill",
        )
    if not node.integer("count_include_pad", 0) and any(padding):
        raise node.unsupported(
            "average pooling that leaves padding out of the count: windows at the edge divide "
            "by less",
            "use nn.AvgPool2d(..., count_include_pad=True), or no padding",
        )
    return b.emit(node, AvgPool, source, kernel=kernel, stride=stride, padding=padding)


def _global_pool(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    shape = b.geometry(node, source)
    kernel = (shape[1], shape[2])
    kind = MaxPool if node.op == "GlobalMaxPool" else AvgPool
    return b.emit(node, kind, source, kernel=kernel, stride=(1, 1))


def _reduce(b: Builder, node: Node) -> Tensor:
    """Mean, sum or maximum over whole spatial axes."""
    inputs = [b.optional(node, index) for index in range(len(node.inputs))]
    source = b.value(node, 0)
    rank = len(source.dims) + 1
    given = axes_of(node, inputs, rank)
    keep = bool(node.integer("keepdims", 1))
    if node.integer("noop_with_empty_axes", 0) and not given:
        return source
    axes = set(given or range(rank))
    hint = "reduce over the image's axes only: x.mean((2, 3)), or nn.AdaptiveAvgPool2d(1)"
    if axes & {0, 1}:
        raise node.unsupported("it reduces over the batch or the channels", hint)
    shape = b.known[source.op]
    dims = tuple(
        1 if axis in axes else n
        for axis, n in enumerate(source.dims, start=1)
        if keep or axis not in axes
    )
    if axes == set(range(2, rank)):
        # All places of a channel, however the file has arranged them.
        kernel = (shape[1], shape[2])
    else:
        b.geometry(node, source)
        kernel = (shape[1] if 2 in axes else 1, shape[2] if rank == 4 and 3 in axes else 1)
    kind: type[AvgPool] | type[MaxPool] = MaxPool if node.op == "ReduceMax" else AvgPool
    fields: dict[str, Any] = {"divisor": 1} if node.op == "ReduceSum" else {}
    made = b.emit(node, kind, source, kernel=kernel, stride=(1, 1), **fields)
    return Value(made.op, dims)


def _pad(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    mode = node.text("mode", "constant")
    if mode != "constant":
        raise node.unsupported(
            f"padding mode {mode!r:.40}; only constants are supported",
            "use padding_mode='zeros', or F.pad(x, pads, value=...)",
        )
    pads = node.integers("pads")
    value = node.number("value", 0.0)
    rank = len(source.dims) + 1
    if pads is None:
        given = b.needed(node, 1, "the padding")
        pads = tuple(int(n) for n in given.reshape(-1)[:17])
        fill = b.constant(node, 2, "the padding's value")
        value = 0.0 if fill is None else b.scalar(node, fill, "the padding's value")
        axes = b.constant(node, 3, "the axes")
        if axes is not None:
            wanted = [int(n) % rank for n in axes.reshape(-1)[:9]]
            if len(pads) != 2 * len(wanted):
                raise node.broken(f"padding {list(pads)} for axes {wanted}")
            spread = dict(zip(wanted, pads[: len(wanted)], strict=True))
            ends = dict(zip(wanted, pads[len(wanted) :], strict=True))
            pads = tuple(part.get(axis, 0) for part in (spread, ends) for axis in range(rank))
    if len(pads) != 2 * rank:
        raise node.broken(f"padding {list(pads)} for {rank} axes")
    if not any(pads):
        return source
    if any(pads[axis] or pads[rank + axis] for axis in (0, 1)) or min(pads) < 0:
        raise node.unsupported(
            f"padding {list(pads)}: of the batch or the channels, or a negative one",
            "pad height and width only, and crop with a stride or a smaller image",
        )
    b.geometry(node, source)
    four = _four(node, (*pads[2:rank], *pads[rank + 2 :]), rank - 2)
    return b.emit(node, Pad, source, padding=four, value=value)


HANDLERS: dict[str, Callable[[Builder, Node], Tensor]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    "ReduceMax": _reduce,
    "Pad": _pad,
}
