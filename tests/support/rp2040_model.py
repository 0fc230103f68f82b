"""An RP2040 after its ROM, on unicorn: resets, clocks, pins and UART0 by its datasheet.

This file's reading of the RP2040 Datasheet, and no measurement on a chip.  The
first 252 bytes of flash run from RAM, as the ROM has them run; the flash can be
read all the while.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bnnmcu.boards import Board
from bnnmcu.toolchain.unicorn_board import UnicornBoard

__all__ = ["BOOT_RAM", "SSI", "Rp2040Model"]

SSI = 0x1800_0000
#: Where the ROM puts the first 256 bytes of flash, at every reset: DS, chapter Bootrom.
BOOT_RAM = 0x2004_1F00
_RESET, _DONE = 0x4000_C000, 0x4000_C008
_XOSC_CTRL, _XOSC_STATUS = 0x4002_4000, 0x4002_4004
_REF_CTRL, _REF_SELECTED = 0x4000_8030, 0x4000_8038
_SYS_CTRL, _SYS_SELECTED = 0x4000_803C, 0x4000_8044
_PERI_CTRL = 0x4000_8048
_IO_CTRL = 0x4001_4004
_ALL_IN_RESET = 0x01FF_FFFF
_XOSC_ON = 0xFAB << 12 | 0xAA0
_DR, _RSR, _FR, _IBRD, _FBRD, _LCRH, _CR = 0x00, 0x04, 0x18, 0x24, 0x28, 0x2C, 0x30
_EMPTY, _OVERRUN = 1 << 4, 1 << 3


class Rp2040Model(UnicornBoard):
    """Attributes:
    forbidden: what the firmware did that can have no effect, or that the datasheet forbids.
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
        self._registers[_RESET] = _ALL_IN_RESET

    def reg(self, address: int) -> int:
        """A register's value; what was never written reads 0."""
        return self._registers.get(address, 0)

    def _rule(self, kept: bool, text: str) -> None:
        if not kept and text not in self.forbidden:
            self.forbidden.append(text)

    def _make_cpu(self) -> Any:
        uc = super()._make_cpu()
        read, write = self._guarded(self._recall), self._guarded(self._remember)
        uc.mmio_map(SSI, 0x1000, read, SSI, write, SSI)
        # All 256 bytes: the ROM copies the checksum too, over whatever was kept there.
        uc.mem_write(BOOT_RAM, bytes(uc.mem_read(self._board.flash.origin, 256)))
        # A stack that is not ours: the boot code must bring its own.
        uc.reg_write(self._arm.UC_ARM_REG_SP, BOOT_RAM)
        uc.reg_write(self._arm.UC_ARM_REG_PC, BOOT_RAM | 1)
        return uc

    def _recall(self, uc: Any, offset: int, size: int, start: int) -> int:
        address = start + offset
        if address == _DONE:
            return ~self.reg(_RESET) & _ALL_IN_RESET
        if address == _XOSC_STATUS:
            return (self.reg(_XOSC_CTRL) == _XOSC_ON) << 31
        if address in (_REF_SELECTED, _SYS_SELECTED):
            control = _REF_CTRL if address == _REF_SELECTED else _SYS_CTRL
            return 1 << (self.reg(control) & 3)
        return super()._recall(uc, offset, size, start)

    def _remember(self, uc: Any, offset: int, size: int, value: int, start: int) -> None:
        address = start + offset
        if address == _REF_CTRL and value & 3 == 2:
            self._rule(self.reg(_XOSC_CTRL) == _XOSC_ON, "the clock of a crystal that is off")
        if _IO_CTRL <= address < _IO_CTRL + 0xF0:
            self._rule(not self.reg(_RESET) >> 5 & 1, "a pin of a bank that is in reset")
        super()._remember(uc, offset, size, value, start)

    def _read_uart(self, _uc: Any, offset: int, _size: int, base: int) -> int:
        register = offset - base
        if register == _FR:
            return 0 if self._input else _EMPTY
        if register == _RSR:
            return _OVERRUN if self.overrun else 0
        if register == _DR:
            if not self._input:
                return 0
            self._taken += 1
            wrong, self.framing = self.framing, False
            return self._input.popleft() | wrong << 8
        return self.reg(self._board.uart.address + register)

    def _write_uart(self, _uc: Any, offset: int, _size: int, value: int, base: int) -> None:
        register = offset - base
        self._rule(not self.reg(_RESET) >> 22 & 1, "UART0 is in reset")
        if register == _RSR:
            self.overrun = False
        elif register == _DR:
            self._send(value)
        else:
            self._registers[self._board.uart.address + register] = value

    def _send(self, value: int) -> None:
        uart = self._board.uart.address
        self._rule(self.reg(uart + _CR) & 0x301 == 0x301, "sent while the UART is off")
        self._rule(self.reg(uart + _LCRH) & 0x60 == 0x60, "not 8 bits")
        self._rule(bool(self.reg(_PERI_CTRL) >> 11 & 1), "no peripheral clock")
        for number in (0, 1):
            function = self.reg(_IO_CTRL + 8 * number) & 31
            self._rule(function == 2, f"GP{number} is not the UART's")
        divisor = 64 * self.reg(uart + _IBRD) + self.reg(uart + _FBRD)
        crystal = self.reg(_REF_CTRL) & 3 == 2
        rate = 4 * (12_000_000 if crystal else 6_500_000) / max(1, divisor)
        wanted = self.baud
        self._rule(abs(rate / wanted - 1) < 0.02, f"{rate:.0f} baud and not {wanted}")
        self._output.append(value & 0xFF)
