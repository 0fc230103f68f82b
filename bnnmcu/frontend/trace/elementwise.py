"""Arithmetic, comparisons, signs and activations: what works on every element alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from bnnmcu.frontend.trace.draws import Draw
from bnnmcu.frontend.trace.forms import Form, ternary
from bnnmcu.frontend.trace.hints import HARDTANH, PRODUCT
from bnnmcu.frontend.trace.naming import label_of
from bnnmcu.frontend.trace.tracer import OpaqueError, Tracer, handles
from bnnmcu.frontend.trace.values import Value
from bnnmcu.network.ops import Floats, PRelu

__all__: list[str] = []


def _draws(*given: Any) -> None:
    if any(isinstance(v, Draw) for v in given):
        raise OpaqueError(
            "random numbers meet an activation",
            "only weights can be drawn: remove noise from the forward pass in eval mode",
        )


def _number(t: Tracer, x: Value, given: Any) -> Floats:
    """A constant as one number, or one per channel."""
    _draws(given)
    return t.per_channel(x, given)


def _match(one: Value, other: Value) -> None:
    """Two activations that are combined have one shape.

    Raises:
        OpaqueError: they have not.
    """
    orders = [None if v.order is None else v.order.tolist() for v in (one, other)]
    same = one.shape == other.shape and one.layout == other.layout and one.axes == other.axes
    if not same or orders[0] != orders[1]:
        raise OpaqueError(
            f"activations of shapes {one.shape} and {other.shape} meet",
            "give both branches the same shape",
        )


def _form(t: Tracer, like: Value, given: Any) -> Form:
    """Any operand as a form of ``like``'s layout."""
    if isinstance(given, Value):
        _match(like, given)
        return given.form
    return t.algebra.constant(like.layout, _number(t, like, given))


def _first(*given: Any) -> Value:
    return next(v for v in given if isinstance(v, Value))


def _result(like: Value, form: Form, node: Any) -> Value:
    return like.with_form(form, node)


def _boolean(node: Any, position: int) -> bool:
    argument = node.args[position]
    example = argument.meta.get("val") if isinstance(argument, torch.fx.Node) else argument
    return isinstance(example, bool) or getattr(example, "dtype", None) == torch.bool


def _product(t: Tracer, node: Any, one: Form, other: Form) -> Form:
    product = t.algebra.multiply(one, other)
    if product is None:
        raise OpaqueError("multiplies two activations", PRODUCT)
    return product


_ADD = ("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Tensor", "rsub.Scalar")


@handles(*_ADD, elementwise=True)
def _add(t: Tracer, node: Any, a: Any) -> Value:
    like = _first(a.input, a.other)
    one, other = _form(t, like, a.input), _form(t, like, a.other)
    kind, factor = label_of(node), float(a.alpha)
    if kind == "rsub":
        one, other = other, one
        return _result(like, t.algebra.add(one, other, -factor), node)
    return _result(like, t.algebra.add(one, other, factor if kind == "add" else -factor), node)


@handles(
    "mul.Tensor",
    "mul.Scalar",
    "logical_and.default",
    "bitwise_and.Tensor",
    "__and__.Tensor",
    elementwise=True,
)
def _mul(t: Tracer, node: Any, a: Any) -> Value:
    like = _first(a.input, a.other)
    if isinstance(a.input, Value) and isinstance(a.other, Value):
        shapes = [v.shape for v in (a.input, a.other)]
        if shapes[0] != shapes[1]:
            raise OpaqueError("multiplies two activations", PRODUCT)
    return _result(like, _product(t, node, _form(t, like, a.input), _form(t, like, a.other)), node)


@handles("logical_or.default", "bitwise_or.Tensor", "__or__.Tensor", elementwise=True)
def _or(t: Tracer, node: Any, a: Any) -> Value:
    like = _first(a.input, a.other)
    one, other = _form(t, like, a.input), _form(t, like, a.other)
    both = _product(t, node, one, other)
    return _result(like, t.algebra.add(t.algebra.add(one, other), both, -1), node)


@handles("logical_not.default", "bitwise_not.default", elementwise=True)
def _not(t: Tracer, node: Any, a: Any) -> Value:
    if not _boolean(node, 0):
        raise OpaqueError("inverts the bits of a number", "use comparisons: x <= 0 for not x > 0")
    return _result(a.input, t.algebra.affine(a.input.form, -1, 1), node)


