"""Figure 2: accuracy against the iterations of Carlini and Wagner's attack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from bnnmcu.paper.figures.spec import Drawing, FigureJob, FigureSpec, Wanted
from bnnmcu.paper.lookup import Index
from bnnmcu.paper.measure import job
from bnnmcu.paper.published import published
from bnnmcu.paper.recipes import Regimen, Trainable
from bnnmcu.paper.record import Record
from bnnmcu.report.charts.style import COLOURS, INK, MARKERS, new_figure, panel_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FIGURE", "ITERATIONS", "Curve", "Point", "curves"]

ITERATIONS = (10, 30, 100, 300, 1000)
#: Of each network: undefended, and the two PGD trainings of the paper's caption.
_NETWORKS: tuple[tuple[str, Regimen], ...] = (
    ("A", "clean"),
    ("B", "clean"),
    ("C", "clean"),
    ("S", "clean"),
    ("A", "pgd20"),
    ("B", "pgd20"),
    ("A", "pgd40"),
    ("C", "pgd40"),
)
# Up to here as many pairs as table 3 has, beyond as many as it has at 1,000.
_SHORT = 100
_LINES: dict[str, Any] = {"clean": "-", "pgd20": "--", "pgd40": ":"}
_LINE_NAMES = {"clean": "no adversarial training", "pgd20": "+ PGD, 20", "pgd40": "+* PGD, 40"}
_RECIPES = {"paper": "as in the paper", "best": "our best recipe"}
# Beside our own, so that neither hides the other.
_PAPER_SHIFT = 1.09


@dataclass(frozen=True)
class Point:
    """Accuracy after so many iterations, in percent.

    Attributes:
        mean, low, high: over seeds, and one standard deviation to either side; of a
            single seed the 95 % interval over its pairs.
        seeds, pairs: how many; pairs of each seed.
    """

    iterations: int
    mean: float
    low: float
    high: float
    seeds: int
    pairs: int


@dataclass(frozen=True)
class Curve:
    """One network's line.

    Attributes:
        name: such as ``B64+``.
        kind, filters, regimen, recipe: see :class:`bnnmcu.paper.recipes.Trainable`.
        points: by iterations, in order.
        ids: of the records behind it.
    """

    name: str
    kind: str
    filters: int
    regimen: str
    recipe: str
    points: tuple[Point, ...]
    ids: tuple[str, ...]


def jobs(wanted: Wanted) -> list[FigureJob]:
    """Those of table 3's setting, at five numbers of iterations.

    Where table 3 or its 1,000 iterations ask for the same, it is the same job.
    """
    return [
        job(
            Trainable(kind, filters, regimen, recipe, seed),
            "cw",
            preset="paper",
            iterations=iterations,
            pairs=wanted.pairs if iterations <= _SHORT else wanted.long_pairs,
        )
        for filters in wanted.filters
        for kind, regimen in _NETWORKS
        for recipe in wanted.recipes
        for seed in wanted.seeds
        for iterations in ITERATIONS
    ]


def _protocol(what: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that must be the same along a line."""
    return {
        name: one
        for name, one in what["settings"].items()
        if name not in ("iterations", "pairs", "images")
    }


def curves(records: Sequence[Record]) -> list[Curve]:
    """The lines that records of table 3's setting give, in the order of a legend."""
    usual = _protocol(job(Trainable("B", 64), "cw", preset="paper").what())
    groups: dict[tuple[int, int, str, str], dict[int, list[Record]]] = {}
    for record in Index(records).records:
        model = record.what["model"]
        place = (model["kind"], model["regimen"])
        known = record.measure == "cw" and model["dataset"] == "mnist" and place in _NETWORKS
        if not known or model["form"] != "straight-through" or record.number("accuracy") is None:
            continue
        if _protocol(record.what) != usual:
            continue
        order = _NETWORKS.index(place)
        key = (model["filters"], order, record.what["recipe"], record.name)
        by_iterations = groups.setdefault(key, defaultdict(list))
        by_iterations[int(record.what["settings"]["iterations"])].append(record)
    found = []
    for (filters, order, recipe, name), by_iterations in sorted(groups.items()):
        points, ids = [], []
        for iterations in sorted(by_iterations):
            point, shown = _point(iterations, by_iterations[iterations])
            points.append(point)
            ids += shown
        kind, regimen = _NETWORKS[order]
        found.append(Curve(name, kind, filters, regimen, recipe, tuple(points), tuple(ids)))
    return found


def _point(iterations: int, records: Sequence[Record]) -> tuple[Point, list[str]]:
    """Over seeds, of the largest number of pairs that there is."""

    def pairs(record: Record) -> int:
        return int(record.number("pairs") or 0)

    largest = max(map(pairs, records))
    shown = sorted(
        (one for one in records if pairs(one) == largest), key=lambda one: (one.seed, one.id)
    )
    values = [100 * (one.number("accuracy") or 0.0) for one in shown]
    mean = fmean(values)
    if len(values) > 1:
        half = stdev(values)
        low, high = mean - half, mean + half
    else:
        low = _percent(shown[0], "low", mean)
        high = _percent(shown[0], "high", mean)
    point = Point(iterations, mean, max(low, 0.0), min(high, 100.0), len(values), largest)
    return point, [one.id for one in shown]


