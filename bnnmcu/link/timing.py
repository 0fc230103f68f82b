"""How long to wait for an answer: generous at first, then by what was measured."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LatencyEstimate", "Timing"]


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
        floor: the shortest wait, for transmission and a busy host.
        factor: wait this many times the slowest answer seen of late.
        attempts: transmissions of one request in all, each waiting twice as
            long as the one before.
        repairs: further transmissions where something shows that a frame was
            lost, so that waiting is of no use.
    """

    hello: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)
    first: float = 10.0
    first_draw: float = 5.0
    floor: float = 1.0
    factor: float = 8.0
    attempts: int = 4
    repairs: int = 16


class LatencyEstimate:
    """The slowest recent answers, by the number of draws asked for.

    Args:
        timing: the limits to stay within.
    """

    #: How much of a slow answer is forgotten with each faster one.
    _DECAY = 0.05

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._slowest: dict[int, float] = {}

    def observe(self, draws: int, seconds: float) -> None:
        """Learn from an answer to a request that was sent only once."""
        slowest = self._slowest.get(draws, seconds)
        decayed = slowest + (seconds - slowest) * self._DECAY
        self._slowest[draws] = max(seconds, decayed)

    def timeout(self, draws: int) -> float:
        """Seconds to wait for the answer to a request for that many draws."""
        timing = self._timing
        if not self._slowest:
            return timing.first + timing.first_draw * draws
        # More draws take longer in proportion; fewer are not assumed to take less,
        # since transmission may be what the time went into.
        slowest = max(s * max(1.0, draws / seen) for seen, s in self._slowest.items())
        return max(timing.floor, timing.factor * slowest)
