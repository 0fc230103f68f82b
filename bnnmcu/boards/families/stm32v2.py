"""STM32 families with the newer USART (ISR, RDR and TDR): what differs is a row of a table.

All have GPIO ports with MODER and a TIM2 of 32 bits; the registers that switch
their clocks on are elsewhere in each.  Sources, for each its chapters RCC and
memory map: RM0316 (STM32F303), RM0351 (L4x5, L4x6), RM0444 (G0x1), RM0440 (G4),
RM0410 (F76x, F77x), RM0433 (H742 to H753), RM0456 (U5).

All run on the oscillator that reset selects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.boards.families.stm32 import Stm32V1Uart
from bnnmcu.boards.families.stm32_watchdog import iwdg
from bnnmcu.boards.family import Family, Watchdog
from bnnmcu.boards.model import Clock, Require

__all__ = ["FAMILIES", "Stm32V2Uart"]

_IWDG = iwdg()


@dataclass(frozen=True)
class Stm32V2Uart(Stm32V1Uart):
    """A USART with ISR and RDR, clocked by its bus as after reset.

    Attributes:
        alternate: the alternate function of both pins.
    """

    alternate: int

    #: CR1 with UE and RE.
    ready: ClassVar[tuple[int, int] | None] = (0x00, (1 << 0) | (1 << 2))
    #: The clock enable register of each bus.
    enables: ClassVar[Mapping[str, int]] = {}

    def enable_address(self) -> int:
        """RCC_APB1ENR (APB1ENR1, APB1LENR, APBENR1) or RCC_APB2ENR (APBENR2)."""
        return self.enables[self.bus]

    def macros(self) -> dict[str, int]:
        """The alternate function too."""
        return {**super().macros(), "UART_ALTERNATE": self.alternate}

    def check(self, require: Require) -> None:
        """The alternate function too."""
        super().check(require)
        require(0 <= self.alternate < 16, f"uart.alternate {self.alternate} is not within 0 to 15")


@dataclass(frozen=True)
class _Chips:
    """A family: addresses of registers, and bits in them.

    Attributes:
        rcc: where the reset and clock controller is; the other registers of it
            are given as offsets.
        oscillators: bits of RCC_CR that are never all clear in a chip that runs.
        gpio: where port A is; ``gpio_enable``, ``gpio_shift``: its clock.
        apb1, apb2: clock enable registers.
        reset: the register with the causes of the last reset.
        clear: what is written to it to forget them, its other fields as after reset.
        power: bits in it that say that power came or dipped (brown-out).
        causes: bits of pin, software and the two watchdogs.
        watchdog: the IWDG.
    """

    name: str
    core: str
    rcc: int
    oscillators: int
    gpio: int
    gpio_enable: int
    gpio_shift: int
    apb1: int
    apb2: int
    reset: int
    clear: int
    power: tuple[int, ...] = (27,)
    causes: tuple[int, int, int, int] = (26, 28, 29, 30)
    watchdog: Watchdog = _IWDG

    def family(self) -> Family:
        """As the rest of the program wants it."""
        pin, software, *watchdogs = self.causes
        enables = {"apb1": self.rcc + self.apb1, "apb2": self.rcc + self.apb2}
        uart = type(f"{self.name.capitalize()}Uart", (Stm32V2Uart,), {"enables": enables})
        return Family(
            name=self.name,
            cores=(self.core,),
            clock=Clock,
            uart=uart,
            sources=("bnn_counter_stm32.c", "bnn_pins_stm32.c", "bnn_uart_stm32v2.c"),
            macros={
                "CLOCK_PROBE_ADDRESS": self.rcc,
                "CLOCK_PROBE_MASK": self.oscillators,
                "GPIO_ADDRESS": self.gpio,
                "GPIO_ENABLE_ADDRESS": self.rcc + self.gpio_enable,
                "GPIO_ENABLE_SHIFT": self.gpio_shift,
                "TIMER_ADDRESS": 0x40000000,
                "TIMER_ENABLE_ADDRESS": enables["apb1"],
                "TIMER_ENABLE_BIT": 0,
                "RESET_ADDRESS": self.rcc + self.reset,
                "RESET_POWER_MASK": sum(1 << bit for bit in self.power),
                "RESET_PIN_MASK": 1 << pin,
                "RESET_SOFTWARE_MASK": 1 << software,
                "RESET_WATCHDOG_MASK": sum(1 << bit for bit in watchdogs),
                "RESET_CLEAR_MASK": self.clear,
            },
            watchdog=self.watchdog,
        )


_HSI_HSE = (1 << 0) | (1 << 16)
_HSI16_HSE = (1 << 8) | (1 << 16)
_MSI_HSI16_HSE = _HSI_HSE | (1 << 8)

_TABLE = (
    _Chips(
        "stm32f3", "cortex-m4f", rcc=0x40021000, oscillators=_HSI_HSE,
        gpio=0x48000000, gpio_enable=0x14, gpio_shift=17, apb1=0x1C, apb2=0x18,
        reset=0x24, clear=1 << 24, watchdog=iwdg(lsi_hz=40_000),
    ),
    _Chips(
        "stm32l4", "cortex-m4f", rcc=0x40021000, oscillators=_MSI_HSI16_HSE,
        gpio=0x48000000, gpio_enable=0x4C, gpio_shift=0, apb1=0x58, apb2=0x60,
        reset=0x94, clear=(1 << 23) | (6 << 8),  # MSISRANGE as after reset
    ),
    _Chips(
        "stm32g0", "cortex-m0", rcc=0x40021000, oscillators=_HSI16_HSE,
        gpio=0x50000000, gpio_enable=0x34, gpio_shift=0, apb1=0x3C, apb2=0x40,
        reset=0x60, clear=1 << 23,
    ),
    _Chips(
        "stm32g4", "cortex-m4f", rcc=0x40021000, oscillators=_HSI16_HSE,
        gpio=0x48000000, gpio_enable=0x4C, gpio_shift=0, apb1=0x58, apb2=0x60,
        reset=0x94, clear=1 << 23,
    ),
    _Chips(
        "stm32f7", "cortex-m7", rcc=0x40023800, oscillators=_HSI_HSE,
        gpio=0x40020000, gpio_enable=0x30, gpio_shift=0, apb1=0x40, apb2=0x44,
        reset=0x74, clear=1 << 24, power=(25, 27),
    ),
    _Chips(
        "stm32h7", "cortex-m7", rcc=0x58024400, oscillators=_HSI_HSE,
        gpio=0x58020000, gpio_enable=0xE0, gpio_shift=0, apb1=0xE8, apb2=0xF0,
        reset=0xD0, clear=1 << 16, power=(21, 23), causes=(22, 24, 26, 28),
        watchdog=iwdg(0x58004800),
    ),
    _Chips(
        "stm32u5", "cortex-m33", rcc=0x46020C00, oscillators=_MSI_HSI16_HSE,
        gpio=0x42020000, gpio_enable=0x8C, gpio_shift=0, apb1=0x9C, apb2=0xA4,
        reset=0xF4, clear=(1 << 23) | 0x4400,  # MSIKSRANGE, MSISSRANGE as after reset
    ),
)  # fmt: skip

FAMILIES = tuple(chips.family() for chips in _TABLE)
