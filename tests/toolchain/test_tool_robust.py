"""A firmware that crashes or is damaged says so on the host, at once and after a reset."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from small_network import IMAGES, small_network

from bnnmcu.backend.checksum import image_crc, stamp
from bnnmcu.backend.project import write_project
from bnnmcu.boards import Board, load_board
from bnnmcu.cli.main import main
from bnnmcu.errors import DeviceMismatchError, RemoteError
from bnnmcu.link.device import Device
from bnnmcu.link.hello import ImageState
from bnnmcu.link.timing import Timing
from bnnmcu.passes import lower
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.qemu import QemuBoard

pytestmark = pytest.mark.skipif(
    not (shutil.which("qemu-system-arm") and shutil.which("arm-none-eabi-gcc")),
    reason="qemu-system-arm and arm-none-eabi-gcc are not both installed",
)

#: Pixels that make the firmware below crash, and how.
BUS, UNDEFINED, OVERFLOW = 250, 251, 252
CRASHES = f"""
static uint32_t deep(uint32_t n)
{{
    volatile uint32_t words[16];

    for (uint32_t i = 0; i < 16u; i++) {{
        words[i] = n;
    }}
    return words[n % 16u] + (n > 1000000u ? 0u : deep(n + 1u)) + words[0];
}}

static void crash(const bnn_ctx_t *ctx)
{{
    if (ctx->image[0] == {BUS}u) {{
        *(volatile uint32_t *)0x60000000u = 1u;
    }} else if (ctx->image[0] == {UNDEFINED}u) {{
        __asm__ volatile("udf #0");
    }} else if (ctx->image[0] == {OVERFLOW}u) {{
        (void)deep(1u);
    }}
}}

