"""The start of the STM32F4's clock, against a model of its clock tree.

The model is this file's, from RM0390 sections 3.4, 5.1, 5.4 and 6.3; it is no
measurement on a chip.  It keeps what hardware refuses and notes what the manual
forbids.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from echo_rig import Info, ask_info, needs

from bnnmcu.boards import Board
from bnnmcu.toolchain.compiler import BuildResult
from bnnmcu.toolchain.unicorn_board import UnicornBoard

PWR_CR, PWR_CSR = 0x40007000, 0x40007004
RCC_CR, RCC_PLLCFGR, RCC_CFGR, RCC_APB1ENR = 0x40023800, 0x40023804, 0x40023808, 0x40023840
FLASH_ACR = 0x40023C00
HSION, HSEON, PLLON = 1 << 0, 1 << 16, 1 << 24
VOS, ODEN, ODSWEN = 3 << 14, 1 << 16, 1 << 17
PRESCALERS = 15 << 4 | 7 << 10 | 7 << 13
ON_PLL = 2

RESET = {RCC_CR: 0x83, RCC_PLLCFGR: 0x24003010, PWR_CR: 0xC000}
# As a bootloader at 180 MHz leaves it.
BOOTLOADER = {
    RCC_CR: RESET[RCC_CR] | PLLON,
    RCC_PLLCFGR: 0x28002D08,
    RCC_CFGR: ON_PLL | 5 << 10 | 4 << 13,
    RCC_APB1ENR: 1 << 28,
    PWR_CR: VOS | ODEN | ODSWEN,
    FLASH_ACR: 5,
}
# The same from the crystal, with the HSI off.
CRYSTAL = {**BOOTLOADER, RCC_CR: 0x80 | HSEON | PLLON, RCC_PLLCFGR: 0x28402D08}
DIVIDED = {**RESET, RCC_CFGR: 8 << 4}


class ClockTree(UnicornBoard):
    def __init__(self, elf: Path, board: Board, before: dict[int, int], stuck: str = "") -> None:
        self.stuck = stuck
        self.forbidden: list[str] = []
        super().__init__(elf, board)
        self._registers.update(before)

    def reg(self, address: int) -> int:
        return self._registers.get(address, 0)

    @property
    def source(self) -> int:
        return self.reg(RCC_CFGR) & 3

    def _rule(self, kept: bool, text: str) -> None:
        if not kept:
            self.forbidden.append(text)

    def _recall(self, uc: Any, offset: int, size: int, start: int) -> int:
        address, value = start + offset, self.reg(start + offset)
        if address == RCC_CR:
            for name, bit in (("HSIRDY", HSION), ("HSERDY", HSEON), ("PLLRDY", PLLON)):
                if value & bit and self.stuck != name:
                    value |= bit << 1
            return value
        if address == RCC_CFGR:
            return value | self.source << 2
        if address == PWR_CSR:
            control = self.reg(PWR_CR)
            ready = {
                1 << 14: ("VOSRDY", bool(self.reg(RCC_CR) & PLLON)),
                1 << 16: ("ODRDY", bool(control & ODEN)),
                1 << 17: ("ODSWRDY", bool(control & ODSWEN)),
            }
            return sum(bit for bit, (name, set_) in ready.items() if set_ and self.stuck != name)
        return super()._recall(uc, offset, size, start)

    def _remember(self, uc: Any, offset: int, size: int, value: int, start: int) -> None:
        address = start + offset
        old = self.reg(address)
        pll = bool(self.reg(RCC_CR) & PLLON)
        if address == RCC_CR:
            value &= ~((HSION | HSEON | PLLON) << 1)  # what is ready is not written
            if self.source == ON_PLL:
                value |= PLLON  # "cannot be reset if PLL clock is used as the system clock"
        elif address == RCC_PLLCFGR:
            self._rule(not pll, "the PLL's factors were changed while it ran")
        elif address == RCC_CFGR:
            value &= ~0b1100
            if value & 3 == ON_PLL and self.source != ON_PLL:
                self._rule(self.reg(FLASH_ACR) & 15 == 5, "fast clock, too few wait states")
                self._rule(self.reg(PWR_CR) & ODSWEN != 0, "fast clock without over-drive")
                self._rule(value & PRESCALERS == 5 << 10 | 4 << 13, "buses too fast")
            if self.source == ON_PLL:
                same = value & PRESCALERS == old & PRESCALERS
                self._rule(same, "the dividers were taken away from the fast clock")
        elif address == FLASH_ACR:
            self._rule(self.source != ON_PLL, "the wait states were changed under the fast clock")
        elif address == PWR_CR:
            self._rule(bool(self.reg(RCC_APB1ENR) & 1 << 28), "the power controller has no clock")
            self._rule((value ^ old) & VOS == 0 or not pll, "the voltage changed while PLL ran")
            changed = (value ^ old) & (ODEN | ODSWEN)
            self._rule(not changed or self.source != ON_PLL, "over-drive changed on the PLL")
            self._rule(not (value & ODSWEN and not value & ODEN), "switched without over-drive")
        super()._remember(uc, offset, size, value, start)

    def divisor(self) -> int:
        return self.reg(self._board.uart.address + 8)


def boot(
    echo: Callable[[str], BuildResult], board: Board, before: dict[int, int], stuck: str = ""
) -> tuple[ClockTree, Info]:
    needs("unicorn")
    with ClockTree(echo("gcc").elf, board, before, stuck) as device:
        return device, ask_info(device)


@pytest.mark.parametrize(
    "before",
    [RESET, BOOTLOADER, CRYSTAL, DIVIDED],
    ids=["reset", "bootloader", "crystal", "divided"],
)
def test_full_speed_whatever_ran_before(
    echo: Callable[[str], BuildResult], board: Board, before: dict[int, int]
) -> None:
    device, info = boot(echo, board, before)
    assert device.forbidden == []
    assert info.clock_hz == 180_000_000
    assert device.source == ON_PLL
    assert device.reg(RCC_PLLCFGR) & 0x0F437FFF == 8 << 24 | 180 << 6 | 8  # from the HSI
    assert device.reg(PWR_CR) & (VOS | ODEN | ODSWEN) == VOS | ODEN | ODSWEN
    assert device.divisor() == round(45_000_000 / 115200)


@pytest.mark.parametrize("before", [RESET, BOOTLOADER], ids=["reset", "bootloader"])
@pytest.mark.parametrize("stuck", ["PLLRDY", "VOSRDY", "ODRDY", "ODSWRDY"])
def test_a_flag_that_never_comes_leaves_the_hsi(
    echo: Callable[[str], BuildResult], board: Board, before: dict[int, int], stuck: str
) -> None:
    device, info = boot(echo, board, before, stuck)
    assert device.forbidden == []
    assert info.clock_hz == 16_000_000
    assert device.source == 0
    assert device.reg(RCC_CFGR) & PRESCALERS == 0
    assert device.reg(RCC_CR) & PLLON == 0
    assert device.reg(PWR_CR) & (ODEN | ODSWEN) == 0
    assert device.divisor() == round(16_000_000 / 115200)


def test_without_a_clock_tree_nothing_is_touched(
    echo: Callable[[str], BuildResult], board: Board
) -> None:
    device, info = boot(echo, board, {})
    assert info.clock_hz == 0
    assert {RCC_CR, RCC_CFGR, PWR_CR, FLASH_ACR}.isdisjoint(device._registers)