@handles("div.Tensor", "div.Scalar", "div.Tensor_mode", elementwise=True)
def _div(t: Tracer, node: Any, a: Any) -> Value:
    if getattr(a, "rounding_mode", None) is not None:
        raise OpaqueError("a division that rounds", "use a comparison: (x > 0)")
    if isinstance(a.other, Value):
        raise OpaqueError("divides by an activation", PRODUCT)
    divisor = _number(t, a.input, a.other)
    if not divisor.all():
        raise OpaqueError("divides by zero", "add an epsilon to the divisor")
    return _result(a.input, t.algebra.affine(a.input.form, 1 / divisor), node)


@handles("addcmul.default", elementwise=True)
def _addcmul(t: Tracer, node: Any, a: Any) -> Value:
    like = _first(a.tensor1, a.tensor2, a.input)
    forms = [_form(t, like, v) for v in (a.input, a.tensor1, a.tensor2)]
    product = _product(t, node, forms[1], forms[2])
    return _result(like, t.algebra.add(forms[0], product, float(a.value)), node)


@handles("neg.default", elementwise=True)
def _neg(t: Tracer, node: Any, a: Any) -> Value:
    return _result(a.input, t.algebra.affine(a.input.form, -1), node)


@handles("abs.default", elementwise=True)
def _abs(t: Tracer, node: Any, a: Any) -> Value:
    return _result(a.input, t.algebra.absolute(a.input.form), node)


@handles("square.default", "pow.Tensor_Scalar", elementwise=True)
def _square(t: Tracer, node: Any, a: Any) -> Value:
    power = float(getattr(a, "exponent", 2.0))
    if power == 1.0:
        return _result(a.input, a.input.form, node)
    if power != 2.0:
        raise OpaqueError(f"the power {power:g} of an activation", HARDTANH)
    return _result(a.input, _product(t, node, a.input.form, a.input.form), node)


@handles("alias.default", "clone.default", "detach.default", "lift_fresh_copy.default",
         "contiguous.default", "detach_copy.default", elementwise=True)  # fmt: skip
def _copy(t: Tracer, node: Any, a: Any) -> Value:
    value: Value = a.input
    return value


@handles("_to_copy.default", "to.dtype", "type_as.default", "to.dtype_layout", "to.other",
         elementwise=True)  # fmt: skip
def _cast(t: Tracer, node: Any, a: Any) -> Any:
    if not isinstance(a.input, Value):
        # A constant that takes an activation's type; a draw keeps its own.
        return a.input if isinstance(a.input, Draw) else a.input.to(node.meta["val"].dtype)
    dtype = node.meta["val"].dtype
    x = a.input
    if dtype == torch.bool:
        if _boolean(node, 0):
            return x
        return _result(x, t.algebra.select(x.form, 1, 0, 1), node)
    if dtype in (torch.float16, torch.bfloat16):
        raise OpaqueError(
            f"casts an activation to {str(dtype).removeprefix('torch.')}",
            "export in float32: module.float(), and no autocast in forward",
        )
    if dtype not in (torch.float32, torch.float64):
        found = ternary(x.form)
        if found is None or any((v != np.trunc(v)).any() for v in found[1:]):
            raise OpaqueError("rounds an activation to integers", "use a sign or a comparison")
    return x


_LESS = {"lt": (1, 0, 0), "le": (1, 1, 0), "gt": (0, 0, 1), "ge": (0, 1, 1),
         "eq": (0, 1, 0), "ne": (1, 0, 1)}  # fmt: skip


@handles(*(f"{name}.{kind}" for name in _LESS for kind in ("Tensor", "Scalar")), elementwise=True)
def _compare(t: Tracer, node: Any, a: Any) -> Value:
    like = _first(a.input, a.other)
    difference = t.algebra.add(_form(t, like, a.input), _form(t, like, a.other), -1)
    return _result(like, t.algebra.select(difference, *_LESS[label_of(node)]), node)


@handles("sign.default", "sgn.default", elementwise=True)
def _sign(t: Tracer, node: Any, a: Any) -> Value:
    return _result(a.input, t.algebra.select(a.input.form, -1, 0, 1), node)


