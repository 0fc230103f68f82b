"""An STM32's independent watchdog as RM0390 section 20 describes it, on unicorn.

It is this file's reading of the manual and no measurement on a chip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stm32_model import Stm32Model

from bnnmcu.boards import FAMILIES, Board

__all__ = ["Iwdg"]


class Iwdg(Stm32Model):
    """A chip that just came out of reset, with the registers of its IWDG.

    Attributes:
        keys: what was written to KR.
        settings: prescaler and reload value that count.
        slow: reads of SR until a new value counts; it never does without the start.
    """

    def __init__(self, elf: Path, board: Board, slow: int = 3) -> None:
        self.keys: list[int] = []
        self.settings = {"PR": 0, "RLR": 0xFFF}
        self.slow = slow
        self._pending: dict[str, tuple[int, int]] = {}
        self._unlocked = False
        watchdog = FAMILIES[board.family].watchdog
        assert watchdog is not None
        self._kr = watchdog.address
        super().__init__(elf, board)

    def _settle(self) -> int:
        """What SR reads, one step nearer to the new values."""
        for name, (value, left) in list(self._pending.items()):
            if left == 0:
                self.settings[name] = value
                del self._pending[name]
            elif 0xCCCC in self.keys:
                self._pending[name] = (value, left - 1)
        return int("PR" in self._pending) | int("RLR" in self._pending) << 1

    def _recall(self, uc: Any, offset: int, size: int, start: int) -> int:
        if start + offset == self._kr + 0xC:
            return self._settle()
        value: int = super()._recall(uc, offset, size, start)
        return value

    def _remember(self, uc: Any, offset: int, size: int, value: int, start: int) -> None:
        register = start + offset - self._kr
        if register == 0:
            self._rule(value in (0x5555, 0xAAAA, 0xCCCC), f"{value:#x} is no key")
            self.keys.append(value)
            self._unlocked = value == 0x5555
            if value == 0xAAAA and self.settings["PR"] == 6:
                self._rule(not self._pending, "fed before the new values count")
        elif register in (4, 8):
            name = "PR" if register == 4 else "RLR"
            self._rule(self._unlocked, f"{name} is locked")
            self._rule(name not in self._pending, f"{name} written while it is busy")
            self._pending[name] = (value, self.slow)
        else:
            super()._remember(uc, offset, size, value, start)
