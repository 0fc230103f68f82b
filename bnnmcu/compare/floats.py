"""Float network against integer graph, layer by layer, for one image.

Two questions are asked of every value that both have.  How far apart are they
when each network runs on its own?  There, one sign on the edge changes all
that follows.  And, given the *integer network's own input* of that layer, is
the difference more than rounding can explain?  That one names the layer at
fault, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.compare.bounds import Rounding, carried
from bnnmcu.compare.report import LayerDiff, Parting, Stage
from bnnmcu.graph import INPUT as IMAGE
from bnnmcu.graph import infer
from bnnmcu.network import ops
from bnnmcu.network.execute import evaluate, to_float
from bnnmcu.network.ops import Floats, Op
from bnnmcu.passes import Lowering, Tap

__all__ = ["FloatComparison"]


@dataclass
class _Sums:
    """What was seen of one layer over all images."""

    tap: Tap
    compared: int = 0
    differing: int = 0
    largest: float = 0.0
    relative: float = 0.0
    unexplained: int = 0


class FloatComparison:
    """Collects the differences over several images.

    Args:
        lowering: the float network with the graph made from it.
    """

    def __init__(self, lowering: Lowering) -> None:
        self.lowering = lowering
        known = {op.name for op in lowering.network.ops}
        # A value may be found in two places; the one that the graph itself reads came last.
        self.taps = {tap.op: tap for tap in lowering.taps if tap.op in known}
        self.kinds = {name: spec.kind for name, spec in infer(lowering.graph).items()}
        self.sums = {name: _Sums(tap) for name, tap in self.taps.items()}
        self.first: Parting | None = None
        self.first_unexplained: Parting | None = None
        self.logit_change = 0.0
        self.logits: list[Floats] = []

    def add(
        self,
        image: npt.NDArray[np.uint8],
        integers: Mapping[str, npt.NDArray[Any]],
        drawn: Mapping[str, Floats],
        *,
        index: int,
        seed: int,
    ) -> None:
        """Compare one image.

        Args:
            image: uint8 (H, W, C).
            integers: the graph's values of it, (H, W, C) each, bits as {0, 1}.
            drawn: -1 / +1 weights of the float network's drawn layers.
        """
        network = self.lowering.network
        integers = {IMAGE: image, **integers}
        start = to_float(network, image[np.newaxis])
        free: dict[str, Floats] = {ops.INPUT: start}
        held: dict[str, Floats] = {ops.INPUT: start}
        errors: dict[str, Floats] = {ops.INPUT: np.zeros_like(start)}
        rounding = Rounding(
            self.lowering.graph,
            self.taps,
            integers,
            {error.layer: error.worst for error in self.lowering.errors if error.bits},
            network.input_scale,
        )
        where = (index, seed)
        for op in network.ops:
            free[op.name] = evaluate(op, free, drawn)
            held[op.name] = evaluate(op, held, drawn)
            tap = self.taps.get(op.name)
            error: Floats | float = rounding.added(op, tap, held)
            if isinstance(op, ops.Sign):
                # Not sure, where it is no further from the edge than rounding can move it.
                unsure = np.abs(held[op.source]) <= errors[op.source] + error
                error = np.where(unsure, 2.0, 0.0)
            else:
                error = carried(op, errors) + error
            errors[op.name] = np.broadcast_to(error, held[op.name].shape).copy()
            if tap is None:
                continue
            self._check(op, tap, integers[tap.node], free, held, errors, where)
        last = free[network.ops[-1].name].reshape(-1)
        self.logits.append(last)
        final = integers[self.lowering.graph.nodes[-1].name].reshape(-1).astype(np.float64)
        spread = float(np.ptp(last)) or 1.0
        change = float(np.abs(final * self.lowering.graph.logit_scale - last).max()) / spread
        self.logit_change = max(self.logit_change, change)

    def _check(
        self,
        op: Op,
        tap: Tap,
        integer: npt.NDArray[Any],
        free: Mapping[str, Floats],
        held: dict[str, Floats],
        errors: dict[str, Floats],
        where: tuple[int, int],
    ) -> None:
        """Compare one value, and let the network go on with the graph's."""
        shape = held[op.name].shape
        rows, columns = integer.shape[:2] if integer.ndim == 3 else (1, 1)
        given = integer.reshape(rows, columns, -1).transpose(2, 0, 1).astype(np.float64)
        signs = tap.scale is None or tap.offset is None
        if tap.scale is None or tap.offset is None:
            given = 2.0 * given - 1.0
        else:
            if self.kinds[tap.node] == "bit":
                given = 2.0 * given - 1.0
            given = tap.scale.reshape(-1, 1, 1) * given + tap.offset.reshape(-1, 1, 1)

        def ours(value: Floats) -> Floats:
            # A flattened value lies in the order (C, H, W).
            return value.reshape(-1, rows, columns)[tap.channels]

        own, local = ours(free[op.name]), ours(held[op.name])
        allowed = ours(errors[op.name])
        sums = self.sums[op.name]
        if signs:
            wrong = (given != local) & (allowed == 0)
            apart = given != own
            unit = np.ones(len(given))
        else:
            assert tap.scale is not None
            wrong = np.abs(given - local) > allowed
            unit = np.maximum(np.abs(tap.scale), 1e-300)
            apart = np.zeros(given.shape, dtype=bool)
            size = np.abs(given - own)
            sums.largest = max(sums.largest, float((size / unit.reshape(-1, 1, 1)).max()))
            relative = float(size.max()) / (float(np.abs(own).max()) or 1.0)
            sums.relative = max(sums.relative, relative)
        sums.compared += given.size
        sums.differing += int(apart.sum())
        sums.unexplained += int(wrong.sum())
        if apart.any() and self.first is None:
            at = self._at(apart, np.abs(given - own))
            self.first = self._parting(op, tap, at, own, given, unit, free, where)
        if wrong.any() and self.first_unexplained is None:
            at = self._at(wrong, np.abs(given - local) - (0 if signs else allowed))
            self.first_unexplained = self._parting(op, tap, at, local, given, unit, held, where)
        # From here on both have the same, so that the next layer is judged on its own.
        exact = held[op.name].reshape(-1, rows, columns).copy()
        exact[tap.channels] = given
        held[op.name] = exact.reshape(shape)
        clean = errors[op.name].reshape(-1, rows, columns).copy()
        clean[tap.channels] = 0.0
        errors[op.name] = clean.reshape(shape)

    @staticmethod
    def _at(mask: npt.NDArray[np.bool_], size: Floats) -> tuple[int, int, int]:
        """The worst place of the mask."""
        flat = int(np.where(mask, size, -np.inf).argmax())
        channel, row, column = np.unravel_index(flat, mask.shape)
        return int(channel), int(row), int(column)

    def _parting(
        self,
        op: Op,
        tap: Tap,
        at: tuple[int, int, int],
        own: Floats,
        given: Floats,
        unit: Floats,
        values: Mapping[str, Floats],
        where: tuple[int, int],
    ) -> Parting:
        left, right = float(own[at]), float(given[at])
        channel = int(tap.channels[at[0]])
        if tap.scale is None:
            before = values[op.source].reshape(-1, *own.shape[1:])[channel, at[1], at[2]]
            text = (
                f"the sign is {right:+.0f} in integers, {left:+.0f} in floats, "
                f"where it is taken of {before:.6g}"
            )
        else:
            steps = (right - left) / unit[at[0]]
            text = f"{right:.6g} in integers, {left:.6g} in floats: {steps:+.1f} units"
        index, seed = where
        return Parting(index, seed, op.name, tap.node, channel, at[1], at[2], left, right, text)

    def stage(self) -> Stage:
        """The whole, as one stage."""
        sums = self.sums.values()
        return Stage(
            "float network",
            "integer graph",
            sum(item.compared for item in sums),
            sum(item.differing for item in sums),
            sum(item.unexplained for item in sums),
            self.first,
            self.first_unexplained,
        )

    def layers(self) -> tuple[LayerDiff, ...]:
        """Every layer that both have, in the order of the network."""
        found = []
        for op in self.lowering.network.ops:
            if op.name not in self.sums:
                continue
            item = self.sums[op.name]
            kind = "signs" if item.tap.scale is None else "values"
            found.append(
                LayerDiff(
                    op.name,
                    item.tap.node,
                    kind,
                    item.compared,
                    item.differing,
                    item.largest,
                    item.relative,
                    item.unexplained,
                )
            )
        return tuple(found)
