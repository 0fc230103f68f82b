"""Drivers on models of the chips, which know what the manuals say of their registers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from echo_rig import ask_baud, ask_echo, ask_garbled, ask_info, ask_work, emulate, needs, receive
from imxrt_model import ImxrtModel
from rp2040_model import BOOT_RAM, SSI, Rp2040Model
from stm32_model import Stm32Model

from bnnmcu.boards import Board, all_boards, load_board

STM32 = [board for board in all_boards() if board.family.startswith("stm32")]

Build = Callable[..., Path]


def by_name(boards: list[Board]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("board", boards, ids=lambda board: board.name)


@by_name(STM32)
def test_drivers_keep_to_the_manuals(build: Build, board: Board) -> None:
    needs("unicorn")
    reset = replace(board, reset_clock=True)
    with Stm32Model(build(reset), reset) as chip:
        info = ask_info(chip)
        assert info.clock_hz == board.clock.reset_hz
        assert ask_echo(chip, bytes(range(256))) == bytes(range(256))
        assert chip.forbidden == []
        assert chip.divisor == round(board.clock.reset_hz / board.uart.baud)
        chip.overrun = True
        assert ask_echo(chip, b"after a loss") == b"after a loss"
        assert not chip.overrun, "the loss was not acknowledged: its interrupt never ends"
        assert ask_info(chip).overrun == 1


@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
def test_the_pico_starts_from_its_first_bytes(build: Build, toolchain: str) -> None:
    needs("unicorn")
    board = load_board("pico")
    # Or the ROM would overwrite what is kept at the end of RAM.
    assert board.ram.origin + board.ram.size == BOOT_RAM
    with Rp2040Model(build(board, toolchain), board) as chip:
        info = ask_info(chip)
        assert (info.board, info.clock_hz) == ("pico", 12_000_000)
        # The plain read command, 24 bits of address, 32 bits of data; switched on at the end.
        assert (chip.reg(SSI), chip.reg(SSI + 0xF4)) == (0x001F0300, 0x03000218)
        assert (chip.reg(SSI + 0x08), chip.reg(SSI + 0x14) % 2) == (1, 0)
        assert chip.reg(0xE000ED08) == 0x10000100
        chip.overrun = True
        assert ask_echo(chip, bytes(range(256))) == bytes(range(256))
        assert not chip.overrun
        assert chip.forbidden == []


@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
def test_the_teensy_starts_from_its_image_vector_table(build: Build, toolchain: str) -> None:
    needs("unicorn")
    board = load_board("teensy41")
    with ImxrtModel(build(board, toolchain), board) as chip:
        info = ask_info(chip)
        assert (info.board, info.clock_hz) == ("teensy41", 396_000_000)
        assert chip.reg(0xE000ED08) == 0x60002000
        chip.overrun = True
        assert ask_echo(chip, bytes(range(256))) == bytes(range(256))
        assert not chip.overrun
        assert chip.forbidden == []


def makes(board: Board, baud: int) -> tuple[int, float]:
    """What a UART makes of a baud, and of what it can make of it, how far that is off."""
    clock = board.clock
    hz = (clock.uart_reset_hz if board.family.startswith("stm32") else clock.uart_hz)(board.uart)
    if board.family == "imxrt":
        products = (n * max(1, round(hz / baud / n)) for n in range(8, 33))
        divisor = min(products, key=lambda product: abs(product - round(hz / baud)))
    else:
        hz *= 4 if board.family == "rp2040" else 1
        divisor = round(hz / baud)
        if divisor < (64 if board.family == "rp2040" else 16):
            return 0, 0.0
    return round(hz / divisor), abs(hz / divisor / baud - 1)


@by_name([*STM32, load_board("pico"), load_board("teensy41")])
def test_other_bauds_are_made_as_well_as_the_clock_allows(build: Build, board: Board) -> None:
    needs("unicorn")
    if board.family.startswith("stm32"):
        reset = replace(board, reset_clock=True)
        chip: Stm32Model | Rp2040Model | ImxrtModel = Stm32Model(build(reset), reset)
    else:
        model = Rp2040Model if board.family == "rp2040" else ImxrtModel
        chip = model(build(board), board)
    with chip:
        assert ask_echo(chip, b"at its own") == b"at its own"
        for baud in (57600, 230400, 460800, 921600, 1_000_000, 115200):
            made, off = makes(board, baud)
            if off > 0.02:
                continue  # what the server refuses
            assert ask_baud(chip, baud) == made
            chip.baud = baud if made else chip.baud
            assert ask_echo(chip, bytes(range(256))) == bytes(range(256))
            assert chip.forbidden == []
        assert ask_garbled(chip) == 0
        chip.framing = True
        assert ask_garbled(chip) == 1
        assert not chip.framing, "the error was not acknowledged"
        assert ask_garbled(chip) == 1


@by_name([load_board(x) for x in ("microbit", "lm3s6965evb", "mps2_an385", "netduinoplus2")])
def test_emulated_uarts_go_over_and_go_on(build: Build, board: Board) -> None:
    """One of each driver: nothing waits for a bit that an emulator does not have."""
    with emulate("qemu", build(board), board) as device:
        assert abs(ask_baud(device, 230400) / 230400 - 1) < 0.02
        assert ask_echo(device, bytes(range(256))) == bytes(range(256))
        assert ask_baud(device, 1_234_567_890) == 0
        assert ask_baud(device, board.uart.baud) > 0
        assert ask_echo(device, b"as before") == b"as before"


@by_name([load_board(x) for x in ("microbit", "lm3s6965evb", "mps2_an385", "netduinoplus2")])
def test_emulated_uarts_change_the_rate_while_bytes_come(build: Build, board: Board) -> None:
    """An emulator's bytes have no rate, so none is lost: and none gets stuck in a FIFO."""
    data = bytes(range(256))
    with emulate("qemu", build(board), board) as device:
        for turn in range(500):
            baud = (230400, board.uart.baud)[turn % 2]
            device.write(b"R" + baud.to_bytes(4, "little"))
            device.write(b"E" + len(data).to_bytes(2, "little") + data)
            assert int.from_bytes(receive(device, 4), "little") > 0
            assert receive(device, len(data)) == data


