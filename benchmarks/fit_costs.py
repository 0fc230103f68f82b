"""Fits what the plain kernels cost, in bnnmcu/backend/costs/, to counted instructions.

    python benchmarks/fit_costs.py           # counts, writes costs.json and the cores' files
    python benchmarks/fit_costs.py --fit     # the same with the counts that costs.json has
    python benchmarks/fit_costs.py --check   # counts other networks, compares with the files

Protocol: random networks of few layers (tests/support/random_layers.py), the same each
time, run on QEMU's MPS2 and MPS3 boards, where every instruction lasts equally long and
SysTick counts them for each step.  Least squares of the relative errors give each unit
of work its instructions, none of them negative; the shipped networks take part in that.
Cycles are those times a ratio of the family, kept in costs.json: that of its most frequent
unit when instructions and cycles were first measured together.  Fast kernels' figures are
not touched.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))

from random_layers import KINDS, random_layers  # noqa: E402
from step_rig import count_steps  # noqa: E402

from bnnmcu.backend.costs import estimate  # noqa: E402
from bnnmcu.backend.kernels.base import Kernel, Option  # noqa: E402
from bnnmcu.backend.kernels.work import plain_option  # noqa: E402
from bnnmcu.backend.plan import DEFAULT_CHOICE, make_plan  # noqa: E402
from bnnmcu.compiler import to_graph  # noqa: E402
from bnnmcu.graph import Graph, infer  # noqa: E402
from bnnmcu.modelfile import read_model  # noqa: E402

MODELS = ROOT / "examples" / "models"
#: Each of their steps counts as so many: on them kernels compete within a few per cent.
WEIGHT = 6
SHIPPED = ("b64", "c64", "s64")
POINTS = Path(__file__).resolve().with_name("costs.json")
COSTS = ROOT / "bnnmcu" / "backend" / "costs"
CORES = ("cortex-m0", "cortex-m3", "cortex-m4f", "cortex-m55")
CHECKED = ("cortex-m0", "cortex-m4f")
#: Networks for each kind of layer; of a check, one, from another seed.
SEEDS, CHECK_SEEDS = range(6), range(900, 901)
#: A check fails where a step of more instructions is estimated worse.
LEAST, TOLERANCE = 2_000, 0.4
#: Families that run another's loops, and the units that are their own all the same.
SHARED = {"drawn": "bits"}
OWN = ("call", "sum", "bit", "filter", "draw")
#: Networks that fit the smallest board's memory together.
BATCH = 75
#: Of a figure.
DIGITS = 3
SOURCE = (
    "The plain kernels' instructions are fitted to counts of random layers on QEMU "
    "(benchmarks/fit_costs.py), arm-none-eabi-gcc 12.2 -O3; their cycles are those times the "
    "ratio of its family, of which those for single values and pools share one."
)


@dataclass(frozen=True)
class Point:
    """A step that was counted."""

    option: Option
    instructions: int


def option(family: str, work: Mapping[str, float]) -> Option:
    """One without a kernel."""
    return Option(family, Kernel(family, 0), work)


def networks(seeds: Sequence[int]) -> list[Graph]:
    """Of every kind of layer."""
    return [
        random_layers(1000 * seed + i, kind, layer)
        for seed in seeds
        for kind, layers in KINDS.items()
        for i, layer in enumerate(layers)
    ]


def plain_options(graph: Graph) -> list[Option]:
    """The plain kernels of a network with their work, in the order of their steps."""
    specs, nodes = infer(graph), {node.name: node for node in graph.nodes}
    found = []
    for step in make_plan(graph, DEFAULT_CHOICE).steps:
        if not step.nodes:
            found.append(plain_option(step.call, specs[graph.nodes[-1].name]))
            continue
        node = nodes[step.nodes[0]]
        found.append(plain_option(step.call, specs[step.nodes[-1]], node, specs[node.source]))
    return found


def measure(graphs: Sequence[Graph], core: str) -> list[Point]:
    """Every step of the networks."""
    counts: list[list[int]] = []
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, len(graphs), BATCH):
            here = Path(folder) / f"steps{first}"
            counts += count_steps(graphs[first : first + BATCH], here, core)
    return [
        Point(option, count)
        for graph, found in zip(graphs, counts, strict=True)
        for option, count in zip(plain_options(graph), found, strict=True)
    ]


def not_negative(a: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The least squares of a x = y with x >= 0: Lawson and Hanson's method."""
    x, free = np.zeros(a.shape[1]), np.zeros(a.shape[1], dtype=bool)
    for _ in range(10 * a.shape[1]):
        gain = np.where(free, -np.inf, a.T @ (y - a @ x))
        if gain.max() < 1e-9:
            break
        free[int(gain.argmax())] = True
        while True:
            trial = np.zeros_like(x)
            trial[free] = np.linalg.lstsq(a[:, free], y, rcond=None)[0]
            below = free & (trial <= 0)
            if not below.any():
                break
            steps = x[below] / np.maximum(x[below] - trial[below], 1e-300)
            x = x + steps.min() * (trial - x)
            free &= x > 1e-12
        x = trial
    return x


