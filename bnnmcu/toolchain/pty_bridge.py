"""Puts a transport behind a pseudo-terminal, so that programs open it like a port."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from bnnmcu.errors import BnnmcuError, LinkError, ToolchainError

__all__ = ["PtyBridge"]

POLL = 0.2
"""Seconds after which a waiting thread looks whether it is to end."""
STOP_TIMEOUT = 5.0
"""Seconds the threads get to end."""

_CHUNK = 4096


class _Stream(Protocol):
    name: str

    def read(self, size: int, timeout: float) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class PtyBridge:
    """Serves a transport on a pseudo-terminal until closed; a context manager.

    Each direction has a thread of its own, so that a side that does not read
    never keeps the other from being read.  Clients may come and go: this end
    keeps the terminal open, in raw mode.  It owns the transport and closes it.

    Args:
        transport: an emulated board, or anything that reads and writes.

    Attributes:
        port: the path to open, e.g. ``/dev/pts/3``.

    Raises:
        ToolchainError: this system has no pseudo-terminals.
    """

    def __init__(self, transport: _Stream) -> None:
        if os.name != "posix":
            transport.close()
            raise ToolchainError(
                "serving a port needs pseudo-terminals, which Windows has not",
                hint="use --emulate with verify, bench or attack directly",
            )
        import tty

        self._transport = transport
        self._master, self._slave = os.openpty()
        # No echo, no line editing, no control characters.
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port = os.ttyname(self._slave)
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._error: BnnmcuError | None = None
        self._threads = [
            threading.Thread(target=self._pump, args=(pump,), name=f"bnnmcu-pty-{label}")
            for label, pump in (("in", self._to_device), ("out", self._to_client))
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

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
        os.close(self._master)
        os.close(self._slave)

    def __enter__(self) -> PtyBridge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pump(self, pump: Callable[[], None]) -> None:
        try:
            while not self._closing.is_set():
                pump()
        except BnnmcuError as error:
            self._error = self._error or error
        except (OSError, ValueError) as error:
            self._error = self._error or LinkError(f"the terminal failed: {error}", where=self.port)
        finally:
            self._ended.set()

    def _to_device(self) -> None:
        if select.select([self._master], [], [], POLL)[0]:
            self._transport.write(os.read(self._master, _CHUNK))

    def _to_client(self) -> None:
        data = memoryview(self._transport.read(_CHUNK, POLL))
        # The terminal holds a few KB for a client that is slow or away; then
        # the board waits, as nothing it has said may be lost.
        while data and not self._closing.is_set():
            if select.select([], [self._master], [], POLL)[1]:
                data = data[os.write(self._master, data) :]
