"""The independent watchdog (IWDG) of the STM32s: one peripheral, with its own oscillator.

Its registers and keys are alike in all families; the newer ones add a window,
which reset leaves wide open.
"""

from __future__ import annotations

from bnnmcu.boards.family import Watchdog

__all__ = ["iwdg"]


def iwdg(address: int = 0x40003000, *, lsi_hz: int = 32_000) -> Watchdog:
    """Its driver.

    Args:
        address: of IWDG, or IWDG1.
        lsi_hz: the nominal rate of the LSI: 40,000 in the F1 and the F3.
    """
    return Watchdog("bnn_watchdog_stm32.c", address, lsi_hz)
