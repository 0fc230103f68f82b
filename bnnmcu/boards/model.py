"""What is known about a board, as dataclasses: the tables of its TOML file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.errors import BoardError

__all__ = [
    "LEVELS",
    "Clock",
    "Emulator",
    "Evidence",
    "Memory",
    "PlatformIO",
    "Require",
    "Uart",
    "Usb",
    "check_baud",
    "is_pin",
    "pin",
]

LEVELS = ("emulated", "emulated by a relative", "built, never run", "measured on hardware")
"""How much is known about a board; nothing claims more than its level."""

MAX_BAUD_ERROR = 0.02
"""Largest relative error of the baud rate; a receiver tolerates about 3 to 4 %."""

Require = Callable[[bool, str], None]
"""Called with a condition and what is wrong if it does not hold; raises then."""

_PIN = re.compile(r"P([A-K])(1[0-5]|[0-9])")


@dataclass(frozen=True)
class Memory:
    """A region of the address space; both in bytes."""

    origin: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.origin + self.size


@dataclass(frozen=True)
class Uart:
    """The UART that carries the link, and the pins it is on; families add what theirs need.

    Attributes:
        irq: number of its receive interrupt.
        bridge: what connects it to a host.
        ready: offset of a register, and bits in it that are set once the firmware
            listens, for emulators that drop what comes before; None if nothing tells.
    """

    instance: str
    address: int
    irq: int
    tx: str
    rx: str
    baud: int
    bridge: str

    ready: ClassVar[tuple[int, int] | None] = None
    #: The smallest and largest divisor of the baud rate generator.
    divisors: ClassVar[tuple[int, int]] = (16, 0xFFFF)

    @property
    def facts(self) -> dict[str, bool | str]:
        """What of it decides which code its driver consists of."""
        return {}

    def macros(self) -> dict[str, int]:
        """What the drivers need of the further keys, as ``BNN_BOARD_*``."""
        return {}

    def check(self, require: Require) -> None:
        """Look at the further keys."""


@dataclass(frozen=True)
class Clock:
    """The CPU's clock in Hz, after reset and when set up; families add how it is made."""

    reset_hz: int
    hz: int

    @property
    def facts(self) -> dict[str, bool | str]:
        """What of it decides which code its driver consists of."""
        return {}

    def uart_hz(self, uart: Uart) -> int:
        """The clock that the UART divides, once set up."""
        return self.hz

    def uart_reset_hz(self, uart: Uart) -> int:
        """The clock that the UART divides after reset."""
        return self.reset_hz

    def macros(self) -> dict[str, int]:
        """What the clock driver needs, as ``BNN_BOARD_*``."""
        return {}

    def check(self, require: Require) -> None:
        """Look at the further keys."""

    def check_chip(self, chip: str, require: Require) -> None:
        """Look at what one chip of the family takes and another does not."""


@dataclass(frozen=True)
class PlatformIO:
    """How PlatformIO knows the board; ``platform`` and ``board`` are "" if it does not.

    Attributes:
        platform: with its version, e.g. ``platformio/ststm32@19.5.0``.
        upload: protocols that can write to it, the usual one first.
    """

    platform: str
    board: str
    upload: tuple[str, ...]


@dataclass(frozen=True)
class Usb:
    """``vendor:product`` of the bridges that may carry the port."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class Emulator:
    """What can stand in for the board.

    Attributes:
        qemu: QEMU's machine; "" if none.
        serial: which of QEMU's ``-serial`` options the UART is, from 0.
        counter_hz: how fast the port's timer counts in QEMU's time, in which an
            instruction takes a nanosecond; 0 if none counts.
        unicorn: whether unicorn can run its firmware.
    """

    qemu: str
    serial: int
    counter_hz: int
    unicorn: bool

    @property
    def instructions_per_tick(self) -> float | None:
        """What a tick of the port's timer stands for in QEMU; None if none counts."""
        return 1e9 / self.counter_hz if self.counter_hz else None


@dataclass(frozen=True)
class Evidence:
    """One of :data:`LEVELS`, and what exactly was run where."""

    level: str
    text: str


def is_pin(text: str) -> bool:
    """Whether a pin is named like ``PA2``."""
    return _PIN.fullmatch(text) is not None


def pin(text: str) -> tuple[int, int]:
    """GPIO port (A is 0) and number of a pin that is named like ``PA2``.

    Raises:
        BoardError: it is no such name.
    """
    match = _PIN.fullmatch(text)
    if match is None:
        raise BoardError(f"{text!r} is no pin", hint="write it like 'PA2'")
    return ord(match[1]) - ord("A"), int(match[2])


def check_baud(hz: int, uart: Uart, require: Require) -> None:
    """Whether a divider of whole steps makes the baud rate from this clock."""
    divisor = (hz + uart.baud // 2) // uart.baud
    low, high = uart.divisors
    require(low <= divisor <= high, f"{uart.baud} baud cannot be made from {hz} Hz")
    error = abs(hz / divisor / uart.baud - 1)
    require(
        error <= MAX_BAUD_ERROR,
        f"{uart.baud} baud from {hz} Hz is off by {100 * error:.1f} %",
    )
