"""The figures by name, and drawing them into a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.errors import UsageError
from bnnmcu.paper.figures import figure2, figure3, figure4, figure5
from bnnmcu.paper.figures.spec import FigureSpec
from bnnmcu.paper.record import Record
from bnnmcu.report.charts.style import save, styled

__all__ = ["FIGURES", "Drawn", "draw"]

FIGURES: dict[str, FigureSpec] = {
    one.FIGURE.name: one.FIGURE for one in (figure2, figure3, figure4, figure5)
}


@dataclass(frozen=True)
class Drawn:
    """A figure in files.

    Attributes:
        name: ``figure2`` to ``figure5``.
        title, caption: see :class:`bnnmcu.paper.figures.spec.FigureSpec`.
        note: what the records say besides.
        ids: of the records shown.
        svg, png: the files; None where no record is the figure's: "not run".
    """

    name: str
    title: str
    caption: str
    note: str = ""
    ids: tuple[str, ...] = ()
    svg: Path | None = None
    png: Path | None = None


def draw(names: Iterable[str], records: Sequence[Record], folder: Path) -> list[Drawn]:
    """Draw figures as ``NAME.svg`` and ``NAME.png``.

    Args:
        names: which, in this order.
        records: all that there are; each figure takes its own.
        folder: made if need be.

    Raises:
        UsageError: there is no such figure, or no file may be written there.
        MissingDependencyError: there is no matplotlib.
        StoreError: a record does not hold what its measure gives.
        OSError: a file cannot be written.
    """
    found = []
    for name in names:
        if name not in FIGURES:
            raise UsageError(f"unknown figure {name!r}", hint=f"use {', '.join(FIGURES)}")
        spec = FIGURES[name]
        with styled():
            drawing = spec.draw(records)
            if drawing is None:
                found.append(Drawn(name, spec.title, spec.caption))
                continue
            svg, png = save(drawing.figure, folder, name)
        found.append(Drawn(name, spec.title, spec.caption, drawing.note, drawing.ids, svg, png))
    return found