@by_name([board for board in STM32 if "TIMER_ADDRESS" in board.macros])
def test_a_timer_counts_where_the_core_does_not(build: Build, board: Board) -> None:
    needs("unicorn")
    reset = replace(board, reset_clock=True)
    with Stm32Model(build(reset), reset, count=True) as chip:
        assert ask_info(chip).counter == 2
        few, many = (ask_work(chip, rounds)[0] for rounds in (10, 1010))
        assert many - few > 1000
        bit = board.macros["TIMER_ENABLE_BIT"].rstrip("u")
        enable = int(board.macros["TIMER_ENABLE_ADDRESS"].rstrip("u"), 0)
        assert chip.reg(enable) >> int(bit) & 1


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("nucleo_l476rg", "enable_bit = 17", "enable_bit = 18", None),
        ("nucleo_l476rg", "alternate = 7", "alternate = 8", None),
        ("nucleo_g071rb", 'tx = "PA2"', 'tx = "PB2"', "TX is not on PA2"),
        ("nucleo_f303re", "reset_hz = 8000000", "reset_hz = 16000000", "baud and not 115200"),
        ("nucleo_f767zi", "alternate = 7", "alternate = 6", "is not on PD8"),
        ("nucleo_u575zi_q", "enable_bit = 14", "enable_bit = 13", "without the USART's clock"),
    ],
)
def test_the_model_would_notice(
    build: Build, tmp_path: Path, name: str, old: str, new: str, says: str | None
) -> None:
    """A firmware for a board file with a mistake, on the chip that the right one describes."""
    needs("unicorn")
    board = load_board(name)
    assert old in board.source
    path = tmp_path / "wrong.toml"
    text = board.source.replace(old, new).replace(f'"{name}"', '"wrong"', 1)
    path.write_text(re.sub(r"^aliases = .*", "aliases = []", text, flags=re.MULTILINE))
    wrong = load_board(str(path))
    with Stm32Model(build(wrong), board) as chip:
        chip.write(b"I")
        chip.read(19, 0.5)
        assert chip.forbidden
        assert says is None or any(says in text for text in chip.forbidden)
