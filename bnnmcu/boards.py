"""The boards: one TOML file each, read strictly.

A board file says what the linker script, the port driver and the emulators
need to know about a chip.  Every key is required and none may be added, since
a misspelt key that is silently ignored would become a wrong clock.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from bnnmcu.errors import BoardError
from bnnmcu.resources import boards_dir

__all__ = [
    "COMPILE_FLAGS",
    "LEVELS",
    "Board",
    "Clock",
    "Emulator",
    "Evidence",
    "Memory",
    "PlatformIO",
    "Uart",
    "Usb",
    "all_boards",
    "load_board",
    "ring_bytes",
]

LEVELS = ("emulated", "emulated by a relative", "built, never run", "measured on hardware")
"""How much is known about a board; nothing claims more than its level."""

COMPILE_FLAGS = (
    "-std=c99",
    "-O3",
    "-g",
    "-ffreestanding",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-common",
    "-Wall",
    "-Wextra",
    "-Wconversion",
)
"""What every toolchain is given, so that all build the same firmware."""

MAX_BAUD_ERROR = 0.02
"""Largest relative error of the baud rate; a receiver tolerates about 3 to 4 %."""

_SUFFIX = ".toml"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_TEXT = re.compile(r"[A-Za-z0-9 _.,:;()'+-]*")
_PIN = re.compile(r"P([A-K])(1[0-5]|[0-9])")
_USB_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")

_CORES: Mapping[str, tuple[str, ...]] = {
    # Thumb code and the FPU of the core; gcc, clang and zig all take these.
    "cortex-m4f": ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
}
_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "stm32f4": ("bnn_port_stm32f4.c", "bnn_startup_cortexm.c", "bnn_memory.c"),
}


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
class Clock:
    """How the system clock comes about from the internal oscillator.

    ``hz`` = ``reset_hz`` / ``pll_m`` * ``pll_n`` / ``pll_p``, checked on loading.
    """

    reset_hz: int
    hz: int
    pll_m: int
    pll_n: int
    pll_p: int
    pll_q: int
    apb1_div: int
    apb2_div: int
    wait_states: int
    voltage_scale: int
    voltage_scale_bits: int
    overdrive: bool

    def bus_hz(self, bus: str) -> int:
        """The clock of ``"apb1"`` or ``"apb2"`` in Hz, the PLL running."""
        return self.hz // (self.apb1_div if bus == "apb1" else self.apb2_div)


@dataclass(frozen=True)
class Uart:
    """The UART that carries the link, and the pins it is on."""

    instance: str
    address: int
    irq: int
    bus: str
    enable_bit: int
    tx: str
    rx: str
    alternate: int
    baud: int
    bridge: str

    @property
    def tx_pin(self) -> tuple[int, int]:
        """GPIO port (A is 0) and pin number of the transmitter."""
        return _pin(self.tx)

    @property
    def rx_pin(self) -> tuple[int, int]:
        """GPIO port (A is 0) and pin number of the receiver."""
        return _pin(self.rx)


@dataclass(frozen=True)
class PlatformIO:
    """The board's id on PlatformIO's platform for the chip family."""

    board: str


@dataclass(frozen=True)
class Usb:
    """``vendor:product`` of the bridges that may carry the port."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class Emulator:
    """What can stand in for the board: a QEMU machine ("" if none), unicorn."""

    qemu: str
    unicorn: bool


@dataclass(frozen=True)
class Evidence:
    """One of :data:`LEVELS`, and what exactly was run where."""

    level: str
    text: str


