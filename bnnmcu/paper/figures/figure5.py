"""Figure 5: logits of one image along an FGSM direction, at four softmax temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import StoreError
from bnnmcu.paper.figures.spec import Drawing, FigureJob, FigureSpec, Wanted
from bnnmcu.paper.lookup import Index
from bnnmcu.paper.measure import job
from bnnmcu.paper.recipes import Trainable
from bnnmcu.paper.record import Record
from bnnmcu.report.charts.style import INK, MUTED, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FIGURE", "curves"]

Curves = npt.NDArray[np.float64]

_TEMPERATURES = (0.1, 0.6, 0.7, 1.0)
# Which of the paper's four panels a network and a temperature are.
_PANELS = {("B", 0.6): "a", ("B", 0.7): "b", ("A", 0.1): "c", ("A", 1.0): "d"}
_NAMES = {"B": "binary", "A": "full precision"}
_RECIPES = {"paper": "as in the paper", "best": "our best recipe"}
# Of Okabe and Ito's, for labels that win somewhere; the true one has its own.
_WINNERS = ("#D55E00", "#009E73", "#AA4499", "#E69F00", "#56B4E9")
_TRUE = "#0072B2"
_LOST = "#f1f1f1"
# Between two digits, as a share of a panel's height.
_SPACE = 0.055


def jobs(wanted: Wanted) -> list[FigureJob]:
    """One image of A and of B, of the first seed."""
    return [
        job(Trainable(kind, filters, "clean", recipe, wanted.seeds[0]), "logits")
        for filters in wanted.filters[:1]
        for recipe in wanted.recipes
        for kind in _NAMES
    ]


def curves(record: Record, temperature: float) -> tuple[Curves, Curves]:
    """Epsilons (E,) and logits (E, classes) of a record, at one temperature.

    Raises:
        StoreError: the record does not hold them.
    """

    def take(name: str) -> list[float]:
        found = record.values.get(name)
        if not isinstance(found, list) or len(found) < 2:
            raise StoreError(
                f"{name} is no curve",
                where=f"record {record.id}",
                hint="measure it again: bnnmcu paper figure5",
            )
        return found

    epsilons = take("epsilon")
    prefix = f"logits@{temperature:g}/"
    classes = sum(1 for name in record.values if name.startswith(prefix))
    lines = [take(f"{prefix}{klass}") for klass in range(max(classes, 1))]
    if any(len(line) != len(epsilons) for line in lines):
        raise StoreError(
            f"curves of temperature {temperature:g} differ in length",
            where=f"record {record.id}",
            hint="measure it again: bnnmcu paper figure5",
        )
    return np.array(epsilons), np.array(lines).T


def _chosen(records: Sequence[Record]) -> tuple[Record, Record] | None:
    """B and A of one recipe, size and seed; the paper's recipe first, then the smallest."""
    mine = [one for one in Index(records).records if one.measure == "logits"]
    places = sorted(
        {(one.what["recipe"] != "paper", one.what["model"]["filters"], one.seed) for one in mine}
    )
    for place in places:
        found = {
            one.what["model"]["kind"]: one
            for one in sorted(mine, key=lambda one: one.id)
            if (one.what["recipe"] != "paper", one.what["model"]["filters"], one.seed) == place
            and one.what["model"]["regimen"] == "clean"
        }
        if "A" in found and "B" in found:
            return found["B"], found["A"]
    return None


