"""nRF52: nRF52840 Product Specification; its UART without EasyDMA and P0 are the nRF51's."""

from __future__ import annotations

from bnnmcu.boards.families.nrf51 import Nrf51Uart, reset_macros
from bnnmcu.boards.family import Family
from bnnmcu.boards.model import Clock

__all__ = ["FAMILY"]

FAMILY = Family(
    name="nrf52",
    cores=("cortex-m4f",),
    clock=Clock,
    uart=Nrf51Uart,
    sources=("bnn_counter_dwt.c", "bnn_pins_nrf5.c", "bnn_uart_nrf51.c"),
    clock_source="bnn_clock_nrf52.c",
    macros={
        "CLOCK_PROBE_ADDRESS": 0x4000040C,  # CLOCK.HFCLKSTAT.STATE
        "CLOCK_PROBE_MASK": 1 << 16,
        "GPIO_ADDRESS": 0x50000000,
        # And LOCKUP, OFF, LPCOMP, DIF, NFC, VBUS.
        **reset_macros(clear=0x001F000F),
    },
)
