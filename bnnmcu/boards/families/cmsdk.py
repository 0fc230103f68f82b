"""Arm's FPGA images for the MPS2 and MPS3, which QEMU emulates: application notes AN385 to AN547.

The peripherals are those of the Cortex-M System Design Kit (DDI 0479): they
need no clock tree and no pins.  AN547's timer is the SSE-300's (101773).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bnnmcu.boards.family import Family, Watchdog
from bnnmcu.boards.model import Clock, Uart

__all__ = ["FAMILIES", "CmsdkUart"]


@dataclass(frozen=True)
class CmsdkUart(Uart):
    """The APB UART: DDI 0479 section 4.3."""

    #: CTRL with its receiver on.
    ready: ClassVar[tuple[int, int] | None] = (0x08, 1 << 1)
    divisors: ClassVar[tuple[int, int]] = (16, 0xFFFFF)


def _family(
    name: str, counter: str, *cores: str, watchdog: Watchdog | None = None, **macros: int
) -> Family:
    return Family(
        name=name,
        cores=cores,
        clock=Clock,
        uart=CmsdkUart,
        sources=(counter, "bnn_pins_none.c", "bnn_uart_cmsdk.c"),
        macros=macros,
        watchdog=watchdog,
    )


_TIMER = "bnn_counter_cmsdk.c"
FAMILIES = (
    _family(
        "mps2", _TIMER, "cortex-m0", "cortex-m3", "cortex-m4f", "cortex-m7",
        watchdog=Watchdog("bnn_watchdog_cmsdk.c", 0x40008000, 25_000_000),
        TIMER_ADDRESS=0x40000000,
    ),
    # The secure alias: TrustZone cores start in their secure state.
    _family("sse200", _TIMER, "cortex-m33", TIMER_ADDRESS=0x50000000),
    _family(
        "sse300", "bnn_counter_sse.c", "cortex-m55",
        TIMER_ADDRESS=0x58100000,
    ),
)  # fmt: skip
