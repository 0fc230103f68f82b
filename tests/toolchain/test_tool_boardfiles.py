"""Every board file: it builds, its image can start, its drivers do what the chip needs."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from echo_rig import (
    RX_BYTES,
    ask_echo,
    ask_info,
    ask_work,
    emulate,
    needs,
    worked,
    write_echo_project,
)
from stm32_model import Stm32Model

from bnnmcu.boards import CORES, Board, Memory, all_boards, load_board
from bnnmcu.errors import BoardError, ToolchainError
from bnnmcu.link.ports import ADAPTERS
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.image import check_image, faults

ROOT = Path(__file__).resolve().parents[2]
DOC = ROOT / "docs" / "BOARDS.md"
BOARDS = all_boards()
STM32 = [board for board in BOARDS if board.family.startswith("stm32")]
RELATIVES = [b for b in BOARDS if b.emulator.unicorn and b.evidence.level != "emulated"]
# The Pico's firmware takes the crystal as it is: no PLL, no voltage, no wait states.  The other
# two are the exceptions of docs/BOARDS.md.
OWN_CLOCK = {"pico": 12_000_000, "nucleo_f446re": 180_000_000, "netduinoplus2": 168_000_000}
EXPERIMENTAL = {"nucleo_h743zi", "nucleo_u575zi_q", "pico", "teensy41"}

Build = Callable[..., Path]


def by_name(boards: list[Board] | tuple[Board, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("board", boards, ids=lambda board: board.name)


# --- images ------------------------------------------------------------------------------------


@by_name(BOARDS)
def test_every_board_builds_an_image_for_its_chip(build: Build, board: Board) -> None:
    assert faults(build(board), board) == []


@pytest.mark.parametrize("core", [core for core in CORES if CORES[core].zig])
def test_zig_builds_one_of_each_core(build: Build, core: str) -> None:
    board = next(board for board in BOARDS if board.core == core)
    assert faults(build(board, "zig"), board) == []


@by_name([board for board in BOARDS if board.reset_clock and board.clock.hz > 16_000_000])
def test_the_full_clock_can_be_chosen(build: Build, board: Board) -> None:
    try:
        full = board.with_full_clock()
    except BoardError as error:
        assert "nothing sets up the clock" in str(error)  # noqa: PT017  either is right
        return
    assert (full.clock_hz, full.reset_clock) == (board.clock.hz, False)
    assert faults(build(full), full) == []


def change(elf: Path, to: Path, address: int, word: int) -> Path:
    """A copy of an ELF with one word of its flash replaced."""
    data = bytearray(elf.read_bytes())
    (offset,) = struct.unpack_from("<I", data, 28)
    (count,) = struct.unpack_from("<H", data, 44)
    for at in range(offset, offset + 32 * count, 32):
        _, start, _, load, size = struct.unpack_from("<IIIII", data, at)
        if load <= address < load + size:
            struct.pack_into("<I", data, start + address - load, word)
    to.write_bytes(data)
    return to


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        (0, 0x20000000, "vector 0 is 0x20000000 and not bnn_stack_top"),
        (1, 0x08000100, "vector 1 is no Thumb address"),
        (3, 0x20000101, "vector 3 leads to 0x20000101, outside the flash"),
        (7, 0x08000101, "vector 7 is 0x8000101 and not 0"),
        (16, 0x08000101, "vector 16 is 0x8000101 and not bnn_fault_entry"),
        (16 + 38, 0x08000101, "vector 54 is 0x8000101 and not bnn_port_uart_isr"),
    ],
)
def test_a_wrong_vector_is_found(
    build: Build, tmp_path: Path, word: int, value: int, says: str
) -> None:
    board = load_board("nucleo_f401re")
    elf = change(build(board), tmp_path / "x.elf", board.flash.origin + 4 * word, value)
    assert any(says in fault for fault in faults(elf, board))
    with pytest.raises(ToolchainError, match="no image for nucleo_f401re"):
        check_image(elf, board)


def boot(elf: Path, board: Board) -> bytes:
    """What is in flash before the vector table."""
    segments = read_firmware(elf).segments
    first = next(segment for segment in segments if segment.load == board.flash.origin)
    return first.data[: board.boot_bytes]


def crc32_of_the_rom(data: bytes) -> int:
    """Not zlib's: neither reflected nor inverted (RP2040 Datasheet, flash second stage)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
def test_the_pico_starts_by_the_right_bytes(build: Build, toolchain: str) -> None:
    assert crc32_of_the_rom(b"123456789") == 0x0376E6E7  # CRC-32/MPEG-2's check value
    board = load_board("pico")
    first = boot(build(board, toolchain), board)
    assert len(first) == 256
    assert crc32_of_the_rom(first[:252]) == int.from_bytes(first[252:], "little")


@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
def test_the_teensy_finds_its_program(build: Build, toolchain: str) -> None:
    """What the ROM reads, at the offsets of IMXRT1060RM's chapter System Boot."""
    board = load_board("teensy41")
    elf = build(board, toolchain)
    first, symbols = boot(elf, board), read_firmware(elf).symbols
    assert first[:4] == b"FCFB"
    assert first[0x44:0x47] == bytes([1, 4, 2])  # serial NOR, four lines, 50 MHz
    assert struct.unpack_from("<I", first, 0x50) == (8 << 20,)
    # EBh on one line, 24 bits of address on four; no continuous read; 4 bytes at a time.
    assert struct.unpack_from("<4I", first, 0x80) == (0x0A1804EB, 0x32041E00, 0x2604, 0)
    header, entry, *_, data, itself, _, _ = struct.unpack_from("<8I", first, 0x1000)
    assert (header, entry) == (0x432000D1, symbols["bnn_boot_entry"] | 1)
    assert (data, itself) == (0x60001020, 0x60001000)
    assert struct.unpack_from("<3I", first, 0x1020) == (0x60000000, board.flash.size, 0)
    assert symbols["bnn_vectors"] == 0x60002000


