"""The flash controller of an STM32F4 and the sector that it writes, for the emulated board.

As much of RM0390 section 3 as a firmware in field mode uses: the key sequence,
and programming words, which can clear bits and set none.  Everything else that
is asked of it sets an error flag and has no other effect.  The sector keeps its
contents over a loss of power, and in a file where one is given.

This is our reading of the manual, and no measurement on a chip.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnnmcu.boards import Board
from bnnmcu.errors import ToolchainError

__all__ = ["UnicornFlash"]

_KEYR, _SR, _CR, _END = 0x04, 0x0C, 0x10, 0x18
_KEYS = (0x4567_0123, 0xCDEF_89AB)
_PG, _STRT, _LOCK = 1 << 0, 1 << 16, 1 << 31
_PSIZE_32 = 2
_PGPERR, _PGSERR = 1 << 6, 1 << 7
_ERRORS = 0x1F2
_BLANK = b"\xff"


class UnicornFlash:
    """The last sector of a board in field mode, and the registers that write it.

    Args:
        board: in field mode.
        path: where the sector is kept from one process to the next; None for one
            that is blank when the board is new.

    Attributes:
        bytes: what is in the sector.
        written: words programmed so far.
        power: called at each of them with its number from 0 on, and says whether
            power goes in the middle of it: None, or which of the bits that were to
            change have done so by then.
        cut: called when power has gone.

    Raises:
        ToolchainError: the file is not of such a sector, or cannot be read.
    """

    def __init__(self, board: Board, path: Path | None = None) -> None:
        storage = board.kept_flash
        assert storage is not None, "only a board in field mode writes its flash"
        macros = storage.macros(board.flash)
        self.start, self.size = macros["PERSIST_ADDRESS"], storage.bytes
        self._control = macros["PERSIST_CONTROL_ADDRESS"]
        self._path = path
        self.bytes = bytearray(_load(path, self.size))
        self.written = 0
        self.power: Callable[[int], int | None] = lambda _: None
        self.cut: Callable[[], None] = lambda: None
        self.reset()

    def reset(self) -> None:
        """What the power's return does to the registers: locked, and no error."""
        self._cr, self._sr, self._keys, self._off = _LOCK, 0, 0, False

    def holds(self, address: int) -> bool:
        """Whether an address is one of the registers; ACR, for the caches, only remembers."""
        return self._control + _KEYR <= address < self._control + _END

    def read(self, address: int) -> int:
        """A register."""
        return {_SR: self._sr, _CR: self._cr}.get(address - self._control, 0)

    def write(self, address: int, value: int) -> None:
        """A register is written: keys, flags, or what is to be done."""
        at = address - self._control
        if at == _KEYR:
            right = self._keys < len(_KEYS) and value == _KEYS[self._keys]
            # After a wrong key it stays locked until the next reset.
            self._keys = self._keys + 1 if right else len(_KEYS) + 1
            if self._keys == len(_KEYS):
                self._cr &= ~_LOCK
        elif at == _SR:
            self._sr &= ~(value & _ERRORS)
        elif at == _CR and not self._cr & _LOCK:
            self._cr = value & ~_STRT
            if value & _LOCK:
                self._keys = 0
            elif value & _STRT:
                self._sr |= _PGSERR

    def read_memory(self, _uc: Any, offset: int, size: int, _user: Any) -> int:
        """The core reads the sector."""
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write_memory(self, _uc: Any, offset: int, size: int, value: int, _user: Any) -> None:
        """The core writes to the sector: a word is programmed if all is as it must be."""
        if self._off:
            return
        if self._cr & _LOCK or not self._cr & _PG:
            self._sr |= _PGSERR
        elif size != 4 or self._cr >> 8 & 3 != _PSIZE_32:
            self._sr |= _PGPERR
        else:
            self._program(offset, value)

    def _program(self, offset: int, value: int) -> None:
        old = int.from_bytes(self.bytes[offset : offset + 4], "little")
        done = self.power(self.written)
        change = old & ~value & (0xFFFF_FFFF if done is None else done)
        self.bytes[offset : offset + 4] = (old & ~change).to_bytes(4, "little")
        self.written += 1
        if self._path is not None:
            with self._path.open("r+b" if self._path.exists() else "w+b") as stream:
                if stream.seek(0, 2) != self.size:
                    stream.seek(0)
                    stream.write(self.bytes)
                stream.seek(offset)
                stream.write(self.bytes[offset : offset + 4])
        if done is not None:
            # Nothing changes any more before the power is back.
            self._off = True
            self.cut()


def _load(path: Path | None, size: int) -> bytes:
    if path is None or not path.exists():
        return _BLANK * size
    try:
        kept = path.read_bytes()
    except OSError as error:
        raise ToolchainError(
            f"the emulated board's flash cannot be read: {error.strerror}", where=str(path)
        ) from error
    if len(kept) != size:
        raise ToolchainError(
            f"{len(kept)} bytes, and the emulated board's sector has {size}",
            where=str(path),
            hint="it is damaged: export again with a new device key, and remove it",
        )
    return kept
