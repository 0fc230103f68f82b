"""Figure 4: the AND toy with four hidden units and a quantised middle layer."""

from __future__ import annotations

from collections.abc import Sequence

from bnnmcu.paper.figures.figure3 import SEEDS
from bnnmcu.paper.figures.spec import Drawing, FigureJob, FigureSpec, Wanted
from bnnmcu.paper.figures.surfaces import draw_rows, spread, toys
from bnnmcu.paper.record import Record
from bnnmcu.paper.toy import ToyJob
from bnnmcu.report.charts.style import new_figure

__all__ = ["FIGURE"]


def jobs(wanted: Wanted) -> list[FigureJob]:
    """The paper's network, and beside it the same in full precision."""
    return [ToyJob(4, quantized, seed) for quantized in (True, False) for seed in SEEDS]


def draw(records: Sequence[Record]) -> Drawing | None:
    """The binarised network of the lowest seed; below it full precision, where it was trained."""
    binary, full = toys(records, 4, quantized=True), toys(records, 4, quantized=False)
    if not binary:
        return None
    rows = [("binarized", binary[0][1])]
    note = spread(binary, "Binarized")
    if full:
        rows.append(("full precision", full[0][1]))
        note += f" {spread(full, 'Full precision')}"
    figure = new_figure(7.0, 2.8 * len(rows))
    draw_rows(figure, rows)
    return Drawing(figure, note, tuple(record.id for record, _ in (*binary, *full)))


FIGURE = FigureSpec(
    "figure4",
    "Figure 4: the AND toy, four hidden units",
    "As figure 3 with four units in each hidden layer: (a) output and (b) forward derivative of "
    "the network whose second hidden layer is of -1 and +1, which are the paper's panels; (c) and "
    "(d) the same in full precision, which the paper does not show.",
    jobs,
    draw,
)
