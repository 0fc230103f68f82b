"""Panels of the AND toy: a network's output over the square of its inputs, and its slope."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bnnmcu.paper.record import Record
from bnnmcu.paper.toy import CASES, Surface, ToyNet
from bnnmcu.report.charts.style import panel_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_rows", "spread", "toys"]

# Points along a side: more than a panel has pixels at the resolution of a printed page.
_SIDE = 241
# Seen on dark blue and on yellow.
_WANTED = "#E8743B"
# A network that says the same everywhere has a scale, too.
_FLAT = 1e-9


def toys(records: Sequence[Record], hidden: int, *, quantized: bool) -> list[tuple[Record, ToyNet]]:
    """The records of one form of the toy, lowest seed first.

    Raises:
        StoreError: a record does not hold the weights of its network.
    """
    form = "binarized" if quantized else "full-precision"
    mine = [
        one
        for one in records
        if one.measure == "toy"
        and one.what["model"]["filters"] == hidden
        and one.what["model"]["form"] == form
    ]
    return [
        (one, ToyNet.from_values(one.values, hidden, quantized=quantized, where=one.id))
        for one in sorted(mine, key=lambda one: (one.seed, one.id))
    ]


def spread(found: Sequence[tuple[Record, ToyNet]], name: str) -> str:
    """What the seeds learned, for a note below a figure."""
    shares = [100 * (record.number("accuracy") or 0.0) for record, _ in found]
    learned = sum(record.number("cases") == CASES for record, _ in found)
    return (
        f"{name}: {learned} of {len(found)} seeds learned all four cases; of 1,000 drawn points "
        f"{min(shares):.1f} to {max(shares):.1f} % are right (median {median(shares):.1f} %; seed "
        f"{found[0][0].seed}, which is drawn: {shares[0]:.1f} %)."
    )


def _over_the_square(net: ToyNet) -> Surface:
    axis = np.linspace(0.0, 1.0, _SIDE)
    return net.surface(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2))


def _square(
    axes: Axes, values: npt.NDArray[np.float64], cmap: str, low: float, high: float, label: str
) -> None:
    image = axes.imshow(
        values.reshape(_SIDE, _SIDE),
        origin="lower",
        extent=(0.0, 1.0, 0.0, 1.0),
        cmap=cmap,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    axes.grid(visible=False)
    axes.set_xticks([0.0, 0.5, 1.0])
    axes.set_yticks([0.0, 0.5, 1.0])
    axes.set_xlabel("$x_1$")
    axes.set_ylabel("$x_2$")
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.82, aspect=18)
    bar.outline.set_visible(False)
    bar.set_label(label)


def _output_panel(axes: Axes, letter: str, text: str, surface: Surface) -> None:
    """The probability of "true", with the decision boundary and the AND's own."""
    panel_title(axes, letter, text)
    _square(axes, surface.output, "cividis", 0.0, 1.0, "output")
    axis = np.linspace(0.0, 1.0, _SIDE)
    output = surface.output.reshape(_SIDE, _SIDE)
    if output.min() < 0.5 < output.max():
        axes.contour(axis, axis, output, levels=[0.5], colors="white", linewidths=1.8)
    axes.plot([0.5, 0.5, 1.0], [1.0, 0.5, 0.5], color=_WANTED, linestyle=":", linewidth=1.5)


def _slope_panel(axes: Axes, letter: str, text: str, surface: Surface) -> None:
    """The forward derivative by x2, on a scale of the panel's own around 0."""
    panel_title(axes, letter, text)
    limit = max(float(np.abs(surface.slope[:, 1]).max()), _FLAT)
    _square(axes, surface.slope[:, 1], "RdBu_r", -limit, limit, "$\\partial F\\,/\\,\\partial x_2$")


def draw_rows(
    figure: Figure, rows: Sequence[tuple[str, ToyNet]], letters: str = "abcdefgh"
) -> None:
    """A row for each network: output and slope."""
    grid = figure.subplots(len(rows), 2, squeeze=False)
    for index, (name, net) in enumerate(rows):
        surface = _over_the_square(net)
        _output_panel(grid[index, 0], letters[2 * index], f"{name}: output", surface)
        _slope_panel(grid[index, 1], letters[2 * index + 1], f"{name}: slope", surface)
