"""Why an STM32 started: the flags in RCC_CSR, whose upper half is alike in all families."""

from __future__ import annotations

__all__ = ["reset_macros"]

_PIN, _SOFTWARE, _WATCHDOGS = 26, 28, (29, 30)


def reset_macros(csr: int, *, power: tuple[int, ...], clear: int) -> dict[str, int]:
    """Macros of bnn_port_state.c.

    Args:
        csr: address of RCC_CSR.
        power: bits that say that power came or dipped (PORRSTF, BORRSTF).
        clear: RMVF, which clears the flags.
    """
    return {
        "RESET_ADDRESS": csr,
        "RESET_POWER_MASK": sum(1 << bit for bit in power),
        "RESET_PIN_MASK": 1 << _PIN,
        "RESET_SOFTWARE_MASK": 1 << _SOFTWARE,
        "RESET_WATCHDOG_MASK": sum(1 << bit for bit in _WATCHDOGS),
        "RESET_CLEAR_MASK": 1 << clear,
    }
