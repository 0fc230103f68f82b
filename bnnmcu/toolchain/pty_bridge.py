"""Puts a transport behind a pseudo-terminal, so that programs open it like a port."""

from __future__ import annotations

import os
import select

from bnnmcu.errors import ToolchainError
from bnnmcu.toolchain.bridge import CHUNK, POLL, Bridge, Stream

__all__ = ["PtyBridge"]


class PtyBridge(Bridge):
    """Serves a transport on a pseudo-terminal until closed; a context manager.

    Clients may come and go: this end keeps the terminal open, in raw mode.

    Args:
        transport: an emulated board, or anything that reads and writes.

    Attributes:
        port: the path to open, e.g. ``/dev/pts/3``.

    Raises:
        ToolchainError: this system has no pseudo-terminals.
    """

    def __init__(self, transport: Stream) -> None:
        if os.name != "posix":
            transport.close()
            raise ToolchainError(
                "serving a port needs pseudo-terminals, which Windows has not",
                hint="use --tcp, or --emulate with verify, bench or attack directly",
            )
        import tty

        self._master, self._slave = os.openpty()
        # No echo, no line editing, no control characters.
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        super().__init__(transport, os.ttyname(self._slave))
        self._start()

    def _to_device(self) -> None:
        if select.select([self._master], [], [], POLL)[0]:
            self._transport.write(os.read(self._master, CHUNK))

    def _to_client(self) -> None:
        data = memoryview(self._transport.read(CHUNK, POLL))
        # The terminal holds a few KB for a client that is slow or away; then
        # the board waits, as nothing it has said may be lost.
        while data and not self._closing.is_set():
            if select.select([], [self._master], [], POLL)[1]:
                data = data[os.write(self._master, data) :]

    def _release(self) -> None:
        os.close(self._master)
        os.close(self._slave)
