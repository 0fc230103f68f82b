"""How far rounding alone can move the values of a float network.

Every bound is a worst case: what is beyond it is no rounding.  Values are
(1, C, H, W) float64, as in :mod:`bnnmcu.network.execute`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.graph import INPUT as IMAGE
from bnnmcu.graph import Affine, Dense, Graph, IntegerConv, MaxPool, Node, Relu, infer
from bnnmcu.network import ops
from bnnmcu.network.execute import evaluate
from bnnmcu.network.ops import Floats, Op
from bnnmcu.passes import Tap

__all__ = ["Rounding", "carried"]

# Relative error of a float64 sum or chain of a network's size, generously.
_FLOAT = 1e-9
# Rounding to nearest, the rounding of factors, and a clamp's ends, in units of a stream.
_STREAM_UNITS = 2.0


def carried(op: Op, errors: Mapping[str, Floats]) -> Floats:
    """How far an operation's value can move when its sources move by ``errors``.

    Signs are not asked: they move by 2 or not at all.
    """
    error = errors[op.source]
    given = {op.source: error}
    if isinstance(op, ops.Conv | ops.Linear):
        weights = np.ones_like(op.weights) if op.drawn else np.abs(op.weights)
        return evaluate(replace(op, weights=weights, bias=None, drawn=False), given)
    if isinstance(op, ops.Affine):
        return evaluate(replace(op, scale=np.abs(op.scale), offset=0 * op.offset), given)
    if isinstance(op, ops.PRelu):
        return error * np.maximum(1.0, np.abs(op.slope)).reshape(-1, 1, 1)
    if isinstance(op, ops.Add):
        return error + errors[op.other]
    if isinstance(op, ops.Clamp):
        return error
    if isinstance(op, ops.Pad):
        return evaluate(replace(op, value=0.0), given)
    # Pools and flattening move errors as they move values.
    return evaluate(op, given)


class Rounding:
    """The rounding that the integer graph adds at one of its nodes.

    Args:
        graph: the integer network.
        taps: by operation; those of values that the graph holds.
        integers: the graph's values by node, (H, W, C), bits as {0, 1}.
        worst: by layer, the largest error of a weight over the largest weight.
        input_scale: (C,) of the float network.
    """

    def __init__(
        self,
        graph: Graph,
        taps: Mapping[str, Tap],
        integers: Mapping[str, npt.NDArray[Any]],
        worst: Mapping[str, float],
        input_scale: Floats,
    ) -> None:
        self.graph, self.taps, self.integers = graph, taps, integers
        self.worst, self.input_scale = worst, input_scale
        self.nodes = {node.name: node for node in graph.nodes}
        self.specs = infer(graph)
        self.found = {tap.node for tap in taps.values()} | {IMAGE}

    def added(self, op: Op, tap: Tap | None, values: Mapping[str, Floats]) -> Floats | float:
        """Bound on what rounding adds to ``op`` itself, in its own float units."""
        # The network's own arithmetic is float64, and so is that of the thresholds.
        noise = _FLOAT * max(float(np.abs(values[name]).max()) for name in (op.name, *op.sources))
        node = self.nodes.get(tap.node) if tap is not None else None
        if isinstance(node, Dense) and tap is not None and tap.scale is not None:
            return noise + self._dense(node, float(tap.scale[0]))
        if isinstance(op, ops.Conv | ops.Linear):
            if op.drawn:
                return noise
            if isinstance(node, IntegerConv) and tap is not None and tap.scale is not None:
                return noise + self._conv(op, node, tap)
            bound = noise + self._by_error(op, values)
            if isinstance(node, Affine) and tap is not None and tap.scale is not None:
                # Sums that were put on one scale for all channels.
                bound = bound + _STREAM_UNITS * float(np.abs(tap.scale).max())
            return bound
        if node is None or tap is None:
            return noise
        if tap.scale is None:
            return noise + self._stream(op, node, values)
        if any(s in self.taps and self.taps[s].node == node.name for s in op.sources):
            # The same integers, read differently: nothing was computed.
            return noise
        taps = op.kernel[0] * op.kernel[1] if isinstance(op, ops.AvgPool) else 1
        return noise + _STREAM_UNITS * len(node.sources) * taps * float(np.abs(tap.scale).max())

    def _known(self, name: str) -> bool:
        """Whether the network has a node's value, but for operations without rounding."""
        while name not in self.found:
            node = self.nodes.get(name)
            if not isinstance(node, Relu | MaxPool):
                return False
            name = node.source
        return True

    def _signed(self, name: str) -> Floats:
        """A node's value as an integer operation sees it, (H, W, C)."""
        value = self.integers[name].astype(np.float64)
        return 2.0 * value - 1.0 if self.specs[name].kind == "bit" else value

    def _dense(self, node: Dense, scale: float) -> float:
        source = self._signed(node.source)
        # Half a unit for each weight and for the bias.
        bound = scale * (0.5 * float(np.abs(source).sum()) + 1.0)
        if not self._known(node.source):
            bound += scale * float(np.abs(node.weights.astype(np.float64)).sum(axis=1).max())
        return bound

    def _conv(self, op: ops.Conv | ops.Linear, node: IntegerConv, tap: Tap) -> Floats:
        """Half a unit for each weight, or more where calibration clipped."""
        assert tap.scale is not None
        units = np.full(len(op.weights), float(np.abs(tap.scale).max()))
        units[tap.channels] = np.abs(tap.scale)
        each = units / 2
        clipped = self.worst.get(op.name, 0.0) * self._largest(op)
        if op.source == ops.INPUT and clipped > 0.51 * units.max():
            each = np.maximum(each, clipped)
        source = np.abs(self._signed(node.source)).transpose(2, 0, 1)[np.newaxis]
        top, left, bottom, right = node.padding
        border = 0.0 if node.fill is None else float(node.fill.max())
        padded = np.pad(
            source, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=border
        )
        outputs, kh, kw, inputs = node.weights.shape

        def summed(weights: Floats, of: Floats) -> Floats:
            conv = ops.Conv(
                "sum", "x", weights, stride=node.stride, dilation=node.dilation, groups=node.groups
            )
            return evaluate(conv, {"x": of})

        ones = np.ones((node.groups, inputs, kh, kw))
        sums = np.repeat(summed(ones, padded), outputs // node.groups, axis=1)
        bound = self._spread(op, tap, sums) * each.reshape(-1, 1, 1)
        rough = np.zeros_like(padded)
        if not self._known(node.source):
            rough += 1.0
        if node.fill is not None:
            # The pixel that stands for zero is a whole number.
            rough[...] = 0.5
            rough[:, :, top : rough.shape[2] - bottom, left : rough.shape[3] - right] = 0.0
        if rough.any():
            absolute = np.abs(node.weights.astype(np.float64)).transpose(0, 3, 1, 2)
            moved = self._spread(op, tap, summed(absolute, rough))
            bound = bound + moved * units.reshape(-1, 1, 1)
        return bound

    def _spread(self, op: Op, tap: Tap, value: Floats) -> Floats:
        """(1, C', H, W) of the graph's channels to the network's; the largest where one is gone."""
        weights = getattr(op, "weights")  # noqa: B009  convolutions and linear layers alone
        wide = np.repeat(value.max(axis=1, keepdims=True), len(weights), axis=1)
        wide[:, tap.channels] = value
        return wide

    def _scales(self, op: Op, channels: int) -> Floats:
        """Float value of one unit of the source's integers, (C,); 1 if it is the same for all."""
        if op.source == ops.INPUT:
            return np.abs(self.input_scale)
        tap = self.taps.get(op.source)
        if tap is None or tap.scale is None or len(tap.scale) != channels:
            return np.ones(channels)
        return np.maximum(np.abs(tap.scale), 1e-300)

    def _largest(self, op: ops.Conv | ops.Linear) -> float:
        """The largest weight as the quantiser sees it: times its source's unit."""
        groups = op.groups if isinstance(op, ops.Conv) else 1
        inputs = op.weights.shape[1]
        scales = self._scales(op, groups * inputs).reshape(groups, 1, inputs)
        flat = np.abs(op.weights).reshape(groups, len(op.weights) // groups, inputs, -1)
        return float((flat * scales[..., np.newaxis]).max())

    def _by_error(self, op: ops.Conv | ops.Linear, values: Mapping[str, Floats]) -> Floats | float:
        """By the layer's largest error, where its sums are not in the graph as they are."""
        worst = self.worst.get(op.name, 0.0)
        if worst == 0.0:
            return 0.0
        x = values[op.source]
        tap = self.taps.get(op.source)
        moved = np.abs(x)
        if op.source == ops.INPUT:
            moved = np.full_like(x, 255.0) * np.abs(self.input_scale).reshape(-1, 1, 1)
        elif tap is not None and tap.offset is not None and len(tap.offset) == x.shape[1]:
            moved = np.maximum(moved, np.abs(x - tap.offset.reshape(-1, 1, 1)))
        units = moved / self._scales(op, x.shape[1]).reshape(-1, 1, 1)
        ones = replace(op, weights=np.ones_like(op.weights), bias=None)
        return worst * self._largest(op) * evaluate(ones, {op.source: units})

    def _stream(self, op: Op, node: Node, values: Mapping[str, Floats]) -> float:
        """For a sign of a value that the graph computed as a stream first."""
        while isinstance(node, MaxPool):
            node = self.nodes[node.source]
        if self._known(node.source):
            return 0.0
        integers = float(np.abs(self.integers[node.source].astype(np.float64)).max())
        return _STREAM_UNITS * float(np.abs(values[op.source]).max()) / max(integers, 1.0)
