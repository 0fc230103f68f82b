"""A board, and what follows from its description."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bnnmcu.boards.cores import COMPILE_FLAGS, CORES
from bnnmcu.boards.families import FAMILIES
from bnnmcu.boards.family import (
    COMMON_SOURCES,
    HEADERS,
    PERSIST,
    RESET_CLOCK,
    WATCHDOG,
    Storage,
)
from bnnmcu.boards.model import Clock, Emulator, Evidence, Memory, PlatformIO, Uart, Usb
from bnnmcu.errors import BoardError

__all__ = ["Board"]

KEPT_BYTES = 64
"""Bytes at the end of RAM for the record of a crash: BNN_PORT_KEPT_WORDS of bnn_port.h."""

WATCHDOG_FLAG = "-DBNN_PORT_WATCHDOG"
"""For all files: the server feeds the watchdog through bnn_port.h, which knows no board."""

FIELD_FLAG = "-DBNN_FIELD"
"""For all files: the server is another one in field mode."""

_RESET_CLOCK_LINE = re.compile(r"^reset_clock = true\b", re.MULTILINE)
_ANY_RESET_CLOCK_LINE = re.compile(r"^reset_clock = (?:true|false)\b.*\n", re.MULTILINE)

_WATCHFUL = sorted(name for name, family in FAMILIES.items() if family.watchdog)
WATCHDOG_HINT = f"families with one: {', '.join(_WATCHFUL)}"


def no_watchdog(family: str) -> str:
    """What is wrong with a watchdog on a chip without a driver for it."""
    return f"there is no driver for a watchdog of the family {family}"


def no_storage(board: Board) -> str:
    """What is wrong with field mode on a board without a driver for its flash."""
    if FAMILIES[board.family].storage is None:
        return (
            f"field mode keeps a counter over a loss of power, and there is no driver that writes "
            f"the flash of the family {board.family}"
        )
    return f"field mode: no driver knows the last sector of a flash of {board.flash.size} bytes"


@dataclass(frozen=True)
class Board:
    """A board as its TOML file describes it.

    Attributes:
        experimental: whether it needs more than the usual care to be flashed.
        reset_clock: whether the firmware leaves the clock as reset does.
        trng: the chip's true random number generator; "" if it has none.
        ram: the region that stack, variables and arena are in.
        clock, uart: of the types that the family asks for.
        watchdog: whether the firmware starts the chip's watchdog.
        field_mode: whether it draws with seeds of its own, which nobody is told (docs/FIELD.md).
        source: the text of that file.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    chip: str
    core: str
    family: str
    experimental: bool
    reset_clock: bool
    trng: str
    flash: Memory
    ram: Memory
    clock: Clock
    uart: Uart
    platformio: PlatformIO
    usb: Usb
    emulator: Emulator
    evidence: Evidence
    watchdog: bool = False
    field_mode: bool = False
    source: str = field(default="", repr=False, compare=False)

    @property
    def machine_flags(self) -> tuple[str, ...]:
        """Compiler and linker flags that select the core and its FPU."""
        return CORES[self.core].machine

    @property
    def compile_flags(self) -> tuple[str, ...]:
        """All compiler flags, machine flags first."""
        core = CORES[self.core]
        watchdog = (WATCHDOG_FLAG,) if self.watchdog else ()
        field_mode = (FIELD_FLAG,) if self.field_mode else ()
        return core.machine + COMPILE_FLAGS + core.compile + watchdog + field_mode

    @property
    def port_sources(self) -> tuple[str, ...]:
        """The C files of ``firmware_templates/port`` that drive this board, sorted."""
        family = FAMILIES[self.family]
        clock = RESET_CLOCK if self.reset_clock else family.clock_source
        watchdog = (family.watchdog.source,) if self.watchdog and family.watchdog else ()
        storage = (self.kept_flash.source,) if self.kept_flash else ()
        return tuple(sorted((*COMMON_SOURCES, clock, *family.sources, *watchdog, *storage)))

    @property
    def port_headers(self) -> tuple[str, ...]:
        """The headers of ``firmware_templates/port``."""
        watchdog = (WATCHDOG,) if self.watchdog else ()
        return (*HEADERS, *watchdog, *((PERSIST,) if self.field_mode else ()))

    @property
    def clock_hz(self) -> int:
        """The CPU clock that the firmware runs at."""
        return self.clock.reset_hz if self.reset_clock else self.clock.hz

    @property
    def usable_ram(self) -> int:
        """Bytes of RAM for stack, variables and arena; the rest outlasts a reset."""
        return self.ram.size - KEPT_BYTES

    @property
    def storage(self) -> Storage | None:
        """The sector of flash that a firmware could write; None without a driver for it."""
        storage = FAMILIES[self.family].storage
        return storage if storage is not None and storage.suits(self.flash.size) else None

    @property
    def kept_flash(self) -> Storage | None:
        """The sector that this firmware does write; None unless it is in field mode."""
        return self.storage if self.field_mode else None

    @property
    def usable_flash(self) -> int:
        """Bytes of flash for the firmware; the rest is what it writes itself."""
        return self.flash.size - (self.kept_flash.bytes if self.kept_flash else 0)

    @property
    def boot_bytes(self) -> int:
        """Bytes of flash before the vector table."""
        return FAMILIES[self.family].boot_bytes

    @property
    def interrupts(self) -> int:
        """Interrupts in the vector table; the last is the UART's, the only one ever enabled."""
        return self.uart.irq + 1

    @property
    def vector_words(self) -> int:
        """Length of the vector table."""
        return CORES[self.core].exceptions + self.interrupts

    @property
    def macros(self) -> Mapping[str, str]:
        """What the drivers are told by ``BNN_BOARD_*``, as C constants by the rest of the name."""
        family = FAMILIES[self.family]
        values = {
            "RESET_HZ": self.clock.reset_hz,
            "CLOCK_HZ": self.clock.hz,
            **({} if self.reset_clock else self.clock.macros()),
            "UART_ADDRESS": self.uart.address,
            "UART_IRQ": self.uart.irq,
            "UART_BAUD": self.uart.baud,
            "UART_RESET_HZ": self.clock.uart_reset_hz(self.uart),
            "UART_HZ": self.clock.uart_hz(self.uart),
            **self.uart.macros(),
            **family.macros,
            **(family.watchdog.macros if self.watchdog and family.watchdog else {}),
            **(self.kept_flash.macros(self.flash) if self.kept_flash else {}),
        }
        return {
            name: f"{value:#010x}u" if name.endswith(("ADDRESS", "MASK")) else f"{value}u"
            for name, value in values.items()
        }

    @property
    def facts(self) -> Mapping[str, bool | str]:
        """What decides which code its drivers consist of."""
        return {
            "family": self.family,
            "reset_clock": self.reset_clock,
            **self.clock.facts,
            **self.uart.facts,
        }

    def with_full_clock(self) -> Board:
        """The same board with its clock set up: the user's choice, where it was never tried.

        Raises:
            BoardError: its family has no driver for that.
        """
        if not self.reset_clock:
            return self
        if not FAMILIES[self.family].clock_source:
            raise BoardError(
                f"nothing sets up the clock of the family {self.family}", where=self.name
            )
        source, found = _RESET_CLOCK_LINE.subn("reset_clock = false", self.source)
        if found != 1:
            raise BoardError("has no line 'reset_clock = true'", where=self.name)
        return replace(self, reset_clock=False, source=source)

    def with_watchdog(self) -> Board:
        """The same board with its watchdog on: the user's choice, since none ever ran on a chip.

        Raises:
            BoardError: its family has no driver for that.
        """
        if self.watchdog:
            return self
        if FAMILIES[self.family].watchdog is None:
            raise BoardError(no_watchdog(self.family), where=self.name, hint=WATCHDOG_HINT)
        return replace(self, watchdog=True, source=self._with_line("watchdog = true"))

    def with_field_mode(self, boards: Sequence[Board] = ()) -> Board:
        """The same board with a firmware that draws its own seeds.

        Args:
            boards: among which to name those that can, when this one cannot.

        Raises:
            BoardError: nothing keeps a counter there over a loss of power.
        """
        if self.field_mode:
            return self
        if self.storage is None:
            able = [board.name for board in boards if board.storage is not None]
            hint = f"boards that can: {', '.join(able)}" if able else "leave out --field"
            raise BoardError(no_storage(self), where=self.name, hint=hint)
        return replace(self, field_mode=True, source=self._with_line("field_mode = true"))

    def _with_line(self, text: str) -> str:
        """The source with a further line, which stands where no table has begun yet."""
        line = _ANY_RESET_CLOCK_LINE.search(self.source)
        if line is None:
            raise BoardError("has no line 'reset_clock = ...'", where=self.name)
        return f"{self.source[: line.end()]}{text}\n{self.source[line.end() :]}"
