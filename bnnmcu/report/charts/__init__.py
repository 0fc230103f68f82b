"""Charts of stored runs, for notebooks, files and pages.

    from pathlib import Path
    from bnnmcu.report import charts

    run = charts.read_run(Path("attack.sqlite"))
    with charts.styled():
        charts.save(charts.accuracy_figure([run]), Path("."), "accuracy")

Figures need matplotlib (``pip install 'bnnmcu[report]'``); what they show is in
:mod:`bnnmcu.report.charts.numbers`, which needs nothing.
"""

from bnnmcu.report.charts.costs import bars_figure
from bnnmcu.report.charts.draw import (
    accuracy_figure,
    confusion_figure,
    distortion_figure,
    iterations_figure,
    queries_figure,
)
from bnnmcu.report.charts.pixels import examples_figure
from bnnmcu.report.charts.style import inline_svg, new_figure, save, styled
from bnnmcu.report.stored import read_run, read_runs

__all__ = [
    "accuracy_figure",
    "bars_figure",
    "confusion_figure",
    "distortion_figure",
    "examples_figure",
    "inline_svg",
    "iterations_figure",
    "new_figure",
    "queries_figure",
    "read_run",
    "read_runs",
    "save",
    "styled",
]
