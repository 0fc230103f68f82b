"""The opt-in watchdog: it resets a firmware that hangs, and no other; off, it leaves no trace."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from echo_rig import ask_echo, ask_info, needs, write_echo_project
from elftools.elf.elffile import ELFFile
from iwdg_model import Iwdg
from small_network import IMAGES, small_network

from bnnmcu.backend.memory import predict
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import FAMILIES, Board, all_boards, load_board
from bnnmcu.cli.export import command as export
from bnnmcu.errors import BoardError, RemoteError
from bnnmcu.link.device import Device
from bnnmcu.link.hello import ImageState
from bnnmcu.passes import lower
from bnnmcu.toolchain.compiler import _gcc, _zig, build_firmware
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.qemu import QemuBoard

#: What the watchdog waits on QEMU, in seconds of its time: an instruction takes a nanosecond.
PERIOD = 1.5
#: Pixels that make the fragile firmware crash or hang.
UNDEFINED, HANG = 251, 253
FRAGILE = f"""
static void bnn_layer0_run(bnn_ctx_t *ctx)
{{
    if (ctx->image[0] == {UNDEFINED}u) {{
        __asm__ volatile("udf #0");
    }}
    while (ctx->image[0] == {HANG}u) {{
        __asm__ volatile("" ::: "memory");
    }}
"""
#: Off, the firmware has none of these.
CALLS = re.compile(r" *(?:bnn_port_alive|set_alarm|clear_alarm)\(\);")
TOUCHED = ("bnn_port_cortexm.c", "bnn_startup_cortexm.c", "bnn_server.c", "bnn_server_infer.c")
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-ffreestanding")
STM32 = [board for board in all_boards() if board.family.startswith("stm32")]
WATCHFUL = [board for board in all_boards() if FAMILIES[board.family].watchdog]
OTHERS = [board for board in all_boards() if not FAMILIES[board.family].watchdog]

Build = Callable[..., Path]


def by_name(boards: list[Board]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("board", boards, ids=lambda board: board.name)


# --- on QEMU, whose CMSDK watchdog is the only one that ever ran ---------------------------------


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """A firmware with a short period: as it is, or with text of a source replaced."""

    def build(name: str, source: str = "", old: str = "", new: str = "") -> Path:
        needs("gcc")
        needs("qemu")
        folder = tmp_path_factory.mktemp("watchdog") / "project"
        write_project(lower(small_network()).graph, load_board(name).with_watchdog(), folder)
        if name.startswith("mps2"):
            _edit(folder / "include" / "bnn_board.h", "WATCHDOG_MS 26000u", "WATCHDOG_MS 1500u")
        if source:
            _edit(folder / "src" / source, old, new)
        return build_firmware(folder, "gcc").elf

    return build


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path.name, old)
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def fragile(build: Build) -> Path:
    old = "\nstatic void bnn_layer0_run(bnn_ctx_t *ctx)\n{\n"
    return build("mps2_an385", "bnn_model.c", old, FRAGILE)


def _restarted(device: Device) -> bool:
    """Whether it forgot its last inference."""
    try:
        device.counters()
    except RemoteError:
        return True
    return False


# The Netduino has no watchdog on QEMU: there the alarm is tested, and the driver disturbs nothing.
@pytest.mark.parametrize("name", ["mps2_an385", "mps2_m0", "netduinoplus2"])
def test_a_sound_firmware_is_left_alone(build: Build, name: str) -> None:
    board = load_board(name)
    with Device(QemuBoard(build(name), board)) as device:
        first = device.infer(IMAGES[0], [1, 2])
        while first.polluted:  # A busy host asked twice, and its bytes fell into the count.
            first = device.infer(IMAGES[0], [1, 2])
        time.sleep(3 * PERIOD)
        assert not _restarted(device)
        clean = 0
        end = time.monotonic() + 2 * PERIOD
        while time.monotonic() < end or not clean:
            again = device.infer(IMAGES[0], [1, 2])
            assert np.array_equal(again.logits, first.logits)
            if again.polluted:
                continue
            clean += 1
            # No tick of the alarm falls into an inference: a timer's tick is 40 instructions.
            assert np.abs(again.ticks.astype(int) - first.ticks.astype(int)).max() <= 1
        assert not _restarted(device)
        assert device.connect().state == ImageState.CHECKED


@pytest.mark.parametrize(
    ("source", "old"),
    [
        ("bnn_port_cortexm.c", "        set_alarm();\n"),
        ("bnn_port_cortexm.c", "    bnn_watchdog_feed();\n"),
        ("bnn_watchdog_cmsdk.c", "    WDOG_LOCK = UNLOCK;\n    WDOG_INTCLR = 1u;\n"),
    ],
    ids=["no alarm", "not fed", "its driver does not feed"],
)
def test_one_that_forgets_to_feed_is_not(build: Build, source: str, old: str) -> None:
    """What the test before would see."""
    board = load_board("mps2_an385")
    with Device(QemuBoard(build("mps2_an385", source, old, ""), board)) as device:
        device.infer(IMAGES[0], [1])
        time.sleep(2 * PERIOD + 1)
        assert ImageState.FAULTED in device.connect().state
        assert _restarted(device)


def test_requests_without_a_pause_are_fed_between(build: Build) -> None:
    """Its main loop never waits: each request and each draw feeds it."""
    board = load_board("mps2_an385")
    elf = build("mps2_an385", "bnn_server.c", "        bnn_port_wait();\n", "")
    with Device(QemuBoard(elf, board)) as device:
        images = np.repeat(IMAGES, 20, axis=0)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            for _ in device.infer_many((image, [1, 2, 3]) for image in images):
                pass
        assert not _restarted(device)


def test_one_that_hangs_starts_again(fragile: Path) -> None:
    board = load_board("mps2_an385")
    with Device(QemuBoard(fragile, board)) as device:
        before = device.infer(IMAGES[0], [1])
        with pytest.raises(RemoteError, match="the firmware crashed"):
            device.infer(np.full_like(IMAGES[0], HANG), [1])
        time.sleep(PERIOD + 1)
        assert ImageState.FAULTED in device.connect().state
        # The first expiry interrupts: where it hung is known.
        fault = device.last_fault()
        assert fault is not None
        assert "layer0_run" in read_firmware(fragile).describe(fault.registers[6])
        assert (fault.cfsr, fault.hfsr) == (0, 0)
        after = device.infer(IMAGES[0], [1])
        assert np.array_equal(after.logits, before.logits)


def test_a_crash_is_kept_over_the_watchdogs_reset(fragile: Path) -> None:
    board = load_board("mps2_an385")
    with Device(QemuBoard(fragile, board)) as device:
        with pytest.raises(RemoteError, match="undefined instruction") as caught:
            device.infer(np.full_like(IMAGES[0], UNDEFINED), [1])
        # Nobody resets it, and the watchdog's interrupt does not overwrite the record.
        time.sleep(2 * PERIOD + 1)
        assert ImageState.FAULTED in device.connect().state
        fault = device.last_fault()
        assert fault is not None
        assert "undefined instruction" in fault.text
        assert fault.text in caught.value.what
        assert ImageState.FAULTED not in device.connect().state
        device.infer(IMAGES[0], [1])


# --- the STM32's, of which there is a model only ------------------------------------------------


@pytest.fixture(scope="module")
def echoes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Board], Path]:
    def build(board: Board) -> Path:
        needs("gcc")
        needs("unicorn")
        folder = write_echo_project(tmp_path_factory.mktemp("iwdg"), board)
        return build_firmware(folder, "gcc").elf

    return build


@by_name(STM32)
def test_the_iwdg_is_set_and_fed(echoes: Callable[[Board], Path], board: Board) -> None:
    watched = replace(board, reset_clock=True).with_watchdog()
    with Iwdg(echoes(watched), watched) as chip:
        assert ask_info(chip).board == board.name
        assert chip.forbidden == []
        assert chip.settings["PR"] == 6
        watchdog = FAMILIES[board.family].watchdog
        assert watchdog is not None
        seconds = 256 * chip.settings["RLR"] / watchdog.hz
        assert seconds == pytest.approx(26, abs=0.1)
        assert chip.keys[0] == 0xCCCC
        assert chip.keys.count(0x5555) == 1
        fed = chip.keys.count(0xAAAA)
        assert ask_echo(chip, b"a byte at a time") == b"a byte at a time"
        assert chip.keys.count(0xAAAA) > fed
        # The slowest core wakes in time for the fastest oscillator: 60 kHz for 40.
        assert 2**24 / board.clock.reset_hz < seconds / 1.5 / 2


def test_an_iwdg_that_never_takes_its_values_stops_nothing(
    echoes: Callable[[Board], Path],
) -> None:
    board = load_board("nucleo_f303re").with_watchdog()
    with Iwdg(echoes(board), board, slow=1 << 30) as chip:
        assert ask_info(chip).board == board.name
        assert chip.settings == {"PR": 0, "RLR": 0xFFF}


# --- the choice ---------------------------------------------------------------------------------


@by_name(WATCHFUL)
def test_a_project_carries_the_choice(board: Board, tmp_path: Path) -> None:
    watched = board.with_watchdog()
    assert watched.with_watchdog() is watched
    (tmp_path / "watched.toml").write_text(watched.source)
    again = load_board(str(tmp_path / "watched.toml"))
    assert again == watched
    assert again.watchdog
    assert not board.watchdog
    if not board.reset_clock or FAMILIES[board.family].clock_source:
        assert board.with_full_clock().with_watchdog() == watched.with_full_clock()


def test_two_choices_are_one_file() -> None:
    board = load_board("disco_f407vg").with_full_clock().with_watchdog()
    assert "\nreset_clock = false\nwatchdog = true\n" in re.sub(r" *#.*", "", board.source)


@by_name(OTHERS)
def test_families_without_a_driver_refuse(board: Board, tmp_path: Path) -> None:
    with pytest.raises(BoardError, match=f"watchdog of the family {board.family}") as caught:
        board.with_watchdog()
    assert "mps2, stm32f1, stm32f3, stm32f4" in str(caught.value.hint)
    asked = tmp_path / "asked.toml"
    asked.write_text(f"watchdog = true\n{board.source}")
    with pytest.raises(BoardError, match="families with one: mps2"):
        load_board(str(asked))


@pytest.mark.parametrize(
    ("line", "says"),
    [("watchdogs = true", "unknown key 'watchdogs'"), ("watchdog = 1", "must be of type bool")],
)
def test_the_key_is_read_strictly(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"{line}\n{load_board('mps2_an385').source}")
    with pytest.raises(BoardError, match=says):
        load_board(str(path))
    path.write_text(f"watchdog = false\n{load_board('mps2_an385').source}")
    assert load_board(str(path)) == load_board("mps2_an385")


def test_the_command_line_asks_for_it(tmp_path: Path) -> None:
    model = Path(__file__).resolve().parents[2] / "examples" / "models" / "b64.pt"
    arguments = [str(model), "--board", "mps2_an385", "-o", str(tmp_path / "b64"), "--watchdog"]
    done = CliRunner().invoke(export, arguments)
    assert done.exit_code == 0, done.output
    assert load_project(tmp_path / "b64").board.watchdog
    refused = CliRunner().invoke(export, [str(model), "--format", "library", "--watchdog"])
    assert "leaves the watchdog to the firmware" in str(refused.exception)


# --- off ----------------------------------------------------------------------------------------


def test_off_nothing_is_compiled_in(tmp_path: Path) -> None:
    """The sources that it touched, with and without the lines that it added."""
    needs("gcc")
    board = load_board("mps2_an385")
    folder = tmp_path / "off"
    write_project(lower(small_network()).graph, board, folder)
    files = {path.name: path.read_text() for path in folder.rglob("*.[ch]")}
    assert not [name for name in files if "watchdog" in name]
    assert "WATCHDOG" not in files["bnn_board.h"].replace("RESET_WATCHDOG", "")
    assert "watchdog" not in (folder / "board.toml").read_text()
    assert not [flag for flag in board.compile_flags if "WATCHDOG" in flag]
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    for name in TOUCHED:
        text = files[name]
        stripped = _without(text)
        assert stripped != text
        assert not re.search(r"WATCHDOG|_alarm\(|_alive\(", stripped), name
        (bare / "src" / name).write_text(stripped)
        assert _sections(folder, board, name) == _sections(bare, board, name), name


def _without(text: str) -> str:
    """A source without the watchdog's conditional parts, both branches, and without its calls."""
    kept, depth = [], 0
    for line in text.splitlines():
        if depth or line.startswith("#ifdef BNN_PORT_WATCHDOG"):
            depth += line.startswith("#if") - line.startswith("#endif")
        elif not CALLS.fullmatch(line):
            kept.append(line)
    return "\n".join(kept) + "\n"


def _sections(folder: Path, board: Board, name: str) -> dict[str, bytes]:
    compiler = _gcc(board)
    subprocess.run(
        [*compiler.command, *board.compile_flags, "-Iinclude", "-c", f"src/{name}", "-o", "x.o"],
        cwd=folder,
        check=True,
    )
    with (folder / "x.o").open("rb") as stream:
        return {
            section.name: section.data()
            for section in ELFFile(stream).iter_sections()
            if section["sh_flags"] & 2  # SHF_ALLOC
        }


def test_a_forgotten_flag_does_not_compile(tmp_path: Path) -> None:
    """A build system of the user's own might leave it out."""
    needs("gcc")
    board = load_board("mps2_an385").with_watchdog()
    write_echo_project(tmp_path, board)
    flags = [flag for flag in board.compile_flags if flag != "-DBNN_PORT_WATCHDOG"]
    done = subprocess.run(
        [*_gcc(board).command, *flags, "-Iinclude", "-c", "src/bnn_port_cortexm.c", "-o", "x.o"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "needs -DBNN_PORT_WATCHDOG" in done.stderr


@pytest.mark.parametrize("toolchain", ["gcc", "zig"])
@pytest.mark.parametrize("name", ["mps2_an385", "nucleo_f446re", "nucleo_g071rb"])
def test_it_is_clean_under_strict_warnings(tmp_path: Path, name: str, toolchain: str) -> None:
    needs(toolchain)
    board = load_board(name).with_watchdog()
    compiler = _gcc(board) if toolchain == "gcc" else _zig(board)
    write_project(lower(small_network()).graph, board, tmp_path / "project")
    (driver,) = (source for source in board.port_sources if "watchdog" in source)
    for source in (driver, *TOUCHED):
        done = subprocess.run(
            [
                *(*compiler.command, *compiler.machine, *WARNINGS, "-O3", "-DBNN_PORT_WATCHDOG"),
                *("-Iinclude", "-c", f"src/{source}", "-o", "x.o"),
            ],
            cwd=tmp_path / "project",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["mps2_an385", "nucleo_f446re", "nucleo_g071rb"])
def test_the_prediction_has_room_for_it(tmp_path: Path, name: str) -> None:
    needs("gcc")
    flash: list[tuple[int, int]] = []
    ram: list[tuple[int, int]] = []
    for board in (load_board(name), load_board(name).with_watchdog()):
        folder = tmp_path / f"project{len(flash)}"
        plan, _ = write_project(lower(small_network()).graph, board, folder)
        (memory,) = (found for found in predict(plan, board) if found.toolchain == "gcc")
        built = build_firmware(folder, "gcc")
        flash.append((built.flash_bytes, memory.flash))
        ram.append((built.ram_bytes, memory.ram))
    for off, on in (flash, ram):
        needed, foreseen = np.subtract(on, off)
        assert 0 < needed <= foreseen
