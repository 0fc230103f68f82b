"""Functions of one integer, per channel: what stands between a sum and its reader.

Batch norm, bias, scales, ReLU, hardtanh and PReLU after a convolution are kept
as a chain of piecewise linear steps until something reads the value.  A sign
folds the chain into an integer comparison; anything else has it computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.network.ops import Floats

__all__ = ["Chain", "Kink", "Limit", "Line", "Step"]


@dataclass(frozen=True, eq=False)
class Line:
    """scale * x + offset, both (C,)."""

    name: str
    scale: Floats
    offset: Floats


@dataclass(frozen=True, eq=False)
class Limit:
    """min(max(x, low), high)."""

    name: str
    low: float
    high: float

    @property
    def rectifies(self) -> bool:
        """It is a ReLU."""
        return self.low == 0.0 and math.isinf(self.high)


@dataclass(frozen=True, eq=False)
class Kink:
    """x where x >= 0, else slope * x; slope (C,)."""

    name: str
    slope: Floats


Step = Line | Limit | Kink


def _check_finite(line: Line) -> None:
    """
    Raises:
        UnsupportedModelError: its factors have left float64.
    """
    if not (np.isfinite(line.scale).all() and np.isfinite(line.offset).all()):
        raise UnsupportedModelError(
            "its values leave float64",
            where=line.name,
            hint="check the parameters here and before it: a variance near zero, or a training "
            "that diverged",
        )


@dataclass(frozen=True, eq=False)
class Chain:
    """Steps applied one after the other to a value with ``channels`` channels."""

    channels: int
    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Chain:
        """This chain with a step behind it; lines are merged where they can be."""
        last = self.steps[-1] if self.steps else None
        if isinstance(step, Line):
            _check_finite(step)
            if np.all(step.scale == 1) and np.all(step.offset == 0):
                return self
            if isinstance(last, Line):
                with np.errstate(over="ignore", invalid="ignore"):
                    merged = Line(
                        step.name, step.scale * last.scale, step.scale * last.offset + step.offset
                    )
                _check_finite(merged)
                return Chain(self.channels, (*self.steps[:-1], merged))
        if (
            isinstance(step, Limit | Kink)
            and (isinstance(step, Kink) or step.rectifies)
            and isinstance(last, Line)
            and np.all(last.scale > 0)
            and np.all(last.offset == 0)
        ):
            # A positive scale commutes with what bends at zero only: bend the integers.
            return Chain(self.channels, self.steps[:-1]).then(step).then(last)
        return Chain(self.channels, (*self.steps, step))

    def apply(self, x: npt.NDArray[np.generic]) -> Floats:
        """Values (..., C) in float64."""
        value = np.asarray(x, dtype=np.float64)
        for step in self.steps:
            if isinstance(step, Line):
                value = step.scale * value + step.offset
            elif isinstance(step, Limit):
                value = np.clip(value, step.low, step.high)
            else:
                value = np.where(value >= 0, value, step.slope * value)
        return np.broadcast_to(value, (*value.shape[:-1], self.channels))

    @property
    def line(self) -> tuple[Floats, Floats] | None:
        """Scale and offset (C,), if it is one line."""
        if not self.steps:
            return np.ones(self.channels), np.zeros(self.channels)
        if len(self.steps) == 1 and isinstance(self.steps[0], Line):
            return self.steps[0].scale, self.steps[0].offset
        return None

    @property
    def direction(self) -> npt.NDArray[np.int8] | None:
        """+1 rising, -1 falling, per channel; None if a channel does neither."""
        sign = np.ones(self.channels, dtype=np.int8)
        for step in self.steps:
            if isinstance(step, Line):
                # A zero scale is constant, which may count as either.
                sign = np.where(step.scale < 0, -sign, sign).astype(np.int8)
            elif isinstance(step, Kink) and np.any(step.slope < 0):
                return None
        return sign

    @property
    def starts_rectified(self) -> bool:
        """It begins with a ReLU on the integers."""
        return bool(self.steps) and isinstance(self.steps[0], Limit) and self.steps[0].rectifies

    def rest(self) -> Chain:
        """Without its first step."""
        return Chain(self.channels, self.steps[1:])

    def on_signs(self) -> Chain:
        """The line that equals it at -1 and +1."""
        if self.line is not None:
            return self
        above, below = (self.apply(np.full(self.channels, x)) for x in (1.0, -1.0))
        line = Line(self.steps[-1].name, (above - below) / 2, (above + below) / 2)
        return Chain(self.channels).then(line)

    def bounds(self, low: int, high: int) -> tuple[Floats, Floats]:
        """Smallest and largest value (C,) over the integers from low to high."""
        points = [low, high]
        if low < 0 < high:
            points += [-1, 0]
        values = [np.full(self.channels, float(point)) for point in points]
        lows, highs = np.min(values, axis=0), np.max(values, axis=0)
        for step in self.steps:
            one = Chain(self.channels, (step,))
            ends = [one.apply(lows), one.apply(highs)]
            # A kink's lowest point may be inside.
            ends += [one.apply(np.clip(np.zeros(self.channels), lows, highs))]
            lows, highs = np.min(ends, axis=0), np.max(ends, axis=0)
        return lows, highs
