"""The boards: one TOML file each, read strictly.

A board file says what the linker script, the port's drivers and the emulators
need to know about a chip.  The family that it names chooses the drivers
(:mod:`bnnmcu.boards.families`).
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache
from pathlib import Path

from bnnmcu.boards.board import Board
from bnnmcu.boards.cores import COMPILE_FLAGS, CORES, Core
from bnnmcu.boards.families import FAMILIES
from bnnmcu.boards.family import Family, Storage
from bnnmcu.boards.model import (
    LEVELS,
    Clock,
    Emulator,
    Evidence,
    Memory,
    PlatformIO,
    Uart,
    Usb,
)
from bnnmcu.boards.read import read_board
from bnnmcu.errors import BoardError
from bnnmcu.resources import boards_dir

__all__ = [
    "COMPILE_FLAGS",
    "CORES",
    "FAMILIES",
    "LEVELS",
    "Board",
    "Clock",
    "Core",
    "Emulator",
    "Evidence",
    "Family",
    "Memory",
    "PlatformIO",
    "Storage",
    "Uart",
    "Usb",
    "all_boards",
    "is_shipped",
    "load_board",
    "ring_bytes",
]

_SUFFIX = ".toml"


def load_board(name: str, *, exported: bool = False) -> Board:
    """The board of that name or alias, or the one in a ``.toml`` file of the user.

    Args:
        exported: whether the file is the copy in an exported project, which another
            version of bnnmcu may have put there.

    Raises:
        BoardError: no such board (close matches are named), an unsound file, or one
            that takes the name of a board that comes with bnnmcu, but is another.
    """
    if name.endswith(_SUFFIX):
        path = Path(name)
        if not path.is_file():
            raise BoardError("no such board file", where=name, hint="check the path")
        board = read_board(path, name)
        if not exported:
            _check_name(board, name)
        return board
    known = {alias: board for board in _shipped() for alias in (board.name, *board.aliases)}
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_")
    if wanted in known:
        return known[wanted]
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    # An alias and its board are one answer, not two.
    names = list(dict.fromkeys(known[match].name for match in close))
    meant = f"did you mean {' or '.join(names)}? " if names else ""
    raise BoardError(
        f"unknown board {name!r}",
        hint=f"{meant}'bnnmcu boards' lists all; a board of yours is given as a .toml file",
    )


def all_boards() -> tuple[Board, ...]:
    """Every board that comes with bnnmcu, by name.

    Raises:
        BoardError: a board file is unsound, or two claim one name.
    """
    return _shipped()


def is_shipped(board: Board) -> bool:
    """Whether a board is, in every key, one that comes with bnnmcu: only then is its evidence ours.

    One whose clock, watchdog or field mode the user chose is another board.
    """
    return board in _shipped()


def ring_bytes(frame_bytes: int) -> int:
    """Size of a receive buffer for two request frames of ``frame_bytes`` on the wire.

    It is a power of two, as the port driver wants it.  Two frames: one being
    received while the other is computed.
    """
    if frame_bytes < 1:
        raise ValueError(f"a frame has at least 1 byte, not {frame_bytes}")
    return 1 << (2 * frame_bytes - 1).bit_length()


def _check_name(board: Board, where: str) -> None:
    """A user's file must not pass for a board that comes with bnnmcu."""
    # A project's copy may have the full clock, the watchdog or field mode; it may be exported
    # from again.
    plain = replace(board, watchdog=False, field_mode=False)
    if is_shipped(plain) or is_shipped(replace(plain, reset_clock=True)):
        return
    owner = {name: one.name for one in _shipped() for name in (one.name, *one.aliases)}
    for name in (board.name, *board.aliases):
        if name in owner:
            raise BoardError(
                f"{name!r} names {owner[name]}, which comes with bnnmcu and is another board",
                where=where,
                hint="give yours a name and aliases of its own",
            )


@cache
def _shipped() -> tuple[Board, ...]:
    found = sorted(
        (entry for entry in boards_dir().iterdir() if entry.name.endswith(_SUFFIX)),
        key=lambda entry: entry.name,
    )
    boards = tuple(read_board(entry, entry.name) for entry in found)
    owner: dict[str, str] = {}
    for board, entry in zip(boards, found, strict=True):
        if entry.name != board.name + _SUFFIX:
            raise BoardError(f"its name is {board.name!r}", where=entry.name)
        for name in (board.name, *board.aliases):
            if name in owner:
                raise BoardError(
                    f"{name!r} names both {owner[name]} and {board.name}", where=entry.name
                )
            owner[name] = board.name
    return boards
