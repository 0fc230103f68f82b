"""What a link had to put up with, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["LinkStats"]


@dataclass
class LinkStats:
    """Counters of one connection, over all its losses and reconnects.

    Attributes:
        requests: different requests sent.
        retries: transmissions beyond the first of each.
        timeouts: waits that ended without an answer.
        bad_frames: corrupt frames received.
        stale: sound frames that answered nothing in flight.
        reconnects: times the connection was made anew.
        reported: corrupt frames and lost bytes that the device reported.
        bytes_out: bytes sent, frames and retries and all.
        bytes_in: bytes received, sound or not.
    """

    requests: int = 0
    retries: int = 0
    timeouts: int = 0
    bad_frames: int = 0
    stale: int = 0
    reconnects: int = 0
    reported: int = 0
    bytes_out: int = 0
    bytes_in: int = 0

    def snapshot(self) -> LinkStats:
        """The counters as they are now; the link does not touch the copy."""
        return replace(self)
