"""How long answers took, and what the link had to put up with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bnnmcu.store.rows import Stored

__all__ = ["Timing", "timing_of"]


@dataclass(frozen=True)
class Timing:
    """Figures over all requests of a run; a request is an image with all its draws.

    Attributes:
        requests: that were answered.
        repeated: those of them that were sent more than once.
        transmissions: in all, as far as they were counted.
        latency_median_s, latency_p99_s, latency_max_s: seconds from sending to having
            the answer, waiting behind others included; None if never measured.
    """

    requests: int
    repeated: int
    transmissions: int
    latency_median_s: float | None
    latency_p99_s: float | None
    latency_max_s: float | None

    def text(self) -> str:
        """One line for people."""
        line = f"{self.requests:,} requests, {self.repeated:,} sent more than once"
        if self.latency_median_s is not None:
            line += (
                f"; answered within {1000 * self.latency_median_s:.1f} ms (median), "
                f"{1000 * (self.latency_p99_s or 0):.1f} ms (99 %)"
            )
        return line


def timing_of(rows: Iterable[Stored]) -> Timing:
    """Figures of the answered rows."""
    first = [one.draws[0] for one in rows if one.draws]
    attempts = [draw.attempts or 1 for draw in first]
    measured = [draw.latency_s for draw in first if draw.latency_s is not None]
    return Timing(
        requests=len(first),
        repeated=sum(count > 1 for count in attempts),
        transmissions=sum(attempts),
        latency_median_s=float(np.median(measured)) if measured else None,
        latency_p99_s=float(np.percentile(measured, 99)) if measured else None,
        latency_max_s=max(measured, default=None),
    )
