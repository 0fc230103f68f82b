"""nRF51: nRF51 Series Reference Manual v3.0.1."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.boards.family import Family
from bnnmcu.boards.model import Clock, Require, Uart

__all__ = ["FAMILY", "Nrf51Uart", "reset_macros"]

_PIN = re.compile(r"P0\.([12]?[0-9]|30|31)")
#: The BAUDRATE register's values: section 29.10, table 271.
_RATES = {9600: 0x00275000, 38400: 0x009D5000, 115200: 0x01D7E000}


@dataclass(frozen=True)
class Nrf51Uart(Uart):
    """The UART without EasyDMA: section 29."""

    #: INTENSET, which the driver writes last; QEMU's ENABLE does not read back.
    ready: ClassVar[tuple[int, int] | None] = (0x304, 1 << 2)
    divisors: ClassVar[tuple[int, int]] = (1, 1 << 32)

    def macros(self) -> dict[str, int]:
        """The pins' numbers, and what stands for the rate."""
        return {
            "TX_PIN": int(self.tx[3:]),
            "RX_PIN": int(self.rx[3:]),
            "UART_RATE": _RATES[self.baud],
        }

    def check(self, require: Require) -> None:
        """Pins and rate."""
        for name in (self.tx, self.rx):
            require(_PIN.fullmatch(name) is not None, f"uart pin {name!r} must look like 'P0.24'")
        known = ", ".join(map(str, _RATES))
        require(self.baud in _RATES, f"uart.baud {self.baud} is none of {known}")


def reset_macros(clear: int) -> dict[str, int]:
    """Macros of bnn_port_state.c: POWER.RESETREAS, section 12.2.

    Args:
        clear: all its flags; writing 1 clears one.
    """
    return {
        "RESET_ADDRESS": 0x40000400,
        "RESET_PIN_MASK": 1 << 0,
        "RESET_WATCHDOG_MASK": 1 << 1,
        "RESET_SOFTWARE_MASK": 1 << 2,
        "RESET_CLEAR_MASK": clear,
        "RESET_NONE_IS_POWER": 1,
    }


FAMILY = Family(
    name="nrf51",
    cores=("cortex-m0",),
    clock=Clock,
    uart=Nrf51Uart,
    sources=("bnn_counter_nrf51.c", "bnn_pins_nrf5.c", "bnn_uart_nrf51.c"),
    macros={
        # CLOCK.HFCLKSTAT: STATE is set while the oscillator runs: section 13.2.
        "CLOCK_PROBE_ADDRESS": 0x4000040C,
        "CLOCK_PROBE_MASK": 1 << 16,
        "TIMER_ADDRESS": 0x40008000,
        "GPIO_ADDRESS": 0x50000000,
        # And LOCKUP, OFF, LPCOMP, DIF.  QEMU has 1 there, "reset pin", whatever the cause.
        **reset_macros(clear=0x0007000F),
    },
)
