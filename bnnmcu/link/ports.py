"""The serial ports of this computer: which there are, and which one is meant.

A port's name may change whenever a board is plugged in; what stays is the USB
id of the bridge and its serial number.  Neither says which chip is behind it
(every Nucleo has an ST-LINK), so that they only give candidates: who answers
is known from the greeting alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bnnmcu.errors import LinkError

__all__ = ["ADAPTERS", "AUTO", "SERIAL", "PortInfo", "candidates", "list_ports", "resolve_port"]

#: What ``--port`` takes besides names: the only candidate, or the port of a serial number.
AUTO = "auto"
SERIAL = "serial:"

#: USB-serial adapters by id: what carries a board that has no bridge of its own.
#: The ids are their makers', as the Linux drivers of the same names list them
#: (drivers/usb/serial: ftdi_sio, cp210x, ch341, pl2303; MCP2221: DS20005565).
ADAPTERS: Mapping[str, str] = MappingProxyType(
    {
        "0403:6001": "FTDI FT232R adapter",
        "0403:6010": "FTDI FT2232 adapter",
        "0403:6011": "FTDI FT4232H adapter",
        "0403:6014": "FTDI FT232H adapter",
        "0403:6015": "FTDI FT-X adapter",
        "04d8:00dd": "Microchip MCP2221 adapter",
        "067b:2303": "Prolific PL2303 adapter",
        "10c4:ea60": "Silicon Labs CP210x adapter",
        "1a86:5523": "WCH CH341 adapter",
        "1a86:55d4": "WCH CH9102 adapter",
        "1a86:7523": "WCH CH340 adapter",
    }
)


@dataclass(frozen=True)
class PortInfo:
    """A serial port as the operating system describes it.

    Attributes:
        device: what to open, e.g. ``/dev/ttyACM0`` or ``COM5``.
        usb_id: ``vendor:product`` in hexadecimal; None where it is no USB device.
        serial_number: of the USB device; None if it has none.
        description: for people.
        interface: which of the ports of one USB device; "" where that is not known.
    """

    device: str
    usb_id: str | None
    serial_number: str | None
    description: str
    interface: str = ""

    def __str__(self) -> str:
        """For lists in messages: name, USB id, serial number."""
        facts = [self.usb_id or "", f"serial {self.serial_number}" if self.serial_number else ""]
        text = ", ".join(fact for fact in facts if fact)
        return f"{self.device} ({text})" if text else self.device


def list_ports(scan: Callable[[], Iterable[Any]] | None = None) -> tuple[PortInfo, ...]:
    """Every serial port there is now, by name.

    Args:
        scan: in place of ``serial.tools.list_ports.comports``, whose result it gives.
    """
    if scan is None:
        from serial.tools.list_ports import comports

        scan = comports
    found = [
        PortInfo(
            str(port.device),
            None if port.vid is None else f"{port.vid:04x}:{port.pid:04x}",
            port.serial_number or None,
            # pyserial's word for a description that it does not have.
            "" if port.description in (None, "n/a") else str(port.description),
            # "1-1.2:1.0": where it is plugged in, then which interface.
            (getattr(port, "location", None) or "").partition(":")[2],
        )
        for port in scan()
    ]
    return tuple(sorted(found, key=lambda port: port.device))


def candidates(ports: Iterable[PortInfo], ids: Sequence[str]) -> tuple[PortInfo, ...]:
    """The ports that a board with these USB ids may be on.

    Args:
        ids: of the board's bridge; empty for a board that has none, which may
            be on any adapter of :data:`ADAPTERS`.
    """
    wanted = ids or tuple(ADAPTERS)
    return tuple(port for port in ports if port.usb_id in wanted)


def resolve_port(
    request: str,
    ids: Sequence[str],
    board: str,
    *,
    scan: Callable[[], Iterable[Any]] | None = None,
) -> str:
    """What to open for the ``--port`` that was given.

    Args:
        request: ``auto``, ``serial:NUMBER`` (a USB serial number), or a name
            or URL, which stays as it is.
        ids: USB ids of the board's bridge, see :func:`candidates`.
        board: what messages call the board.
        scan: see :func:`list_ports`.

    Raises:
        LinkError: there is no such port, or several; it lists what there is.
    """
    if request == AUTO:
        ports = list_ports(scan)
        return _only(candidates(ports, ids), ports, ids, board).device
    if request.startswith(SERIAL):
        ports = list_ports(scan)
        number = request.removeprefix(SERIAL)
        found = [port for port in ports if port.serial_number == number]
        if len(found) > 1:
            raise LinkError(
                f"{len(found)} ports have that serial number",
                where=request,
                hint=f"choose one of {_names(found)}",
            )
        if not found:
            # Never another one instead: it may be a different board.
            raise LinkError("no port has that serial number", where=request, hint=_there(ports))
        return found[0].device
    return request


def _only(
    found: Sequence[PortInfo], ports: Sequence[PortInfo], ids: Sequence[str], board: str
) -> PortInfo:
    where = f"--port {AUTO}"
    if len(found) == 1:
        return found[0]
    if not found:
        sought = f"USB id {' or '.join(ids)}" if ids else "a USB-serial adapter"
        raise LinkError(f"no port for {board} ({sought})", where=where, hint=_there(ports))
    numbered = next((port.serial_number for port in found if port.serial_number), None)
    also = f", or --port {SERIAL}{numbered}, which stays when it is replugged" if numbered else ""
    raise LinkError(
        f"{len(found)} ports may be {board}: {_names(found)}",
        where=where,
        hint=f"name one, e.g. --port {found[0].device}{also}",
    )


def _there(ports: Sequence[PortInfo]) -> str:
    if not ports:
        return (
            "no serial port is there now: plug the board in with a cable that carries data "
            "('bnnmcu doctor' explains), or use --emulate"
        )
    return f"plug the board in, or name one of {_names(ports)}"


def _names(ports: Iterable[PortInfo]) -> str:
    return ", ".join(map(str, ports))
