"""NXP i.MX RT1062 with serial flash, as on a Teensy 4.1: IMXRT1060RM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.boards.family import Family
from bnnmcu.boards.model import Clock, Require, Uart

__all__ = ["FAMILY", "ImxrtClock", "ImxrtUart"]

#: The crystal, which the drivers give to the UARTs.
_CRYSTAL = 24_000_000


@dataclass(frozen=True)
class ImxrtClock(Clock):
    """The CPU's clock as the ROM leaves it; the UART's is the crystal's."""

    def uart_hz(self, uart: Uart) -> int:
        """The crystal's."""
        return _CRYSTAL

    def uart_reset_hz(self, uart: Uart) -> int:
        """The crystal's, too."""
        return _CRYSTAL


@dataclass(frozen=True)
class ImxrtUart(Uart):
    """LPUART6 on the pads AD_B0_02 and AD_B0_03."""

    divisors: ClassVar[tuple[int, int]] = (16, 0x1FFF0)

    def check(self, require: Require) -> None:
        """The only one that the drivers know; its divider takes steps of 16."""
        require(self.instance == "LPUART6", f"uart.instance {self.instance!r} is not LPUART6")
        step = 16 * self.baud
        error = abs(_CRYSTAL / (max(1, round(_CRYSTAL / step)) * step) - 1)
        require(error <= 0.02, f"{self.baud} baud is off by {100 * error:.1f} %")


FAMILY = Family(
    name="imxrt",
    cores=("cortex-m7",),
    clock=ImxrtClock,
    uart=ImxrtUart,
    sources=(
        "bnn_boot_imxrt.c",
        "bnn_counter_dwt.c",
        "bnn_pins_imxrt.c",
        "bnn_uart_lpuart.c",
    ),
    macros={
        "CLOCK_PROBE_ADDRESS": 0x400FC000,  # CCM_CCR.COSC_EN
        "CLOCK_PROBE_MASK": 1 << 12,
    },
    boot_bytes=0x2000,
)
