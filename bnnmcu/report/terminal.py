"""The charts of a run for a terminal, by rich: bars, shares and histograms in text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bnnmcu.report.cells import accuracy
from bnnmcu.report.charts.numbers import confusion, distortions, named, strongest
from bnnmcu.report.stored import StoredRun

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["charts"]

_LEVELS = "▁▂▃▄▅▆▇█"
_BINS = 24
_WIDTH = 28
_MOST_CLASSES = 12


def charts(runs: Sequence[StoredRun]) -> Iterator[RenderableType]:
    """Accuracy bars, histograms of the distortion, and the strongest attack's confusion."""
    for run in runs:
        yield _accuracy(run)
        norms = distortions(run)
        if norms:
            yield _distortion(run, norms)
        case = strongest(run)
        if case is not None and max(one.classes for one in next(iter(run.judged.values()))) <= (
            _MOST_CLASSES
        ):
            yield _confusion(run)


def _accuracy(run: StoredRun) -> RenderableType:
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(f"{run.title}: right, mean of draws"), box=box.SIMPLE_HEAD, title_justify="left"
    )
    table.add_column("case")
    table.add_column("")
    table.add_column("95 %", justify="right")
    for case in run.summary.cases:
        share = case.mean.value
        style = "green" if share >= 0.5 else "yellow" if share >= 0.1 else "red"
        bar = ProgressBar(
            100, 100 * share, width=_WIDTH, complete_style=style, finished_style=style
        )
        table.add_row(Text(named(case)), bar, accuracy(case.mean))
    return table


def _distortion(run: StoredRun, norms: dict[str, list[float]]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    largest = max(one[-1] for one in norms.values()) or 1.0
    table = Table(
        title=Text(f"{run.title}: L2 of what fooled, 0 to {largest:.2f}"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
    )
    table.add_column("case")
    table.add_column("images by distance")
    table.add_column("images", justify="right")
    table.add_column("median", justify="right")
    for name, values in norms.items():
        counts, _ = np.histogram(values, bins=_BINS, range=(0, largest))
        table.add_row(
            Text(name), _spark(counts.tolist()), f"{len(values)}", f"{np.median(values):.2f}"
        )
    return table


def _spark(counts: Sequence[int]) -> str:
    most = max(counts)
    return "".join(
        " " if not count else _LEVELS[min(7, 8 * count // (most + 1))] for count in counts
    )


def _confusion(run: StoredRun) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    case = strongest(run)
    assert case is not None
    found = confusion(run, case)
    classes = len(found.images)
    table = Table(
        title=Text(f"{run.title}: {named(case)}, percent of draws, rows are true labels"),
        box=box.SIMPLE_HEAD,
        title_justify="left",
        padding=(0, 0),
    )
    table.add_column("")
    for label in range(classes):
        table.add_column(str(label), justify="right", min_width=4)
    for label in range(classes):
        if not found.images[label]:
            continue
        cells = []
        for answer, share in enumerate(found.shares[label]):
            style = "bold green" if answer == label else "red" if share >= 0.1 else ""
            cells.append(Text(f"{100 * share:.0f}" if share >= 0.005 else "·", style=style))
        table.add_row(str(label), *cells)
    return table
