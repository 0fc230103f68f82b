"""Real values between layers: fixed-point integers with one scale for all channels.

Only where something other than a sign reads a value is its chain computed.
The scale is chosen from the range that the value can have, so that no
calibration decides what can overflow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import INT32_MAX, Add, Affine, Clamp, Node, Relu, TensorSpec
from bnnmcu.network.ops import Floats
from bnnmcu.passes.lower.builder import Builder, graph_name
from bnnmcu.passes.lower.chain import Chain, Kink, Limit, Line
from bnnmcu.passes.lower.value import Value

__all__ = ["add", "coarser", "materialize", "rectified", "scaled"]

#: A value's range takes 2**_RANGE_BITS steps to either side; sums of several stay in int32.
_RANGE_BITS = 24
#: What is computed on the way may take nearly all that int32 has.
_WIDEST = 0.99 * INT32_MAX
#: Products of float32 factors differ in their last bits; an exact unit must not.
_EXACT = 1e-12
#: A stream's scale is kept where it is at most this much coarser than the range asks for.
_COARSE = 2.0**6
#: Steps below which a channel's values are announced to be coarse.
_FEW = 2**12
#: Values below this are none: a unit of theirs would have no float64.
_NOTHING = 1e-280
_MAX_SHIFT = 31
_PRODUCT_BITS = 61


def _reach(value: Value) -> float:
    lows, highs = value.bounds()
    return float(max(np.abs(lows).max(), np.abs(highs).max()))


def _natural_scale(value: Value) -> float:
    reach = _reach(value)
    return (reach if reach > _NOTHING else 1.0) / 2.0**_RANGE_BITS


def _sign_unit(value: Value) -> float | None:
    """The unit in which what signs stand for is small whole numbers, such as 0 and 1."""
    line = value.chain.line
    if value.spec.kind != "bit" or line is None:
        return None
    unit = float(np.abs([line[1] - line[0], line[1] + line[0]]).max())
    return unit if unit > 0 and _whole(value, unit) else None


def _whole(value: Value, unit: float) -> bool:
    """All its values are whole multiples of ``unit``, and few."""
    line = value.chain.line
    if line is None:
        return False
    ends = [line[1], line[1] + line[0]]
    if value.spec.kind == "bit":
        ends[0] = line[1] - line[0]
    steps = np.array(ends) / unit
    exact = np.allclose(steps, np.rint(steps), rtol=_EXACT, atol=0)
    return exact and _reach(value) <= _WIDEST / 2 * unit


def _shared_unit(left: Value, right: Value) -> float | None:
    """The unit of one of two values, if both are whole multiples of it: they add without error."""
    for value in (left, right):
        unit = value.uniform if value.spec.kind == "int" else _sign_unit(value)
        if unit is not None and unit > 0 and _whole(left, unit) and _whole(right, unit):
            return unit
    return None


def _shift(factors: Floats, reach: int) -> int:
    """The most fraction bits with which factors fit int32 and products 62 bits."""
    # Below this the shift is at its most anyway.
    largest = max(float(np.abs(factors).max()), 2.0**-_MAX_SHIFT)
    by_factor = math.floor(math.log2(INT32_MAX / largest))
    by_product = math.floor(_PRODUCT_BITS - math.log2(max(largest * max(reach, 1), 1.0)))
    return max(0, min(_MAX_SHIFT, by_factor, by_product))


@dataclass
class _Stream:
    """A value on its way through its chain.

    ``unit``: float value of one integer; None while the integers are still the
    chain's own argument.
    """

    builder: Builder
    node: str
    spec: TensorSpec
    unit: float | None = None

    def line(self, step: Line, kink: Kink | None, scale: float) -> None:
        """Append an Affine node; ``kink`` bends at zero before the line."""
        channels = self.spec.shape[2]
        above = np.broadcast_to(step.scale * (self.unit or 1.0) / scale, (channels,))
        below = above if kink is None else above * kink.slope
        if not (np.isfinite(above).all() and np.isfinite(below).all()):
            raise UnsupportedModelError(
                "its factors are out of all proportion to its values",
                where=step.name,
                hint="check the batch norm for a variance near zero",
            )
        low, high = self.spec.bounds
        shift = _shift(np.maximum(np.abs(above), np.abs(below)), max(-low, high))
        fraction = 2.0**shift
        # Half a unit more turns the floor into rounding to nearest.
        half = (1 << shift) >> 1
        self._append(
            Affine(
                graph_name(step.name),
                self.node,
                mul=np.rint(above * fraction).astype(np.int32),
                add=np.rint(step.offset / scale * fraction).astype(np.int64) + half,
                shift=shift,
                neg=None if kink is None else np.rint(below * fraction).astype(np.int32),
            ),
            step.name,
        )
        self.unit = scale

    def limit(self, step: Limit) -> None:
        """Append a Relu or Clamp node."""
        if step.rectifies:
            self._append(Relu(graph_name(step.name), self.node), step.name)
            return
        ends = []
        for end in (step.low, step.high):
            steps = end / (self.unit or 1.0)
            ends.append(round(min(max(steps, -INT32_MAX), INT32_MAX)))
        self._append(Clamp(graph_name(step.name), self.node, ends[0], ends[1]), step.name)

    def _append(self, node: Node, op: str) -> None:
        named = self.builder.emit(op, node)
        self.node, self.spec = named.name, self.builder.specs[named.name]


def _announce(builder: Builder, value: Value, unit: float) -> None:
    """Say where one scale for all channels leaves little to some."""
    lows, highs = value.bounds()
    reach = np.maximum(np.abs(lows), np.abs(highs))
    few = (reach > 0) & (reach < _FEW * unit)
    if value.spec.kind != "bit" and few.any():
        builder.note(
            value.op,
            f"{np.count_nonzero(few)} of {few.size} channels are small beside the largest, and "
            f"have fewer than {_FEW.bit_length() - 1} bits in fixed point",
        )


@dataclass(frozen=True)
class _Piece:
    """One node of a computed chain: a line, bent before it or not, or a limit.

    ``count``: steps of the chain that are done after it.
    """

    step: Line | Limit
    kink: Kink | None
    count: int


def _pieces(value: Value, identity: Line) -> list[_Piece]:
    """The nodes that compute a value's chain; one line at least."""
    pieces: list[_Piece] = []
    steps, scaled_yet = value.chain.steps, False
    for i, step in enumerate(steps):
        if isinstance(step, Limit):
            if not scaled_yet and not (step.rectifies and value.spec.kind == "int"):
                pieces.append(_Piece(identity, None, i))
                scaled_yet = True
            pieces.append(_Piece(step, None, i + 1))
            continue
        scaled_yet = True
        if isinstance(step, Kink):
            after = steps[i + 1] if i + 1 < len(steps) else None
            if not isinstance(after, Line):
                pieces.append(_Piece(identity, step, i + 1))
        else:
            before = steps[i - 1] if i else None
            pieces.append(_Piece(step, before if isinstance(before, Kink) else None, i + 1))
    if not scaled_yet:
        pieces.append(_Piece(identity, None, len(steps)))
    return pieces