def _percent(record: Record, name: str, default: float) -> float:
    found = record.number(name)
    return default if found is None else 100 * found


def draw(records: Sequence[Record]) -> Drawing | None:
    """A column for each K, a row for each recipe."""
    found = curves(records)
    if not found:
        return None
    sizes = sorted({one.filters for one in found})
    recipes = [name for name in _RECIPES if any(one.recipe == name for one in found)]
    figure = new_figure(max(4.8, 3.8 * len(sizes)) + 1.9, 3.3 * len(recipes) + 0.2)
    grid = figure.subplots(len(recipes), len(sizes), squeeze=False, sharex=True, sharey=True)
    letters = iter("abcdefgh")
    for row, recipe in zip(grid, recipes, strict=True):
        for axes, size in zip(row, sizes, strict=True):
            mine = [one for one in found if (one.filters, one.recipe) == (size, recipe)]
            panel_title(axes, next(letters), f"K = {size}, {_RECIPES[recipe]}")
            _panel(axes, mine)
        row[0].set_ylabel("accuracy (%)")
    for axes in grid[-1]:
        axes.set_xlabel("iterations of CW-L2")
    figure.legend(handles=_legend(found), loc="outside right upper")
    every = [point for one in found for point in one.points]
    pairs, seeds = sorted({one.pairs for one in every}), sorted({one.seeds for one in every})
    note = (
        f"Pairs a point: {' or '.join(map(str, pairs))}; seeds a point: "
        f"{' or '.join(map(str, seeds))}."
    )
    return Drawing(figure, note, tuple(identity for one in found for identity in one.ids))


def _panel(axes: Axes, found: Sequence[Curve]) -> None:
    axes.set_xscale("log")
    axes.set_xlim(8, 1300)
    axes.set_ylim(-3, 103)
    axes.set_xticks(ITERATIONS, [f"{one:,}" for one in ITERATIONS])
    axes.minorticks_off()
    for one in found:
        colour = COLOURS[one.kind]
        places = [point.iterations for point in one.points]
        axes.errorbar(
            places,
            [point.mean for point in one.points],
            yerr=[
                [max(point.mean - point.low, 0.0) for point in one.points],
                [max(point.high - point.mean, 0.0) for point in one.points],
            ],
            color=colour,
            linestyle=_LINES[one.regimen],
            marker=MARKERS[one.kind],
            markerfacecolor=colour if one.regimen == "clean" else "white",
            elinewidth=0.9,
            capsize=2,
        )
        for iterations, column in ((100, "accuracy"), (1000, "accuracy at 1000")):
            paper = published("table3", one.name, column)
            if paper is not None:
                axes.errorbar(
                    [iterations * _PAPER_SHIFT],
                    [paper.value],
                    yerr=[paper.plus_minus],
                    color=colour,
                    marker="x",
                    markersize=7,
                    markeredgewidth=1.8,
                    elinewidth=0.9,
                    linestyle="none",
                )


def _legend(found: Sequence[Curve]) -> list[Any]:
    from matplotlib.lines import Line2D

    kinds = [kind for kind in COLOURS if any(one.kind == kind for one in found)]
    regimens = [name for name in _LINES if any(one.regimen == name for one in found)]
    names = {"A": "A, full precision", "B": "B, binary", "C": "C, scaled", "S": "S, stochastic"}
    handles = [
        Line2D([], [], color=COLOURS[kind], marker=MARKERS[kind], label=names[kind])
        for kind in kinds
    ]
    handles += [
        Line2D([], [], color=INK, linestyle=_LINES[name], label=_LINE_NAMES[name])
        for name in regimens
    ]
    printed = any(published("table3", one.name, "accuracy") for one in found)
    if printed:
        handles.append(
            Line2D([], [], color=INK, marker="x", linestyle="none", label="the paper's table 3")
        )
    return handles


FIGURE = FigureSpec(
    "figure2",
    "Figure 2: accuracy under CW-L2 by iterations (MNIST)",
    "Accuracy under Carlini and Wagner's targeted L2 attack in table 3's setting, which stops "
    "early and believes a single draw; what an adaptive attack leaves stands in table 3. "
    "Bars: one standard deviation over seeds, or of a single seed the 95 % interval over its "
    "pairs. Crosses, a little to the right: the paper's table 3 and text. The paper's figure "
    "has A and B with 256 filters, A and C with 64, and no printed numbers; its text says that "
    "full-precision networks are at zero by 100 iterations (A256+: 1.8 ± 0.9 %). B, C and S "
    "answer as integer networks.",
    jobs,
    draw,
)