def rounded(value: float) -> float:
    """Three digits."""
    return float(f"{value:.{DIGITS}g}")


def fit(points: Sequence[Point]) -> dict[str, dict[str, float]]:
    """Instructions of each unit, by family; the points are of families that share code."""
    names = [
        {(p.option.family if u in OWN else SHARED.get(p.option.family, p.option.family), u): n
         for u, n in p.option.work.items()}
        for p in points
    ]  # fmt: skip
    units = sorted({unit for work in names for unit, n in work.items() if n})
    a = np.array([[work.get(unit, 0) for unit in units] for work in names], dtype=np.float64)
    y = np.array([point.instructions for point in points], dtype=np.float64)
    # Short steps count less: nothing is chosen by them.
    weight = 1 / (y + 500)
    scale = np.abs(a * weight[:, None]).max(axis=0)
    x = not_negative(a * weight[:, None] / scale, y * weight) / scale
    figures = dict(zip(units, x.tolist(), strict=True))
    return {
        family: {
            unit: rounded(value)
            for (owner, unit), value in figures.items()
            if owner == family or (owner == SHARED.get(family) and unit not in OWN)
        }
        for family in sorted({point.option.family for point in points})
    }


def by_family(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Sorted by names."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.option.family, []).append(point)
    return dict(sorted(found.items()))


def write_costs(core: str, points: Sequence[Point], ratios: Mapping[str, float]) -> None:
    """The core's file with new figures for its plain kernels."""
    path = COSTS / f"{core}.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    old, new = table["families"], {}
    for family, some in by_family(points).items():
        together = [p for p in points if SHARED.get(p.option.family) == family]
        for name, units in fit([*some, *together]).items() if family not in SHARED else ():
            each = ratios.get(name, ratios["others"])
            work = {unit: [count, rounded(count * each)] for unit, count in units.items()}
            new[name] = {"code": old.get(name, {"code": 0})["code"], "work": work}
    kept = {family: what for family, what in old.items() if family not in {*new, "plain"}}
    source = table.get("source", "").removesuffix(SOURCE).strip()
    lines = [f'  "source": {json.dumps(f"{source} {SOURCE}".strip())},']
    lines.append(f'  "reserve": {json.dumps(table["reserve"])},')
    rows = [f'    "{family}": {json.dumps(what)}' for family, what in (new | kept).items()]
    text = "\n".join(["{", *lines, '  "families": {', ",\n".join(rows), "  }", "}"])
    path.write_text(text.replace(".0,", ",").replace(".0]", "]") + "\n", encoding="utf-8")


def report(core: str, points: Sequence[Point]) -> bool:
    """Prints how far estimates are off; whether none is too far."""
    good = True
    for family, some in by_family(points).items():
        errors = [
            (estimate(p.option, core).instructions / p.instructions - 1, p)
            for p in some
            if p.instructions > LEAST
        ]
        if not errors:
            continue
        worst, point = max(errors, key=lambda e: abs(e[0]))
        fine = abs(worst) <= TOLERANCE
        good &= fine
        print(
            f"{core:12} {family:10} {len(errors):3} steps, worst {worst:+.0%} of "
            f"{point.instructions:,}{'' if fine else f': {dict(point.option.work)}'}"
        )
    return good


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, with other networks")
    parser.add_argument("--fit", action="store_true", help="fit the points of costs.json again")
    parser.add_argument("--core", action="append", choices=CORES, help="only this one")
    args = parser.parse_args()
    if args.check:
        graphs = networks(CHECK_SEEDS)
        fine = [report(core, measure(graphs, core)) for core in args.core or CHECKED]
        raise SystemExit(0 if all(fine) else 1)
    kept = json.loads(POINTS.read_text(encoding="utf-8"))
    graphs = [] if args.fit else networks(SEEDS)
    for core in args.core or CORES:
        if not args.fit:
            shipped = [to_graph(read_model(MODELS / f"{name}.pt")) for name in SHIPPED]
            points = measure(graphs, core) + WEIGHT * [
                point for graph in shipped for point in measure([graph], core)
            ]
            kept["points"][core] = [
                [p.option.family, {u: n for u, n in p.option.work.items() if n}, p.instructions]
                for p in points
            ]
        points = [Point(option(f, work), count) for f, work, count in kept["points"][core]]
        write_costs(core, points, kept["ratios"][core])
    parts = [
        f'    "{core}": [\n' + ",\n".join(f"      {json.dumps(row)}" for row in rows) + "\n    ]"
        for core, rows in sorted(kept["points"].items())
    ]
    text = f'{{\n  "ratios": {json.dumps(kept["ratios"])},\n  "points": {{\n'
    POINTS.write_text(text + ",\n".join(parts) + "\n  }\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
