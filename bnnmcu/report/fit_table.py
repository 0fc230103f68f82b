"""Boards side by side for one network."""

from __future__ import annotations

from collections.abc import Sequence

from bnnmcu.backend.fit import Fit
from bnnmcu.report.cells import NONE
from bnnmcu.report.document import Table

__all__ = ["fit_table"]


def fit_table(name: str, found: Sequence[Fit]) -> Table:
    """A row for each board, as :func:`bnnmcu.backend.fit.fit_boards` orders them."""
    lent = sorted({one.board.core for one in found if one.costs_of != one.board.core})
    notes = [
        "share of the board's flash and RAM, stack included, predicted; ! is too much; "
        "instructions of an inference: estimated; ms: modelled at the clock that the firmware "
        "runs at, never measured; * the kernels gave way to memory"
    ]
    if lent:
        notes.append(f"no costs were fitted for {', '.join(lent)}: those of another core stand in")
    if any(one.memory.stand_in for one in found):
        notes.append("~ size of code is an allowance")
    return Table(
        f"{name} on {len(found)} board{'s' * (len(found) != 1)}, of which "
        f"{sum(one.fits for one in found)} can hold it",
        ("board", "core", "fits", "known", "flash", "RAM", "instructions", "MHz", "ms"),
        tuple(_row(one) for one in found),
        text_columns=4,
        caption="; ".join(notes),
    )


def _row(one: Fit) -> tuple[str, ...]:
    memory = one.memory
    about = "~" if memory.stand_in else ""
    fits = one.fits
    return (
        one.board.name,
        one.board.core,
        ("yes" + " *" * bool(one.gave_way)) if fits else "no",
        one.board.evidence.level,
        about + _share(memory.flash, memory.board_flash),
        _share(memory.ram, memory.board_ram),
        f"{one.instructions:,}" if fits else NONE,
        f"{one.board.clock_hz / 1e6:g}",
        f"{one.milliseconds:,.1f}" if fits else NONE,
    )


def _share(used: int, there: int) -> str:
    return f"{used:,} ({100 * used / there:.0f} %{'!' * (used > there)})"