@handles("heaviside.default", elementwise=True)
def _heaviside(t: Tracer, node: Any, a: Any) -> Value:
    middle = _number(t, a.input, a.values)
    if middle.ndim:
        raise OpaqueError("heaviside with a value per channel", "use (x >= 0).float()")
    return _result(a.input, t.algebra.select(a.input.form, 0, float(middle), 1), node)


@handles("copysign.Tensor", elementwise=True)
def _copysign(t: Tracer, node: Any, a: Any) -> Value:
    if isinstance(a.input, Value) or not isinstance(a.other, Value):
        raise OpaqueError("copies a sign onto an activation", "use torch.sign(x)")
    size = np.abs(_number(t, a.other, a.input))
    form = t.algebra.select(a.other.form, -1, 1, 1)
    return _result(a.other, t.algebra.affine(form, size), node)


@handles("round.default", elementwise=True)
def _round(t: Tracer, node: Any, a: Any) -> Value:
    form = a.input.form
    if len(form.terms) == 1 and form.terms[0][0].kind == "clamp" and not form.const.any():
        atom, scale = form.terms[0]
        if (scale == 1).all() and (atom.low, atom.high) == (0.0, 1.0):
            # DoReFa's one bit; halves round to even, so one half is zero.
            above = t.algebra.affine(atom.base or form, 1, -0.5)
            return _result(a.input, t.algebra.select(above, 0, 0, 1), node)
    found = t.algebra.pointwise(form, np.round)
    if found is None:
        raise OpaqueError(
            "rounds an activation to several levels",
            "activations have one bit here: use a sign, or (x > 0).float()",
        )
    return _result(a.input, found, node)


def _choose(t: Tracer, node: Any, mask: Any, one: Any, other: Any) -> Value:
    """one where mask, else other: other + mask * (one - other)."""
    like = _first(mask, one, other)
    chosen, default, where = (_form(t, like, v) for v in (one, other, mask))
    difference = t.algebra.add(chosen, default, -1)
    product = t.algebra.multiply(where, difference)
    if product is None:
        raise OpaqueError(
            "torch.where chooses between activations in a way that is no sign, ReLU or PReLU",
            "write it with torch.sign, F.hardtanh, F.relu or F.prelu",
        )
    return _result(like, t.algebra.add(default, product), node)


@handles("where.self", "where.Scalar", "where.ScalarSelf", "where.ScalarOther", elementwise=True)
def _where(t: Tracer, node: Any, a: Any) -> Value:
    return _choose(t, node, a.condition, a.input, a.other)


@handles("masked_fill.Scalar", "masked_fill.Tensor", elementwise=True)
def _masked(t: Tracer, node: Any, a: Any) -> Value:
    return _choose(t, node, a.mask, a.value, a.input)


@handles("index_put.default", elementwise=True)
def _index_put(t: Tracer, node: Any, a: Any) -> Value:
    mask = a.indices[0] if len(a.indices) == 1 else None
    single = isinstance(a.values, torch.Tensor) and a.values.numel() == 1
    if not isinstance(mask, Value) or not single or a.accumulate:
        raise OpaqueError(
            "assigns to a part of an activation", "use torch.where(x >= 0, 1.0, -1.0)"
        )
    return _choose(t, node, mask, a.values.reshape(()), a.input)


@handles("relu.default", "relu6.default", "hardtanh.default", "clamp_min.default",
         "clamp_max.default", "clamp.default", "clip.default", elementwise=True)  # fmt: skip
def _clamp(t: Tracer, node: Any, a: Any) -> Value:
    kind = label_of(node)
    low, high = {"relu": (0.0, math.inf), "relu6": (0.0, 6.0)}.get(kind, (None, None))
    if kind == "hardtanh":
        low, high = a.min_val, a.max_val
    elif low is None:
        low, high = getattr(a, "min", None), getattr(a, "max", None)
    low, high = -math.inf if low is None else float(low), math.inf if high is None else float(high)
    if not low <= high:
        raise OpaqueError(
            f"clamps to [{low:g}, {high:g}]", "give a lower bound below the upper one"
        )
    return _result(a.input, t.algebra.clamp(a.input.form, low, high), node)


