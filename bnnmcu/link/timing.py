"""How long to wait for an answer: by what was measured, and longer after each wait in vain."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["LatencyEstimate", "Stopwatch", "Timing"]


@dataclass(frozen=True)
class Timing:
    """Limits of patience; every figure in seconds unless it counts something.

    Attributes:
        hello: waits for a HELLO reply, one attempt each.  They add up to more
            than an emulator needs to start or a board to finish the inference
            that a killed host left it with.
        first: patience with the first answer, when nothing is known of the device.
        first_draw: added to it for every draw asked for; a small core without
            an optimised kernel may need a second for one.
        floor: the shortest wait; 0 to go by the measured latency alone.
        factor: wait this many times the slowest answer seen of late.
        longest: waits are doubled up to this one.
        attempts: transmissions of one request before it may be given up.
        patience: and the time in which nothing in flight was answered.
        repairs: further transmissions where something shows that a frame was
            lost, so that waiting is of no use.
        pause: between two looks for a port that has gone.
        idle: after so long without a request the device is greeted again before
            the next one: less than anybody needs to change its firmware.
        clock: seconds that never go back; what jumps is of no consequence
            beyond a wait or two.
        sleep: waits that many seconds of the clock.
    """

    hello: tuple[float, ...] = (0.25, 0.25, 0.5, 0.5, 1.0, 1.0, 2.0, 4.0, 8.0)
    first: float = 2.0
    first_draw: float = 1.0
    floor: float = 0.0
    factor: float = 4.0
    longest: float = 30.0
    attempts: int = 4
    patience: float = 30.0
    repairs: int = 16
    pause: float = 0.2
    idle: float = 0.5
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Stopwatch:
    """Time spent on something, in laps; a clock that jumps costs one lap.

    Args:
        clock: see :class:`Timing`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        #: Seconds so far.
        self.total = 0.0

    def start(self) -> None:
        """Begin a lap; what has passed since the last one does not count."""
        self._start = self._clock()

    def lap(self, most: float) -> None:
        """End a lap, which cannot have lasted longer than ``most`` seconds, and begin another."""
        now = self._clock()
        self.total += min(max(now - self._start, 0.0), most)
        self._start = now


class LatencyEstimate:
    """The slowest recent answers to one type of request, by the number of draws asked for.

    Waits that end in vain are doubled, and stay so until an answer comes
    without any (Karn and Partridge, 1987): an answer to a repeated request
    does not tell which transmission it is for, and a device that has become
    slower must not be asked twice for ever.

    Args:
        timing: the limits to stay within.
    """

    #: How much of a slow answer is forgotten with each faster one.
    _DECAY = 0.05

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._slowest: dict[int, float] = {}
        self._loose: set[int] = set()
        self._doubled = 0

    def observe(self, draws: int, seconds: float, *, exact: bool = True) -> None:
        """Learn from an answer to a request that was sent only once.

        Args:
            draws: that it asked for.
            seconds: from when the device could start on it.
            exact: the answer was read as soon as it was there; otherwise it
                may have come earlier, and cannot show that the device is slow.
        """
        self._doubled = 0
        if not exact:
            seconds = min(seconds, self._unknown(draws))
        slowest = self._slowest.get(draws)
        if slowest is None or (draws in self._loose and (exact or seconds < slowest)):
            self._slowest[draws] = seconds
            (self._loose.discard if exact else self._loose.add)(draws)
            return
        decayed = slowest + (seconds - slowest) * self._DECAY
        self._slowest[draws] = max(seconds, decayed) if exact else min(slowest, decayed)

    def in_vain(self) -> None:
        """A wait has ended without an answer."""
        self._doubled += 1

    def measured(self, draws: int) -> float | None:
        """The slowest recent answer to a request for that many draws; None before the first."""
        if draws in self._slowest or not self._slowest:
            return self._slowest.get(draws)
        # Both are upper bounds: more draws take no longer than in proportion, and
        # fewer not longer than more.
        return min(s * max(1.0, draws / max(1, seen)) for seen, s in self._slowest.items())

    def wait(self, draws: int) -> float:
        """Seconds to wait for the answer to a request for that many draws."""
        timing = self._timing
        slowest = self.measured(draws)
        if slowest is None:
            wait = self._unknown(draws)
        else:
            wait = max(timing.floor, timing.factor * slowest)
        return max(wait, min(timing.longest, wait * 2.0 ** min(self._doubled, 64)))

    def _unknown(self, draws: int) -> float:
        return self._timing.first + self._timing.first_draw * draws
