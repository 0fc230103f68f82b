"""RP2040: RP2040 Datasheet (Raspberry Pi Ltd)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.boards.family import Family
from bnnmcu.boards.model import Clock, Require, Uart

__all__ = ["FAMILY", "Rp2040Uart"]

_PIN = re.compile(r"GP([12]?[0-9])")
#: Datasheet, chapter GPIO, table of functions (F2): the pins of each UART.
_TX = {"UART0": (0, 12, 16, 28), "UART1": (4, 8, 20, 24)}
_RESET_BITS = {"UART0": 22, "UART1": 23}


@dataclass(frozen=True)
class Rp2040Uart(Uart):
    """Arm PL011 (DDI 0183) on pins of function F2; RX is the pin behind TX."""

    #: UARTCR with UARTEN and RXE.
    ready: ClassVar[tuple[int, int] | None] = (0x30, (1 << 9) | (1 << 0))
    divisors: ClassVar[tuple[int, int]] = (16, 0xFFFFF)

    @property
    def pins(self) -> tuple[int, int]:
        """GPIO numbers of transmitter and receiver."""
        return int(self.tx[2:]), int(self.rx[2:])

    def macros(self) -> dict[str, int]:
        """The pins, and the UART's bit in RESETS."""
        tx, rx = self.pins
        return {"TX_PIN": tx, "RX_PIN": rx, "UART_RESET_BIT": _RESET_BITS[self.instance]}

    def check(self, require: Require) -> None:
        """Instance and pins."""
        known = ", ".join(_TX)
        require(self.instance in _TX, f"uart.instance {self.instance!r} is none of {known}")
        for name in (self.tx, self.rx):
            require(_PIN.fullmatch(name) is not None, f"uart pin {name!r} must look like 'GP0'")
        tx, rx = self.pins
        pairs = ", ".join(f"GP{pin} and GP{pin + 1}" for pin in _TX[self.instance])
        require(
            tx in _TX[self.instance] and rx == tx + 1,
            f"{self.instance} is on {pairs} and not on {self.tx} and {self.rx}",
        )


FAMILY = Family(
    name="rp2040",
    cores=("cortex-m0",),
    clock=Clock,
    uart=Rp2040Uart,
    sources=(
        "bnn_boot_rp2040.c",
        "bnn_counter_rp2040.c",
        "bnn_pins_rp2040.c",
        "bnn_uart_pl011.c",
    ),
    clock_source="bnn_clock_rp2040.c",
    boot_bytes=256,
)
