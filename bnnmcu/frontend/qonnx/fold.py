"""Computes the part of a graph that does not depend on the image.

In the file's own precision and in numpy: what Brevitas rounds to a grid of its
own in float32 must land on the same side here.  Only operators in the table
are run, and their results are bounded by the size of the file, so that a small
file cannot ask for terabytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnnmcu.errors import ModelFileError
from bnnmcu.frontend.qonnx.nodes import Node
from bnnmcu.frontend.qonnx.tensors import Array

__all__ = ["CAST", "axes_of", "fold", "quantize", "reshaped"]

#: What Cast's attribute ``to`` means, as far as it is supported.
CAST: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64,
}  # fmt: skip
_ROUND: dict[str, Callable[[Array], Array]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ROUND_TO_ZERO": np.trunc,
}
_MAX_AXES = 8


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return np.asarray(a / b)
    # ONNX rounds whole numbers towards zero, numpy downwards.
    if not np.all(b):
        raise ZeroDivisionError
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


_POINTWISE: dict[str, tuple[int, Callable[..., Any]]] = {
    "Neg": (1, np.negative),
    "Abs": (1, np.abs),
    "Sqrt": (1, np.sqrt),
    "Reciprocal": (1, np.reciprocal),
    "Sign": (1, np.sign),
    "Floor": (1, np.floor),
    "Ceil": (1, np.ceil),
    "Round": (1, np.rint),
    "Tanh": (1, np.tanh),
    "Relu": (1, lambda x: np.maximum(x, 0)),
    "Not": (1, np.logical_not),
    "Add": (2, np.add),
    "Sub": (2, np.subtract),
    "Mul": (2, np.multiply),
    "Div": (2, _divide),
    "Pow": (2, lambda x, y: np.power(x.astype(np.float64), y).astype(x.dtype)),
    "Equal": (2, np.equal),
    "Greater": (2, np.greater),
    "GreaterOrEqual": (2, np.greater_equal),
    "Less": (2, np.less),
    "LessOrEqual": (2, np.less_equal),
    "And": (2, np.logical_and),
    "Or": (2, np.logical_or),
    "Where": (3, np.where),
}
_SAME = ("Identity", "Dropout")
_REDUCE: dict[str, Callable[..., Any]] = {
    "ReduceMean": np.mean,
    "ReduceSum": np.sum,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceL1": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
}


def quantize(node: Node, inputs: Sequence[Array]) -> Array:
    """BipolarQuant, Quant or IntQuant of an array, in its own precision.

    As Brevitas and the package qonnx compute them: ``BipolarQuant`` gives
    +scale where x >= 0; ``Quant`` rounds x / scale + zero point, clipped to
    the range of its bits; a signed ``Quant`` of one bit is bipolar.

    Raises:
        ModelFileError, UnsupportedModelError: inputs or attributes out of range.
    """
    if node.op == "BipolarQuant":
        if len(inputs) != 2:
            raise node.broken(f"{len(inputs)} inputs")
        x, scale = inputs
        one = np.ones((), dtype=x.dtype)
        return np.asarray(np.where(x >= 0, one, -one) * scale)
    if len(inputs) != 4:
        raise node.broken(f"{len(inputs)} inputs")
    x, scale, zero, bits = inputs
    width = bit_width(node, bits)
    signed = node.integer("signed", 1)
    narrow = node.integer("narrow", 1)
    mode = node.text("rounding_mode", "ROUND").upper()
    if mode not in _ROUND:
        raise node.unsupported(
            f"rounding mode {mode!r:.40}; supported are {', '.join(_ROUND)}",
            "use the rounding mode ROUND in the quantiser",
        )
    levels = x / scale + zero
    if width == 1 and signed:
        levels = np.where(levels >= 0, 1, -1).astype(levels.dtype)
    else:
        low = -(2 ** (width - 1)) + bool(narrow) if signed else 0
        high = 2 ** (width - 1) - 1 if signed else 2**width - 1 - bool(narrow)
        # The order of qonnx: clip, then round; the ends are whole, so both orders agree.
        levels = _ROUND[mode](np.clip(levels, low, high))
    return np.asarray((levels - zero) * scale)


def bit_width(node: Node, bits: Array) -> int:
    """The bit width input of a Quant.

    Raises:
        ModelFileError: it is not one whole number from 1 to 32.
    """
    if bits.size != 1 or not float(bits.reshape(-1)[0]).is_integer():
        raise node.broken("its bit width is not one whole number")
    width = int(bits.reshape(-1)[0])
    if not 1 <= width <= 32:
        raise node.broken(f"a bit width of {width}")
    return width


def reshaped(node: Node, shape: Sequence[int], wanted: Array) -> tuple[int, ...]:
    """The shape that Reshape gives: 0 keeps a size, -1 is what is left.

    Raises:
        ModelFileError: it does not hold as many elements.
    """
    if wanted.dtype.kind != "i" or wanted.ndim != 1 or wanted.size > _MAX_AXES:
        raise node.broken("its shape is no short list of integers")
    keep = not node.integer("allowzero", 0)
    out = [int(n) for n in wanted]
    for axis, n in enumerate(out):
        if n == 0 and keep:
            if axis >= len(shape):
                raise node.broken(f"shape {out} for {list(shape)}")
            out[axis] = shape[axis]
    total = math.prod(shape)
    if out.count(-1) == 1:
        rest = -math.prod(out)
        out[out.index(-1)] = total // rest if rest > 0 else 0
    if min(out, default=0) < 0 or math.prod(out) != total:
        raise node.broken(f"shape {[int(n) for n in wanted]} for {list(shape)}")
    return tuple(out)


def axes_of(node: Node, inputs: Sequence[Any], rank: int) -> tuple[int, ...] | None:
    """Axes from the attribute (older operator sets) or the second input; None if not given.

    Raises:
        ModelFileError: they are out of range or not constant.
    """
    axes = node.integers("axes")
    if len(inputs) > 1 and inputs[1] is not None:
        given = inputs[1]
        if not isinstance(given, np.ndarray) or given.dtype.kind != "i" or given.ndim > 1:
            raise node.broken("its axes are not a list of constants")
        axes = tuple(int(n) for n in given.reshape(-1)[: _MAX_AXES + 1])
    if axes is None:
        return None
    if any(not -rank <= axis < rank for axis in axes):
        raise node.broken(f"axes {list(axes)[:9]} of {rank}")
    normal = tuple(axis % rank for axis in axes)
    if len(set(normal)) != len(normal):
        raise node.broken(f"axes {list(axes)[:9]}")
    return normal


def _pick(node: Node, inputs: Sequence[Array]) -> Array:
    """Gather and Slice."""
    x = inputs[0]
    if node.op == "Gather":
        axis = node.integer("axis", 0)
        if inputs[1].dtype.kind != "i":
            raise node.broken("indices that are not integers")
        return np.asarray(np.take(x, inputs[1], axis=axis))
    if len(inputs) == 1:
        starts, ends = node.integers("starts") or (), node.integers("ends") or ()
        axes = node.integers("axes") or tuple(range(len(starts)))
        steps: Sequence[int] = (1,) * len(starts)
    else:
        lists = [[int(n) for n in part.reshape(-1)[:_MAX_AXES]] for part in inputs[1:]]
        starts, ends = tuple(lists[0]), tuple(lists[1])
        axes = tuple(lists[2]) if len(lists) > 2 else tuple(range(len(starts)))
        steps = lists[3] if len(lists) > 3 else (1,) * len(starts)
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # An end far below zero means: to the first element, going backwards.
        stop = None if step < 0 and end < -x.shape[axis] else end
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _shaping(node: Node, inputs: Sequence[Array]) -> Array | None:
    x = inputs[0] if inputs else None
    if node.op == "Constant":
        value = node.tensor("value")
        if value is not None:
            return value
        for name, kind in (("value_float", np.float32), ("value_floats", np.float32),
                           ("value_int", np.int64), ("value_ints", np.int64)):  # fmt: skip
            if name in node.attributes:
                node.ignore(name)
                return np.array(node.attributes[name], dtype=kind)
        return None
    assert x is not None
    if node.op == "Reshape":
        return x.reshape(reshaped(node, x.shape, inputs[1]))
    if node.op == "Flatten":
        axis = node.integer("axis", 1)
        return x.reshape(math.prod(x.shape[:axis]), -1)
    if node.op == "Transpose":
        perm = node.integers("perm")
        return np.transpose(x, perm)
    if node.op == "Squeeze":
        return np.squeeze(x, axis=axes_of(node, inputs, x.ndim))
    if node.op == "Unsqueeze":
        # Axes count in the result, whose rank they determine.
        given = node.integers("axes") if len(inputs) < 2 else tuple(inputs[1].reshape(-1)[:8])
        return np.expand_dims(x, tuple(int(axis) for axis in given or ()))
    if node.op == "Concat":
        return np.concatenate(inputs, axis=node.integer("axis", 0))
    if node.op in ("Gather", "Slice"):
        return _pick(node, inputs)
    if node.op == "Cast":
        to = node.integer("to", 1)
        node.ignore("saturate", "round_mode")
        return x.astype(CAST[to]) if to in CAST else None
    if node.op == "Clip":
        low = node.number("min", -math.inf) if len(inputs) < 2 else inputs[1]
        high = node.number("max", math.inf) if len(inputs) < 3 else inputs[2]
        return np.clip(x, low, high).astype(x.dtype)
    return None


def _size(node: Node, inputs: Sequence[Array]) -> int:
    """Elements that the result will have, before it is made."""
    if node.op in ("Expand", "ConstantOfShape"):
        wanted = inputs[-1].reshape(-1)
        return math.prod(max(int(n), 1) for n in wanted[:64]) * (
            inputs[0].size if node.op == "Expand" else 1
        )
    if node.op == "Concat":
        return sum(part.size for part in inputs)
    if node.op == "Gather" and len(inputs) == 2 and inputs[0].ndim:
        return inputs[0].size * max(inputs[1].size, 1)
    if node.op in _POINTWISE or node.op in ("Max", "Min", "BipolarQuant", "Quant", "IntQuant"):
        return math.prod(np.broadcast_shapes(*(part.shape for part in inputs)))
    return max((part.size for part in inputs), default=1)


def _compute(node: Node, inputs: Sequence[Array]) -> Array | None:
    if node.op in _SAME:
        node.ignore("seed", "ratio")
        return inputs[0]
    if node.op in ("BipolarQuant", "Quant", "IntQuant"):
        return quantize(node, inputs)
    if node.op in _POINTWISE:
        arity, function = _POINTWISE[node.op]
        if len(inputs) != arity:
            raise node.broken(f"{len(inputs)} inputs")
        return np.asarray(function(*inputs))
    if node.op in ("Max", "Min"):
        reduce = np.maximum if node.op == "Max" else np.minimum
        result = inputs[0]
        for part in inputs[1:]:
            result = reduce(result, part)
        return np.asarray(result)
    if node.op in _REDUCE:
        axes = axes_of(node, inputs, inputs[0].ndim)
        keep = bool(node.integer("keepdims", 1))
        if node.integer("noop_with_empty_axes", 0) and not axes:
            return inputs[0]
        return np.asarray(_REDUCE[node.op](inputs[0], axis=axes or None, keepdims=keep))
    if node.op == "ConstantOfShape":
        value = node.tensor("value")
        shape = tuple(int(n) for n in inputs[0].reshape(-1)[:_MAX_AXES])
        return np.full(shape, 0.0 if value is None else value.reshape(-1)[0],
                       dtype=np.float32 if value is None else value.dtype)  # fmt: skip
    if node.op == "Expand":
        shape = tuple(int(n) for n in inputs[1].reshape(-1)[:_MAX_AXES])
        return np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, shape))
    return _shaping(node, inputs)


def fold(node: Node, inputs: Sequence[Array], room: int) -> Array | None:
    """The value of a node whose inputs are all constant; None if its operator is not in the table.

    Args:
        room: elements that the result may have.

    Raises:
        ModelFileError: shapes or attributes that contradict each other, or a
            result larger than ``room``.
    """
    try:
        if _size(node, inputs) > room:
            raise node.broken("its constant result is larger than anything in the file")
        with np.errstate(all="ignore"):
            # NaN and infinity are refused where a layer takes them, by name.
            result = _compute(node, inputs)
    except ModelFileError:
        raise
    except (
        ValueError, TypeError, IndexError, OverflowError, ArithmeticError, AttributeError,
    ) as error:  # fmt: skip
        # numpy's ways to say that shapes, types or indices do not fit.
        raise node.broken(f"its constant inputs do not fit: {error}") from error
    if result is not None:
        result = result.view()
        result.setflags(write=False)
    return result
