"""What every bridge does that lets other programs reach a transport: two threads and an end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from bnnmcu.errors import BnnmcuError, LinkError

__all__ = ["CHUNK", "POLL", "Bridge", "Stream"]

POLL = 0.2
"""Seconds after which a waiting thread looks whether it is to end."""
STOP_TIMEOUT = 5.0
"""Seconds the threads get to end."""
CHUNK = 4096
"""Bytes handed on at a time."""


class Stream(Protocol):
    """What a bridge serves: the part of a transport that it needs."""

    name: str

    def read(self, size: int, timeout: float) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Bridge(ABC):
    """Serves a transport until closed; a context manager.

    Each direction has a thread of its own, so that a side that does not read
    never keeps the other from being read.  It owns the transport and closes it.

    Attributes:
        port: what a program opens to reach the transport.
    """

    port: str

    def __init__(self, transport: Stream, port: str) -> None:
        self._transport = transport
        self.port = port
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._error: BnnmcuError | None = None
        self._threads = [
            threading.Thread(
                target=self._pump, args=(pump,), name=f"bnnmcu-bridge-{label}", daemon=True
            )
            for label, pump in (("in", self._to_device), ("out", self._to_client))
        ]

    def serve(self) -> None:
        """Wait until the board is gone or the bridge is closed.

        Raises:
            BnnmcuError: what ended the board.
        """
        # With a time limit, since an unlimited wait cannot be interrupted everywhere.
        while not self._ended.wait(POLL):
            pass
        if self._error is not None and not self._closing.is_set():
            raise self._error

    def close(self) -> None:
        """End the bridge and close its transport; may be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._ended.set()
        self._transport.close()
        for thread in self._threads:
            thread.join(STOP_TIMEOUT)
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _pump(self, pump: Callable[[], None]) -> None:
        try:
            while not self._closing.is_set():
                pump()
        except BnnmcuError as error:
            self._error = self._error or error
        except (OSError, ValueError) as error:
            self._error = self._error or LinkError(f"the bridge failed: {error}", where=self.port)
        finally:
            self._ended.set()

    @abstractmethod
    def _to_device(self) -> None:
        """Hand on what clients say; returns within about :data:`POLL` seconds."""

    @abstractmethod
    def _to_client(self) -> None:
        """Hand on what the board says; returns within about :data:`POLL` seconds."""

    @abstractmethod
    def _release(self) -> None:
        """Give back what was opened; the threads have ended."""