def test_an_image_for_another_board_is_found(build: Build) -> None:
    elf = build(load_board("nucleo_f401re"))
    assert any("code for architecture 13" in x for x in faults(elf, load_board("nucleo_f103rb")))
    assert any("not compiled for registers" in x for x in faults(
        build(load_board("nucleo_f103rb")), load_board("nucleo_f303re")))  # fmt: skip
    shifted = replace(load_board("nucleo_f401re"), flash=Memory(0x08008000, 524288))
    assert any("no vector table" in x for x in faults(elf, shifted))
    tiny = replace(load_board("nucleo_f401re"), ram=Memory(0x20000000, 1024))
    assert any("neither in flash nor in RAM" in x for x in faults(elf, tiny))
    moved = replace(load_board("nucleo_f401re"), ram=Memory(0x1FFFFC00, 98304))
    assert any("not at the bottom of RAM" in x for x in faults(elf, moved))


# --- what a relative runs ----------------------------------------------------------------------


@by_name(RELATIVES)
@pytest.mark.parametrize("kind", ["qemu", "unicorn"])
def test_relatives_run_the_same_elf(build: Build, board: Board, kind: str) -> None:
    with emulate(kind, build(board), board) as device:
        info = ask_info(device)
        assert (info.board, info.clock_hz, info.capacity) == (board.name, 0, RX_BYTES)
        assert ask_echo(device, bytes(range(256))) == bytes(range(256))
        assert ask_work(device, 100)[1] == worked(100)


# --- what the files say ------------------------------------------------------------------------


@by_name(BOARDS)
def test_what_nobody_ran_is_left_alone(board: Board) -> None:
    if board.evidence.level != "measured on hardware":
        assert board.reset_clock or OWN_CLOCK[board.name] == board.clock_hz
    if board.name in EXPERIMENTAL:
        assert board.experimental
        assert "# Experimental:" in board.source
    assert re.search(r"^#   \S+ +\S", board.source, re.MULTILINE), "it names no source"


@by_name([board for board in BOARDS if not board.usb.ids and board.evidence.level != "emulated"])
def test_boards_without_a_bridge_name_pins_and_adapter(board: Board) -> None:
    for word in ("adapter", "3.3 V", "(TX)", "(RX)"):
        assert word in board.uart.bridge


def test_usb_ids_are_those_of_probes() -> None:
    known = {"0483", "1366", "0d28", "2e8a"}  # ST, SEGGER, Arm (DAPLink), Raspberry Pi
    for board in BOARDS:
        assert {usb_id[:4] for usb_id in board.usb.ids} <= known
        assert not set(board.usb.ids) & set(ADAPTERS)


# --- docs/BOARDS.md ----------------------------------------------------------------------------


def table() -> str:
    """The table of boards as the document must have it."""
    rows = ["| board | chip | core | flash | RAM | clock | link | level |", "|" + " --- |" * 8]
    for board in sorted(BOARDS, key=lambda board: (board.experimental, board.name)):
        clock = f"{board.clock_hz / 1e6:g} MHz"
        link = f"{board.uart.instance} {board.uart.tx} {board.uart.rx}".strip()
        level = board.evidence.level + (", experimental" if board.experimental else "")
        rows.append(
            f"| `{board.name}` | {board.chip} | {board.core} | {board.flash.size // 1024} KB "
            f"| {board.ram.size // 1024} KB | {clock} | {link} | {level} |"
        )
    return "\n".join(rows)


def test_the_document_lists_the_boards() -> None:
    text = DOC.read_text("utf-8")
    assert table() in text, f"docs/BOARDS.md should have:\n{table()}"


def test_the_tutorial_works(tmp_path: Path) -> None:
    """Its changes, made to the file that it names, give a board that builds."""
    needs("gcc")
    text = DOC.read_text("utf-8")
    copied = re.search(r"cp boards/(\w+)\.toml (\w+\.toml)", text)
    assert copied is not None
    source = load_board(copied[1]).source
    changes = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert changes is not None
    table_of, section = {}, ""
    for line in changes[1].splitlines():
        if line.startswith("["):
            section = line.split("]")[0] + "]"
        elif "=" in line:
            table_of[section, line.split(" = ")[0]] = line
    written, section, used = [], "", set()
    for line in source.splitlines():
        if line.startswith("["):
            section = line.split("]")[0] + "]"
        key = section, line.split(" = ")[0]
        used |= {key} & table_of.keys()
        written.append(table_of.get(key, line))
    assert used == table_of.keys(), "it changes what the file has not"
    path = tmp_path / copied[2]
    path.write_text("\n".join(written) + "\n")
    board = load_board(str(path))
    assert board.name == path.stem
    folder = write_echo_project(tmp_path / "project", board)
    built = build_firmware(folder, "gcc")
    assert faults(built.elf, board) == []
    needs("unicorn")
    with Stm32Model(built.elf, board) as chip:
        assert ask_info(chip).board == board.name
        assert chip.forbidden == []
