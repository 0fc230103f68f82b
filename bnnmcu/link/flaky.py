"""A bad line on purpose: a transport that loses, spoils and delays what passes.

    flaws = parse_flaws("corrupt=1/20000,drop=0.002,stall=0.0005:0.5,seed=7")
    with Device(FlakyTransport(open_port("/dev/ttyACM0"), flaws)) as device:
        ...

Which bytes and chunks are hit follows from the seed and their position in the
stream alone; when they arrive follows from the clock.  Two programs that send
the same bytes meet the same flaws, however fast they are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from bnnmcu.errors import PortGoneError, UsageError
from bnnmcu.link.flaws import FlawCounts, Flaws, Piece, SpoiledStream, parse_flaws
from bnnmcu.link.transport import Transport

__all__ = ["BUFFER", "FlakyTransport", "FlawCounts", "Flaws", "parse_flaws"]

BUFFER = 512
"""Bytes that may wait for the line before a write has to: a small USB bridge's."""
BITS_PER_BYTE = 10
"""A start bit, eight of data, a stop bit."""
PACES = (300, 12_000_000)
"""Bits per second, the least and the most."""

TICK = 0.005
"""Seconds of a paced line that are handed on at once, unless it falls silent before."""
IDLE = 0.02
"""Seconds between two looks at what another thread may have written."""
HOLD = 0.05
"""Seconds after which a chunk that waits to be overtaken is let go all the same."""

_READ_SIZE = 4096


@dataclass
class _Queued:
    start: float
    piece: bytes
    event: str


class _Lane:
    """One direction: the flaws, then a line that takes its time."""

    def __init__(self, stream: SpoiledStream, byte_seconds: float) -> None:
        self.stream = stream
        self.waiting = 0
        self._byte_seconds = byte_seconds
        self._queue: deque[_Queued] = deque()
        self._free = 0.0
        self._held_since = 0.0

    def feed(self, data: bytes, now: float) -> None:
        held = self.stream.holds
        self._put(self.stream.feed(data), now)
        if self.stream.holds and not held:
            self._held_since = now

    def due(self, now: float, most: int) -> tuple[bytes, str]:
        """Bytes that have arrived, at most so many; or else the event that has."""
        if self.stream.holds and now >= self._held_since + HOLD:
            self._put(self.stream.release(), now)
        taken = bytearray()
        while self._queue and len(taken) < most:
            first = self._queue[0]
            count = min(self._arrived(first, now), most - len(taken))
            if first.start > now or (first.piece and not count) or (first.event and taken):
                break
            taken += first.piece[:count]
            first.piece = first.piece[count:]
            first.start += count * self._byte_seconds
            if first.piece:
                continue
            self._queue.popleft()
            if first.event:
                return b"", first.event
        self.waiting -= len(taken)
        return bytes(taken), ""

    def next_due(self) -> float:
        """The time at which it is worth while to look again."""
        times = [self._held_since + HOLD] if self.stream.holds else []
        if self._queue:
            first = self._queue[0]
            times.append(first.start + min(TICK, len(first.piece) * self._byte_seconds))
        return min(times, default=float("inf"))

    def clear(self) -> None:
        """Lose what is on the line."""
        self.stream.release()
        self._queue.clear()
        self.waiting = 0
        self._free = 0.0

    def _arrived(self, item: _Queued, now: float) -> int:
        if not self._byte_seconds:
            return len(item.piece)
        # A hair more, or rounding would keep the last byte of a tick for the next one.
        return min(len(item.piece), int((now - item.start) / self._byte_seconds + 1e-6))

    def _put(self, pieces: list[Piece], now: float) -> None:
        for piece in pieces:
            start = max(self._free, now) + piece.delay
            self._free = start + len(piece.data) * self._byte_seconds
            self._queue.append(_Queued(start, piece.data, piece.event))
            self.waiting += len(piece.data)