def draw(records: Sequence[Record]) -> Drawing | None:
    """B above A, a column for each temperature."""
    chosen = _chosen(records)
    if chosen is None:
        return None
    figure = new_figure(9.6, 5.2)
    grid = figure.subplots(2, len(_TEMPERATURES), sharex=True, sharey="row", squeeze=False)
    notes = []
    for row, record in zip(grid, chosen, strict=True):
        kind = record.what["model"]["kind"]
        label = int(record.number("label") or 0)
        lines = [curves(record, temperature) for temperature in _TEMPERATURES]
        colours = _colours([logits for _, logits in lines], label)
        for axes, temperature, (epsilons, logits) in zip(row, _TEMPERATURES, lines, strict=True):
            panel = _PANELS.get((kind, temperature))
            own = f"  (paper's {panel})" if panel else ""
            axes.set_title(
                f"{kind}, T = {temperature:g}{own}", color=INK if panel else MUTED, fontsize=8.5
            )
            _panel(axes, epsilons, logits, label, colours)
        low, high = row[0].get_ylim()
        for axes, (epsilons, logits) in zip(row, lines, strict=True):
            _name_lines(axes, epsilons, logits, colours, (high - low) * _SPACE)
        row[0].set_ylabel(f"{record.name}, {_NAMES[kind]}: logits")
        notes.append(_note(record))
    for axes in grid[-1]:
        axes.set_xlabel("ε")
    first = chosen[0]
    note = (
        f"{chosen[0].name} and {chosen[1].name}, {_RECIPES[first.what['recipe']]}, seed "
        f"{first.seed}; test image {int(first.number('image') or 0)}. {' '.join(notes)}"
    )
    return Drawing(figure, note, tuple(one.id for one in chosen))


def _note(record: Record) -> str:
    """How little or much the direction depends on the temperature."""
    parts, usual = [], record.number("zero@1") or 0.0
    for temperature in _TEMPERATURES[:-1]:
        same = record.number(f"as_at_1@{temperature:g}")
        zero = record.number(f"zero@{temperature:g}") or 0.0
        if same is None:
            parts.append(f"at T = {temperature:g} there is none at all")
            continue
        parts.append(f"{100 * same:.0f} % at T = {temperature:g}")
        if zero != usual:
            parts[-1] += f" (of the pixels that have a sign there, {100 * (1 - zero):.0f} %)"
    return (
        f"{record.name}: {100 * (1 - usual):.0f} % of the pixels have a direction at T = 1; of "
        f"their signs stay the same: {', '.join(parts)}."
    )


def _colours(logits: Sequence[Curves], label: int) -> dict[int, str]:
    """Of the classes that win somewhere in a row, the true one last, on top of the others."""
    winners = sorted({int(one) for lines in logits for one in lines.argmax(axis=1)} - {label})
    return {**dict(zip(winners, _WINNERS, strict=False)), label: _TRUE}


def _panel(
    axes: Axes, epsilons: Curves, logits: Curves, label: int, colours: dict[int, str]
) -> None:
    half = float(np.diff(epsilons).mean()) / 2
    for epsilon in epsilons[logits.argmax(axis=1) != label]:
        axes.axvspan(epsilon - half, epsilon + half, color=_LOST, linewidth=0, zorder=0)
    axes.set_xlim(float(epsilons[0]), float(epsilons[-1]) * 1.12)
    for klass in range(logits.shape[1]):
        if klass not in colours:
            axes.plot(epsilons, logits[:, klass], color="#b5b5b5", linewidth=0.7, zorder=1)
    for klass, colour in colours.items():
        width = 2.2 if klass == label else 1.3
        axes.plot(epsilons, logits[:, klass], color=colour, linewidth=width, zorder=3)


def _name_lines(
    axes: Axes, epsilons: Curves, logits: Curves, colours: dict[int, str], space: float
) -> None:
    """Digits at the lines' ends, at least ``space`` apart."""
    last = -np.inf
    for end, klass in sorted((float(logits[-1, klass]), klass) for klass in colours):
        last = max(end, last + space)
        axes.annotate(
            str(klass),
            (float(epsilons[-1]), last),
            xytext=(3, 0),
            textcoords="offset points",
            color=colours[klass],
            fontweight="bold",
            va="center",
        )


FIGURE = FigureSpec(
    "figure5",
    "Figure 5: logits along an FGSM direction",
    "Logits of one test image, whose true class is drawn in blue, as it is moved by ε along the "
    "sign of the gradient of the cross-entropy, with the logits divided by T in the softmax. "
    "The paper shows four of these eight panels. Coloured: classes that win somewhere, with "
    "their digit at the right; grey lines: the others; grey ground: where the network is wrong. "
    "The images are clipped and of whole pixel levels; the label whose loss is raised is the "
    "network's own; logits of B are those of the integer network, in the units of the float one.",
    jobs,
    draw,
)
