"""What every board must fulfil; families look at the rest."""

from __future__ import annotations

import re

from bnnmcu.boards.board import WATCHDOG_HINT, Board, no_storage, no_watchdog
from bnnmcu.boards.cores import CORES
from bnnmcu.boards.families import FAMILIES
from bnnmcu.boards.model import LEVELS, Require, check_baud
from bnnmcu.errors import BoardError

__all__ = ["check"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_TEXT = re.compile(r"[A-Za-z0-9 _.,:;()'+-]*")
_PLATFORM = re.compile(r"(([a-z0-9_-]+/)?[a-z0-9_-]+@[0-9][0-9.]*)?")
_WORD = re.compile(r"[a-z0-9_-]+")
_USB_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
# ARMv6-M has 32 interrupts, a Cortex-M3, M4 or M7 at most 240, a core of ARMv8-M at most 480.
_V6_INTERRUPTS, _INTERRUPTS = 32, 240


def check(board: Board, where: str) -> None:
    """Look at what its types do not say.

    Raises:
        BoardError: something cannot be.
    """

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise BoardError(what, where=where)

    _check_texts(board, require)
    core, family = CORES[board.core], FAMILIES[board.family]
    require(
        board.core in family.cores,
        f"the family {family.name} has no {board.core}; it has {', '.join(family.cores)}",
    )
    require(
        board.reset_clock or bool(family.clock_source),
        f"nothing sets up the clock of the family {family.name}: reset_clock must be true",
    )
    require(
        not board.watchdog or family.watchdog is not None,
        f"{no_watchdog(family.name)}; {WATCHDOG_HINT}",
    )
    require(not board.field_mode or board.storage is not None, no_storage(board))
    # Flash is read and its checksum taken by words; the stack starts at the end of RAM, where
    # the procedure call standard wants it aligned to 8 bytes.
    for label, memory, unit in (("flash", board.flash, 4), ("ram", board.ram, 8)):
        require(memory.size >= 1024, f"{label}.size {memory.size} is less than 1024 bytes")
        require(
            memory.size % unit == 0, f"{label}.size {memory.size} is no multiple of {unit} bytes"
        )
        require(
            memory.origin >= 0 and memory.origin % 1024 == 0 and memory.end <= 1 << 32,
            f"{label} from {memory.origin:#x}, {memory.size} bytes, is no region of 32-bit memory",
        )
    overlap = board.flash.origin < board.ram.end and board.ram.origin < board.flash.end
    require(not overlap, "flash and ram overlap")
    require(
        board.evidence.level in LEVELS,
        f"evidence.level {board.evidence.level!r} is none of: {', '.join(LEVELS)}",
    )
    require(
        not board.evidence.level.startswith("emulated")
        or bool(board.emulator.qemu)
        or board.emulator.unicorn,
        f"evidence.level is {board.evidence.level!r}, but [emulator] names none that runs it",
    )
    for usb in board.usb.ids:
        require(_USB_ID.fullmatch(usb) is not None, f"usb id {usb!r} must look like '0483:374b'")
    require(board.emulator.serial >= 0, f"emulator.serial {board.emulator.serial} is negative")
    require(board.emulator.counter_hz >= 0, "emulator.counter_hz is negative")
    require(
        not board.emulator.unicorn or family.unicorn,
        f"emulator.unicorn must be false: unicorn has no peripherals of the family {family.name}",
    )
    require(
        0 < board.clock.reset_hz <= 1_000_000_000,
        f"clock.reset_hz {board.clock.reset_hz} is no frequency",
    )
    board.clock.check(require)
    board.clock.check_chip(board.chip, require)
    _check_uart(board, require, _V6_INTERRUPTS if core == CORES["cortex-m0"] else _INTERRUPTS)


def _check_texts(board: Board, require: Require) -> None:
    for name in (board.name, *board.aliases):
        require(
            _NAME.fullmatch(name) is not None,
            f"name {name!r} must be lower-case letters, digits and _, at most 31 of them",
        )
    for label, text in (
        ("title", board.title),
        ("chip", board.chip),
        ("trng", board.trng),
        ("uart.instance", board.uart.instance),
        ("uart.tx", board.uart.tx),
        ("uart.rx", board.uart.rx),
        ("uart.bridge", board.uart.bridge),
        ("platformio.board", board.platformio.board),
        ("emulator.qemu", board.emulator.qemu),
    ):
        # They end up in C comments, in an ini file and on command lines.
        require(_TEXT.fullmatch(text) is not None, f"{label} {text!r} has unusual characters")
    pio = board.platformio
    require(
        _PLATFORM.fullmatch(pio.platform) is not None,
        f"platformio.platform {pio.platform!r} must look like 'platformio/ststm32@19.5.0'",
    )
    require(
        bool(pio.platform) == bool(pio.board),
        "platformio.platform and platformio.board must both be given or both be empty",
    )
    for protocol in pio.upload:
        require(_WORD.fullmatch(protocol) is not None, f"platformio.upload {protocol!r} is no name")


def _check_uart(board: Board, require: Require, interrupts: int) -> None:
    uart = board.uart
    require(0 <= uart.irq < interrupts, f"uart.irq {uart.irq} is not within 0 to {interrupts - 1}")
    require(
        0x4000_0000 <= uart.address < 0x6000_0000 and uart.address % 4 == 0,
        f"uart.address {uart.address:#x} is no peripheral's (ARMv7-M: 0x40000000 to 0x5fffffff)",
    )
    require(uart.baud > 0, f"uart.baud {uart.baud} is not positive")
    # Where pins are not chosen, both are "".
    require(uart.tx != uart.rx or not uart.tx, f"uart.tx and uart.rx are both {uart.tx}")
    uart.check(require)
    for hz in (board.clock.uart_hz(uart), board.clock.uart_reset_hz(uart)):
        check_baud(hz, uart, require)
