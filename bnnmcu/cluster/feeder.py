"""One board's questions in a row: a batch that waits follows without a pause.

Within a row the next image travels while this one is computed.  A row ends where
nothing waits, so that what a board does between two batches is next to nothing.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.oracle import Answer, DeviceOracle
from bnnmcu.errors import BnnmcuError
from bnnmcu.link.stats import LinkStats

__all__ = ["Batch", "Feeder", "Replies"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images for one board.

    Attributes:
        images: uint8, (N, H, W, C).
        seeds: uint64, (N, D).
    """

    images: npt.NDArray[np.uint8]
    seeds: npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Replies:
    """What a board said to a batch.

    Attributes:
        answers: one an image, in order; fewer where it failed on the way.
        seconds: that all of them took, since the batch before if that was in the same row.
        stats: of its line, since the worker opened it.
        failed: why it went no further; None if it did.
    """

    answers: tuple[Answer, ...]
    seconds: float
    stats: LinkStats
    failed: str | None = None


@dataclass(eq=False)
class _Waiting:
    firmware: str
    batch: Batch
    answers: list[Answer] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    replies: Replies | None = None

    def end(self, seconds: float, stats: LinkStats, failed: str | None = None) -> None:
        self.replies = Replies(tuple(self.answers), seconds, stats, failed)
        self.ended.set()


class Feeder:
    """A thread that asks one board.

    Args:
        name: of the board.
        opened: gives the board with this firmware; raises what :meth:`ask` tells.
        shut: closes it after a failure.
    """

    def __init__(
        self, name: str, opened: Callable[[str], DeviceOracle], shut: Callable[[], None]
    ) -> None:
        self._opened = opened
        self._shut = shut
        self._queue: queue.Queue[_Waiting | None] = queue.Queue()
        # Taken from the queue, and not of the row that was going on.
        self._next: _Waiting | None = None
        self._thread = threading.Thread(target=self._run, name=f"board {name}", daemon=True)
        self._thread.start()

    def ask(self, firmware: str, batch: Batch) -> Replies:
        """Wait until the board has answered a batch, or has failed.

        Args:
            firmware: names it, for ``opened``.
        """
        waiting = _Waiting(firmware, batch)
        self._queue.put(waiting)
        while not waiting.ended.wait(1.0):
            if not self._thread.is_alive():
                return Replies((), 0.0, LinkStats(), "its worker is ending")
        assert waiting.replies is not None
        return waiting.replies

    def close(self) -> None:
        """Ask nothing more; what waits is told so."""
        self._queue.put(None)

    def _run(self) -> None:
        while True:
            first = self._next or self._queue.get()
            self._next = None
            if first is None:
                return
            self._row(first)

    def _row(self, first: _Waiting) -> None:
        row: list[_Waiting] = []
        at, stats = 0, LinkStats()
        begun = time.monotonic()
        try:
            oracle = self._opened(first.firmware)
            begun = time.monotonic()
            for answer in oracle.answers(self._requests(first, row)):
                one = row[at]
                one.answers.append(answer)
                if len(one.answers) == len(one.batch.images):
                    stats = oracle.stats
                    now = time.monotonic()
                    one.end(now - begun, stats)
                    begun, at = now, at + 1
            # Batches without images have no answer that could end them.
            for one in row[at:] or ([] if row else [first]):
                one.end(0.0, stats)
        except (BnnmcuError, OSError, ValueError) as error:
            self._shut()
            for one in row[at:] or ([] if row else [first]):
                one.end(time.monotonic() - begun, stats, str(error))

    def _requests(
        self, first: _Waiting, row: list[_Waiting]
    ) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]]:
        one: _Waiting | None = first
        while one is not None:
            row.append(one)
            yield from zip(one.batch.images, one.batch.seeds, strict=True)
            one = self._following(first.firmware)

    def _following(self, firmware: str) -> _Waiting | None:
        try:
            found = self._queue.get_nowait()
        except queue.Empty:
            return None
        if found is not None and found.firmware == firmware:
            return found
        if found is None:
            self._queue.put(None)
        self._next = found
        return None
