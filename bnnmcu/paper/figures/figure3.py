"""Figure 3: the AND toy with two hidden units, full precision above binarised."""

from __future__ import annotations

from collections.abc import Sequence

from bnnmcu.paper.figures.spec import Drawing, FigureJob, FigureSpec, Wanted
from bnnmcu.paper.figures.surfaces import draw_rows, spread, toys
from bnnmcu.paper.record import Record
from bnnmcu.paper.toy import ToyJob
from bnnmcu.report.charts.style import new_figure

__all__ = ["FIGURE"]

#: Trainings whose accuracies stand in the note; the first is drawn.
SEEDS = tuple(range(1, 11))


def jobs(wanted: Wanted) -> list[FigureJob]:
    """Both forms, ten seeds each: what a toy does with one seed says little."""
    return [ToyJob(2, quantized, seed) for quantized in (False, True) for seed in SEEDS]


def draw(records: Sequence[Record]) -> Drawing | None:
    """Both networks of the lowest seed."""
    full, binary = toys(records, 2, quantized=False), toys(records, 2, quantized=True)
    if not full or not binary:
        return None
    figure = new_figure(7.0, 5.6)
    draw_rows(figure, [("full precision", full[0][1]), ("binarized", binary[0][1])])
    note = f"{spread(full, 'Full precision')} {spread(binary, 'Binarized')}"
    return Drawing(figure, note, tuple(record.id for record, _ in (*full, *binary)))


FIGURE = FigureSpec(
    "figure3",
    "Figure 3: the AND toy, two hidden units",
    "Output and forward derivative by x₂ of a network with two hidden layers of two logistic "
    "units, trained on the four cases of the AND of two inputs (Adam, 1,000 epochs, learning rate "
    "0.1): in full precision (a, b), and with weights and activations of the second hidden layer "
    "of -1 and +1 (c, d). White: where the output is one half; dotted: the AND of rounded inputs. "
    "The derivative in (d) is the straight-through one, which training and gradient attacks "
    "follow; the true one is 0 wherever it exists. Each panel of a derivative has its own scale.",
    jobs,
    draw,
)
