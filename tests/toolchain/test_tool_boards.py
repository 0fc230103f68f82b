"""Board files: what they hold, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnmcu.boards import (
    CORES,
    FAMILIES,
    LEVELS,
    Board,
    all_boards,
    is_shipped,
    load_board,
    ring_bytes,
)
from bnnmcu.boards.families.stm32f4 import F4Clock, F4Uart
from bnnmcu.errors import BoardError
from bnnmcu.resources import boards_dir, templates

SOURCE = load_board("nucleo_f446re").source
# Never seen on silicon, and yet no reset clock; docs/BOARDS.md says why.
OWN_CLOCK = {"pico": 12_000_000, "nucleo_f446re": 180_000_000, "netduinoplus2": 168_000_000}


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
    assert isinstance(board.uart, F4Uart)
    assert isinstance(board.clock, F4Clock)
    assert (board.uart.tx_pin, board.uart.rx_pin, board.uart.baud) == ((0, 2), (0, 3), 115200)
    assert board.clock.bus_hz("apb1") == 45_000_000
    assert board.evidence.level == "emulated by a relative"
    assert "never run on this board" in board.evidence.text


@pytest.mark.parametrize("board", all_boards(), ids=lambda board: board.name)
def test_shipped_boards_have_their_parts(board: object) -> None:
    board = load_board(str(board.name))  # type: ignore[attr-defined]
    assert board.evidence.level in LEVELS
    assert board.core in FAMILIES[board.family].cores
    for name in (*board.port_headers, *board.port_sources):
        assert templates().joinpath("port", name).is_file()
    assert boards_dir().joinpath(f"{board.name}.toml").read_text("utf-8") == board.source


@pytest.mark.parametrize("board", all_boards(), ids=lambda board: board.name)
def test_the_drivers_macros_are_those_of_the_board(board: Board) -> None:
    """Every BNN_BOARD_ name in its C files is defined, or behind an #ifdef of one that is not."""
    defined = {"RX_BYTES", "VECTORS", *board.macros}
    for name in (*board.port_headers, *board.port_sources):
        text = _compiled(templates().joinpath("port", name).read_text("utf-8"), defined)
        assert set(re.findall(r"\bBNN_BOARD_(\w+)", text)) <= defined, name


def _compiled(text: str, defined: set[str]) -> str:
    """A C file without what ``#ifdef BNN_BOARD_...`` leaves out; other conditions leave all in."""
    kept: list[str] = []
    inside: list[tuple[bool, bool]] = []  # whether it holds, whether it is known not to otherwise
    for line in text.splitlines():
        asked = re.fullmatch(r"#ifdef BNN_BOARD_(\w+)", line)
        if asked:
            inside.append((asked[1] in defined, True))
        elif line.startswith("#else"):
            holds, known = inside.pop()
            inside.append((not holds if known else holds, known))
        elif line.startswith("#endif"):
            inside.pop()
        else:
            if all(holds for holds, _ in inside):
                kept.append(line)
            if line.startswith("#if"):
                inside.append((True, False))
    assert not inside
    return "\n".join(kept)


def test_boards_that_never_ran_keep_their_reset_clock() -> None:
    """Whatever runs on emulators: they have no clock tree."""
    assert load_board("pico").experimental
    for board in all_boards():
        if board.evidence.level == "measured on hardware":
            continue
        assert board.reset_clock == (board.name not in OWN_CLOCK), board.name
        assert board.clock_hz == OWN_CLOCK.get(board.name, board.clock.reset_hz)
        assert ("bnn_clock_reset.c" in board.port_sources) == board.reset_clock


def test_the_document_names_those_that_do_not() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "BOARDS.md").read_text("utf-8")
    _, _, after = text.partition("There are three\nexceptions:\n")
    named = re.findall(r"`(\w+)`", after.partition("*Experimental*")[0])
    assert OWN_CLOCK.keys() <= set(named)


