"""Byte streams to a device: a serial port, or anything that reads and writes like one."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from bnnmcu.errors import LinkError, LinkTimeoutError, PortGoneError
from bnnmcu.link.access import port_holder, port_problem
from bnnmcu.link.ports import list_ports

__all__ = ["PortTransport", "SerialTransport", "Transport", "open_port"]

#: Seconds between two looks at a silent port; a read may take this much longer.
POLL = 0.02

#: Times in a row that another program may read what was to be read here.
_ROBBERIES = 20

#: What pyserial gives to remote ports, and names for local ones.
_SCHEMES = "socket://HOST:PORT, rfc2217://HOST:PORT, hwgrep://DESCRIPTION"

#: Seconds after which a local port that takes no bytes is given up.
WRITE_TIMEOUT = 10.0


class Transport(Protocol):
    """What :class:`bnnmcu.link.device.Device` needs of a connection.

    One that can change its baud also has ``set_baud(baud)``, see
    :meth:`SerialTransport.set_baud`.
    """

    name: str

    def read(self, size: int, timeout: float) -> bytes:
        """What has come, up to ``size`` bytes.

        Waits at most ``timeout`` seconds for the first byte; ``b""`` if none
        comes.  Raises PortGoneError when the other side has gone.
        """

    def write(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises PortGoneError when the other side has gone, LinkTimeoutError
        when it takes nothing.
        """

    def close(self) -> None:
        """Give the connection back; calling it twice does no harm."""

    def reset_input(self) -> None:
        """Throw away what has come and was not read."""


def open_port(url: str, baud: int = 115200) -> PortTransport:
    """Open a serial port for this process alone.

    Args:
        url: ``/dev/ttyACM0``, ``COM5``, or any URL of pyserial, e.g.
            ``socket://host:port`` and ``rfc2217://host:port``.
        baud: bits per second; without meaning for a socket.

    Returns:
        A :class:`SerialTransport`, unless it is a socket.

    Raises:
        LinkError: there is no such port, it is busy, or it must not be opened.
    """
    import serial

    scheme = url.partition("://")[0].lower() if "://" in url else ""
    is_socket = scheme == "socket"
    try:
        port = serial.serial_for_url(
            url,
            baudrate=baud,
            # A socket gives what is there when asked to wait for nothing, all else byte by byte.
            timeout=0 if is_socket else POLL,
            # Not offered by all remote kinds; there the operating system's own limit holds.
            write_timeout=WRITE_TIMEOUT if is_socket or not scheme else None,
            # A second reader would steal bytes: a serial monitor left open does.
            exclusive=True,
        )
    except (OSError, ValueError) as error:
        raise _open_error(url, error) from error
    return PortTransport(port, url) if is_socket else SerialTransport(port, url)


class PortTransport:
    """A :class:`Transport` over an open port of pyserial; this one has no baud: a socket.

    Args:
        port: opened with a timeout of 0 if it is a socket, else of :data:`POLL`.
        name: what messages call it.
    """

    def __init__(self, port: Any, name: str) -> None:
        self._port = port
        self.name = name
        self._gone = _gone_errors()
        self._wait = _waiting(port)
        self._robbed = 0

    def read(self, size: int, timeout: float) -> bytes:
        """See :meth:`Transport.read`."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                if not self._port.is_open:
                    raise OSError("it was closed")
                ready = self._wait(max(0.0, deadline - time.monotonic()))
                data = self._take(size) if ready else b""
                if data or time.monotonic() >= deadline:
                    return data
        except self._gone as error:
            raise self._vanished(error) from error

    def _take(self, size: int) -> bytes:
        return bytes(self._port.read(size))

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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _vanished(self, error: Exception) -> PortGoneError:
        return PortGoneError(
            f"the port has vanished ({error})",
            where=self.name,
            hint="plug the board in again, then start again; finished results are kept",
        )


class SerialTransport(PortTransport):
    """A :class:`Transport` over an open serial port, local or behind RFC 2217."""

    def _take(self, size: int) -> bytes:
        import serial

        try:
            # Ask for no more than is there, or pyserial waits for the rest.
            data = bytes(self._port.read(max(1, min(size, self._port.in_waiting))))
        except serial.SerialException:
            # Nothing, where there was something to read: another program was faster, or
            # the port has gone.  One that has gone cannot be asked, or is so for good.
            self._robbed += 1
            if self._robbed > _ROBBERIES or self._port.in_waiting < 0:
                raise
            return b""
        if data:
            self._robbed = 0
        return data

    def set_baud(self, baud: int) -> None:
        """Use another baud from now on; what was received before is forgotten.

        Raises:
            LinkError: the port, or the server that has it, cannot make it.
            PortGoneError: it has vanished.
        """
        refused: tuple[type[Exception], ...] = (ValueError, *self._gone)
        try:
            self._port.baudrate = baud
            self._port.reset_input_buffer()
        except refused as error:
            if _number(error) in (errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADF):
                raise self._vanished(error) from error
            raise LinkError(
                f"the port cannot make {baud} baud: {error}", where=self.name
            ) from error


def _waiting(port: Any) -> Callable[[float], bool]:
    """How to wait so many seconds for something to read; False if there is nothing."""
    try:
        port.fileno()
    except (AttributeError, OSError):
        # Windows' ports and RFC 2217: reading itself waits, in steps of POLL.
        return lambda seconds: True
    return lambda seconds: bool(select.select([port.fileno()], [], [], seconds)[0])


def _gone_errors() -> tuple[type[Exception], ...]:
    """What pyserial raises on a dead port; SerialException is an OSError."""
    try:
        import termios
    except ImportError:  # Windows
        return (OSError,)
    return (OSError, termios.error)


def _open_error(url: str, error: Exception) -> LinkError:
    cause, code = error.__context__, _number(error)
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


def _number(error: Exception) -> Any:
    # pyserial keeps the number only of some errors, but never drops the cause; termios's
    # errors have it in their arguments alone.
    for one in (error, error.__context__):
        if one is not None:
            number = getattr(one, "errno", None) or (one.args[0] if one.args else None)
            if isinstance(number, int):
                return number
    return None


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
