"""Byte streams to a device: a serial port, or anything that reads and writes like one."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from types import TracebackType
from typing import Any, Protocol

from bnnmcu.errors import LinkError, LinkTimeoutError
from bnnmcu.link.access import port_holder, port_problem
from bnnmcu.link.ports import list_ports

__all__ = ["SerialTransport", "Transport", "open_port"]

#: Seconds between two looks at a silent port; a read may take this much longer.
POLL = 0.02

#: What pyserial gives to remote ports, and names for local ones.
_SCHEMES = "socket://HOST:PORT, rfc2217://HOST:PORT, hwgrep://DESCRIPTION"

#: Seconds after which a local port that takes no bytes is given up.
WRITE_TIMEOUT = 10.0


class Transport(Protocol):
    """What :class:`bnnmcu.link.device.Device` needs of a connection."""

    name: str

    def read(self, size: int, timeout: float) -> bytes:
        """What has come, up to ``size`` bytes.

        Waits at most ``timeout`` seconds for the first byte; ``b""`` if none
        comes.  Raises LinkError when the other side has gone.
        """

    def write(self, data: bytes) -> None:
        """Send all of ``data``.  Raises LinkError when the other side has gone."""

    def close(self) -> None:
        """Give the connection back; calling it twice does no harm."""

    def reset_input(self) -> None:
        """Throw away what has come and was not read."""


def open_port(url: str, baud: int = 115200) -> SerialTransport:
    """Open a serial port for this process alone.

    Args:
        url: ``/dev/ttyACM0``, ``COM5``, or any URL of pyserial, e.g.
            ``socket://host:port`` and ``rfc2217://host:port``.
        baud: bits per second; without meaning for a socket.

    Raises:
        LinkError: there is no such port, it is busy, or it must not be opened.
    """
    import serial

    local = "://" not in url
    try:
        port = serial.serial_for_url(
            url,
            baudrate=baud,
            timeout=POLL,
            # Not offered by the remote kinds; there the operating system's own limit holds.
            write_timeout=WRITE_TIMEOUT if local else None,
            # A second reader would steal bytes: a serial monitor left open does.
            exclusive=True,
        )
    except (OSError, ValueError) as error:
        raise _open_error(url, error) from error
    return SerialTransport(port, url)


class SerialTransport:
    """A :class:`Transport` over an open pyserial port.

    Args:
        port: opened with a timeout of :data:`POLL`.
        name: what messages call it.
    """

    def __init__(self, port: Any, name: str) -> None:
        self._port = port
        self.name = name
        self._gone = _gone_errors()

    def read(self, size: int, timeout: float) -> bytes:
        """See :meth:`Transport.read`."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                # Ask for no more than is there, or pyserial waits for the rest.
                data = bytes(self._port.read(max(1, min(size, self._port.in_waiting))))
                if data or time.monotonic() >= deadline:
                    return data
        except self._gone as error:
            raise self._vanished(error) from error

    def write(self, data: bytes) -> None:
        """See :meth:`Transport.write`."""
        import serial

        try:
            self._port.write(data)
        except serial.SerialTimeoutException as error:
            raise LinkTimeoutError(
                f"the port took no bytes for {WRITE_TIMEOUT:.0f} s",
                where=self.name,
                hint="unplug the board, plug it in and start again",
            ) from error
        except self._gone as error:
            raise self._vanished(error) from error

    def close(self) -> None:
        """See :meth:`Transport.close`."""
        # A port that has been unplugged may fail to close; there is nothing left to lose.
        with contextlib.suppress(*self._gone):
            self._port.close()

    def reset_input(self) -> None:
        """See :meth:`Transport.reset_input`."""
        try:
            self._port.reset_input_buffer()
        except self._gone as error:
            raise self._vanished(error) from error

    def __enter__(self) -> SerialTransport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _vanished(self, error: Exception) -> LinkError:
        return LinkError(
            f"the port has vanished ({error})",
            where=self.name,
            hint="plug the board in again, then start again; finished results are kept",
        )


def _gone_errors() -> tuple[type[Exception], ...]:
    """What pyserial raises on a dead port; SerialException is an OSError."""
    try:
        import termios
    except ImportError:  # Windows
        return (OSError,)
    return (OSError, termios.error)


def _open_error(url: str, error: Exception) -> LinkError:
    # pyserial keeps the number only of some errors, but never drops the cause.
    cause = error.__context__
    code = getattr(error, "errno", None) or (cause.args[0] if cause and cause.args else None)
    text = str(error)
    scheme, has_scheme, _ = url.partition("://")
    if has_scheme and isinstance(error, ValueError):
        return LinkError(
            f"cannot open the port: {scheme}:// is unknown",
            where=url,
            hint=f"a device file, COM5, or {_SCHEMES}",
        )
    if scheme.lower() in ("socket", "rfc2217"):
        return _remote_error(url, cause or error)
    if scheme.lower() == "hwgrep":
        return LinkError(f"cannot open the port: {text}", where=url, hint=_known_ports())
    if code in (errno.ENOTTY, errno.EISDIR):
        return LinkError(
            "cannot open the port: it exists, but is no serial port",
            where=url,
            hint=_known_ports(),
        )
    if code == errno.ENOENT or "FileNotFoundError" in text:
        return LinkError("no such port", where=url, hint=_known_ports())
    if code in (errno.EBUSY, errno.EAGAIN) or "Access is denied" in text:
        return LinkError(
            f"the port is busy: {port_holder(url) or 'another program'} has it open",
            where=url,
            hint="close the serial monitor, or the other bnnmcu, and try again",
        )
    if code == errno.EACCES:
        return LinkError(
            "no permission to open the port",
            where=url,
            hint=port_problem(url) or "'bnnmcu doctor' explains who may use serial ports",
        )
    return LinkError(f"cannot open the port: {text}", where=url, hint=_known_ports())


def _remote_error(url: str, error: BaseException) -> LinkError:
    if isinstance(error, ConnectionRefusedError):
        what = "the connection was refused"
        hint = "is something listening there (ser2net, or another server of a serial port)?"
    elif isinstance(error, socket.gaierror):
        what, hint = "the host is unknown", "check its name, or give its address"
    elif isinstance(error, TimeoutError):
        what, hint = "the host does not answer", "is it on, and is the port open in its firewall?"
    elif isinstance(error, OSError):
        what, hint = error.strerror or str(error), "is the host on, and in reach of this machine?"
    else:
        # pyserial's own parser: no number where the port's should be, or an unknown option.
        what, hint = "the URL is incomplete or wrong", f"write one of {_SCHEMES}"
    return LinkError(f"cannot open the port: {what}", where=url, hint=hint)


def _known_ports() -> str:
    ports = list_ports()
    if not ports:
        return "no serial port is there now: plug the board in, or use --emulate"
    return f"choose one of {', '.join(map(str, ports))}"