@dataclass(frozen=True)
class Board:
    """A board as its TOML file describes it.

    Attributes:
        source: the text of that file.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    chip: str
    core: str
    family: str
    flash: Memory
    ram: Memory
    clock: Clock
    uart: Uart
    platformio: PlatformIO
    usb: Usb
    emulator: Emulator
    evidence: Evidence
    source: str = field(default="", repr=False, compare=False)

    @property
    def machine_flags(self) -> tuple[str, ...]:
        """Compiler and linker flags that select the core and its FPU."""
        return _CORES[self.core]

    @property
    def compile_flags(self) -> tuple[str, ...]:
        """All compiler flags, machine flags first."""
        return self.machine_flags + COMPILE_FLAGS

    @property
    def port_sources(self) -> tuple[str, ...]:
        """The C files of ``firmware_templates/port`` that drive this board."""
        return _FAMILIES[self.family]


def load_board(name: str) -> Board:
    """The board of that name or alias, or the one in a ``.toml`` file of the user.

    Raises:
        BoardError: no such board (close matches are named), or an unsound file.
    """
    if name.endswith(_SUFFIX):
        path = Path(name)
        if not path.is_file():
            raise BoardError("no such board file", where=name, hint="check the path")
        return _load(path, name)
    known = {alias: board for board in _shipped() for alias in (board.name, *board.aliases)}
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_")
    if wanted in known:
        return known[wanted]
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    # An alias and its board are one answer, not two.
    names = list(dict.fromkeys(known[match].name for match in close))
    meant = f"did you mean {' or '.join(names)}? " if names else ""
    raise BoardError(
        f"unknown board {name!r}",
        hint=f"{meant}'bnnmcu boards' lists all; a board of yours is given as a .toml file",
    )


def all_boards() -> tuple[Board, ...]:
    """Every board that comes with bnnmcu, by name.

    Raises:
        BoardError: a board file is unsound, or two claim one name.
    """
    return _shipped()


def ring_bytes(frame_bytes: int) -> int:
    """Size of a receive buffer for two request frames of ``frame_bytes`` on the wire.

    It is a power of two, as the port driver wants it.  Two frames: one being
    received while the other is computed.
    """
    if frame_bytes < 1:
        raise ValueError(f"a frame has at least 1 byte, not {frame_bytes}")
    return 1 << (2 * frame_bytes - 1).bit_length()


@cache
def _shipped() -> tuple[Board, ...]:
    found = sorted(
        (entry for entry in boards_dir().iterdir() if entry.name.endswith(_SUFFIX)),
        key=lambda entry: entry.name,
    )
    boards = tuple(_load(entry, entry.name) for entry in found)
    owner: dict[str, str] = {}
    for board, entry in zip(boards, found, strict=True):
        if entry.name != board.name + _SUFFIX:
            raise BoardError(f"its name is {board.name!r}", where=entry.name)
        for name in (board.name, *board.aliases):
            if name in owner:
                raise BoardError(
                    f"{name!r} names both {owner[name]} and {board.name}", where=entry.name
                )
            owner[name] = board.name
    return boards


def _load(entry: Traversable, where: str) -> Board:
    try:
        text = entry.read_bytes().decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise BoardError(f"cannot be read: {error.strerror or error}", where=where) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BoardError(f"not a TOML file: {error}", where=where) from error
    board = _build(Board, table, where)
    _check(board, where)
    return replace(board, source=text)


_T = TypeVar("_T")


def _build(kind: type[_T], table: Mapping[str, Any], where: str) -> _T:
    """A dataclass from a table with exactly its fields, types checked."""
    hints = get_type_hints(kind)
    names = [item.name for item in fields(kind) if item.name != "source"]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            raise BoardError(
                f"unknown key {key!r}",
                where=where,
                hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}",
            )
    missing = [name for name in names if name not in table]
    if missing:
        raise BoardError(
            f"missing key {', '.join(map(repr, missing))}",
            where=where,
            hint="boards/nucleo_f446re.toml shows every key",
        )
    values = {name: _value(hints[name], table[name], f"{where}: {name}") for name in names}
    return kind(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint == tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise BoardError("must be a list of strings", where=where)
    if hint in (int, bool, str):
        # bool is an int in Python, but "true" is no size.
        if type(value) is hint:
            return value
        raise BoardError(f"must be of type {hint.__name__}, not {value!r}", where=where)
    if not isinstance(value, dict):
        raise BoardError("must be a table", where=where)
    return _build(hint, value, where)


def _pin(text: str) -> tuple[int, int]:
    match = _PIN.fullmatch(text)
    if match is None:
        raise BoardError(f"{text!r} is no pin", hint="write it like 'PA2'")
    return ord(match[1]) - ord("A"), int(match[2])


def _check(board: Board, where: str) -> None:
    def require(holds: bool, what: str) -> None:
        if not holds:
            raise BoardError(what, where=where)

    for name in (board.name, *board.aliases):
        require(
            _NAME.fullmatch(name) is not None,
            f"name {name!r} must be lower-case letters, digits and _, at most 31 of them",
        )
    for label, text in (
        ("title", board.title),
        ("chip", board.chip),
        ("uart.instance", board.uart.instance),
        ("uart.bridge", board.uart.bridge),
        ("platformio.board", board.platformio.board),
        ("emulator.qemu", board.emulator.qemu),
    ):
        # They end up in C comments, in an ini file and on command lines.
        require(_TEXT.fullmatch(text) is not None, f"{label} {text!r} has unusual characters")
    require(board.core in _CORES, f"unknown core {board.core!r}; known: {', '.join(_CORES)}")
    require(
        board.family in _FAMILIES,
        f"unknown family {board.family!r}; known: {', '.join(_FAMILIES)}",
    )
    for label, memory in (("flash", board.flash), ("ram", board.ram)):
        require(memory.size >= 1024, f"{label}.size {memory.size} is less than 1024 bytes")
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
    for usb in board.usb.ids:
        require(_USB_ID.fullmatch(usb) is not None, f"usb id {usb!r} must look like '0483:374b'")
    _check_clock(board.clock, require)
    _check_uart(board, require)


def _check_clock(clock: Clock, require: Callable[[bool, str], None]) -> None:
    """The limits of the STM32F4 PLL: RM0390 section 6.3.2, RM0090 section 7.3.2."""
    for name, low, high in (
        ("pll_m", 2, 63),
        ("pll_n", 50, 432),
        ("pll_q", 2, 15),
        ("wait_states", 0, 15),
        ("voltage_scale_bits", 1, 2),
    ):
        value = getattr(clock, name)
        require(low <= value <= high, f"clock.{name} {value} is not within {low} to {high}")
    require(clock.pll_p in (2, 4, 6, 8), f"clock.pll_p {clock.pll_p} is none of 2, 4, 6, 8")
    for name in ("apb1_div", "apb2_div"):
        value = getattr(clock, name)
        require(value in (1, 2, 4, 8, 16), f"clock.{name} {value} is none of 1, 2, 4, 8, 16")
    require(
        0 < clock.voltage_scale < 1 << clock.voltage_scale_bits,
        f"clock.voltage_scale {clock.voltage_scale} is not within its bits",
    )
    require(clock.reset_hz == 16_000_000, "clock.reset_hz must be the HSI's 16000000")
    before = clock.reset_hz / clock.pll_m
    vco = before * clock.pll_n
    require(1e6 <= before <= 2e6, f"the VCO input of {before / 1e6:g} MHz is not within 1 to 2 MHz")
    require(100e6 <= vco <= 432e6, f"the VCO's {vco / 1e6:g} MHz are not within 100 to 432 MHz")
    require(
        vco / clock.pll_p == clock.hz,
        f"clock.hz is {clock.hz}, but the PLL factors give {vco / clock.pll_p:.0f}",
    )


def _check_uart(board: Board, require: Callable[[bool, str], None]) -> None:
    uart = board.uart
    require(uart.bus in ("apb1", "apb2"), f"uart.bus {uart.bus!r} is neither apb1 nor apb2")
    require(0 <= uart.irq < 240, f"uart.irq {uart.irq} is not within 0 to 239")
    require(0 <= uart.enable_bit < 32, f"uart.enable_bit {uart.enable_bit} is no bit of a word")
    require(0 <= uart.alternate < 16, f"uart.alternate {uart.alternate} is not within 0 to 15")
    require(
        0x4000_0000 <= uart.address < 0x6000_0000 and uart.address % 4 == 0,
        f"uart.address {uart.address:#x} is no peripheral's (ARMv7-M: 0x40000000 to 0x5fffffff)",
    )
    for pin in (uart.tx, uart.rx):
        require(_PIN.fullmatch(pin) is not None, f"uart pin {pin!r} must look like 'PA2'")
    require(uart.baud > 0, f"uart.baud {uart.baud} is not positive")
    for hz in (board.clock.bus_hz(uart.bus), board.clock.reset_hz):
        divisor = (hz + uart.baud // 2) // uart.baud
        # Oversampling by 16 needs a divisor of at least 16: RM0390 section 25.4.4.
        require(16 <= divisor <= 0xFFFF, f"{uart.baud} baud cannot be made from {hz} Hz")
        error = abs(hz / divisor / uart.baud - 1)
        require(
            error <= MAX_BAUD_ERROR,
            f"{uart.baud} baud from {hz} Hz is off by {100 * error:.1f} %",
        )
