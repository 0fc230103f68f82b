"""The same ELF on every emulator: bytes, counts, faults, and the end of things."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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

from bnnmcu.boards import Board, Memory
from bnnmcu.errors import LinkError, MissingDependencyError, ToolchainError, UsageError
from bnnmcu.toolchain import emulator, qemu
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.emulator import choose_emulator, open_emulator
from bnnmcu.toolchain.qemu import QemuBoard
from bnnmcu.toolchain.unicorn_board import UnicornBoard

EMULATORS = ["qemu", "unicorn"]
BOTH = pytest.mark.parametrize("kind", EMULATORS)
COMPILERS = pytest.mark.parametrize("toolchain", ["gcc", "zig"])
Echo = Callable[[str], BuildResult]

UNDEFINED = 1 << 16  # CFSR.UNDEFINSTR
PRECISE = 1 << 9 | 1 << 15  # CFSR.PRECISERR, BFARVALID
STACKING = 1 << 12  # CFSR.STKERR
FORCED = 1 << 30  # HFSR.FORCED


@BOTH
@COMPILERS
def test_boots_echoes_and_works(echo: Echo, board: Board, kind: str, toolchain: str) -> None:
    with emulate(kind, echo(toolchain).elf, board) as device:
        info = ask_info(device)
        assert info.board == "nucleo_f446re"
        assert info.capacity == RX_BYTES
        assert info.clock_hz == 0, "an emulator has no clock tree"
        assert (info.received, info.overrun) == (1, 0)
        assert 0 < info.stack_free < STACK_BYTES
        data = bytes(range(256)) * 3
        assert ask_echo(device, data) == data
        _, result = ask_work(device, 1000)
        assert result == worked(1000), ".data or .bss was not set up"
        assert ask_info(device).received == 1 + 3 + len(data) + 5 + 1
        assert "emulated" in device.name


@COMPILERS
def test_both_emulators_count_the_same_instructions(
    echo: Echo, board: Board, toolchain: str
) -> None:
    counts = {}
    for kind in EMULATORS:
        with emulate(kind, echo(toolchain).elf, board, count=True) as device:
            assert ask_info(device).counter == 2
            counts[kind] = [ask_work(device, rounds)[0] for rounds in (0, 1, 2, 1000, 1000, 50000)]
    assert counts["qemu"] == counts["unicorn"]
    none, one, two, thousand, again, many = counts["qemu"]
    each = two - one
    assert none < one < two
    assert thousand == again == one + 999 * each
    assert many == one + 49999 * each


def test_unicorn_counts_exactly_although_interrupted(echo: Echo, board: Board) -> None:
    needs("unicorn")
    rounds = 300_000
    with UnicornBoard(echo("gcc").elf, board, count=True) as device:
        one, two = ask_work(device, 1)[0], ask_work(device, 2)[0]
        device.write(b"W" + struct.pack("<I", rounds))
        data, stops = b"", 0
        while len(data) < 8:
            piece = device.read(8, 0.01)
            stops += not piece
            data += piece
    assert stops > 0, "nothing was interrupted: the test shows nothing"
    assert struct.unpack("<II", data)[0] == one + (rounds - 1) * (two - one)


def test_unicorn_without_counting_says_so(echo: Echo, board: Board) -> None:
    with emulate("unicorn", echo("gcc").elf, board) as device:
        assert ask_info(device).counter == 0
        assert ask_work(device, 100)[0] == 0


@BOTH
def test_input_waits_while_the_firmware_computes(echo: Echo, board: Board, kind: str) -> None:
    """More than the ring holds: an emulated line waits instead of losing bytes."""
    data = bytes(index * 7 & 0xFF for index in range(3 * RX_BYTES))
    with emulate(kind, echo("gcc").elf, board) as device:
        device.write(b"D" + struct.pack("<I", 2_000_000))
        assert ask_echo_after(device, b"d", data) == data
        assert ask_info(device).overrun == 0


def ask_echo_after(device: QemuBoard | UnicornBoard, mark: bytes, data: bytes) -> bytes:
    device.write(b"E" + struct.pack("<H", len(data)) + data)
    assert receive(device, len(mark)) == mark
    return receive(device, len(data))


@BOTH
@COMPILERS
def test_undefined_instruction(echo: Echo, board: Board, kind: str, toolchain: str) -> None:
    built = echo(toolchain)
    with emulate(kind, built.elf, board) as device:
        fault = ask_fault(device, b"U")
        assert (fault.cfsr, fault.hfsr) == (UNDEFINED, FORCED)
        assert "(main + " in read_firmware(built.elf).describe(fault.frame[6])
        # Parked: nothing answers any more, and nothing breaks.
        device.write(b"I")
        assert device.read(1, 0.2) == b""


@BOTH
@COMPILERS
def test_bad_address(echo: Echo, board: Board, kind: str, toolchain: str) -> None:
    with emulate(kind, echo(toolchain).elf, board) as device:
        fault = ask_fault(device, b"B")
        assert (fault.cfsr, fault.hfsr, fault.bfar) == (PRECISE, FORCED, 0x60000000)
        assert fault.frame[7] & 1 << 24, "xPSR without its Thumb bit"


@BOTH
@COMPILERS
def test_stack_overflow_faults_below_ram(
    echo: Echo, board: Board, kind: str, toolchain: str
) -> None:
    with emulate(kind, echo(toolchain).elf, board) as device:
        fault = ask_fault(device, b"S")
        assert fault.cfsr == PRECISE | STACKING
        assert fault.frame == (0,) * 8, "the frame of an unusable stack must not be read"
        assert board.ram.origin - 256 <= fault.bfar < board.ram.origin


@BOTH
def test_read_gives_up_and_what_was_sent_is_not_lost(echo: Echo, board: Board, kind: str) -> None:
    with emulate(kind, echo("gcc").elf, board) as device:
        start = time.monotonic()
        assert device.read(1, 0.1) == b""
        assert 0.09 < time.monotonic() - start < 5
        device.write(b"E\x05\x00hello")
        assert receive(device, 2) == b"he"
        assert receive(device, 3) == b"llo"
        device.write(b"E\x01\x00x")
        while device.read(1, 0.2) != b"x":
            pass
        device.write(b"E\x01\x00y")
        receive(device, 1)
        device.reset_input()
        assert device.read(1, 0.1) == b""


@BOTH
def test_another_thread_writes_while_one_reads(echo: Echo, board: Board, kind: str) -> None:
    with emulate(kind, echo("gcc").elf, board) as device:
        timer = threading.Timer(0.2, device.write, (b"E\x02\x00ok",))
        timer.start()
        assert receive(device, 2) == b"ok"
        timer.join()


@BOTH
def test_a_reset_starts_the_firmware_again(echo: Echo, board: Board, kind: str) -> None:
    with emulate(kind, echo("gcc").elf, board) as device:
        for state in ("idle", "computing", "in a fault"):
            if state == "computing":
                device.write(b"W" + struct.pack("<I", 100_000_000))
                assert device.read(1, 0.1) == b""
            if state == "in a fault":
                ask_fault(device, b"U")
            device.reset()
            assert ask_info(device).received == 1, f"{state}: RAM was not initialised"
            assert ask_work(device, 10)[1] == worked(10)


def test_a_unicorn_reset_loses_what_was_not_taken_and_keeps_what_was_sent(
    echo: Echo, board: Board
) -> None:
    with emulate("unicorn", echo("gcc").elf, board) as device:
        device.write(b"E\x02\x00ab")
        assert device.read(1, 30) == b"a"
        device.write(b"E\x01\x00x")
        device.reset()
        device.write(b"E\x01\x00y")
        assert receive(device, 2) == b"by"
        # From another thread, while the CPU computes and this one waits.
        timer = threading.Timer(0.2, lambda: (device.reset(), device.write(b"E\x01\x00z")))
        device.write(b"D" + struct.pack("<I", 0xFFFF_FFFF))
        timer.start()
        assert receive(device, 1) == b"z"
        timer.join()
    with pytest.raises(LinkError, match="is closed"):
        device.reset()


def test_qemu_without_counting_answers_the_same(echo: Echo, board: Board) -> None:
    needs("qemu")
    with open_emulator("qemu", echo("gcc").elf, board, icount=False) as device:
        assert ask_echo(device, b"hello") == b"hello"
        assert ask_work(device, 1000)[1] == worked(1000)


@BOTH
def test_closed_boards_refuse(echo: Echo, board: Board, kind: str) -> None:
    device = emulate(kind, echo("gcc").elf, board)
    device.close()
    device.close()
    with pytest.raises(LinkError, match="is closed"):
        device.read(1, 0.1)
    with pytest.raises(LinkError, match="is closed"):
        device.write(b"x")


@BOTH
def test_close_ends_a_waiting_read(echo: Echo, board: Board, kind: str) -> None:
    device = emulate(kind, echo("gcc").elf, board)
    timer = threading.Timer(0.2, device.close)
    timer.start()
    start = time.monotonic()
    with pytest.raises(LinkError, match="is closed"):
        device.read(1, 60)
    assert time.monotonic() - start < 30
    timer.join()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody has waited for is dead all the same.
    state = Path(f"/proc/{pid}/stat")
    return not (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_qemu_is_reaped_also_after_an_exception(echo: Echo, board: Board) -> None:
    needs("qemu")
    device = QemuBoard(echo("gcc").elf, board)
    with pytest.raises(ZeroDivisionError), device:
        raise ZeroDivisionError
    assert not _is_running(device.pid)


LEAVE = """
import sys
from pathlib import Path
from bnnmcu.boards import load_board
from bnnmcu.toolchain.qemu import QemuBoard
board = QemuBoard(Path(sys.argv[1]), load_board("nucleo_f446re"))
print(board.pid, flush=True)
if sys.argv[2] == "wait":
    board.read(1, 60)
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_no_qemu_outlives_its_program(echo: Echo, end: str) -> None:
    needs("qemu")
    if end == "kill" and shutil.which("setpriv") is None:
        pytest.skip("setpriv, which ties QEMU to a program that is killed, is not installed")
    script = [sys.executable, "-c", LEAVE, str(echo("gcc").elf), "wait" if end == "kill" else ""]
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        script, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        if end == "kill":
            assert _is_running(pid)
            program.kill()
    deadline = time.monotonic() + 20
    while _is_running(pid):
        assert time.monotonic() < deadline, f"QEMU {pid} is still there"
        time.sleep(0.05)


