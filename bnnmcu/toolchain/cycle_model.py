"""Which cycle model stands for which board: its core, and how its flash keeps up.

The model itself is C (``firmware_templates/host``); what it counts is modelled,
never measured.  docs/CYCLES.md describes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnnmcu.boards import Board

__all__ = ["CycleModel", "Flash", "cycle_model"]


@dataclass(frozen=True)
class Flash:
    """How a family's flash is read.

    Attributes:
        line_shift: log2 of the bytes of one read.
        code_lines, data_lines: of the caches in front of it; 0 for none.
        prefetch: whether the next line of code is read ahead.
        source: where that stands.
    """

    line_shift: int
    code_lines: int
    data_lines: int
    prefetch: bool
    source: str


_FLASH = {"stm32f4": Flash(4, 64, 8, True, "RM0390 3.4.2: ART accelerator, prefetch")}

#: Families whose code lies in memory that never waits.
_NEVER_WAITING = ("mps2", "sse200", "sse300")

#: The number of the core's model in bnn_cycles.h, and the share that it may be off by (argued).
_CORES = {
    "cortex-m0": (0, 0.10),
    "cortex-m3": (3, 0.20),
    "cortex-m4f": (4, 0.20),
    "cortex-m7": (7, 0.35),
}


@dataclass(frozen=True)
class CycleModel:
    """What is modelled for a board.

    Attributes:
        core: number of the core's model.
        error: how far off it may be, as a share; argued, never compared with silicon.
        clock_hz: the clock that cycles become milliseconds with.
        wait_states: of the flash at that clock; None if they are not modelled.
        flash: how the wait states are hidden; None without any.
    """

    core: int
    error: float
    clock_hz: int
    wait_states: int | None
    flash: Flash | None

    @property
    def memory(self) -> str:
        """What is assumed of the flash, in words."""
        if self.wait_states is None:
            return "waits for the flash not modelled"
        if self.flash is None:
            return "no wait states"
        return f"{self.wait_states} wait states, {self.flash.source}"


def cycle_model(board: Board) -> CycleModel | None:
    """The model of a board's core, or None where there is none (Cortex-M33, M55)."""
    known = _CORES.get(board.core)
    if known is None:
        return None
    clock_hz = board.clock.reset_hz if board.reset_clock else board.clock.hz
    wait_states, flash = None, _FLASH.get(board.family)
    if board.family in _NEVER_WAITING:
        wait_states = 0
    elif flash is not None:
        # Those of the file belong to the clock that is set up; after reset there are none.
        wait_states = 0 if board.reset_clock else int(getattr(board.clock, "wait_states", 0))
    return CycleModel(*known, clock_hz, wait_states, flash if wait_states else None)
