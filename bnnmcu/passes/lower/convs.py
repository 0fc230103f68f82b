"""Convolutions: binary where weights are +a and -a on signs, integer otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import INT32_MAX, BinaryConv, IntegerConv, StochasticConv
from bnnmcu.network.ops import Conv, Floats
from bnnmcu.passes.lower.builder import Builder, graph_name
from bnnmcu.passes.lower.chain import Chain, Line
from bnnmcu.passes.lower.fold import quantize_per_channel, quantize_probability, signs_of
from bnnmcu.passes.lower.streams import coarser, materialize, rectified
from bnnmcu.passes.lower.value import Value
from bnnmcu.passes.options import LayerError

Integers = npt.NDArray[np.int16]
#: Ratio of the largest scale to the usual one from which on channels are evened out before
#: they meet weights.
_UNEVEN = 64.0

__all__ = ["absorb", "convolve", "per_input"]


def per_input(op: Conv, values: Floats) -> Floats:
    """Values of input channels (I,), shaped to the weights (O, I / groups, 1, 1) that meet them."""
    outputs, inputs = op.weights.shape[:2]
    grouped = values.reshape(op.groups, 1, inputs)
    each = np.broadcast_to(grouped, (op.groups, outputs // op.groups, inputs))
    return each.reshape(outputs, inputs, 1, 1)


def absorb(builder: Builder, op: Conv, value: Value) -> Value:
    """The source of a convolution in a form whose chain its weights can take in.

    What is left of the chain is one line; its offset is zero where the
    convolution pads, since padding is zero and not the offset.
    """
    value = _up_to_line(builder, op, rectified(builder, value))
    line = value.chain.line
    if line is None or (any(op.padding) and _hides_zero(value, *line)):
        value, _ = materialize(builder, value)
    elif value.spec.kind == "int" and _uneven(line[0]):
        # One width of weights cannot serve channels whose values differ this much in size.
        value, _ = materialize(builder, value)
    return value


def _up_to_line(builder: Builder, op: Conv, value: Value) -> Value:
    """What bends is computed; the line behind it is left to the weights."""
    steps = value.chain.steps
    last = steps[-1] if len(steps) > 1 else None
    if not isinstance(last, Line) or (any(op.padding) and np.any(last.offset != 0)):
        return value
    bends = Value(value.op, value.node, value.spec, Chain(value.chain.channels, steps[:-1]))
    done, _ = materialize(builder, bends)
    return Value(value.op, done.node, done.spec, done.chain.then(last))


def _hides_zero(value: Value, scale: Floats, offset: Floats) -> bool:
    """Padding with zeros would be no integer of its own."""
    if value.spec.kind == "u8":
        # A pixel stands for it, unless all pixels stand for one other value.
        return bool(np.any((scale == 0) & (offset != 0)))
    return bool(np.any(offset != 0))


def _uneven(scale: Floats) -> bool:
    sizes = np.abs(scale[scale != 0])
    return bool(sizes.size) and float(sizes.max() / np.median(sizes)) > _UNEVEN


def _fill(op: Conv, value: Value, scale: Floats, offset: Floats, builder: Builder) -> Floats:
    """The pixels that stand for zero, (C,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pixel = np.where(scale != 0, -offset / scale, 0.0)
    nearest = np.rint(pixel)
    worst = int(np.argmax(np.maximum(np.abs(pixel - 127.5) - 127.5, np.abs(nearest - pixel))))
    if np.any(nearest < 0) or np.any(nearest > 255):
        raise UnsupportedModelError(
            f"pads with zeros, which would be pixel {pixel[worst]:.1f} of the normalised image",
            where=op.name,
            hint="use a mean within [0, 1], or padding=0 in the first layer",
        )
    if np.any(np.abs(nearest - pixel) > 1e-6):
        builder.note(
            op.name,
            f"zero padding of the normalised image is pixel {pixel[worst]:.2f}; "
            f"{int(nearest[worst])} stands for it at the border",
        )
    return nearest


def convolve(builder: Builder, op: Conv, value: Value) -> Value:
    """Lower a convolution; its value is the node's sum with a line behind it.

    Raises:
        UnsupportedModelError: zero padding beside values that cannot be zero, or
            drawn weights on anything but signs.
    """
    value = absorb(builder, op, value)
    line = value.chain.line
    assert line is not None
    scale, offset = line
    kind = value.spec.kind
    if op.drawn:
        return _stochastic(builder, op, value, scale, offset)
    weights = op.weights * per_input(op, scale)
    constant = (op.weights * per_input(op, offset)).sum(axis=(1, 2, 3))
    fill: Floats | None = None
    if any(op.padding) and np.any(offset != 0):
        fill = _fill(op, value, scale, offset, builder)
    ordered = weights.transpose(0, 2, 3, 1)
    binary = signs_of(ordered) if kind == "bit" else None
    common: dict[str, Any] = {
        "stride": op.stride,
        "padding": op.padding,
        "dilation": op.dilation,
        "groups": op.groups,
    }
    name = graph_name(op.name)
    node: BinaryConv | IntegerConv
    if binary is not None:
        bits, unit = binary
        node = builder.emit(op.name, BinaryConv(name, value.node, bits, **common))
    else:
        value, unit, integers, width = _integers(builder, op, value, ordered, fill)
        node = builder.emit(
            op.name,
            IntegerConv(
                name,
                value.node,
                integers,
                **common,
                bits=width,
                fill=None if fill is None else fill.astype(np.uint8),
            ),
        )
    bias = constant if op.bias is None else constant + op.bias
    return _result(builder, op, node.name, unit, bias)


def _result(builder: Builder, op: Conv, node: str, unit: Floats, bias: Floats) -> Value:
    chain = Chain(len(op.weights)).then(Line(op.name, unit, bias))
    return Value(op.name, node, builder.specs[node], chain)


def _integers(
    builder: Builder, op: Conv, value: Value, ordered: Floats, fill: Floats | None
) -> tuple[Value, Floats, Integers, int]:
    """Integer weights whose sums fit int32: source, unit (O,), weights, width."""
    first = value.spec.kind == "u8"
    options = builder.options
    bits = options.first_layer_bits if first else options.hidden_bits
    moments = None
    if first and options.first_layer == "calibrated":
        moments = builder.moments(op, value, fill)
    most = _most(value)
    integers, unit = quantize_per_channel(ordered, bits, moments)
    while first and bits > 8 and _reach(integers) * most > INT32_MAX:
        bits -= 1
        integers, unit = quantize_per_channel(ordered, bits, moments)
        builder.note(op.name, f"weights narrowed to {bits} bits, so that sums fit 32 bits")
    restored = integers * unit.reshape(-1, 1, 1, 1)
    largest = int(np.abs(integers.astype(np.int64)).max())
    width = max(2, largest.bit_length() + 1)
    exact = np.allclose(restored, ordered, rtol=1e-6, atol=0)
    builder.errors.append(LayerError.of(op.name, 0 if exact else width, ordered, restored))
    if not first:
        taps = int(np.prod(op.weights.shape[1:]))
        what = "real weights" if largest > 1 else "weights of -1, 0 and +1"
        where = "signs" if value.spec.kind == "bit" else "integers"
        builder.note(
            op.name,
            f"{what} on {where}: kept as 16-bit integers "
            f"({'exact' if exact else f'{width} bits'}), {taps} multiplications an output",
        )
    # The most a sum can be, and by how much its source must be made coarser to fit.
    reach = _reach(integers)
    if reach * most > INT32_MAX and value.spec.kind == "int":
        steps = INT32_MAX // reach
        value, factor = coarser(builder, value, steps)
        unit = unit * factor
        builder.note(
            op.name, f"its input is rounded to {steps.bit_length()} bits, so that sums fit"
        )
    return value, unit, integers, width


def _reach(integers: Integers) -> int:
    """The largest sum of magnitudes of a filter."""
    return int(np.abs(integers.astype(np.int64)).reshape(len(integers), -1).sum(axis=1).max())


def _most(value: Value) -> int:
    low, high = value.spec.bounds
    return max(-low, high)


def _stochastic(builder: Builder, op: Conv, value: Value, scale: Floats, offset: Floats) -> Value:
    if value.spec.kind != "bit" or np.any(scale != scale[0]) or np.any(offset != 0):
        raise UnsupportedModelError(
            f"draws its weights, and takes {value.spec.kind} values "
            "that are not signs times one number",
            where=op.name,
            hint="put a sign activation before it",
        )
    levels = quantize_probability(op.weights.transpose(0, 2, 3, 1), builder.options.planes)
    node = builder.emit(
        op.name,
        StochasticConv(
            graph_name(op.name),
            value.node,
            levels,
            stride=op.stride,
            padding=op.padding,
            dilation=op.dilation,
            groups=op.groups,
            planes=builder.options.planes,
        ),
    )
    bias = np.zeros(len(op.weights)) if op.bias is None else op.bias
    return _result(builder, op, node.name, np.full(len(op.weights), scale[0]), bias)
