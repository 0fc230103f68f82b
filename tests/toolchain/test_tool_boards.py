"""Board files: what they hold, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnmcu.boards import LEVELS, all_boards, load_board, ring_bytes
from bnnmcu.errors import BoardError
from bnnmcu.resources import boards_dir, templates

SOURCE = load_board("nucleo_f446re").source


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nucleo_f446re", "nucleo_f446re"),
        ("nucleo_f446", "nucleo_f446re"),
        ("NUCLEO-F446RE", "nucleo_f446re"),
        ("netduinoplus2", "netduinoplus2"),
    ],
)
def test_names_and_aliases(name: str, expected: str) -> None:
    assert load_board(name).name == expected


def test_nucleo_is_the_chip_of_the_data_sheet() -> None:
    board = load_board("nucleo_f446re")
    assert (board.flash.size, board.ram.size, board.clock.hz) == (512 * 1024, 128 * 1024, 180e6)
    assert (board.uart.tx_pin, board.uart.rx_pin, board.uart.baud) == ((0, 2), (0, 3), 115200)
    assert board.clock.bus_hz("apb1") == 45_000_000
    assert board.evidence.level == "emulated by a relative"
    assert "never run on this board" in board.evidence.text


@pytest.mark.parametrize("board", all_boards(), ids=lambda board: board.name)
def test_shipped_boards_have_their_parts(board: object) -> None:
    board = load_board(str(board.name))  # type: ignore[attr-defined]
    assert board.evidence.level in LEVELS
    for name in ("bnn_port.h", *board.port_sources):
        assert templates().joinpath("port", name).is_file()
    assert boards_dir().joinpath(f"{board.name}.toml").read_text("utf-8") == board.source


def test_unknown_board_names_close_ones() -> None:
    with pytest.raises(BoardError, match="unknown board 'nucleo_f444re'") as caught:
        load_board("nucleo_f444re")
    assert "did you mean nucleo_f446re?" in str(caught.value)


def test_unlike_anything_suggests_nothing() -> None:
    with pytest.raises(BoardError) as caught:
        load_board("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "bnnmcu boards" in str(caught.value)


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SOURCE.replace('name = "nucleo_f446re"', 'name = "mine"'))
    board = load_board(str(path))
    assert (board.name, board.chip) == ("mine", "STM32F446RE")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pll_n = 180", "pll_n = 181", "clock.hz is 180000000, but the PLL factors give 181000000"),
        ("pll_m = 8 ", "pll_m = 4 ", "VCO input of 4 MHz"),
        ("pll_n = 180", "pll_n = 433", "pll_n 433 is not within 50 to 432"),
        ("pll_p = 2 ", "pll_p = 3 ", "pll_p 3 is none of 2, 4, 6, 8"),
        ("apb1_div = 4", "apb1_div = 3", "apb1_div 3 is none of"),
        ("baud = 115200", "baud = 12000000", "baud cannot be made"),
        ("baud = 115200", "baud = 921600", "is off by"),
        ("size = 524288", 'size = "524288"', "must be of type int"),
        ("size = 524288", "size = true", "must be of type int"),
        ("size = 524288", "size = 100", "flash.size 100 is less than"),
        ("origin = 0x20000000", "origin = 0x08001000", "flash and ram overlap"),
        ("origin = 0x20000000", "origin = 0xffffff00", "is no region"),
        ('tx = "PA2"', 'tx = "A2"', "uart pin 'A2'"),
        ('bus = "apb1"', 'bus = "ahb"', "neither apb1 nor apb2"),
        ("address = 0x40004400", "address = 0x20000000", "is no peripheral's"),
        ("irq = 38", "irq = 400", "uart.irq 400"),
        ('core = "cortex-m4f"', 'core = "z80"', "unknown core 'z80'"),
        ('family = "stm32f4"', 'family = "avr"', "unknown family 'avr'"),
        ('level = "emulated by a relative"', 'level = "sure"', "evidence.level 'sure'"),
        ('title = "ST ', 'title = "*/ ', "unusual characters"),
        ('"0483:374b"', '"483"', "usb id '483'"),
        ('aliases = ["nucleo_f446"]', 'aliases = "nucleo_f446"', "list of strings"),
        ("overdrive = true", "overdriv = true", "did you mean 'overdrive'"),
        ("overdrive = true", "", "missing key 'overdrive'"),
        ("[usb]", "[usc]", "unknown key 'usc'"),
        ("[clock]", "[clock", "not a TOML file"),
    ],
)
def test_unsound_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SOURCE
    path = tmp_path / "bad.toml"
    path.write_text(SOURCE.replace(old, new, 1))
    with pytest.raises(BoardError) as caught:
        load_board(str(path))
    assert message in str(caught.value)
    assert "bad.toml" in str(caught.value)


def test_a_table_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("usb = 1\n" + re.sub(r"\[usb\][^\[]*\[[^\n]*\n", "", SOURCE))
    with pytest.raises(BoardError, match="usb: must be a table"):
        load_board(str(path))


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="no such board file"):
        load_board(str(tmp_path / "none.toml"))
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BoardError, match="not a TOML file"):
        load_board(str(path))


@given(st.integers(1, 1 << 20))
def test_ring_holds_two_frames_and_no_more_than_needed(frame: int) -> None:
    size = ring_bytes(frame)
    assert size & (size - 1) == 0
    assert 2 * frame <= size < 4 * frame or size == 2