static void bnn_layer0_run(bnn_ctx_t *ctx)
{{
    crash(ctx);
"""


#: A machine of each kind: by start-up code, fault registers, or what lies below the stack.
MACHINES = ("microbit", "mps2_an385", "mps2_an505", "mps2_an547")
#: QEMU has memory at the address that crashes the others.
FORGIVING = ("mps2_an547",)

Built = Callable[..., Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A firmware, sound or fragile, built once for each board."""

    @cache
    def build(board: Board, *, crashes: bool = False) -> Path:
        return _build(tmp_path_factory.mktemp(board.name), board, crashes=crashes)

    return build


@pytest.fixture(scope="module")
def elf(built: Built, board: Board) -> Path:
    return built(board)


@pytest.fixture(scope="module")
def fragile(built: Built, board: Board) -> Path:
    return built(board, crashes=True)


def _build(folder: Path, board: Board, *, crashes: bool = False) -> Path:
    write_project(lower(small_network()).graph, board, folder / "project")
    if crashes:
        source = folder / "project" / "src" / "bnn_model.c"
        text, found = re.subn(
            r"^static void bnn_layer0_run\(bnn_ctx_t \*ctx\)\n\{\n",
            lambda match: CRASHES,
            source.read_text(),
            flags=re.MULTILINE,
        )
        assert found == 1
        source.write_text(text)
    return build_firmware(folder / "project", "gcc").elf


def test_a_sound_firmware_knows_that_it_is(elf: Path, board: Board) -> None:
    held, computed = image_crc(elf)
    assert held == computed
    with Device(QemuBoard(elf, board)) as device:
        assert device.info.state == ImageState.CHECKED
        found = device.check_image()
        assert (found.expected, found.found) == (held, held)
        # All of the flash but the checksum itself.
        assert found.size == read_firmware(elf).flash_bytes(board) - 4
        assert device.last_fault() is None
        assert len(device.infer(IMAGES[0], [1]).logits[0]) == 4


def _tables(elf: Path) -> list[tuple[int, int]]:
    """Where the tables of the model stand in the file, and their sizes."""
    with elf.open("rb") as stream:
        found = ELFFile(stream)
        rodata = found.get_section_by_name(".rodata")
        assert rodata is not None
        return [
            (symbol["st_value"] - rodata["sh_addr"] + rodata["sh_offset"], symbol["st_size"])
            for symbol in found.get_section_by_name(".symtab").iter_symbols()
            if re.match(r"bnn_layer\d+_", symbol.name) and symbol["st_info"]["type"] == "STT_OBJECT"
        ]


@pytest.mark.parametrize("table", range(4))
@pytest.mark.parametrize("bit", [0, 7])
def test_a_damaged_model_is_refused(
    elf: Path, board: Board, tmp_path: Path, table: int, bit: int
) -> None:
    _check_refused(elf, board, tmp_path, table, bit)


@pytest.mark.parametrize("name", MACHINES)
def test_a_damaged_model_is_refused_on_every_core(built: Built, tmp_path: Path, name: str) -> None:
    board = load_board(name)
    _check_refused(built(board), board, tmp_path, 1, 3)


def _check_refused(elf: Path, board: Board, tmp_path: Path, table: int, bit: int) -> None:
    tables = _tables(elf)
    start, size = tables[table % len(tables)]
    data = bytearray(elf.read_bytes())
    data[start + size // 2] ^= 1 << bit
    damaged = tmp_path / "damaged.elf"
    damaged.write_bytes(data)
    with pytest.raises(DeviceMismatchError, match="flash is damaged") as caught:
        Device(QemuBoard(damaged, board))
    assert "flash it again" in str(caught.value.hint)


def test_a_firmware_without_a_checksum_says_so(elf: Path, board: Board, tmp_path: Path) -> None:
    """As a build system of the user's own makes it."""
    bare = tmp_path / "bare.elf"
    shutil.copy(elf, bare)
    held, _ = image_crc(bare)
    data = bytearray(bare.read_bytes())
    at = data.rindex(held.to_bytes(4, "little"), 0, data.index(b".symtab"))
    data[at : at + 4] = b"\xff" * 4
    bare.write_bytes(data)
    with Device(QemuBoard(bare, board)) as device:
        assert device.info.state == ImageState(0)
        assert device.check_image().size == 0
    # By the project's own copy, as a build system would call it.
    script = elf.parents[2] / "bnn_checksum.py"
    done = subprocess.run(
        [sys.executable, script, bare], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{bare}: {held:08x}\n"
    assert bare.read_bytes() == elf.read_bytes()


def test_what_has_no_place_for_a_checksum_is_refused(tmp_path: Path, elf: Path) -> None:
    other = tmp_path / "other.elf"
    other.write_bytes(elf.read_bytes().replace(b"bnn_image_crc", b"bnn_image_abc"))
    with pytest.raises(ValueError, match="lacks one of"):
        stamp(other)


@pytest.mark.parametrize("name", ["nucleo_f446re", *MACHINES])
@pytest.mark.parametrize(
    ("pixel", "words"),
    [(BUS, "bus fault"), (UNDEFINED, "undefined instruction"), (OVERFLOW, "stack overflow")],
)
def test_crashes_are_told_at_once_and_after_a_reset(
    built: Built, name: str, pixel: int, words: str
) -> None:
    if pixel == BUS and name in FORGIVING:
        pytest.skip("this machine does not fault there")
    board = load_board(name)
    fragile = built(board, crashes=True)
    if board.core == "cortex-m0" and pixel != OVERFLOW:
        words = "HardFault (a Cortex-M0 does not record why)"
    image = np.full_like(IMAGES[0], pixel)
    emulated = QemuBoard(fragile, board)
    # A retry would lie in QEMU's socket over the reset, and crash the board once more.
    with Device(emulated, timing=Timing(floor=20)) as device:
        device.infer(IMAGES[0], [1])
        with pytest.raises(RemoteError, match=re.escape(words)) as caught:
            device.infer(image, [1])
        assert "the firmware crashed" in caught.value.what
        assert "reset" in str(caught.value.hint)
        # Nothing to look up where the registers could not be saved.
        known = "pc=0x00000000" not in caught.value.what
        assert ("addr2line" in str(caught.value.hint)) == known
        assert known or pixel == OVERFLOW
        assert "EPSR" not in caught.value.what
        emulated.reset()
        time.sleep(0.2)
        info = device.connect()
        assert ImageState.FAULTED in info.state
        fault = device.last_fault()
        assert fault is not None
        assert words in fault.text
        assert fault.text in caught.value.what
        # It is told once, and the board works.
        assert ImageState.FAULTED not in device.connect().state
        assert device.last_fault() is None
        device.infer(IMAGES[0], [1])


def test_the_command_line_tells_it_too(fragile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Among a hundred noisy images is one whose first pixel makes it crash."""
    project = fragile.parents[2]
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(project), "--emulate", "qemu", "--toolchain", "gcc", "--data", "noise"])
    printed = capsys.readouterr().err
    assert stop.value.code == RemoteError.exit_code
    assert "not as it was generated" in printed
    assert "error: qemu:netduinoplus2 (emulated): the firmware crashed: " in printed
    assert "Traceback" not in printed
