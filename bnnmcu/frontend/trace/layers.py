"""Convolutions, linear layers and batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bnnmcu.frontend.trace.draws import Bits, signs
from bnnmcu.frontend.trace.forms import Form
from bnnmcu.frontend.trace.hints import PRODUCT
from bnnmcu.frontend.trace.naming import label_of
from bnnmcu.frontend.trace.tracer import OpaqueError, Tracer, handles
from bnnmcu.frontend.trace.values import Value, layout_of
from bnnmcu.network.model import Shape
from bnnmcu.network.ops import Affine, Conv, Linear

__all__: list[str] = []


def _pair(given: Any, lines: bool) -> tuple[int, int]:
    """(vertical, horizontal) of torch's one or two numbers."""
    numbers = [int(n) for n in given] if isinstance(given, list | tuple) else [int(given)]
    if lines:
        return 1, numbers[0]
    return numbers[0], numbers[-1]


def _floats(tensor: torch.Tensor) -> Any:
    return tensor.detach().double().numpy()


def _layout(node: Any) -> Shape:
    layout = layout_of(tuple(node.meta["val"].shape))
    assert layout is not None
    return layout


def _weights(t: Tracer, node: Any, given: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(weights, None), or (P(+1), scale per output) where they are drawn."""
    if isinstance(given, Bits):
        return signs(t, node, given)
    return t.constant(given, "weights"), None


def _drawn(t: Tracer, node: Any, made: Form, scale: torch.Tensor, bias: Any) -> Form:
    """Scale and bias come after the sum of drawn weights."""
    layout = made.layout
    factor = _floats(scale)
    offset = np.zeros(layout[0]) if bias is None else _floats(bias)
    if not (factor != 1).any() and not offset.any():
        return made
    source = t.builder.name(made, node)
    op = Affine(t.builder.fresh(node, "scale"), source, factor, offset)
    return t.builder.emit(op, layout, node)


def _conv(t: Tracer, node: Any, a: Any, padding: Any) -> Value:
    if not isinstance(a.input, Value):
        raise OpaqueError("its weights depend on the input", PRODUCT)
    lines = len(node.meta["val"].shape) == 3
    weights, scale = _weights(t, node, a.weight)
    bias = None if a.bias is None else t.constant(a.bias, "bias")
    if weights.ndim != (3 if lines else 4):
        raise OpaqueError(
            f"a convolution in {weights.ndim - 2} dimensions", "use nn.Conv2d or nn.Conv1d"
        )
    source = t.regular(a.input)
    full = weights.unsqueeze(2) if lines else weights
    stride, dilation = (_pair(v, lines) for v in (a.stride, a.dilation))
    if isinstance(padding, str):
        total = [
            d * (k - 1) if padding == "same" else 0
            for d, k in zip(dilation, full.shape[2:], strict=True)
        ]
        # torch pads the odd one at the end.
        before = (total[0] // 2, total[1] // 2)
        after = (total[0] - before[0], total[1] - before[1])
    else:
        before = after = (0, _pair(padding, True)[1]) if lines else _pair(padding, False)
    op = Conv(
        t.builder.fresh(node, "conv"),
        source,
        weights=_floats(full),
        bias=None if bias is None or scale is not None else _floats(bias),
        stride=stride,
        padding=(*before, *after),
        dilation=dilation,
        groups=int(a.groups),
        drawn=scale is not None,
    )
    layout = _layout(node)
    if scale is None:
        return t.value(t.builder.emit(op, layout, node), node)
    t.builder.drawn[op.name] = node
    return t.value(_drawn(t, node, t.builder.emit(op, layout), scale, bias), node)


@handles("conv2d.default", "conv1d.default", "conv2d.padding", "conv1d.padding")
def _convolution(t: Tracer, node: Any, a: Any) -> Value:
    return _conv(t, node, a, a.padding)


@handles("convolution.default", "_convolution.default")
def _general(t: Tracer, node: Any, a: Any) -> Value:
    if a.transposed:
        raise OpaqueError("a transposed convolution", "use a convolution")
    return _conv(t, node, a, a.padding)


def _linear(t: Tracer, node: Any, x: Value, given: Any, bias: Any) -> Value:
    """x @ weights.T + bias, weights (O, I) or drawn."""
    weights, scale = _weights(t, node, given)
    t.builder.refuse(x.form.refusal)
    if weights.ndim != 2 or len(x.shape) > 2 or x.layout[1:] != (1, 1) or x.axes is not None:
        raise OpaqueError(
            f"a linear layer on an activation of shape {x.shape}",
            "flatten before it with torch.flatten(x, 1); for every position alike use "
            "nn.Conv2d or nn.Conv1d with kernel size 1",
        )
    if x.order is not None:
        # Feature i of torch's is feature order[i] of the network's.
        moved = torch.empty_like(weights)
        moved[:, torch.from_numpy(x.order)] = weights
        weights = moved
    value = None if bias is None else _floats(t.constant(bias, "bias").broadcast_to(len(weights)))
    source = t.name(x)
    op = Linear(
        t.builder.fresh(node, "linear"),
        source,
        weights=_floats(weights),
        bias=value if scale is None else None,
        drawn=scale is not None,
    )
    layout = (len(weights), 1, 1)
    if scale is None:
        return t.value(t.builder.emit(op, layout, node), node)
    t.builder.drawn[op.name] = node
    after = None if bias is None else torch.as_tensor(value)
    return t.value(_drawn(t, node, t.builder.emit(op, layout), scale, after), node)


@handles("linear.default")
def _plain_linear(t: Tracer, node: Any, a: Any) -> Value:
    if not isinstance(a.input, Value):
        raise OpaqueError("its weights depend on the input", PRODUCT)
    return _linear(t, node, a.input, a.weight, a.bias)


def _turned(t: Tracer, given: Any) -> Any:
    """A matrix (I, O) as weights (O, I)."""
    if isinstance(given, Bits):
        low, high, p = (v.t() for v in (given.low, given.high, given.p))
        return Bits(p, low, high, given.source)
    return t.constant(given, "weights").t()


@handles("matmul.default", "mm.default", "addmm.default")
def _matmul(t: Tracer, node: Any, a: Any) -> Value:
    one, other = (a.mat1, a.mat2) if hasattr(a, "mat1") else (a.input, getattr(a, "other", None))
    if label_of(node) == "mm":
        one, other = a.input, a.mat2
    if isinstance(one, Value) and isinstance(other, Value):
        raise OpaqueError("a matrix product of two activations", PRODUCT)
    if not isinstance(one, Value) or getattr(other, "ndim", 2) != 2:
        raise OpaqueError("a constant times an activation", "write it as activation @ constant")
    bias = a.input if label_of(node) == "addmm" else None
    if bias is not None and (a.alpha != 1 or a.beta != 1):
        raise OpaqueError("addmm with alpha or beta", "fold them into weights and bias")
    return _linear(t, node, one, _turned(t, other), bias)


def _norm(t: Tracer, node: Any, a: Any, mean: Any, variance: Any) -> Value:
    x = a.input
    if not isinstance(x, Value):
        raise OpaqueError("its parameters depend on the input", PRODUCT)
    t.builder.refuse(x.form.refusal)
    given = [None if v is None else t.constant(v, "parameters").double()
             for v in (a.weight, a.bias, mean, variance)]  # fmt: skip
    gamma, beta, centre, spread = given
    assert centre is not None
    assert spread is not None
    scale = (spread + a.eps).rsqrt() if gamma is None else gamma * (spread + a.eps).rsqrt()
    offset = -centre * scale if beta is None else beta - centre * scale
    rank = len(x.shape) - 2
    both = [
        np.broadcast_to(t.per_channel(x, v.reshape(-1, *[1] * rank)), (x.layout[0],))
        for v in (scale, offset)
    ]
    if not all(np.isfinite(v).all() for v in both):
        raise OpaqueError(
            "batch normalisation whose parameters are NaN or infinite",
            "the training diverged: train again with a lower learning rate",
        )
    op = Affine(t.builder.fresh(node, "norm"), t.name(x), both[0], both[1])
    made = t.builder.emit(op, x.layout, node)
    return x.with_form(made, node)


_BATCH = (
    "create it with track_running_stats=True (the default) and train, so that it has running "
    "statistics, and call no .train() inside forward"
)


@handles("_native_batch_norm_legit_no_training.default")
def _batch_norm(t: Tracer, node: Any, a: Any) -> Any:
    # What else it returns are statistics that nobody reads in eval mode.
    return (_norm(t, node, a, a.running_mean, a.running_var),)


@handles("batch_norm.default", "_native_batch_norm_legit.default",
         "_native_batch_norm_legit.no_stats", "_native_batch_norm_legit_functional.default",
         "native_batch_norm.default", "cudnn_batch_norm.default")  # fmt: skip
def _batch_statistics(t: Tracer, node: Any, a: Any) -> Any:
    mean = getattr(a, "running_mean", None)
    if a.training or mean is None:
        raise OpaqueError("batch normalisation with the statistics of the batch", _BATCH)
    result = _norm(t, node, a, mean, a.running_var)
    return result if label_of(node) == "batch_norm" else (result,)
