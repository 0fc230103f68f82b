"""Stellaris LM3S6965: data sheet DS-LM3S6965 (Luminary Micro, Texas Instruments)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.boards.family import Family
from bnnmcu.boards.model import Clock, Uart

__all__ = ["FAMILY", "Pl011Uart"]


@dataclass(frozen=True)
class Pl011Uart(Uart):
    """Arm PL011 (DDI 0183), UART0 on PA0 and PA1."""

    #: UARTCTL with UARTEN and RXE.
    ready: ClassVar[tuple[int, int] | None] = (0x30, (1 << 9) | (1 << 0))
    divisors: ClassVar[tuple[int, int]] = (16, 0xFFFFF)


FAMILY = Family(
    name="stellaris",
    cores=("cortex-m3",),
    clock=Clock,
    uart=Pl011Uart,
    sources=("bnn_counter_dwt.c", "bnn_pins_stellaris.c", "bnn_uart_pl011.c"),
)
