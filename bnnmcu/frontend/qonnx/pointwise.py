"""Operators that work value by value: arithmetic, activations, quantisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bnnmcu.frontend.qonnx.builder import Builder, Tensor, Truth, Value
from bnnmcu.frontend.qonnx.fold import CAST, bit_width, quantize
from bnnmcu.frontend.qonnx.nodes import Node
from bnnmcu.network import Add, Clamp, PRelu, Sign
from bnnmcu.network.ops import INPUT

__all__ = ["HANDLERS"]


def _same(b: Builder, node: Node) -> Tensor:
    if node.op == "Dropout":
        node.ignore("seed", "ratio")
        training = b.constant(node, 2, "training_mode")
        if training is not None and np.any(training):
            raise node.unsupported("dropout in training mode", "export after module.eval()")
    tensor = b.optional(node, 0)
    if tensor is None:
        raise node.broken("its input is missing")
    return tensor


def _cast(b: Builder, node: Node) -> Tensor:
    tensor = b.optional(node, 0)
    to = node.integer("to", 0)
    node.ignore("saturate", "round_mode")
    kind = CAST.get(to)
    if isinstance(tensor, Truth) and kind is not None:
        if kind is np.bool_:
            return tensor
        sign = _signed(b, node, tensor)
        return b.affine(node, sign, 0.5, 0.5)
    source = b.value(node, 0)
    if kind is None or np.dtype(kind).kind != "f":
        raise node.unsupported(
            f"a cast of values to ONNX type {to}, which rounds them",
            "keep activations in float; quantise them with a sign (QuantIdentity, 1 bit)",
        )
    return source


def _two(b: Builder, node: Node) -> tuple[Value | None, Value | None]:
    """Both inputs, None where one is constant."""
    if len(node.inputs) != 2:
        raise node.broken(f"{len(node.inputs)} inputs")
    found = [b.optional(node, index) for index in (0, 1)]
    if any(tensor is None or isinstance(tensor, Truth) for tensor in found):
        raise node.broken("an input is missing or boolean")
    pair = [tensor if isinstance(tensor, Value) else None for tensor in found]
    return pair[0], pair[1]


def _arithmetic(b: Builder, node: Node) -> Tensor:
    left, right = _two(b, node)
    op = node.op
    if left is not None and right is not None:
        return _both(b, node, left, right)
    source = left if left is not None else right
    assert source is not None
    index = 1 if left is not None else 0
    number = b.per_channel(node, b.needed(node, index, "the constant"), source, "the constant")
    if op == "Add":
        return b.affine(node, source, 1.0, number)
    if op == "Sub":
        return b.affine(node, source, 1.0 if left else -1.0, -number if left else number)
    if op == "Mul":
        return b.affine(node, source, number, 0.0)
    if left is None:
        raise node.unsupported("a constant divided by activations", "divide by constants only")
    if not np.all(number):
        raise node.broken("it divides by zero")
    return b.affine(node, source, 1.0 / number, 0.0)


def _both(b: Builder, node: Node, left: Value, right: Value) -> Value:
    if node.op in ("Mul", "Div"):
        raise node.unsupported(
            f"{'a product' if node.op == 'Mul' else 'a quotient'} of two activations",
            "multiply by constants only: gates, attention and scales that are computed from the "
            "input do not fit a binarized network (XNOR-Net without the input scale K does)",
        )
    if left.dims != right.dims or b.known[left.op] != b.known[right.op]:
        raise node.unsupported(
            f"it combines values of shape {list(left.dims)} and {list(right.dims)}",
            "bring both to one shape: a 1x1 convolution, or pooling",
        )
    if node.op == "Add":
        for one, other in ((left, right), (right, left)):
            if one.op in b.differences and b.differences[one.op][1] == other:
                # (a - b) + b, what the detach trick leaves: a.
                return b.differences[one.op][0]
        return replace(b.emit(node, Add, left, other=right.op), dims=left.dims)
    minus = b.affine(node, right, -1.0, 0.0, ".minus")
    made = replace(b.emit(node, Add, left, other=minus.op), dims=left.dims)
    b.differences[made.op] = (left, right)
    return made


def _negate(b: Builder, node: Node) -> Tensor:
    return b.affine(node, b.value(node, 0), -1.0, 0.0)


def _clamp(b: Builder, node: Node, source: Value, low: float, high: float) -> Value:
    if math.isnan(low) or math.isnan(high) or low > high:
        raise node.broken(f"it clips to [{low}, {high}]")
    if low == -math.inf and high == math.inf:
        return source
    return replace(b.emit(node, Clamp, source, low=low, high=high), dims=source.dims)


def _relu(b: Builder, node: Node) -> Tensor:
    return _clamp(b, node, b.value(node, 0), 0.0, math.inf)


def _clip(b: Builder, node: Node) -> Tensor:
    ends = [node.number("min", -math.inf), node.number("max", math.inf)]
    for index, what in ((1, "the lower end"), (2, "the upper end")):
        given = b.constant(node, index, what)
        if given is not None:
            ends[index - 1] = b.scalar(node, given, what)
    return _clamp(b, node, b.value(node, 0), *ends)


def _extreme(b: Builder, node: Node) -> Tensor:
    """Max and Min with a constant, as older exports write clamp."""
    left, right = _two(b, node)
    if left is not None and right is not None:
        raise node.unsupported(
            f"the {node.op.lower()}imum of two activations", "use pooling, or add them"
        )
    source, index = (left, 1) if left is not None else (right, 0)
    assert source is not None
    end = b.scalar(node, b.needed(node, index, "the limit"), "the limit")
    return _clamp(b, node, source, *((end, math.inf) if node.op == "Max" else (-math.inf, end)))


def _prelu(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    if node.op == "LeakyRelu":
        slope = np.broadcast_to(node.number("alpha", 0.01), source.dims[0])
    else:
        slope = b.per_channel(node, b.needed(node, 1, "the slope"), source, "the slope")
    return replace(b.emit(node, PRelu, source, slope=slope), dims=source.dims)


def _hard_sigmoid(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    line = b.affine(node, source, node.number("alpha", 0.2), node.number("beta", 0.5), ".line")
    return _clamp(b, node, line, 0.0, 1.0)


def _sign_op(b: Builder, node: Node, source: Value, zero: int, suffix: str = "") -> Value:
    return replace(b.emit(node, Sign, source, suffix, zero=zero), dims=source.dims)


def _sign(b: Builder, node: Node) -> Tensor:
    return _sign_op(b, node, b.value(node, 0), 0)


def _compare(b: Builder, node: Node) -> Tensor:
    left, right = _two(b, node)
    if left is not None and right is not None:
        raise node.unsupported(
            "a comparison of two activations", "compare with a constant, such as 0"
        )
    source = left if left is not None else right
    assert source is not None
    constant = b.needed(node, 1 if left is not None else 0, "the constant")
    number = b.per_channel(node, constant, source, "the constant")
    if node.op == "Equal":
        if np.any(number):
            raise node.unsupported("a test whether activations equal a constant", "use x >= 0")
        return Truth(source, source.dims, None)
    kind = node.op
    if left is None:
        swapped = {"Less": "Greater", "LessOrEqual": "GreaterOrEqual"}
        kind = {**swapped, **{to: key for key, to in swapped.items()}}[kind]
    shifted = b.affine(node, source, 1.0, -number, ".shift")
    # x < c is "not x >= c", x <= c is "not x > c".
    zero = 1 if kind in ("GreaterOrEqual", "Less") else -1
    sign = _sign_op(b, node, shifted, zero)
    return Truth(source, source.dims, sign.op, flipped=kind in ("Less", "LessOrEqual"))


def _signed(b: Builder, node: Node, truth: Truth) -> Value:
    """+1 where it is true, -1 where not."""
    if truth.sign is None:
        raise node.unsupported("a test whether activations are zero", "use x >= 0")
    sign = Value(truth.sign, truth.dims)
    return b.affine(node, sign, -1.0, 0.0, ".flip") if truth.flipped else sign


def _not(b: Builder, node: Node) -> Tensor:
    truth = b.optional(node, 0)
    if not isinstance(truth, Truth):
        raise node.broken("its input is not boolean")
    return replace(truth, flipped=not truth.flipped)


def _where(b: Builder, node: Node) -> Tensor:
    truth = b.optional(node, 0)
    if not isinstance(truth, Truth):
        raise node.broken("its condition is not a comparison of activations")
    if truth.sign is None and not truth.flipped:
        other = b.optional(node, 2)
        value = b.constant(node, 1, "the value at zero")
        op = b.by_name.get(other.op) if isinstance(other, Value) else None
        if isinstance(op, Sign) and op.source == truth.value.op and value is not None:
            # where(x == 0, 1, sign(x)): a sign with another answer at zero.
            zero = b.scalar(node, value, "the value at zero")
            if zero in (-1.0, 1.0) and op.zero == 0:
                return _sign_op(b, node, truth.value, int(zero))
    sign = _signed(b, node, truth)
    both = []
    for index in (1, 2):
        if isinstance(b.optional(node, index), Value):
            raise node.unsupported(
                "a choice between activations",
                "choose between constants, where(x >= 0, 1.0, -1.0), or use ReLU, PReLU or clamp",
            )
        choice = b.needed(node, index, "the choice")
        both.append(b.per_channel(node, choice, sign, "the choice"))
    yes, no = both
    return b.affine(node, sign, (yes - no) / 2, (yes + no) / 2)


def _bipolar(b: Builder, node: Node) -> Tensor:
    source = b.value(node, 0)
    scale = b.per_channel(node, b.needed(node, 1, "the scale"), source, "the scale")
    return b.affine(node, _sign_op(b, node, source, 1), scale, 0.0, ".scale")


def _quant(b: Builder, node: Node) -> Tensor:
    """Quant of one bit: a sign.  More bits: only where every pixel already lies on the grid."""
    source = b.value(node, 0)
    arrays = [b.needed(node, index, what) for index, what in
              enumerate(("the scale", "the zero point", "the bit width"), start=1)]  # fmt: skip
    width = bit_width(node, arrays[2])
    scale = b.per_channel(node, arrays[0], source, "the scale")
    zero = b.per_channel(node, arrays[1], source, "the zero point")
    if not np.all(scale):
        raise node.broken("a scale of zero")
    signed, narrow = node.integer("signed", 1), node.integer("narrow", 1)
    mode = node.text("rounding_mode", "ROUND").upper()
    if width == 1 and signed:
        line = b.affine(node, source, np.sign(scale), zero * np.abs(scale), ".line")
        return b.affine(node, _sign_op(b, node, line, 1), scale, -zero * scale, ".scale")
    if width == 1 and not narrow and mode in ("ROUND", "HALF_EVEN"):
        # 0 or 1: one half rounds to the even 0, so exactly there the sign is -1.
        half = (zero - 0.5) * np.abs(scale)
        line = b.affine(node, source, np.sign(scale), half, ".line")
        sign = _sign_op(b, node, line, -1)
        return b.affine(node, sign, scale / 2, (0.5 - zero) * scale, ".scale")
    if source.op == INPUT and _on_grid(b, node, source):
        return source
    raise node.unsupported(
        f"activations quantised to {width} bits; supported is one bit",
        "quantise activations with SignedBinaryActPerTensorConst (bit_width=1), or use "
        "nn.ReLU or nn.Hardtanh, which stay integers" if source.op != INPUT else
        "leave the input unquantised: the device takes the image's 8-bit pixels as they are",
    )  # fmt: skip


def _on_grid(b: Builder, node: Node, source: Value) -> bool:
    """Whether a quantiser of the image changes no pixel."""
    pixels = np.arange(256.0)
    values = b.pixel_scale[:, np.newaxis] * pixels + b.pixel_offset[:, np.newaxis]
    shape = (-1, 1)
    parts = [
        b.per_channel(node, b.needed(node, index, "the grid"), source, "the grid").reshape(shape)
        for index in (1, 2)
    ]
    quantised = quantize(node, [values, *parts, b.needed(node, 3, "the bit width")])
    return bool(np.all(np.abs(quantised - values) <= 1e-4 * np.abs(parts[0])))


HANDLERS: dict[str, Callable[[Builder, Node], Tensor]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Identity", "Dropout"), _same),
    **dict.fromkeys(("Max", "Min"), _extreme),
    **dict.fromkeys(("PRelu", "LeakyRelu"), _prelu),
    **dict.fromkeys(("Quant", "IntQuant"), _quant),
    **dict.fromkeys(("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"), _compare),
    "BipolarQuant": _bipolar,
    "Cast": _cast,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Neg": _negate,
    "Not": _not,
    "Relu": _relu,
    "Sign": _sign,
    "Where": _where,
}
