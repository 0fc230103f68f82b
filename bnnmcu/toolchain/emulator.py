"""One door to the emulators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bnnmcu.boards import Board
from bnnmcu.errors import MissingDependencyError, ToolchainError, UsageError
from bnnmcu.toolchain.count_plugin import CountPlugin
from bnnmcu.toolchain.detect import default_emulator
from bnnmcu.toolchain.qemu import QemuBoard
from bnnmcu.toolchain.unicorn_board import UnicornBoard

__all__ = ["EMULATORS", "choose_emulator", "open_emulator"]

EMULATORS = ("qemu", "unicorn")


def choose_emulator(kind: str | None, board: Board) -> str:
    """An emulator for a board: the named one, or for None or ``"auto"`` the best.

    QEMU is preferred where it is installed and has a machine for the board: it
    emulates interrupts and always counts instructions.

    Whoever compiles for an emulator asks this first: what no emulator can run
    need not be compiled.

    Raises:
        MissingDependencyError: none is installed.
        ToolchainError: none has the board's peripherals, or the named one has not.
        UsageError: an unknown name.
    """
    auto = kind in (None, "auto")
    if not auto and kind not in EMULATORS:
        raise UsageError(f"unknown emulator {kind!r}", hint=f"one of {', '.join(EMULATORS)}")
    if board.field_mode and kind == "qemu":
        raise ToolchainError(
            "QEMU has no flash that a firmware can write: in field mode nothing keeps the counter",
            where=board.name,
            hint="--emulate unicorn, whose board has the flash controller",
        )
    can = [
        name
        for name, there in zip(
            EMULATORS,
            (bool(board.emulator.qemu) and not board.field_mode, board.emulator.unicorn),
            strict=True,
        )
        if there
    ]
    if not can:
        raise ToolchainError(
            "no emulator has this board's peripherals",
            where=board.name,
            hint="use --port, or export for a board that has one; 'bnnmcu boards' says which",
        )
    if auto:
        best = default_emulator()
        return best if best in can else can[0]
    if kind == "qemu" and kind not in can:
        raise ToolchainError(f"QEMU has no machine for {board.name}", hint="--emulate unicorn")
    if kind not in can:
        raise ToolchainError(f"unicorn cannot stand in for {board.name}", hint="--emulate qemu")
    return str(kind)


def open_emulator(
    kind: str | None,
    elf: Path,
    board: Board,
    *,
    count: bool = False,
    profile: Callable[[str], None] | None = None,
    icount: bool = True,
    storage: Path | None = None,
) -> QemuBoard | UnicornBoard:
    """Start a firmware on an emulator; the result is a ``Transport``.

    Args:
        kind: ``"qemu"``, ``"unicorn"``, or None for the best one.
        elf: the firmware.
        board: its board.
        count: count instructions.  QEMU does anyhow; unicorn is slower by a
            factor of 20 or more then.
        profile: have QEMU's plugin count each layer and model its cycles; is told where
            that cannot be had, and why.
        icount: have QEMU's timers count instructions.  Without, it is faster, and
            counts mean nothing.
        storage: where a board in field mode keeps the flash that it writes.

    Raises:
        MissingDependencyError: the emulator is not installed.
        ToolchainError: it cannot stand in for the board, does not start, or the ELF
            does not suit it.
        UsageError: an unknown name.
    """
    if choose_emulator(kind, board) == "qemu":
        return _profiled(elf, board, profile) if profile else QemuBoard(elf, board, icount=icount)
    return UnicornBoard(elf, board, count=count, storage=storage)


def _profiled(elf: Path, board: Board, log: Callable[[str], None]) -> QemuBoard:
    """QEMU with the counting plugin, or without it where it cannot be built or loaded."""
    try:
        plugin = CountPlugin(elf, board)
        try:
            return QemuBoard(elf, board, plugin)
        except BaseException:
            plugin.close()
            raise
    except (ToolchainError, MissingDependencyError) as error:
        # If the firmware is what is wrong, the same will be said again without the plugin.
        transport = QemuBoard(elf, board)
        log(f"no counting plugin ({error}): counts are the board's timer's, cycles not modelled")
        return transport
