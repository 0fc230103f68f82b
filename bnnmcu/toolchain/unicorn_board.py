"""A board emulated in this process by unicorn, as a transport.

unicorn is a CPU and nothing else.  Here it gets the memories of the board and
just enough of a chip that the same ELF runs which goes to the real one: the
receive and transmit registers of the UART, registers that remember what was
written, a timer that counts instructions if asked to, and the entry into a
fault handler.  There are no interrupts: the firmware receives by polling before
it sleeps, and WFI ends a run.  RCC_CR reads 0, which tells the firmware that
there is no clock tree.

Sources: ARMv7-M architecture reference manual (DDI 0403E) B1.5.6 exception
entry, B3.2.15 CFSR; RM0390 25.6 USART, 17.4 TIM2.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from bnnmcu.boards import Board
from bnnmcu.errors import LinkError, MissingDependencyError, ToolchainError
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.interrupt import interrupts_deferred
from bnnmcu.toolchain.unicorn_fault import enter_hard_fault
from bnnmcu.toolchain.unicorn_flash import UnicornFlash

__all__ = ["UnicornBoard"]

WATCH_PERIOD = 0.05
"""Seconds between looks at the clock while the CPU computes."""
SLICE = 0.25
"""Seconds the CPU computes at a time: Python handles no Ctrl-C before it returns."""

_PAGE = 0x1000
_PERIPHERALS = (0x4000_0000, 0x4008_0000)
_SYSTEM = (0xE000_0000, 0xE010_0000)
_NOWHERE = 0xFFFF_FFFE
_WFI = b"\x30\xbf"

_TIM2_CNT = 0x4000_0024
_VTOR = 0xE000_ED08
_SR_RXNE, _SR_IDLE_TX = 1 << 5, (1 << 7) | (1 << 6)  # TXE and TC: always ready to send
_SR, _DR = 0x00, 0x04


class UnicornBoard:
    """unicorn running one firmware; a context manager and a ``Transport``.

    The CPU only runs inside :meth:`read`; other threads may :meth:`write` and
    :meth:`reset`.

    Args:
        elf: the firmware.
        board: its board, for the memories and the UART.
        count: let TIM2 count instructions, exactly as QEMU's does under
            ``-icount shift=0``.  Slower by a factor of 20 or more; without it
            no counter runs, and the firmware says so.
        storage: where a board in field mode keeps the flash that it writes, from one
            process to the next; None for one that is blank when it is new.

    Attributes:
        name: ``"unicorn (emulated)"``.
        flash: what a board in field mode writes; None for others.

    Raises:
        MissingDependencyError: unicorn is not installed.
        ToolchainError: an unsound ELF, or one that does not fit the board.
    """

    def __init__(
        self, elf: Path, board: Board, *, count: bool = False, storage: Path | None = None
    ) -> None:
        if not board.emulator.unicorn:
            raise ToolchainError(f"unicorn cannot stand in for {board.name}")
        try:
            import unicorn
            from unicorn import arm_const
        except ImportError as error:
            raise MissingDependencyError(
                "unicorn is not installed", hint="pip install 'bnnmcu[sim]'"
            ) from error
        self.name = "unicorn (emulated)"
        # unicorn has no types of its own.
        self._unicorn: Any = unicorn
        self._arm: Any = arm_const
        self._board = board
        self._firmware = read_firmware(elf)
        self._input: deque[int] = deque()
        self._taken = self._writes = 0
        self._output = bytearray()
        self._registers: dict[int, int] = {}
        self._arrived = threading.Condition()
        self._running = threading.Lock()
        self._timing = threading.Lock()
        self._asleep = False
        self._stopped = False
        self._closed = False
        self._deadline: float | None = None
        self._bad_access: tuple[int, int] | None = None
        self._faulted: str | None = None
        self._dead: str | None = None
        self._broken: BaseException | None = None
        self._last: int | None = None
        self._resumed = False
        self._instructions = 0
        self._counts: dict[tuple[int, int], int] = {}
        self._counting = count
        self._power_lost = False
        self.flash = UnicornFlash(board, storage) if board.field_mode else None
        if self.flash is not None:
            self.flash.cut = self.reset
        self._uc = self._make_cpu()
        watch = threading.Thread(
            target=_watch, args=(weakref.ref(self),), name="bnnmcu-unicorn", daemon=True
        )
        watch.start()

    def read(self, size: int, timeout: float) -> bytes:
        """What was sent, up to ``size`` bytes; runs the CPU until there is something.

        The CPU is left alone ``timeout`` s after the call, give or take
        :data:`WATCH_PERIOD`, and goes on with the next one.

        Raises:
            LinkError: the board is closed, or its CPU is locked up.
        """
        deadline = time.monotonic() + timeout
        with self._running:
            while not self._output:
                if self._closed:
                    raise LinkError("is closed", where=self.name)
                if self._power_lost:
                    self._restart()
                if self._dead is not None:
                    raise LinkError(self._dead, where=self.name)
                if self._asleep and not self._awake(deadline):
                    return b""
                if not self._closed:
                    self._run(min(deadline, time.monotonic() + SLICE))
                if not self._output and time.monotonic() >= deadline:
                    return b""
            data = bytes(self._output[:size])
            del self._output[:size]
            return data

    def write(self, data: bytes) -> None:
        """Hand bytes to the UART; the CPU takes them when it runs.

        Raises:
            LinkError: the board is closed.
        """
        if self._closed:
            raise LinkError("is closed", where=self.name)
        with self._arrived:
            # In this order, a Ctrl-C in between leaves no input to a sleeping CPU.
            self._asleep = False
            self._writes += 1
            self._input.extend(data)
            self._arrived.notify_all()

    def reset_input(self) -> None:
        """Forget what was sent and not read."""
        with self._running:
            self._output.clear()

    def reset(self) -> None:
        """Cut the power and give it back: all RAM and what was not taken yet is lost.

        The firmware starts with the next :meth:`read`.  What it had sent and
        nobody has read can still be read.

        Raises:
            LinkError: the board is closed.
        """
        if self._closed:
            raise LinkError("is closed", where=self.name)
        with self._arrived:
            self._input = deque()
            self._power_lost = True
            self._asleep = False
            self._arrived.notify_all()
        self._stop()

    def close(self) -> None:
        """Stop the CPU; may be called twice."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()
        self._stop()
        with self._running:
            self._output.clear()

    def __enter__(self) -> UnicornBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def instructions(self) -> int:
        """Instructions executed so far; 0 unless they are counted."""
        return self._instructions

    def _make_cpu(self) -> Any:
        unicorn, arm = self._unicorn, self._arm
        uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        uc.ctl_set_cpu_model(arm.UC_CPU_ARM_CORTEX_M4)
        flash, ram = self._board.flash, self._board.ram
        for memory, access in (
            (flash, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC),
            (ram, unicorn.UC_PROT_ALL),
        ):
            whole = self._board.usable_flash if memory is flash else memory.size
            size = (whole + _PAGE - 1) // _PAGE * _PAGE
            uc.mem_map(memory.origin, size, access)
        kept = self.flash
        if kept is not None:
            read, write = self._guarded(kept.read_memory), self._guarded(kept.write_memory)
            uc.mmio_map(kept.start, kept.size, read, None, write, None)
        # The UART has a page of its own, so that its hot path is short.
        uart = self._board.uart.address
        page = uart // _PAGE * _PAGE
        read, write = self._guarded(self._read_uart), self._guarded(self._write_uart)
        uc.mmio_map(page, _PAGE, read, uart - page, write, uart - page)
        rest = ((_PERIPHERALS[0], page), (page + _PAGE, _PERIPHERALS[1]), _SYSTEM)
        read, write = self._guarded(self._recall), self._guarded(self._remember)
        for start, end in rest:
            if end > start:
                uc.mmio_map(start, end - start, read, start, write, start)
        uc.hook_add(unicorn.UC_HOOK_MEM_INVALID, self._guarded(self._note_bad_access))
        if self._counting:
            uc.hook_add(unicorn.UC_HOOK_BLOCK, self._guarded(self._count_block))
        for segment in self._firmware.segments:
            try:
                uc.mem_write(segment.load, segment.data)
            except unicorn.UcError as error:
                raise ToolchainError(
                    f"{len(segment.data)} bytes at {segment.load:#x} are outside the memories "
                    f"of {self._board.name}",
                    where=str(self._firmware.path),
                    hint="it was built for another board",
                ) from error
        stack, reset = self._firmware.vectors
        uc.reg_write(arm.UC_ARM_REG_SP, stack)
        uc.reg_write(arm.UC_ARM_REG_PC, reset | 1)
        self._registers[_VTOR] = self._firmware.segments[0].load
        return uc

    def _restart(self) -> None:
        """What the power's return does to a chip."""
        with self._arrived:
            self._power_lost = self._asleep = False
        self._registers = {}
        if self.flash is not None:
            self.flash.reset()
        self._bad_access = self._faulted = self._dead = self._broken = self._last = None
        self._stopped = self._resumed = False
        self._uc = self._make_cpu()

    def _awake(self, deadline: float) -> bool:
        """Sleep until there is input; False when the time is up."""
        with self._arrived:
            return self._arrived.wait_for(
                lambda: not self._asleep or self._closed, max(0.0, deadline - time.monotonic())
            )

    def _run(self, deadline: float) -> None:
        """Run until the firmware sleeps, faults, or the time is up.

        Raises:
            KeyboardInterrupt: there was a Ctrl-C; the CPU can go on all the same.
        """
        # Around the bookkeeping too: what the CPU did must be known when it raises.
        with interrupts_deferred(self._stop):
            before = self._taken, self._writes
            self._bad_access = None
            self._resumed = self._stopped
            with self._timing:
                self._stopped = False
                self._deadline = deadline
            fault: str | None = None
            try:
                # Bit 0 selects Thumb code; reading PC gives it without.
                self._uc.emu_start(self._uc.reg_read(self._arm.UC_ARM_REG_PC) | 1, _NOWHERE)
            except self._unicorn.UcError as error:
                fault = str(error)
            finally:
                with self._timing:
                    self._deadline = None
            self._account(before, fault)

    def _account(self, before: tuple[int, int], fault: str | None) -> None:
        """Find out why the CPU stopped; before it ran, so many bytes and writes were counted."""
        if self._broken is not None:
            error, self._broken = self._broken, None
            self._dead = f"the emulation failed: {error!r}"
            raise error
        if fault is not None:
            self._enter_fault(fault)
            return
        if self._stopped:
            return
        pc = self._uc.reg_read(self._arm.UC_ARM_REG_PC) & ~1
        if bytes(self._uc.mem_read(pc - 2, 2)) != _WFI:
            self._dead = f"the CPU stopped at {self._firmware.describe(pc)} for no known reason"
            return
        with self._arrived:
            # Asleep with input that it does not take: it no longer listens.  But what came while
            # it ran may have come after it had looked for the last time.
            if not self._input or before == (self._taken, self._writes):
                self._asleep = True

    def _stop(self) -> None:
        self._stopped = True
        # While counting, _count_block stops: only there is it certain that a
        # block was not counted and then left unexecuted.
        if not self._counting:
            self._uc.emu_stop()

    def _watched(self) -> bool:
        """Stop a CPU that computes past its deadline; False when the board is closed."""
        # With the lock, a late stop cannot hit the run after the one it was meant for.
        with self._timing:
            if self._deadline is None:
                return not self._closed
            if self._closed or time.monotonic() >= self._deadline:
                self._stop()
            return True

    def _guarded(self, callback: Callable[..., int | None]) -> Callable[..., int]:
        """A callback for unicorn that keeps its exception for :meth:`_account`."""

        def call(*arguments: Any) -> int:
            try:
                return callback(*arguments) or 0
            except BaseException as error:
                # ctypes would print it, forget it, and go on with a made-up value.
                self._broken = self._broken or error
                self._stopped = True
                self._uc.emu_stop()
                return 0

        return call

    def _read_uart(self, _uc: Any, offset: int, _size: int, base: int) -> int:
        register = offset - base
        if register == _DR and self._again():
            return self._last or 0
        self._last = None
        waiting = self._input  # a reset from another thread puts another one there
        if register == _SR:
            return _SR_IDLE_TX | _SR_RXNE if waiting else _SR_IDLE_TX
        if register == _DR:
            if not waiting:
                return 0
            self._taken += 1
            self._last = waiting.popleft()
            return self._last
        return self._registers.get(self._board.uart.address + register, 0)

    def _write_uart(self, _uc: Any, offset: int, _size: int, value: int, base: int) -> None:
        register = offset - base
        if register == _DR:
            if not self._again():
                self._output.append(value & 0xFF)
            self._last = value & 0xFF
        else:
            self._registers[self._board.uart.address + register] = value

    def _again(self) -> bool:
        """Whether an access to DR is the last one over again.

        A stop in the middle of an access throws its result away, and the CPU
        repeats it when it goes on.  Drivers read SR between two bytes.
        """
        resumed, self._resumed = self._resumed, False
        return resumed and self._last is not None

    def _recall(self, _uc: Any, offset: int, _size: int, start: int) -> int:
        address = start + offset
        if address == _TIM2_CNT:
            return self._instructions & 0xFFFF_FFFF
        if self.flash is not None and self.flash.holds(address):
            return self.flash.read(address)
        return self._registers.get(address, 0)

    def _remember(self, _uc: Any, offset: int, _size: int, value: int, start: int) -> None:
        if self.flash is not None and self.flash.holds(start + offset):
            self.flash.write(start + offset, value)
        else:
            self._registers[start + offset] = value

    def _count_block(self, uc: Any, address: int, size: int, _user: Any) -> None:
        if self._stopped:
            uc.emu_stop()
            return
        key = (address, size)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _thumb_instructions(bytes(uc.mem_read(address, size)))
        self._instructions += count

    def _note_bad_access(
        self, _uc: Any, access: int, address: int, _size: int, _value: int, _user: Any
    ) -> bool:
        self._bad_access = (access, address)
        return False

    def _enter_fault(self, what: str) -> None:
        """What the core does when an instruction cannot be executed: B1.5.6."""
        uc = self._uc
        pc = uc.reg_read(self._arm.UC_ARM_REG_PC) & ~1
        cause = f"{what} at {self._firmware.describe(pc)}"
        if self._faulted is not None:
            self._dead = f"the CPU is locked up: {cause}, after {self._faulted}"
            return
        self._faulted = cause
        enter_hard_fault(uc, self._registers, self._registers[_VTOR], self._bad_access)


def _thumb_instructions(code: bytes) -> int:
    """Number of instructions: 32-bit ones begin with 0b11101, 11110 or 11111 (A5.1)."""
    at = count = 0
    while at < len(code):
        at += 4 if code[at + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2
        count += 1
    return count


def _watch(reference: weakref.ref[UnicornBoard]) -> None:
    """Look at the clock for a board; ends with it."""
    while True:
        time.sleep(WATCH_PERIOD)
        board = reference()
        if board is None or not board._watched():
            return
        del board
