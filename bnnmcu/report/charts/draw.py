"""Charts of stored runs as matplotlib figures, within :func:`bnnmcu.report.charts.style.styled`.

All take what ``bnnmcu.report.read_run`` gives, and return None where the run
holds nothing that such a chart could show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bnnmcu.attack.metrics import Case
from bnnmcu.report.charts.numbers import (
    Curve,
    accuracy_by_epsilon,
    accuracy_by_iterations,
    confusion,
    distortions,
    fooled_by_queries,
)
from bnnmcu.report.charts.style import INK, LINE, SERIES, new_figure
from bnnmcu.report.stored import StoredRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "accuracy_figure",
    "confusion_figure",
    "distortion_figure",
    "iterations_figure",
    "queries_figure",
]

_MARKERS = "os^Dvp*X"
_DASHES = ("-", "--", ":", "-.")
# A cell is never so dark that its number could not be read on it.
_DARKEST = 0.55
_BINS = 24
# Cells with numbers in them.
_MOST_NUMBERED = 12


def accuracy_figure(runs: Sequence[StoredRun], norm: str = "linf") -> Figure | None:
    """Accuracy against epsilon: a colour for each attack, a kind of line for each run.

    Bands are 95 % intervals over images.

    Args:
        norm: of the budgets, ``linf`` or ``l2``.
    """
    unit = "L∞" if norm == "linf" else "L2"
    return _lines(
        [(run.title, accuracy_by_epsilon(run, norm)) for run in runs],
        f"ε, {unit}, of the pixels' range",
    )


def iterations_figure(runs: Sequence[StoredRun]) -> Figure | None:
    """Accuracy against iterations, where cases differ in nothing else."""
    figure = _lines([(run.title, accuracy_by_iterations(run)) for run in runs], "iterations")
    if figure is not None:
        figure.axes[0].set_xscale("log")
    return figure


def queries_figure(runs: Sequence[StoredRun]) -> Figure | None:
    """Share of images fooled against queries, of attacks that ask the network."""
    figure = _lines(
        [(run.title, fooled_by_queries(run)) for run in runs],
        "queries (inferences) an image",
        "fooled of those right when clean, %",
        steps=True,
    )
    if figure is not None:
        figure.axes[0].set_xscale("log")
    return figure


def _lines(
    groups: Sequence[tuple[str, list[Curve]]],
    x_label: str,
    y_label: str = "right, mean of draws, %",
    *,
    steps: bool = False,
) -> Figure | None:
    labels = list(dict.fromkeys(curve.label for _, curves in groups for curve in curves))
    if not labels:
        return None
    figure = new_figure(7.4, 3.6)
    axes = figure.subplots()
    for number, (title, curves) in enumerate(groups):
        for curve in curves:
            place = labels.index(curve.label)
            name = curve.label if len(groups) == 1 else f"{curve.label}; {title}"
            _line(
                axes, curve, SERIES[place % len(SERIES)], _MARKERS[place % 8], number, name, steps
            )
    axes.set_ylim(-2, 102)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    # Beside the lines, where it hides none of them.
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _line(
    axes: Axes, curve: Curve, colour: str, marker: str, number: int, name: str, steps: bool
) -> None:
    y = 100 * np.array(curve.y)
    dashes = _DASHES[number % len(_DASHES)]
    if steps:
        axes.plot(curve.x, y, color=colour, linestyle=dashes, label=name, drawstyle="steps-post")
        return
    axes.plot(curve.x, y, color=colour, linestyle=dashes, marker=marker, label=name)
    if curve.low:
        low, high = 100 * np.array(curve.low), 100 * np.array(curve.high)
        axes.fill_between(curve.x, low, high, color=colour, alpha=0.14, linewidth=0)


def confusion_figure(run: StoredRun, cases: Sequence[Case]) -> Figure | None:
    """True labels (rows) against answers (columns), a panel for each case."""
    from matplotlib.patches import Rectangle

    if not cases:
        return None
    figure = new_figure(4.1 * len(cases), 4.5)
    # A browser's letters are a little larger than those that the layout is made for.
    figure.set_layout_engine("constrained", h_pad=0.12)
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for axes, case in zip(panels, cases, strict=True):
        found = confusion(run, case)
        classes = len(found.images)
        for (row, column), share in np.ndenumerate(found.shares):
            if not share > 0:
                continue
            right = row == column
            axes.add_patch(
                Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    facecolor=SERIES[0] if right else SERIES[1],
                    alpha=_DARKEST * float(share) ** 0.7,
                    linewidth=0,
                )
            )
            if classes <= _MOST_NUMBERED and share >= 0.005:
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.5)
        axes.set_xlim(-0.5, classes - 0.5)
        axes.set_ylim(classes - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.grid(False)
        if classes <= _MOST_NUMBERED:
            axes.set_xticks(range(classes))
            axes.set_yticks(range(classes))
        axes.set_title(case.attack + (f", ε = {case.epsilon:.3g}" if case.norm else ""))
        axes.set_xlabel("answer")
        axes.set_ylabel("true label")
    return figure


def distortion_figure(run: StoredRun) -> Figure | None:
    """Histograms of the L2 norms of what fooled images that were right when clean."""
    found = distortions(run)
    if not found:
        return None
    figure = new_figure(7.4, 0.85 * len(found) + 0.7)
    panels = figure.subplots(len(found), 1, squeeze=False, sharex=True)[:, 0]
    largest = max(norms[-1] for norms in found.values())
    edges = np.linspace(0, largest * 1.0001 or 1.0, _BINS + 1)
    for number, (axes, (name, norms)) in enumerate(zip(panels, found.items(), strict=True)):
        axes.hist(norms, bins=edges, color=SERIES[number % len(SERIES)], alpha=0.85)
        median = float(np.median(norms))
        axes.axvline(median, color=INK, linewidth=1)
        axes.set_title(f"{name}: {len(norms)} images, median {median:.2f}", fontsize=8)
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        axes.grid(axis="x", color=LINE)
    panels[-1].set_xlabel("L2 norm of the change, pixels in [0, 1]")
    return figure