def test_the_full_clock_is_the_users_choice(tmp_path: Path) -> None:
    board = load_board("disco_f407vg")
    full = board.with_full_clock()
    assert (board.clock_hz, full.clock_hz) == (16_000_000, 168_000_000)
    assert "bnn_clock_stm32f4.c" in full.port_sources
    assert "PLL_N" in full.macros
    assert "PLL_N" not in board.macros
    # A project carries the file, so the choice must be in it.
    (tmp_path / "full.toml").write_text(full.source)
    assert load_board(str(tmp_path / "full.toml")) == full
    assert full.with_full_clock() is full


@pytest.mark.parametrize("core", CORES)
def test_each_core_has_flags_for_both_compilers(core: str) -> None:
    flags = CORES[core]
    name = core.removesuffix("f")
    assert f"-mcpu={name}" in flags.machine
    assert f"-mcpu={name.replace('-', '_')}" in flags.zig
    assert flags.hard_float == ("thumb-freestanding-eabihf" in flags.zig)


def test_unknown_board_names_close_ones() -> None:
    with pytest.raises(BoardError, match="unknown board 'nucleo_f444re'") as caught:
        load_board("nucleo_f444re")
    assert "did you mean nucleo_f446re" in str(caught.value)


def test_unlike_anything_suggests_nothing() -> None:
    with pytest.raises(BoardError) as caught:
        load_board("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "bnnmcu boards" in str(caught.value)


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = SOURCE.replace('name = "nucleo_f446re"', 'name = "mine"')
    path.write_text(text.replace('"nucleo_f446"', ""))
    board = load_board(str(path))
    assert (board.name, board.chip) == ("mine", "STM32F446RE")
    assert not is_shipped(board)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("baud = 115200", "baud = 57600", "'nucleo_f446re' names nucleo_f446re"),
        ('name = "nucleo_f446re"', 'name = "mine"', "'nucleo_f446' names nucleo_f446re"),
        ('name = "nucleo_f446re"', 'name = "pico"', "'pico' names pico"),
        ('aliases = ["nucleo_f446"]', 'aliases = ["microbit"]', "names nucleo_f446re"),
        ("emulated by a relative", "measured on hardware", "'nucleo_f446re' names"),
    ],
)
def test_a_users_file_does_not_pass_for_another(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "mine.toml"
    assert old in SOURCE
    path.write_text(SOURCE.replace(old, new, 1))
    with pytest.raises(BoardError) as caught:
        load_board(str(path))
    assert says in str(caught.value)
    assert "a name and aliases of its own" in str(caught.value.hint)
    # The copy in a project may be another version's.
    assert load_board(str(path), exported=True).chip == "STM32F446RE"


def test_a_copy_of_a_shipped_file_is_that_board(tmp_path: Path) -> None:
    """As Windows' Notepad saves it, too: a byte order mark, and its line ends."""
    path = tmp_path / "copy.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SOURCE.replace("\n", "\r\n").encode())
    board = load_board(str(path))
    assert board == load_board("nucleo_f446re")
    assert is_shipped(board)
    chosen = load_board("disco_f407vg").with_full_clock().with_watchdog()
    assert not is_shipped(chosen)
    path.write_text(chosen.source)
    assert load_board(str(path)) == chosen


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pll_n = 180", "pll_n = 181", "clock.hz is 180000000, but the PLL factors give 181000000"),
        ("pll_m = 8 ", "pll_m = 4 ", "VCO input of 4 MHz"),
        ("pll_n = 180", "pll_n = 433", "pll_n 433 is not within 50 to 432"),
        ("pll_p = 2 ", "pll_p = 3 ", "pll_p 3 is none of 2, 4, 6, 8"),
        ("pll_q = 8 ", "pll_q = 7 ", "pll_q 7 gives 51.4286 MHz; 48 are the most"),
        ("wait_states = 5", "wait_states = 4", "wait_states 4 is too few for 180 MHz: 5"),
        ("apb1_div = 4", "apb1_div = 2", "apb1_div gives 90 MHz; apb1 takes 45 with over-drive"),
        ("apb2_div = 2", "apb2_div = 1", "apb2_div gives 180 MHz; apb2 takes 90 with over-drive"),
        ("overdrive = true", "overdrive = false", "is 180 MHz; the STM32F446RE takes 168 without"),
        ('"STM32F446RE"', '"STM32F407VG"', "overdrive must be false: the STM32F407VG has none"),
        (
            '"STM32F446RE"',
            '"GD32F450"',
            "no limits of the clocks are known for the chip 'GD32F450'",
        ),
        ("size = 524288", "size = 524286", "flash.size 524286 is no multiple of 4 bytes"),
        ("size = 131072", "size = 131068", "ram.size 131068 is no multiple of 8 bytes"),
        ("origin = 0x20000000", "origin = 0x20000080", "ram from 0x20000080, 131072 bytes, is no"),
        ('rx = "PA3"', 'rx = "PA2"', "uart.tx and uart.rx are both PA2"),
        (
            'qemu = "netduinoplus2" ',
            'qemu = "" ',
            "evidence.level is 'emulated by a relative', but [emulator] names none",
        ),
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
        ('core = "cortex-m4f"', 'core = "cortex-m3"', "the family stm32f4 has no cortex-m3"),
        ('family = "stm32f4"', 'family = "stm32f1"', "clock: unknown key 'pll_m'"),
        ('family = "stm32f4"', "family = 4", "unknown family 4"),
        ("reset_clock = false", "reset_clock = 0", "must be of type bool"),
        ("experimental = false", "", "missing key 'experimental'"),
        ("counter_hz = 1000000000", "counter_hz = -1", "emulator.counter_hz is negative"),
        ("serial = 1 ", "serial = -1 ", "emulator.serial -1 is negative"),
        ("@19.5.0", "", "must look like 'platformio/ststm32@19.5.0'"),
        ('board = "nucleo_f446re"', 'board = ""', "must both be given or both be empty"),
        ('"stlink",', '"st link",', "platformio.upload 'st link' is no name"),
        ("[clock] ", "[clock ", "not a TOML file"),
    ],
)
def test_unsound_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SOURCE
    path = tmp_path / "bad.toml"
    source = SOURCE if new != 'qemu = "" ' else SOURCE.replace("unicorn = true", "unicorn = false")
    path.write_text(source.replace(old, new, 1))
    with pytest.raises(BoardError) as caught:
        load_board(str(path))
    assert message in str(caught.value)
    assert "bad.toml" in str(caught.value)


