"""Figures against their targets and their history, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["TIMED", "Line", "against_history", "lines", "markdown"]

TOLERANCE = 0.02
#: A run whose figures are times of this machine: shown, never judged.
TIMED = "native twin"

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Line:
    """A row of the targets with what was measured; None where nothing was.

    ``next`` is why its aim is out of reach as yet, and the next idea.
    """

    row: str
    must: float
    aim: float
    measured: float | None
    at_least: bool
    judged: bool
    next: str = ""

    def reaches(self, target: float) -> bool:
        """Whether the figure is as good as that."""
        if self.measured is None:
            return False
        return self.measured >= target if self.at_least else self.measured <= target

    @property
    def missed(self) -> bool:
        """Whether the run must fail for it."""
        return self.judged and not self.reaches(self.must)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.measured is None:
            return "NOT MEASURED"
        if self.reaches(self.aim):
            verdict = "aim reached"
        else:
            verdict = "must holds" if self.reaches(self.must) else "MISSED"
        return verdict if self.judged else f"{verdict} (this machine; not judged)"

    def cells(self) -> list[str]:
        """Row, must, aim, measured, verdict."""
        sign = "≥" if self.at_least else "≤"
        return [
            self.row,
            f"{sign} {number(self.must)}",
            f"{sign} {number(self.aim)}",
            "" if self.measured is None else number(self.measured),
            self.verdict,
        ]


def number(value: float) -> str:
    """Whole, or with two digits where it is small."""
    return f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:,.2f}"


def lines(rows: list[dict[str, Any]], measured: Mapping[str, Figures]) -> list[Line]:
    """Every row of the targets with its figure."""
    return [
        Line(
            row["row"],
            row["must"],
            row["aim"],
            measured.get(row["run"], {}).get(row["figure"]),
            row.get("at_least", False),
            row["run"] != TIMED,
            row.get("next", ""),
        )
        for row in rows
    ]


def against_history(
    history: Mapping[str, Mapping[str, Any]], measured: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """What has become worse by more than 2 %, or is not measured or not recorded, in words.

    Counts of another compiler version are not comparable, so they are passed over.

    Args:
        history, measured: figures by run; beside them, under ``toolchain``, the compiler.
    """
    for run, before in history.items():
        if run == TIMED:
            continue
        now = measured.get(run, {})
        if now and now.get("toolchain") != before.get("toolchain"):
            continue
        for figure, old in before.items():
            new = now.get(figure)
            if isinstance(old, str):
                continue
            if new is None:
                yield f"{run}, {figure}: was {number(old)}, is no longer measured"
            elif _worse(figure, old, new):
                yield f"{run}, {figure}: {number(old)} to {number(new)}"
    for run, now in measured.items():
        if run != TIMED and now.keys() - history.get(run, {}).keys():
            names = ", ".join(sorted(now.keys() - history.get(run, {}).keys()))
            yield f"{run}: not recorded: {names}"


def _worse(figure: str, old: float, new: float) -> bool:
    if figure.endswith("per instruction"):
        return new < old * (1 - TOLERANCE)
    return new > old * (1 + TOLERANCE)


def markdown(rows: list[Line], history: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of README.md: targets, then the figures of every run."""
    text = ["| row | must | aim | recorded | |", "| --- | ---: | ---: | ---: | --- |"]
    text += ["| " + " | ".join(line.cells()) + " |" for line in rows]
    below = [line for line in rows if line.judged and not line.reaches(line.aim)]
    if below:
        text += ["", "Why aims were missed, and the next idea:", ""]
        text += [f"- {line.row}: {line.next or 'not written down'}." for line in below]
    text += ["", "| run | " + " | ".join(_SHOWN.values()) + " | conv1 / conv2 / conv3 |"]
    text += ["| --- |" + " ---: |" * (len(_SHOWN) + 1)]
    for run, figures in history.items():
        if run == TIMED:
            continue
        cells = [number(figures[name]) if name in figures else "" for name in _SHOWN]
        layers = [number(figures[n]) for n in ("conv1", "conv2", "conv3") if n in figures]
        text.append(f"| {run} | {' | '.join(cells)} | {' / '.join(layers)} |")
    text += ["", *(f"Compiled by {name}." for name in _toolchains(history))]
    timed = history.get(TIMED)
    if timed:
        text.append(f"The native twin ran on {timed['machine']}, compiled by {timed['compiler']}.")
    return "\n".join(text) + "\n"


_SHOWN = {
    "instructions": "instructions",
    "cycles, modelled": "cycles, **modelled**",
    "flash": "flash",
    "ram": "RAM",
    "stack": "of it, stack used",
}


def _toolchains(history: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted({str(run["toolchain"]) for run in history.values() if "toolchain" in run})
