"""What an inference costs, layer by layer, and where memory goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnnmcu.report.charts.style import INK, SERIES, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bars_figure"]


def bars_figure(names: Sequence[str], values: Sequence[int], unit: str) -> Figure | None:
    """A horizontal bar for each layer, in order, with its number.

    Args:
        values: of each name, at least 0.
        unit: for the axis, as ``instructions (emulated)``.
    """
    if not names or not any(values):
        return None
    from matplotlib.ticker import StrMethodFormatter

    figure = new_figure(7.4, 0.27 * len(names) + 0.75)
    axes = figure.subplots()
    places = range(len(names))
    axes.barh(places, values, color=SERIES[0], height=0.72)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    most = max(values)
    for place, value in zip(places, values, strict=True):
        share = f"{value:,} ({100 * value / sum(values):.1f} %)"
        axes.text(value + 0.01 * most, place, share, va="center", fontsize=7.5, color=INK)
    axes.set_xlim(0, 1.28 * most)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel(unit)
    return figure