# chip; CPU and APB1 in MHz, the most both take; over-drive.  pll_n is the CPU's clock, pll_m 8,
# pll_p 2: the VCO's input is 2 MHz.
F4_CHIPS = [
    ("STM32F401RE", 84, 2, False),
    ("STM32F411RE", 100, 2, False),
    ("STM32F405RG", 168, 4, False),
    ("STM32F407VG", 168, 4, False),
    ("STM32F446RE", 168, 4, False),
    ("STM32F446RE", 180, 4, True),
]


@pytest.mark.parametrize(("chip", "mhz", "apb1", "over"), F4_CHIPS)
def test_the_limits_of_each_f4(chip: str, mhz: int, apb1: int, over: bool) -> None:
    given = load_board("nucleo_f446re").clock
    assert isinstance(given, F4Clock)

    def refused(**changes: object) -> list[str]:
        clock = replace(
            given,
            **{"hz": mhz * 10**6, "pll_n": mhz, "pll_q": 15, "apb1_div": apb1}  # type: ignore[arg-type]
            | {"apb2_div": 1 if mhz <= 100 else 2, "overdrive": over}
            | changes,
        )
        said: list[str] = []

        def require(holds: bool, what: str) -> None:
            if not holds:
                said.append(what)

        clock.check(require)
        clock.check_chip(chip, require)
        return said

    assert refused() == []
    more = refused(hz=(mhz + 2) * 10**6, pll_n=mhz + 2)
    assert any(f"clock.hz is {mhz + 2} MHz; the {chip} takes {mhz}" in text for text in more)
    assert any("clock.apb1_div gives" in text for text in refused(apb1_div=apb1 // 2))
    fewer = -(-mhz // 30) - 2
    assert any("too few" in text for text in refused(wait_states=fewer))
    assert refused(wait_states=fewer + 1) == []
    if chip.startswith("STM32F446"):
        slow = refused(hz=168 * 10**6, pll_n=168, overdrive=True)
        assert slow == ["clock.overdrive must be false: it is for more than 168 MHz"]
    else:
        assert any("has none" in text for text in refused(overdrive=True))


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
