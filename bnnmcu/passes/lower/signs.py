"""Signs: a chain and a sign become one integer comparison for each channel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import ALWAYS, GE, Affine, Surrogate, Threshold
from bnnmcu.network.ops import Decide, Sign
from bnnmcu.passes.lower.builder import Builder, Tap, graph_name
from bnnmcu.passes.lower.chain import Chain, Line
from bnnmcu.passes.lower.fold import Ints, Predicate, bisect_threshold
from bnnmcu.passes.lower.streams import materialize
from bnnmcu.passes.lower.value import Value

__all__ = ["sign", "surrogate_of"]


def surrogate_of(chain: Chain) -> Surrogate:
    """The line that gradients follow, clipping left out; see :class:`bnnmcu.graph.Surrogate`."""
    rectified = chain.starts_rectified
    slope, offset = np.ones(chain.channels), np.zeros(chain.channels)
    for step in chain.rest().steps if rectified else chain.steps:
        if isinstance(step, Line):
            slope, offset = slope * step.scale, offset * step.scale + step.offset
    return Surrogate(slope, offset, rectified)


def _widened(builder: Builder, value: Value, name: str) -> Value:
    """Signs as integers, since a comparison takes no bits."""
    channels = value.spec.shape[2]
    node = builder.emit(
        name,
        Affine(
            graph_name(f"{name}.in"),
            value.node,
            mul=np.ones(channels, dtype=np.int32),
            add=np.zeros(channels, dtype=np.int64),
        ),
    )
    return Value(value.op, node.name, builder.specs[node.name], value.chain)


def _keeps_sign(chain: Chain) -> bool:
    """The sign of its value is the bit that goes in."""
    ends = chain.apply(np.ones(chain.channels)), chain.apply(-np.ones(chain.channels))
    return bool(np.all(ends[0] > 0) and np.all(ends[1] < 0))


def _check_zero(
    builder: Builder, op: Sign | Decide, node: str, chain: Chain, low: Ints, high: Ints
) -> None:
    """A bit has no zero: torch.sign may give it at single sums, but not as a habit.

    Raises:
        UnsupportedModelError: a channel is exactly zero on many sums.
    """

    def first(reaches: Predicate) -> Ints:
        """The first integer of a rising predicate, or one beyond the last."""
        value, kind = bisect_threshold(reaches, low, high)
        return np.where(kind == GE, value, np.where(kind == ALWAYS, low, high + 1)).astype(np.int64)

    direction = chain.direction
    assert direction is not None
    rising = direction > 0
    # Where the chain falls, look at it from the other end.
    at_least = first(lambda x: np.where(rising, chain.apply(x) >= 0, chain.apply(x) <= 0))
    above = first(lambda x: np.where(rising, chain.apply(x) > 0, chain.apply(x) < 0))
    zeros = above - at_least
    parity = builder.parity(node)
    if parity is not None:
        # An odd number of signs has no sum of zero.
        zeros = (above + 1 - parity) // 2 - (at_least + 1 - parity) // 2
    if np.any(zeros > 1):
        raise UnsupportedModelError(
            f"torch.sign gives 0 for {int(zeros.max()):,} different sums of a channel "
            "(a ReLU or a zero scale stands before it), which one bit cannot hold",
            where=op.name,
            hint="remove the ReLU before the sign, or write torch.where(x >= 0, 1.0, -1.0)",
        )
    # In fixed point one integer is zero by rounding; that is no sum that training knew.
    if np.any(zeros == 1) and builder.counts_exactly(node):
        builder.note(
            op.name,
            f"torch.sign(0) is 0, here it is +1: {np.count_nonzero(zeros)} of {zeros.size} "
            "channels can reach exactly zero",
        )


def sign(builder: Builder, op: Sign | Decide, value: Value) -> Value:
    """Lower a sign; what it reads is monotone in the integers, or is computed first."""
    if value.chain.direction is None:
        # A PReLU with a negative slope turns round at zero: compare its result instead.
        value, _ = materialize(builder, value)
    if value.spec.kind == "bit":
        if _keeps_sign(value.chain):
            builder.taps.append(
                Tap(op.name, value.node, None, None, np.arange(value.spec.shape[2], dtype=np.int64))
            )
            return Value(op.name, value.node, value.spec, Chain(value.spec.shape[2]))
        value = _widened(builder, value, op.name)
    chain, channels = value.chain, value.spec.shape[2]

    def predicate(x: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        result = chain.apply(x)
        return np.asarray(result > 0 if op.zero < 0 else result >= 0)

    low, high = builder.channel_bounds(value.node)
    threshold, kind = bisect_threshold(predicate, low, high)
    if op.zero == 0:
        _check_zero(builder, op, value.node, chain, low, high)
    node = builder.emit(
        op.name,
        Threshold(graph_name(op.name), value.node, threshold, kind, surrogate_of(chain)),
    )
    spec = builder.specs[node.name]
    builder.taps.append(Tap(op.name, node.name, None, None, np.arange(channels, dtype=np.int64)))
    return Value(op.name, node.name, spec, Chain(channels))