class FlakyTransport:
    """A :class:`~bnnmcu.link.transport.Transport` over another one, made worse.

    Nothing happens while nobody reads or writes.  One thread may read while
    another one writes.

    Args:
        inner: what the board answers on; closed with this.
        flaws: what happens to the bytes, in both directions.
        pace: baud of a line of 10 bits a byte each way, with :data:`BUFFER`
            bytes before it; None for one that takes no time.

    Attributes:
        name: that of ``inner``, and what was made of it.

    Raises:
        UsageError: a pace that no line has, or a board that cannot be reset.
    """

    def __init__(self, inner: Transport, flaws: Flaws, *, pace: int | None = None) -> None:
        if pace is not None and not PACES[0] <= pace <= PACES[1]:
            raise UsageError(
                f"a line of {pace} baud", hint=f"a pace from {PACES[0]} to {PACES[1]} baud"
            )
        if flaws.reset and not hasattr(inner, "reset"):
            raise UsageError(
                "a board on a port cannot be reset from here",
                where="flaws of the line",
                hint="leave reset out, or use an emulated board",
            )
        self.name = f"{inner.name}, flaky line" + (f" at {pace} baud" if pace else "")
        byte_seconds = BITS_PER_BYTE / pace if pace else 0.0
        self._inner = inner
        self._out = _Lane(SpoiledStream(flaws, "to the board"), byte_seconds)
        self._back = _Lane(SpoiledStream(flaws, "to the host"), byte_seconds)
        self._gone = False
        self._state = threading.Lock()
        # Held over the inner transport's calls, so that bytes keep their order.
        self._writing = threading.RLock()
        self._reading = threading.Lock()

    @property
    def counts(self) -> FlawCounts:
        """What was done so far."""
        with self._state:
            return FlawCounts.of(self._out.stream.counts, self._back.stream.counts)

    def read(self, size: int, timeout: float) -> bytes:
        """See ``Transport.read``.

        Raises:
            PortGoneError: the line was cut; see :meth:`renew`.
        """
        deadline = time.monotonic() + timeout
        looked = False
        while True:
            self._deliver()
            data = self._receive(size)
            now = time.monotonic()
            if data or (looked and now >= deadline):
                return data
            with self._reading:
                self._listen(max(0.0, min(deadline - now, self._patience(now))))
            looked = True

    def write(self, data: bytes) -> None:
        """See ``Transport.write``; waits while the line is behind.

        Raises:
            PortGoneError: the line was cut; see :meth:`renew`.
        """
        self._check()
        with self._state:
            self._out.feed(data, time.monotonic())
        self._deliver()
        while self._out.waiting > BUFFER:
            wait = self._patience(time.monotonic())
            # An emulated CPU may run only while it is read from.
            if self._reading.acquire(blocking=False):
                try:
                    self._listen(wait)
                finally:
                    self._reading.release()
            else:
                time.sleep(wait)
            self._deliver()

    def reset_input(self) -> None:
        """See ``Transport.reset_input``; what is still on the line comes later."""
        with self._reading:
            self._listen(0.0)
        while self._receive(_READ_SIZE):
            pass

    def close(self) -> None:
        """See ``Transport.close``."""
        self._inner.close()

    def renew(self, inner: Transport | None = None) -> None:
        """Mend a line that was cut; flaws and counts go on where they were.

        Args:
            inner: what to read and write from now on; the old one is not closed.
        """
        with self._state:
            if inner is not None:
                self._inner = inner
            self._out.clear()
            self._back.clear()
            self._gone = False

    def _listen(self, seconds: float) -> None:
        data = self._inner.read(_READ_SIZE, seconds)
        if data:
            with self._state:
                self._back.feed(data, time.monotonic())

    def _deliver(self) -> None:
        """Hand the board what has arrived there."""
        with self._writing:
            while True:
                self._check()
                with self._state:
                    data, event = self._out.due(time.monotonic(), _READ_SIZE)
                if data:
                    self._inner.write(data)
                elif event:
                    self._happen(event)
                else:
                    return

    def _receive(self, size: int) -> bytes:
        while True:
            self._check()
            with self._state:
                data, event = self._back.due(time.monotonic(), size)
            if not event:
                return data
            self._happen(event)

    def _happen(self, event: str) -> None:
        if event == "cut":
            with self._state:
                self._gone = True
            self._check()
        self._inner.reset()  # type: ignore[attr-defined]  # asked for on construction

    def _patience(self, now: float) -> float:
        """Seconds until something arrives, at most :data:`IDLE`."""
        with self._state:
            due = min(self._out.next_due(), self._back.next_due())
        return max(0.0, min(due - now, IDLE))

    def _check(self) -> None:
        if self._gone:
            raise PortGoneError(
                "the line was cut, on purpose",
                where=self.name,
                hint="connect again; finished results are kept",
            )
