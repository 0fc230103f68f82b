"""Puts a transport behind a TCP port, as a terminal server does with a serial one."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import select
import socket
import threading
from collections.abc import Callable

from bnnmcu.errors import LinkError, PortGoneError, UsageError
from bnnmcu.toolchain.bridge import CHUNK, POLL, Bridge, Stream

__all__ = ["LOOPBACK", "TcpBridge", "parse_address"]

LOOPBACK = "127.0.0.1"
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and probes: then a client that vanished without a word counts as gone."""


def parse_address(text: str) -> tuple[str, int]:
    """``[HOST:]PORT``; the loopback address without HOST, ``[::1]:PORT`` for IPv6.

    Raises:
        UsageError: no such thing.
    """
    match = re.fullmatch(r"(?:(?:\[([^\]]+)\]|([^:\[\]]+)):)?(\d{1,5})", text.strip(), re.ASCII)
    if match is None or int(match[3]) > 65535:
        raise UsageError(
            f"{text!r} is no TCP port",
            where="--tcp",
            hint=f"a number from 0 (any free one) to 65535, or {LOOPBACK}:5000",
        )
    return match[1] or match[2] or LOOPBACK, int(match[3])


class TcpBridge(Bridge):
    """Serves a transport on a TCP port until closed; a context manager.

    One client at a time has the board.  While one has it, another one is
    disconnected at once, so that it knows.  A client that goes leaves the board
    to the next one; what the board says while nobody is there is lost, as on a
    cable that nobody listens to.  A transport that was cut (``PortGoneError``)
    and has ``renew()`` costs its client the connection and goes on.

    Args:
        transport: an emulated board, or anything that reads and writes.
        host: a name or an address of this machine.
        port: a number; 0 for any free one.

    Attributes:
        port: the URL to open, e.g. ``socket://127.0.0.1:5000``.
        public: other machines can reach it.

    Raises:
        LinkError: the address cannot be listened on.
    """

    def __init__(self, transport: Stream, host: str = LOOPBACK, port: int = 0) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._listener = socket.create_server(address[:2], family=family, backlog=4)
        except OSError as error:
            transport.close()
            raise LinkError(
                f"cannot listen there: {error.strerror or error}",
                where=f"{host}:{port}",
                hint="name an address of this machine and a free port; port 0 finds one",
            ) from error
        self._listener.setblocking(False)
        bound = self._listener.getsockname()
        self.public = not ipaddress.ip_address(bound[0]).is_loopback
        self._client: socket.socket | None = None
        # Held over every change of the client, and over each use of its socket.
        self._guard = threading.RLock()
        shown = f"[{host}]" if ":" in host else host
        super().__init__(transport, f"socket://{shown}:{bound[1]}")
        self._start()

    def _to_device(self) -> None:
        client = self._client
        ends = [self._listener] if client is None else [self._listener, client]
        try:
            ready = select.select(ends, [], [], POLL)[0]
        except (OSError, ValueError):
            if client is self._client:
                raise
            return  # the other thread has just closed it
        if client is None or client not in ready:
            # Only where the client is still silent: the end of one that has left is known by then,
            # and whoever comes back at once is not sent away for the sake of its own ghost.
            if self._listener in ready and not (client and self._speaks(client)):
                self._accept()
            return
        with self._guard:
            if client is not self._client:
                return
            try:
                data = client.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
        if data:
            self._mending(lambda: self._transport.write(data))
        else:
            self._drop(client)

    def _speaks(self, client: socket.socket) -> bool:
        """Whether it has sent something, or has left, by now."""
        try:
            return bool(select.select([client], [], [], 0.0)[0])
        except (OSError, ValueError):
            return True  # the other thread has just closed it

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # it has gone again already
        with self._guard:
            if self._client is not None:
                client.close()
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):
                    client.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            self._client = client

    def _to_client(self) -> None:
        heard: list[bytes] = []
        self._mending(lambda: heard.append(self._transport.read(CHUNK, POLL)))
        client = self._client
        data = memoryview(b"".join(heard))
        while data and client is not None and not self._closing.is_set():
            try:
                # Not under the guard: a client that does not read must not keep others waiting.
                if not select.select([], [client], [], POLL)[1]:
                    continue
                with self._guard:
                    if client is not self._client:
                        return
                    data = data[client.send(data) :]
            except BlockingIOError:
                continue
            except (OSError, ValueError):
                self._drop(client)
                return

    def _mending(self, act: Callable[[], None]) -> None:
        """Do something with the transport; a line that was cut is mended for the next client."""
        try:
            act()
        except PortGoneError:
            renew = getattr(self._transport, "renew", None)
            if renew is None:
                raise
            self._drop(self._client)
            renew()

    def _drop(self, client: socket.socket | None) -> None:
        with self._guard:
            if client is None or client is not self._client:
                return
            self._client = None
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()

    def _release(self) -> None:
        self._drop(self._client)
        self._listener.close()
