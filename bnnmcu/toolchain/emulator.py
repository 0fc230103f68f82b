"""One door to the emulators."""

from __future__ import annotations

from pathlib import Path

from bnnmcu.boards import Board
from bnnmcu.errors import UsageError
from bnnmcu.toolchain.detect import default_emulator
from bnnmcu.toolchain.qemu import QemuBoard
from bnnmcu.toolchain.unicorn_board import UnicornBoard

__all__ = ["EMULATORS", "choose_emulator", "open_emulator"]

EMULATORS = ("qemu", "unicorn")


def choose_emulator(kind: str | None, board: Board) -> str:
    """An emulator for a board: the named one, or for None or ``"auto"`` the best.

    QEMU is preferred where it is installed and has a machine for the board: it
    emulates interrupts and always counts instructions.

    Raises:
        MissingDependencyError: none is installed.
        UsageError: an unknown name.
    """
    if kind in (None, "auto"):
        best = default_emulator()
        return "unicorn" if best == "qemu" and not board.emulator.qemu else best
    if kind not in EMULATORS:
        raise UsageError(f"unknown emulator {kind!r}", hint=f"one of {', '.join(EMULATORS)}")
    return str(kind)


def open_emulator(
    kind: str | None, elf: Path, board: Board, *, count: bool = False
) -> QemuBoard | UnicornBoard:
    """Start a firmware on an emulator; the result is a ``Transport``.

    Args:
        kind: ``"qemu"``, ``"unicorn"``, or None for the best one.
        elf: the firmware.
        board: its board.
        count: count instructions.  QEMU always does; unicorn is slower by a
            factor of 20 or more then.

    Raises:
        MissingDependencyError: the emulator is not installed.
        ToolchainError: it does not start, or the ELF does not suit it.
        UsageError: an unknown name.
    """
    if choose_emulator(kind, board) == "qemu":
        return QemuBoard(elf, board)
    return UnicornBoard(elf, board, count=count)
