"""A family of chips: which drivers its boards are built from, and what their files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bnnmcu.boards.model import Clock, Uart

__all__ = ["COMMON_SOURCES", "HEADERS", "RESET_CLOCK", "WATCHDOG", "Family", "Watchdog"]

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
