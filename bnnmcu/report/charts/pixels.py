"""Images before and after an attack, and what was changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bnnmcu.report.charts.style import INK, MUTED, SERIES, new_figure
from bnnmcu.report.stored import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["examples_figure"]

Pixels = npt.NDArray[np.uint8]
_ROWS = ("original", "changed", "difference")


def examples_figure(shown: Sequence[Shown]) -> Figure | None:
    """A column for each example: original, changed, difference, with labels before and after.

    Square images of one or three channels are shown as such, anything else as a signal.
    """
    if not shown:
        return None
    side = _side(shown[0].original)
    if side is None:
        return _signals(shown)
    figure = new_figure(1.15 * len(shown) + 0.6, 4.0)
    grid = figure.subplots(len(_ROWS), len(shown), squeeze=False)
    for column, one in zip(grid.T, shown, strict=True):
        before, after = (_square(pixels, side) for pixels in (one.original, one.changed))
        _image(column[0], before, f"{one.before}")
        _image(column[1], after, f"{one.after}", changed=True)
        _image(column[2], _difference(before, after), f"L2 {one.l2:.2f}")
    for axes, name in zip(grid[:, 0], _ROWS, strict=True):
        axes.set_ylabel(name)
    return figure


def _side(pixels: Pixels) -> int | None:
    for channels in (1, 3):
        side = math.isqrt(pixels.size // channels)
        if side * side * channels == pixels.size:
            return side
    return None


def _square(pixels: Pixels, side: int) -> Pixels:
    return (
        pixels.reshape(side, side, -1).squeeze(axis=2)
        if pixels.size == side * side
        else (pixels.reshape(side, side, 3))
    )


def _difference(before: Pixels, after: Pixels) -> Pixels:
    """Mid grey where nothing was changed; the largest change of an image is black or white."""
    change = after.astype(np.int16) - before.astype(np.int16)
    most = max(int(np.abs(change).max()), 1)
    return (127.5 + 127.5 * change / most).astype(np.uint8)


def _image(axes: Axes, pixels: Pixels, text: str, *, changed: bool = False) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(text, fontsize=8.5, loc="center", color=SERIES[1] if changed else INK)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def _signals(shown: Sequence[Shown]) -> Figure:
    figure = new_figure(7.4, 1.1 * len(shown) + 0.5)
    for axes, one in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
        axes.plot(one.original, color=MUTED, linewidth=1.2, label="original")
        axes.plot(one.changed, color=SERIES[1], linewidth=0.8, label="changed")
        axes.set_title(f"{one.before} before, {one.after} after; L2 {one.l2:.2f}", fontsize=8)
    figure.axes[0].legend(loc="upper right")
    return figure