def _widest(value: Value, pieces: list[_Piece]) -> float:
    """The largest float value that a node of its chain gives."""
    widest = 0.0
    for piece in pieces:
        if isinstance(piece.step, Line):
            part = Chain(value.chain.channels, value.chain.steps[: piece.count])
            lows, highs = part.bounds(*value.spec.bounds)
            widest = max(widest, float(max(np.abs(lows).max(), np.abs(highs).max())))
    return widest


def materialize(builder: Builder, value: Value, scale: float | None = None) -> tuple[Value, float]:
    """Compute a value's chain.

    Args:
        scale: the float value of one unit of the result; None chooses one.

    Returns:
        an integer value whose chain is that scale alone, and the scale.
    """
    uniform = value.uniform
    if (
        value.spec.kind == "int"
        and uniform is not None
        and uniform > 0
        and scale in (None, uniform)
    ):
        return value, uniform
    channels = value.spec.shape[2]
    unit = scale or _sign_unit(value) or _natural_scale(value)
    identity = Line(value.op, np.ones(channels), np.zeros(channels))
    pieces = _pieces(value, identity)
    # What a clamp cuts off has to fit as well, before it is cut.
    inner = max(unit, _widest(value, pieces) / _WIDEST)
    if scale is None:
        unit = inner
    stream = _Stream(builder, value.node, value.spec)
    for piece in pieces:
        if isinstance(piece.step, Limit):
            stream.limit(piece.step)
        else:
            stream.line(piece.step, piece.kink, inner)
    if inner != unit:
        stream.line(identity, None, unit)
    _announce(builder, value, unit)
    done = scaled(channels, unit, value.op)
    return Value(value.op, stream.node, stream.spec, done), unit


def rectified(builder: Builder, value: Value) -> Value:
    """The value with a ReLU that stands first in its chain computed on the integers."""
    if not value.chain.starts_rectified or value.spec.kind != "int":
        return value
    name = value.chain.steps[0].name
    node = builder.emit(name, Relu(graph_name(name), value.node))
    return Value(value.op, node.name, builder.specs[node.name], value.chain.rest())


def coarser(builder: Builder, value: Value, most: int) -> tuple[Value, float]:
    """A value whose integers lie within ``most`` of zero, in larger steps if need be.

    Returns:
        the value, with its chain as it was, and by what factor its steps are larger.
    """
    low, high = value.spec.bounds
    reach = max(-low, high)
    if reach <= most:
        return value, 1.0
    factor = reach / max(most - 1, 1)
    raw = Value(value.op, value.node, value.spec, Chain(value.chain.channels))
    coarse, _ = materialize(builder, raw, factor)
    return Value(value.op, coarse.node, coarse.spec, value.chain), factor


def scaled(channels: int, scale: float, name: str) -> Chain:
    """The chain that gives integers of one scale their meaning."""
    return Chain(channels).then(Line(name, np.full(channels, scale), np.zeros(channels)))


def add(builder: Builder, name: str, left: Value, right: Value) -> Value:
    """The sum of two values, on a scale that serves both."""
    wanted = _natural_scale(left) + _natural_scale(right)
    shared = _shared_unit(left, right)
    scale = wanted if shared is None else shared
    for value in (left, right) if shared is None else ():
        uniform = value.uniform
        if value.spec.kind != "int" or uniform is None or uniform <= 0:
            continue
        # A stream that goes on keeps its scale, or every addition would round it again.
        if wanted / _COARSE <= uniform <= wanted * _COARSE:
            scale = uniform
            break
    terms = [materialize(builder, value, scale)[0] for value in (left, right)]
    node = builder.emit(name, Add(graph_name(name), terms[0].node, other=terms[1].node))
    spec = builder.specs[node.name]
    return Value(name, node.name, spec, scaled(spec.shape[2], scale, name))
