"""One look for all figures, and files that are the same bytes whenever they are drawn.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell
apart; every kind of network also has a marker of its own.  The background is
white, so that a figure reads on a dark page, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bnnmcu.errors import MissingDependencyError
from bnnmcu.outputs import output_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "MARKERS", "MUTED", "new_figure", "panel_title", "save", "styled"]

INK = "#1a1a1a"
MUTED = "#6b6b6b"
#: Of each kind of network.
COLOURS = {"A": "#0072B2", "B": "#D55E00", "C": "#009E73", "S": "#AA4499"}
MARKERS = {"A": "o", "B": "s", "C": "^", "S": "D"}

_DPI = 160
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": "#4d4d4d",
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.0,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "figure.titlesize": 11.0,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.0,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    # The names inside an SVG follow from this instead of from chance.
    "svg.hashsalt": "bnnmcu",
    "xtick.color": "#4d4d4d",
    "xtick.labelcolor": INK,
    "ytick.color": "#4d4d4d",
    "ytick.labelcolor": INK,
}


@contextmanager
def styled() -> Iterator[None]:
    """Drawing and saving in it use this style, whatever the user's own settings are.

    Raises:
        MissingDependencyError: there is no matplotlib.
    """
    try:
        import matplotlib
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingDependencyError(
            "drawing figures needs matplotlib", hint="pip install 'bnnmcu[paper]'"
        ) from error
    with rc_context():
        matplotlib.rcdefaults()
        # Its types name every parameter, which differ from version to version.
        cast(Any, matplotlib.rcParams).update(_STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches; within :func:`styled`.

    Made without pyplot, which would keep it and might look for a screen.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_title(axes: Axes, letter: str, text: str) -> None:
    """``(a) text`` above a panel, as a caption refers to it."""
    axes.set_title(f"({letter})  {text}")


def save(figure: Figure, folder: Path, stem: str) -> tuple[Path, Path]:
    """``stem.svg`` and ``stem.png`` in a folder; within :func:`styled`.

    One version of matplotlib gives the same bytes each time: nothing of date,
    program or chance is written.

    Raises:
        UsageError: something that is no file stands in a file's place.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vector = output_path(folder / f"{stem}.svg")
    pixels = output_path(folder / f"{stem}.png")
    figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(pixels, format="png", dpi=_DPI, metadata={"Software": None})
    return vector, pixels
