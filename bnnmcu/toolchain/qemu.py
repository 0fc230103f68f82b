"""A board emulated by QEMU, as a transport.

``-icount shift=0`` makes one instruction take one nanosecond of the machine's
time, so that a timer at 1 GHz (TIM2 of the machine ``netduinoplus2``) counts
instructions exactly.  Without it the machine is faster, and its timers follow
the clock of this computer, which says nothing about a board.  The serial line
and the machine protocol are sockets handed down as open files: nothing lies in
the file system, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bnnmcu.boards import Board
from bnnmcu.errors import LinkError, MissingDependencyError, PortGoneError, ToolchainError
from bnnmcu.toolchain.count_plugin import CountPlugin
from bnnmcu.toolchain.elf import read_firmware

__all__ = ["PROGRAM", "QemuBoard"]

PROGRAM = "qemu-system-arm"
INSTALL_HINT = "apt install qemu-system-arm, or use --emulate unicorn"

START_TIMEOUT = 20.0
"""Seconds until the machine runs and the firmware has enabled its UART."""
WRITE_TIMEOUT = 20.0
"""Seconds the firmware may take to accept input."""
STOP_TIMEOUT = 5.0
"""Seconds a killed QEMU may take to vanish."""

_CHUNK = 65536


class QemuBoard:
    """QEMU running one firmware; a context manager and a ``Transport``.

    Args:
        elf: the firmware.
        board: its board; ``board.emulator.qemu`` names the machine.
        plugin: counts what is executed; from now on the emulator's, closed with it.
        icount: let a timer count instructions; without it counts mean nothing.

    Attributes:
        name: ``"qemu:MACHINE (emulated)"``.

    Raises:
        MissingDependencyError: QEMU is not installed.
        ToolchainError: no machine for the board, an unsound ELF, or QEMU or
            the firmware does not start; with what QEMU said.
    """

    def __init__(
        self, elf: Path, board: Board, plugin: CountPlugin | None = None, *, icount: bool = True
    ) -> None:
        if os.name != "posix":
            raise ToolchainError(
                "QEMU is driven through inherited sockets, which need Linux or macOS",
                hint="--emulate unicorn",
            )
        if not board.emulator.qemu:
            raise ToolchainError(f"QEMU has no machine for {board.name}", hint="--emulate unicorn")
        program = shutil.which(PROGRAM)
        if program is None:
            raise MissingDependencyError(f"{PROGRAM} is not installed", hint=INSTALL_HINT)
        read_firmware(elf)  # a clear message instead of QEMU's
        self.name = f"qemu:{board.emulator.qemu} (emulated)"
        self._received = bytearray()
        self._changed = threading.Condition()
        self._board = board
        self._ended = False
        self._closed = False
        self._line, far_line = socket.socketpair()
        self._monitor, far_monitor = socket.socketpair()
        # A file, not a pipe: nobody has to read it for QEMU to go on.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.plugin = plugin
        command = _command(program, board, elf, far_line.fileno(), far_monitor.fileno())
        command += ["-icount", "shift=0"] if icount else []
        command += plugin.arguments if plugin else []
        files = plugin.files if plugin else ()
        started: list[subprocess.Popen[bytes] | OSError] = []
        ready = threading.Event()

        def serve() -> None:
            # Started here because the kernel ties the child to this thread's
            # life (see _command), and this one lives as long as the board.
            try:
                started.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=self._errors,
                        stderr=self._errors,
                        pass_fds=(far_line.fileno(), far_monitor.fileno(), *files),
                        # Ctrl-C is for us; we then end QEMU in order.
                        start_new_session=True,
                    )
                )
            except OSError as error:
                started.append(error)
            finally:
                far_line.close()
                far_monitor.close()
                ready.set()
            self._receive()

        self._reader = threading.Thread(target=serve, name="bnnmcu-qemu", daemon=True)
        self._reader.start()
        ready.wait()
        process = started[0]
        if isinstance(process, OSError):
            self._line.close()
            raise ToolchainError(f"QEMU cannot be started: {process.strerror}", where=program)
        self._process = process
        self._finalizer = weakref.finalize(self, _reap, process, self._line, self._monitor)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def read(self, size: int, timeout: float) -> bytes:
        """What has come, up to ``size`` bytes; waits ``timeout`` s for the first.

        Raises:
            LinkError: the board is closed, or QEMU has ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._received or self._ended or self._closed, timeout)
            if self._received:
                data = bytes(self._received[:size])
                del self._received[:size]
                return data
            if self._closed:
                raise LinkError("is closed", where=self.name)
            if self._ended:
                raise PortGoneError(f"QEMU has ended: {self._said()}", where=self.name)
            return b""

    def write(self, data: bytes) -> None:
        """Send bytes; returns when QEMU has taken them all.

        Raises:
            LinkError: QEMU has ended or takes nothing.
        """
        view = memoryview(data)
        deadline = time.monotonic() + WRITE_TIMEOUT
        while view:
            if self._closed:
                raise LinkError("is closed", where=self.name)
            left = deadline - time.monotonic()
            if left <= 0:
                raise LinkError(
                    f"the firmware took no input for {WRITE_TIMEOUT:g} s", where=self.name
                )
            try:
                if not select.select([], [self._line], [], left)[1]:
                    continue
                view = view[self._line.send(view, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except (OSError, ValueError) as error:
                raise PortGoneError(f"QEMU has ended: {self._said()}", where=self.name) from error

    def reset_input(self) -> None:
        """Forget what has come and was not read."""
        with self._changed:
            self._received.clear()

    def reset(self) -> None:
        """Reset the machine, as its button would; returns when the firmware listens again.

        RAM that the firmware does not load stays.  What it had sent and nobody
        has read can still be read.

        Raises:
            ToolchainError: QEMU does not answer, or the firmware does not start.
        """
        try:
            with self._monitor.makefile("rwb", buffering=0) as stream:
                _system_reset(stream)
                ready = self._await_uart(stream)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ToolchainError("QEMU cannot be reset", where=self.name) from error
        if not ready:
            raise self._no_uart()

    def close(self) -> None:
        """End QEMU; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._finalizer()
        if self._reader is not threading.current_thread():
            self._reader.join(STOP_TIMEOUT)
        self._errors.close()
        if self.plugin is not None:
            self.plugin.close()

    def __enter__(self) -> QemuBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        return self._process.pid

    def _receive(self) -> None:
        # Always reading: QEMU then never blocks on us while we block on it.
        while True:
            try:
                data = self._line.recv(_CHUNK)
            except OSError:
                data = b""
            with self._changed:
                if data:
                    self._received += data
                else:
                    self._ended = True
                self._changed.notify_all()
            if not data:
                return

    def _start(self) -> None:
        """Greet QEMU and wait for the firmware."""
        self._monitor.settimeout(START_TIMEOUT)
        try:
            with self._monitor.makefile("rwb", buffering=0) as stream:
                _answer(stream)  # the greeting
                _execute(stream, "qmp_capabilities")
                ready = self._await_uart(stream)
        except (OSError, EOFError, ValueError, KeyError) as error:
            raise ToolchainError(
                f"QEMU does not start: {self._said() or error}", where=self.name
            ) from error
        if not ready:
            raise self._no_uart()

    def _await_uart(self, stream: Any) -> bool:
        """Wait until the firmware's receiver is on; QEMU drops what comes before."""
        uart = self._board.uart
        if uart.ready is None:
            return True  # nothing tells: who asks first asks again
        offset, mask = uart.ready
        # Not xp: that is refused where only the secure state may look.
        line = f"x /1wx {uart.address + offset:#x}"
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            shown = _execute(stream, "human-monitor-command", {"command-line": line})
            if int(str(shown).rpartition(":")[2], 16) & mask == mask:
                return True
            time.sleep(0.002)
        return False

    def _no_uart(self) -> ToolchainError:
        return ToolchainError(
            f"the firmware did not enable its UART within {START_TIMEOUT:g} s",
            where=self.name,
            hint="is the ELF built for this board?",
        )

    def _said(self) -> str:
        """What QEMU printed, and how it ended."""
        try:
            code: int | None = self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            code = None
        try:
            # pread: the child shares the file's position.
            text = os.pread(self._errors.fileno(), _CHUNK, 0).decode(errors="replace").strip()
        except (OSError, ValueError):
            text = ""
        lines = text.splitlines()[:4]
        end = "it still runs" if code is None else f"exit status {code}"
        return "; ".join([*lines, end])


def _command(program: str, board: Board, elf: Path, line: int, monitor: int) -> list[str]:
    # fmt: off
    command = [
        program, "-M", board.emulator.qemu, "-display", "none", "-nodefaults",
        "-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control",
        *["-serial", "null"] * board.emulator.serial,
        "-chardev", f"socket,id=line,fd={line}", "-serial", "chardev:line",
        "-kernel", str(elf.resolve()),
    ]
    # fmt: on
    # If we are killed, nobody can end QEMU, so the kernel is asked to.
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command


def _answer(stream: Any) -> dict[str, Any]:
    """The next message that is not an event."""
    while True:
        message = _message(stream)
        if "event" not in message:
            return message


def _message(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    if not line:
        raise EOFError("its monitor closed")
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("its monitor speaks no QMP")
    return message


def _system_reset(stream: Any) -> None:
    """Reset the machine; returns when it was, which is later than the command's answer."""
    stream.write(b'{"execute": "system_reset"}\n')
    answered = done = False
    while not (answered and done):
        message = _message(stream)
        done = done or message.get("event") == "RESET"
        if "event" not in message:
            message["return"]  # a KeyError if it was refused
            answered = True


def _execute(stream: Any, command: str, arguments: dict[str, str] | None = None) -> Any:
    request: dict[str, Any] = {"execute": command}
    if arguments:
        request["arguments"] = arguments
    stream.write(json.dumps(request).encode() + b"\n")
    return _answer(stream)["return"]


def _reap(process: subprocess.Popen[bytes], *sockets: socket.socket) -> None:
    process.kill()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        return
    finally:
        for end in sockets:
            # Wakes a thread that sits in recv(); close() alone would not.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