def test_a_qemu_that_dies_is_reported(echo: Echo, board: Board) -> None:
    needs("qemu")
    with QemuBoard(echo("gcc").elf, board) as device:
        os.kill(device.pid, signal.SIGTERM)
        with pytest.raises(LinkError, match=r"QEMU has ended: .*terminating on signal 15"):
            receive(device, 1)


def test_a_qemu_that_does_not_start_is_reported(echo: Echo, board: Board) -> None:
    needs("qemu")
    odd = replace(board, emulator=replace(board.emulator, qemu="nosuchmachine"))
    with pytest.raises(ToolchainError, match="unsupported machine type"):
        QemuBoard(echo("gcc").elf, odd)


def test_firmware_that_never_starts_is_reported(
    tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("gcc")
    needs("qemu")
    monkeypatch.setattr(qemu, "START_TIMEOUT", 0.5)
    main = (
        "#include <stdint.h>\nint main(void) { for (;;) { } }\n"
        "void bnn_app_fault(const uint32_t f[8], uint32_t a, uint32_t b, uint32_t c, uint32_t d);\n"
        "void bnn_app_fault(const uint32_t f[8], uint32_t a, uint32_t b, uint32_t c, uint32_t d)\n"
        "{ (void)f; (void)a; (void)b; (void)c; (void)d; }\n"
    )
    built = build_firmware(write_echo_project(tmp_path, board, main=main), "gcc")
    with pytest.raises(ToolchainError, match="did not enable its UART"):
        QemuBoard(built.elf, board)
    # A computing CPU leaves the reader its time limit.
    with emulate("unicorn", built.elf, board) as device:
        start = time.monotonic()
        assert device.read(1, 0.2) == b""
        assert time.monotonic() - start < 10


def test_a_fault_inside_the_fault_handler_locks_up(tmp_path: Path, board: Board) -> None:
    needs("gcc")
    needs("unicorn")
    main = (
        '#include <stdint.h>\nint main(void) { __asm__ volatile("udf #1"); return 0; }\n'
        "void bnn_app_fault(const uint32_t f[8], uint32_t a, uint32_t b, uint32_t c, uint32_t d);\n"
        "void bnn_app_fault(const uint32_t f[8], uint32_t a, uint32_t b, uint32_t c, uint32_t d)\n"
        '{ (void)f; (void)a; (void)b; (void)c; (void)d; __asm__ volatile("udf #2"); }\n'
    )
    built = build_firmware(write_echo_project(tmp_path, board, main=main), "gcc")
    locked = pytest.raises(LinkError, match=r"locked up: .*bnn_app_fault.*main")
    with UnicornBoard(built.elf, board) as device, locked:
        device.read(1, 5)


def test_an_elf_for_another_board_is_refused(echo: Echo, board: Board) -> None:
    needs("unicorn")
    elsewhere = replace(board, flash=Memory(0x00000000, board.flash.size))
    with pytest.raises(ToolchainError, match="outside the memories of nucleo_f446re"):
        UnicornBoard(echo("gcc").elf, elsewhere)


def test_no_machine_for_the_board(echo: Echo, board: Board) -> None:
    plain = replace(board, emulator=replace(board.emulator, qemu="", unicorn=False))
    with pytest.raises(ToolchainError, match="QEMU has no machine"):
        QemuBoard(echo("gcc").elf, plain)
    with pytest.raises(ToolchainError, match="unicorn cannot stand in"):
        UnicornBoard(echo("gcc").elf, plain)


def test_choice_of_emulator(echo: Echo, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator, "default_emulator", lambda: "qemu")
    assert choose_emulator(None, board) == choose_emulator("auto", board) == "qemu"
    assert choose_emulator("unicorn", board) == "unicorn"
    machineless = replace(board, emulator=replace(board.emulator, qemu=""))
    assert choose_emulator("auto", machineless) == "unicorn"
    with pytest.raises(UsageError, match="unknown emulator 'bochs'"):
        choose_emulator("bochs", board)
    qemu_alone = replace(board, emulator=replace(board.emulator, unicorn=False))
    monkeypatch.setattr(emulator, "default_emulator", lambda: "unicorn")
    assert choose_emulator("auto", qemu_alone) == "qemu"
    neither = replace(machineless, emulator=replace(machineless.emulator, unicorn=False))
    for kind, one, what, hint in (
        ("qemu", machineless, "QEMU has no machine for", "--emulate unicorn"),
        ("unicorn", qemu_alone, "unicorn cannot stand in for", "--emulate qemu"),
        ("auto", neither, "no emulator has this board's peripherals", "use --port"),
        ("unicorn", neither, "no emulator has this board's peripherals", "bnnmcu boards"),
    ):
        with pytest.raises(ToolchainError, match=what) as caught:
            choose_emulator(kind, one)
        assert hint in str(caught.value.hint)
    monkeypatch.setattr(qemu.shutil, "which", lambda _: None)
    with pytest.raises(MissingDependencyError, match="qemu-system-arm is not installed"):
        open_emulator("qemu", echo("gcc").elf, board)
