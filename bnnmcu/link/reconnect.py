"""Opens a port again after it has gone: the same one, whatever its name is by now.

A board that is plugged in again may come back as ``/dev/ttyACM1``, and another
board may have taken ``/dev/ttyACM0``.  What stays is the serial number of its
USB bridge.  Where there is none, only the name is left, and it must still be
the same kind of bridge; who is behind it the greeting tells.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from bnnmcu.errors import LinkError
from bnnmcu.link.ports import PortInfo, list_ports
from bnnmcu.link.transport import Transport, open_port

__all__ = ["port_opener"]


def port_opener(
    url: str,
    baud: int = 115200,
    *,
    scan: Callable[[], Iterable[Any]] | None = None,
    opener: Callable[[str, int], Transport] = open_port,
) -> Callable[[], Transport]:
    """A function that opens a port, and later the same one again.

    Args:
        url: as for :func:`~bnnmcu.link.transport.open_port`.  A local port is
            looked up now, or when it is first opened.
        baud: every connection begins with it.
        scan: see :func:`~bnnmcu.link.ports.list_ports`.
        opener: opens a name or URL with a baud.

    Returns:
        It raises LinkError while the port is not there, is busy, or is another one.
    """
    return _Opener(url, baud, scan, opener)


class _Opener:
    def __init__(
        self,
        url: str,
        baud: int,
        scan: Callable[[], Iterable[Any]] | None,
        opener: Callable[[str, int], Transport],
    ) -> None:
        self._url = url
        self._baud = baud
        self._scan = scan
        self._opener = opener
        self._opened = False
        self._known = self._look_up()

    def __call__(self) -> Transport:
        if self._known is None and not self._opened:
            self._known = self._look_up()
        transport = self._opener(self._find(), self._baud)
        self._opened = True
        return transport

    def _look_up(self) -> PortInfo | None:
        """What the operating system knows of the port by the name that was given."""
        if "://" in self._url:
            return None
        # A name in /dev/serial/by-id leads to the one that is listed.
        names = (self._url, os.path.realpath(self._url))
        return next((port for port in list_ports(self._scan) if port.device in names), None)

    def _find(self) -> str:
        """What to open for it now."""
        known = self._known
        if known is None or known.usb_id is None:
            return self._url
        if known.serial_number is None:
            return self._same_name(known)
        ports = list_ports(self._scan)
        found = [port for port in ports if _key(port) == _key(known)]
        if len(found) > 1:
            # Cheap bridges all have the same number.
            found = [port for port in found if port.device == known.device] or found
        if len(found) == 1:
            return found[0].device
        where = self._url
        if found:
            raise LinkError(
                f"{len(found)} ports have the serial number {known.serial_number}",
                where=where,
                hint="unplug the others, or start again naming one of "
                + ", ".join(map(str, found)),
            )
        other = next((port for port in ports if port.device == known.device), None)
        what = f"the port with the serial number {known.serial_number} is not there"
        if other is not None:
            what += f"; {other} is another one"
        raise LinkError(what, where=where, hint="plug the same board in again, at any socket")

    def _same_name(self, known: PortInfo) -> str:
        now = self._look_up()
        if now is not None and (now.usb_id, now.serial_number) != (known.usb_id, None):
            raise LinkError(
                f"another device has taken the name: {now}; it was {known}",
                where=self._url,
                hint="plug the board in again where it was, and the other device elsewhere",
            )
        return self._url


def _key(port: PortInfo) -> tuple[str | None, str | None, str]:
    return port.usb_id, port.serial_number, port.interface
