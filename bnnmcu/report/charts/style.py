"""One look for all figures, and files that are the same bytes whenever they are drawn.

Colours are those of Okabe and Ito (2008), which colour-blind readers tell
apart; every kind of network also has a marker of its own.  Figures for files have
a white background, so that they read on a dark page, too; those that a page of
ours holds (:func:`inline_svg`) take the page's colours instead, light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bnnmcu.errors import MissingDependencyError
from bnnmcu.outputs import output_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "INK",
    "LINE",
    "MARKERS",
    "MUTED",
    "SERIES",
    "inline_svg",
    "new_figure",
    "panel_title",
    "save",
    "styled",
]

INK = "#1a1a1a"
MUTED = "#6b6b6b"
LINE = "#dddddd"
#: Of lines and bars that are no kind of network, in this order.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9", "#882255", "#777777")
#: Of each kind of network.
COLOURS = {"A": "#0072B2", "B": "#D55E00", "C": "#009E73", "S": "#AA4499"}
MARKERS = {"A": "o", "B": "s", "C": "^", "S": "D"}

_DPI = 160
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.axisbelow": True,
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
    "grid.color": LINE,
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

# Text that can be selected and found, on the page's own ground.
_INLINE: dict[str, Any] = {
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
}
# The page's names of these colours; what stands behind them holds where there is no page.
_THEME = {
    INK: "--fg",
    MUTED: "--muted",
    "#4d4d4d": "--muted",
    LINE: "--line",
    **{colour: f"--s{number}" for number, colour in enumerate(SERIES, start=1)},
}
_COLOUR = re.compile(r"(?<=: )#[0-9a-f]{6}\b")
_NAMED = re.compile(r'(\bid="|url\(#|href="#)')


@contextmanager
def styled(*, inline: bool = False) -> Iterator[None]:
    """Drawing and saving in it use this style, whatever the user's own settings are.

    Args:
        inline: for :func:`inline_svg` instead of :func:`save`.

    Raises:
        MissingDependencyError: there is no matplotlib.
    """
    try:
        import matplotlib
        from matplotlib import rc_context
    except ImportError as error:
        raise MissingDependencyError(
            "drawing figures needs matplotlib", hint="pip install 'bnnmcu[report]'"
        ) from error
    with rc_context():
        matplotlib.rcdefaults()
        # Its types name every parameter, which differ from version to version.
        cast(Any, matplotlib.rcParams).update(_STYLE | (_INLINE if inline else {}))
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


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an ``<svg>`` element for a page; within :func:`styled`, with ``inline``.

    The same figure and version of matplotlib give the same text.

    Args:
        name: begins the names inside, so that two figures of a page do not share any: letters
            and digits.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # Nothing about the file is wanted inside a page.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _COLOUR.sub(_themed, text)
    return _NAMED.sub(rf"\g<1>{name}-", text)


def _themed(found: re.Match[str]) -> str:
    name = _THEME.get(found.group())
    return f"var({name}, {found.group()})" if name else found.group()