def _larger(t: Tracer, one: Form, other: Form, sign: float) -> Form:
    """max (sign 1) or min (-1): other + relu(one - other) for the maximum."""
    difference = t.algebra.affine(t.algebra.add(one, other, -1), sign)
    positive = t.algebra.clamp(difference, 0.0, math.inf)
    return t.algebra.add(other, positive, sign)


def _bound(t: Tracer, like: Value, form: Form, bound: Any, sign: float) -> Form:
    if not isinstance(bound, Value):
        limit = _number(t, like, bound)
        if not limit.ndim:
            ends = (float(limit), math.inf) if sign > 0 else (-math.inf, float(limit))
            return t.algebra.clamp(form, *ends)
    return _larger(t, form, _form(t, like, bound), sign)


@handles("maximum.default", "minimum.default", "max.other", "min.other", elementwise=True)
def _maximum(t: Tracer, node: Any, a: Any) -> Value:
    like = _first(a.input, a.other)
    one, other = (a.input, a.other) if like is a.input else (a.other, a.input)
    sign = 1.0 if label_of(node).startswith("max") else -1.0
    return _result(like, _bound(t, like, one.form, other, sign), node)


@handles("clamp.Tensor", "clip.Tensor", "clamp_min.Tensor", "clamp_max.Tensor", elementwise=True)
def _clamp_tensor(t: Tracer, node: Any, a: Any) -> Value:
    like = _first(a.input)
    form = like.form
    for bound, sign in ((getattr(a, "min", None), 1.0), (getattr(a, "max", None), -1.0)):
        if bound is not None:
            form = _bound(t, like, form, bound, sign)
    return _result(like, form, node)


@handles("threshold.default", elementwise=True)
def _threshold(t: Tracer, node: Any, a: Any) -> Value:
    above = t.algebra.affine(a.input.form, 1, -float(a.threshold))
    mask = _result(a.input, t.algebra.select(above, 0, 0, 1), node)
    return _choose(t, node, mask, a.input, float(a.value))


@handles("hardsigmoid.default", elementwise=True)
def _hardsigmoid(t: Tracer, node: Any, a: Any) -> Value:
    form = t.algebra.affine(a.input.form, 1 / 6, 0.5)
    return _result(a.input, t.algebra.clamp(form, 0.0, 1.0), node)


@handles("prelu.default", "_prelu_kernel.default", "leaky_relu.default")
def _prelu(t: Tracer, node: Any, a: Any) -> Value:
    x = a.input
    slope: Any = getattr(a, "negative_slope", None)
    if slope is None:
        _draws(a.weight)
        slope = t.constant(a.weight, "slopes")
        if slope.ndim == 1 and slope.numel() > 1:
            slope = slope.reshape(-1, *[1] * (len(x.shape) - 2))
    factor = np.broadcast_to(_number(t, x, slope), (x.layout[0],))
    known = t.algebra.pointwise(x.form, lambda v: np.where(v >= 0, v, factor * v))
    if known is not None:
        return _result(x, known, node)
    op = PRelu(t.builder.fresh(node, "prelu"), t.name(x), factor)
    return _result(x, t.builder.emit(op, x.layout, node), node)


_RISING = {"tanh": 0.0, "sigmoid": 0.5, "erf": 0.0, "atan": 0.0, "asinh": 0.0, "sinh": 0.0}
_CURVES: dict[str, Any] = {
    "tanh": np.tanh, "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "atan": np.arctan,
    "asinh": np.arcsinh, "sinh": np.sinh, "erf": np.vectorize(math.erf, otypes=[float]),
}  # fmt: skip


@handles(*(f"{name}.default" for name in _RISING), elementwise=True)
def _rising(t: Tracer, node: Any, a: Any) -> Value:
    """Curves that rise through one point: a sign looks through them."""
    name = label_of(node)
    known = t.algebra.pointwise(a.input.form, _CURVES[name])
    if known is not None:
        return _result(a.input, known, node)
    raise OpaqueError(
        f"a curve, {name}",
        HARDTANH,
        base=a.input.form,
        centre=_RISING[name],
        inner=a.input,
        note=f"the final {name} is left out: outputs are logits, of the same order",
    )
