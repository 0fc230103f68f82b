"""What a figure is: its jobs, its words, and how it is drawn from records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnnmcu.paper.jobs import Job
from bnnmcu.paper.recipes import Recipe
from bnnmcu.paper.record import Record
from bnnmcu.paper.toy import ToyJob

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Drawing", "FigureJob", "FigureSpec", "Wanted"]

FigureJob = Job | ToyJob


@dataclass(frozen=True)
class Wanted:
    """What a figure is to show.

    Attributes:
        filters: K.
        seeds: of the trainings.
        recipes: ``paper``, ``best`` or both.
        pairs: of CW-L2 with fewer than 1,000 iterations.
        long_pairs: with 1,000 or more.
    """

    filters: tuple[int, ...] = (64,)
    seeds: tuple[int, ...] = (1,)
    recipes: tuple[Recipe, ...] = ("paper", "best")
    pairs: int = 990
    long_pairs: int = 200


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure that was drawn.

    Attributes:
        figure: for :func:`bnnmcu.report.charts.style.save`.
        note: what its records say besides: seeds, pairs, accuracies.
        ids: of the records that it shows, in order.
    """

    figure: Figure
    note: str
    ids: tuple[str, ...]


@dataclass(frozen=True)
class FigureSpec:
    """One figure of the paper.

    Attributes:
        name: ``figure2`` to ``figure5``.
        title: in a few words.
        caption: what is shown, and how it was measured, here and in the paper.
        jobs: what has to be measured for it.
        draw: from all records that there are, which may be of anything; None where
            none of them is the figure's.  To be called within
            :func:`bnnmcu.report.charts.style.styled`.
    """

    name: str
    title: str
    caption: str
    jobs: Callable[[Wanted], list[FigureJob]]
    draw: Callable[[Sequence[Record]], Drawing | None]
