"""``bnnmcu doctor``."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.options import json_option
from bnnmcu.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from bnnmcu.link.ports import PortInfo
    from bnnmcu.toolchain.detect import Tool

__all__ = ["command"]

#: Names of boards in one cell; the JSON has all.
_MOST_NAMES = 3


@click.command("doctor")
@click.option(
    "--hello", is_flag=True, help="Also ask each port that may be a board's who is there."
)
@json_option
def command(hello: bool, as_json: bool) -> None:
    """Show what is installed, what is missing, and how to get it.

    Also which serial ports there are, which boards they may be, and whether you
    may use them. Exit code 1 if a project cannot be compiled and run with what
    is there.

    \b
    Example:
      bnnmcu doctor
      bnnmcu doctor --hello
    """
    from bnnmcu.toolchain.detect import detect

    found = detect()
    can_compile = any(tool.found for tool in found if tool.name in ("arm-none-eabi-gcc", "ziglang"))
    can_emulate = any(tool.found for tool in found if tool.name in ("qemu-system-arm", "unicorn"))
    ports = _examine(hello)
    udev = _udev(ports)
    if as_json:
        print_json(
            {
                "tools": [asdict(tool) | {"found": tool.found} for tool in found],
                "ports": [port.to_dict() for port in ports],
                "udev": udev,
                "can_compile": can_compile,
                "can_emulate": can_emulate,
            }
        )
    else:
        _print(found, ports, udev, hello)
        print(
            f"compile firmware: {'yes' if can_compile else 'NO'}; "
            f"emulate boards: {'yes' if can_emulate else 'NO'}"
        )
    if not (can_compile and can_emulate):
        sys.exit(1)


@dataclass(frozen=True)
class _Port:
    """A port, what it may be, and what stands in the way of using it.

    Attributes:
        adapter: what the bridge is, if it is one that any board may be on.
        boards: names of the boards whose own bridge has its id.
        answer: who greeted; None if nobody was asked, or nobody answered.
    """

    info: PortInfo
    adapter: str | None
    boards: tuple[str, ...]
    problem: str | None
    answer: str | None

    @property
    def candidate(self) -> bool:
        return bool(self.adapter or self.boards)

    @property
    def meaning(self) -> str:
        if self.answer:
            return self.answer
        if self.boards:
            more = len(self.boards) - _MOST_NAMES
            names = ", ".join(self.boards[:_MOST_NAMES])
            return f"may be {names}" + (f" or one of {more} more" if more > 0 else "")
        if self.adapter:
            return f"{self.adapter}: any board without a bridge of its own"
        return self.info.description or "unknown"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self.info) | {
            "adapter": self.adapter,
            "boards": list(self.boards),
            "problem": self.problem,
            "answer": self.answer,
        }


def _examine(hello: bool) -> list[_Port]:
    from bnnmcu.boards import all_boards
    from bnnmcu.link.access import port_problem
    from bnnmcu.link.ports import ADAPTERS, list_ports

    owners: dict[str, list[str]] = {}
    for board in all_boards():
        for usb_id in board.usb.ids:
            owners.setdefault(usb_id, []).append(board.name)
    ports = []
    for info in list_ports():
        usb_id = info.usb_id or ""
        adapter, boards = ADAPTERS.get(usb_id), tuple(owners.get(usb_id, ()))
        problem, answer = port_problem(info.device), None
        if hello and problem is None and (adapter or boards):
            problem, answer = _greet(info.device)
        ports.append(_Port(info, adapter, boards, problem, answer))
    return ports


def _greet(device: str) -> tuple[str | None, str | None]:
    """What is wrong with a port, or who answers on it."""
    from bnnmcu.errors import LinkError
    from bnnmcu.link.identify import identify

    note(f"asking {device}")
    try:
        info = identify(device)
    except LinkError as error:
        return error.what, None
    started = f", started by {info.reset_text}" if info.reset else ""
    return None, f"{info.board}, which runs {info.model}{started}"


def _udev(ports: list[_Port]) -> str | None:
    from bnnmcu.link.access import udev_problem

    # An adapter is a serial port and nothing else; a probe is also flashed through.
    return udev_problem(port.info.usb_id for port in ports if port.boards and port.info.usb_id)


def _print(found: tuple[Tool, ...], ports: list[_Port], udev: str | None, hello: bool) -> None:
    print_table(
        "Tools",
        ["tool", "for", "version", "how to get it"],
        [
            [
                tool.name,
                tool.purpose,
                tool.version or tool.absent,
                "" if tool.found else tool.install,
            ]
            for tool in found
        ],
        text_columns=4,
    )
    if not ports:
        print(
            "no serial port is there: plug a board in with a cable that carries data (many only "
            "charge);\n  in a container or a virtual machine, pass the USB device on to it"
        )
        return
    ask = "" if hello else " 'bnnmcu doctor --hello' asks them who they are."
    print_table(
        "Serial ports",
        ["port", "USB id", "serial number", "what it is", "problem"],
        [
            [
                port.info.device,
                port.info.usb_id or "",
                port.info.serial_number or "",
                port.meaning,
                port.problem or "",
            ]
            for port in ports
        ],
        text_columns=5,
        caption="A USB id names the bridge, not the board behind it." + ask,
    )
    if udev:
        print(f"uploading: {udev}")
