"""A family of chips: which drivers its boards are built from, and what their files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bnnmcu.boards.model import Clock, Memory, Uart

__all__ = [
    "COMMON_SOURCES",
    "HEADERS",
    "PERSIST",
    "RESET_CLOCK",
    "WATCHDOG",
    "Family",
    "Storage",
    "Watchdog",
]

COMMON_SOURCES = (
    "bnn_memory.c",
    "bnn_port_cortexm.c",
    "bnn_port_state.c",
    "bnn_startup_cortexm.c",
)
"""Files of ``firmware_templates/port`` that every board has."""

HEADERS = (
    "bnn_clock.h",
    "bnn_counter.h",
    "bnn_dwt.h",
    "bnn_pins.h",
    "bnn_port.h",
    "bnn_reg.h",
    "bnn_small.h",
    "bnn_uart.h",
)
"""Headers of ``firmware_templates/port``: the drivers' interfaces."""

RESET_CLOCK = "bnn_clock_reset.c"
"""The clock driver that leaves everything as reset does."""

WATCHDOG = "bnn_watchdog.h"
"""The header that a watchdog adds."""

PERSIST = "bnn_persist.h"
"""The header that field mode adds."""


@dataclass(frozen=True)
class Watchdog:
    """What resets a core that no longer answers.

    Attributes:
        source: its C file in ``firmware_templates/port``.
        address: of its registers.
        hz: the nominal rate of its own clock.
        ms: how long it waits for being fed, by that clock.
    """

    source: str
    address: int
    hz: int
    ms: int = 26_000

    @property
    def macros(self) -> dict[str, int]:
        """What its driver needs, as ``BNN_BOARD_*``."""
        return {"WATCHDOG_ADDRESS": self.address, "WATCHDOG_HZ": self.hz, "WATCHDOG_MS": self.ms}


@dataclass(frozen=True)
class Storage:
    """The last sector of flash, in which a firmware in field mode sets marks; it erases nothing.

    Attributes:
        source: its C file in ``firmware_templates/port``.
        control: address of the flash controller's registers.
        bytes: of the sector.
        least: bytes of the smallest flash whose last sector is of that size.
        marks: that the sector holds.
    """

    source: str
    control: int
    bytes: int
    least: int
    marks: int

    def suits(self, flash: int) -> bool:
        """Whether a flash of so many bytes ends with such a sector."""
        return flash >= self.least and flash % self.bytes == 0

    def macros(self, flash: Memory) -> dict[str, int]:
        """What its driver needs, as ``BNN_BOARD_*``."""
        return {
            "PERSIST_ADDRESS": flash.end - self.bytes,
            "PERSIST_CONTROL_ADDRESS": self.control,
            "PERSIST_BYTES": self.bytes,
        }


@dataclass(frozen=True)
class Family:
    """Chips that the same drivers serve; a board of one needs a TOML file and no code.

    Attributes:
        name: as board files give it.
        cores: those that its chips have.
        clock, uart: what ``[clock]`` and ``[uart]`` hold.
        sources: its C files in ``firmware_templates/port``: UART, pins, counter.
        clock_source: the file that sets its clock up; "" if all keep the reset clock.
        macros: constants of all its chips, as ``BNN_BOARD_*``.
        boot_bytes: length of the section ``.boot`` before the vector table, for
            chips whose ROM wants something there.
        unicorn: whether unicorn's stand-in has its UART and timer.
        watchdog: that of its chips; None if there is no driver for it.
        storage: flash that a firmware can write; None if there is no driver for it.
    """

    name: str
    cores: tuple[str, ...]
    clock: type[Clock]
    uart: type[Uart]
    sources: tuple[str, ...]
    clock_source: str = ""
    macros: Mapping[str, int] = field(default_factory=dict)
    boot_bytes: int = 0
    unicorn: bool = False
    watchdog: Watchdog | None = None
    storage: Storage | None = None
