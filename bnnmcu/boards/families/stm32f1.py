"""STM32F1: RM0008 (STM32F101 to F107), RM0041 (STM32F100, the value line)."""

from __future__ import annotations

from dataclasses import dataclass

from bnnmcu.boards.families.stm32 import Stm32V1Uart
from bnnmcu.boards.families.stm32_reset import reset_macros
from bnnmcu.boards.families.stm32_watchdog import iwdg
from bnnmcu.boards.family import Family
from bnnmcu.boards.model import Clock

__all__ = ["FAMILY", "F1Uart"]

_RCC = 0x40021000


@dataclass(frozen=True)
class F1Uart(Stm32V1Uart):
    """Its pins are where reset puts them: no remapping."""

    def enable_address(self) -> int:
        """RCC_APB1ENR or RCC_APB2ENR: RM0008 section 7.3.7, 7.3.8."""
        return _RCC + (0x1C if self.bus == "apb1" else 0x18)


FAMILY = Family(
    name="stm32f1",
    cores=("cortex-m3",),
    clock=Clock,
    uart=F1Uart,
    # Its timers count to 65,535 only, so the core's counter or none.
    sources=("bnn_counter_dwt.c", "bnn_pins_stm32f1.c", "bnn_uart_stm32v1.c"),
    macros={
        "CLOCK_PROBE_ADDRESS": _RCC,  # RCC_CR: HSION, HSEON or both
        "CLOCK_PROBE_MASK": (1 << 0) | (1 << 16),
        "GPIO_ADDRESS": 0x40010800,
        "GPIO_ENABLE_ADDRESS": _RCC + 0x18,
        "GPIO_ENABLE_SHIFT": 2,
        **reset_macros(_RCC + 0x24, power=(27,), clear=24),
    },
    watchdog=iwdg(lsi_hz=40_000),
)
