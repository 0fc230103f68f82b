"""An i.MX RT1062 after its ROM, on unicorn: clocks, pads, watchdog and LPUART6 by IMXRT1060RM.

This file's reading of the manual, and no measurement on a chip.  The program
starts where the image vector table says, without a stack.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from bnnmcu.boards import Board
from bnnmcu.toolchain.unicorn_board import UnicornBoard

__all__ = ["ImxrtModel"]

_BEHIND = (0x4019_9000, 0x4040_0000)
_CCR, _CSCDR1, _CCGR3 = 0x400F_C000, 0x400F_C024, 0x400F_C074
_WATCHDOG, _UNLOCK = 0x400B_C000, 0x400B_C004
_MUX_TX, _MUX_RX, _SELECT_RX = 0x401F_80C4, 0x401F_80C8, 0x401F_8550
_AFTER_ROM = {_CCR: 0x1000, _CSCDR1: 0x0649_0B00, _WATCHDOG: 0x2980, _MUX_TX: 5, _MUX_RX: 5}
_ENABLED = 1 << 7
_BAUD, _STAT, _CTRL, _DATA = 0x10, 0x14, 0x18, 0x1C
_FE, _OR, _RDRF, _TC, _TDRE = 1 << 17, 1 << 19, 1 << 21, 1 << 22, 1 << 23
_ON = 1 << 18 | 1 << 19 | 1 << 21  # RE, TE, RIE


class ImxrtModel(UnicornBoard):
    """Attributes:
    forbidden: what the firmware did that can have no effect, or that the manual forbids.
    overrun: set it, and the UART says that it lost a byte until that is acknowledged.
    baud: of the other end.
    framing: set it, and the next byte has no stop bit.
    """

    def __init__(self, elf: Path, board: Board) -> None:
        self.forbidden: list[str] = []
        self.overrun = False
        self.baud = board.uart.baud
        self.framing = False
        super().__init__(elf, replace(board, emulator=replace(board.emulator, unicorn=True)))
        self._registers.update(_AFTER_ROM)

    def reg(self, address: int) -> int:
        """A register's value; what was never written reads 0."""
        return self._registers.get(address, 0)

    def _rule(self, kept: bool, text: str) -> None:
        if not kept and text not in self.forbidden:
            self.forbidden.append(text)

    def _make_cpu(self) -> Any:
        # The table at the start of flash is the ROM's, not the core's.
        flash = next(s for s in self._firmware.segments if s.load == self._board.flash.origin)
        (entry,) = struct.unpack_from("<I", flash.data, 0x1004)
        self._firmware.__dict__["vectors"] = (0, entry & ~1)
        uc = super()._make_cpu()
        read, write = self._guarded(self._recall), self._guarded(self._remember)
        start, end = _BEHIND
        uc.mmio_map(start, end - start, read, start, write, start)
        return uc

    def _remember(self, uc: Any, offset: int, size: int, value: int, start: int) -> None:
        address = start + offset
        if address == _WATCHDOG and not value & _ENABLED:
            self._rule(self.reg(_UNLOCK) == 0xD928C520, "the watchdog written without its key")
        super()._remember(uc, offset, size, value, start)

    def _read_uart(self, _uc: Any, offset: int, _size: int, base: int) -> int:
        register = offset - base
        if register == _STAT:
            return (
                _TDRE
                | _TC
                | (_RDRF if self._input else 0)
                | (_OR * self.overrun)
                | (_FE * self.framing)
            )
        if register == _DATA:
            if not self._input:
                return 0
            self._taken += 1
            return self._input.popleft() | self.framing << 13
        return self.reg(self._board.uart.address + register)

    def _write_uart(self, _uc: Any, offset: int, _size: int, value: int, base: int) -> None:
        register = offset - base
        self._rule(self.reg(_CCGR3) >> 6 & 3 == 3, "LPUART6 without its clock")
        if register == _STAT:
            self.overrun = self.overrun and not value & _OR
            self.framing = self.framing and not value & _FE
        elif register == _DATA:
            self._send(value)
        else:
            self._registers[self._board.uart.address + register] = value

    def _send(self, value: int) -> None:
        uart = self._board.uart.address
        self._rule(not self.reg(_WATCHDOG) & _ENABLED, "the watchdog runs")
        self._rule(self.reg(uart + _CTRL) & _ON == _ON, "sent while the UART is off")
        self._rule((self.reg(_MUX_TX), self.reg(_MUX_RX)) == (2, 2), "the pads are not LPUART6's")
        self._rule(self.reg(_SELECT_RX) == 1, "LPUART6 listens to another pad")
        self._rule(self.reg(_CSCDR1) & 0x7F == 0x40, "not the crystal's 24 MHz")
        baud = self.reg(uart + _BAUD)
        rate = 24_000_000 / max(1, ((baud >> 24 & 31) + 1) * (baud & 0x1FFF))
        wanted = self.baud
        self._rule(abs(rate / wanted - 1) < 0.02, f"{rate:.0f} baud and not {wanted}")
        self._output.append(value & 0xFF)
