"""The cells of a table: the paper's number, ours with both recipes, and what they say together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnnmcu.paper.lookup import Index, Measurements
from bnnmcu.paper.published import Published
from bnnmcu.paper.recipes import Recipe
from bnnmcu.paper.selection import Selection, command_for
from bnnmcu.paper.statistics import Agreement, Estimate, agreement, estimate, sampling_error
from bnnmcu.paper.tables.spec import Column, Row, Source, TableSpec

__all__ = ["Board", "Cell", "Figure", "Shown", "Warmth", "assemble"]

_PERCENT = 100.0


@dataclass(frozen=True)
class Figure:
    """One of our figures.

    Attributes:
        estimate: over seeds; in percent where the column is.
        error: standard error of one seed's figure, from the images or pairs that were sampled;
            None where it is not known.
        counted: images or pairs of each seed.
        recipe: of the training.
        ids: of the records.
    """

    estimate: Estimate
    error: float | None
    counted: int | None
    recipe: Recipe
    ids: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "mean": self.estimate.mean,
            "sd": self.estimate.sd,
            "sampling_error": self.error,
            "seeds": self.estimate.n,
            "counted": self.counted,
            "recipe": self.recipe,
            "records": list(self.ids),
        }


@dataclass(frozen=True)
class Cell:
    """A row and a column.

    Attributes:
        row: name of the network.
        column: what is shown.
        paper: what the paper prints.
        as_paper, best: ours by recipe; None where it was not run.
        adaptive: what is left under the adaptive attack, of our best network or else the other.
        commands: that run what is missing, by recipe.
        comparable: ours were measured on the paper's data.
    """

    row: str
    column: Column
    paper: Published | None
    as_paper: Figure | None
    best: Figure | None
    adaptive: Figure | None
    commands: dict[str, str]
    comparable: bool = True

    def against(self, figure: Figure | None) -> Agreement | None:
        """A figure of ours against the paper's; None where either is missing or of other data."""
        if figure is None or self.paper is None or not self.comparable:
            return None
        return agreement(
            figure.estimate,
            self.paper.value,
            self.paper.plus_minus,
            sampling=figure.error or 0.0,
            good=self.column.good,
        )

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        ours = {"as_in_the_paper": self.as_paper, "best": self.best, "adaptive": self.adaptive}
        held = {name: self.against(ours[name]) for name in ("as_in_the_paper", "best")}
        return {
            "row": self.row,
            "column": self.column.key,
            "unit": "percent" if self.column.percent else "pixel range 1",
            "paper": None
            if self.paper is None
            else {"value": self.paper.value, "plus_minus": self.paper.plus_minus},
            **{name: one and one.to_dict() for name, one in ours.items()},
            "difference": {name: one and one.difference for name, one in held.items()},
            "agrees": {name: one and one.verdict for name, one in held.items()},
            "not_run": self.commands,
        }


@dataclass(frozen=True)
class Warmth:
    """FGSM at one softmax temperature; the table's is 1.

    Attributes:
        figures: by the columns of the table.
        scale: of the clean logits: largest minus smallest, mean over images.
    """

    row: str
    recipe: Recipe
    temperature: float
    figures: tuple[Figure | None, ...]
    scale: Figure | None


@dataclass(frozen=True)
class Board:
    """A sample on an emulated board.

    Attributes:
        row: name of the network.
        values: of its record; None where it was not run.
        record: its id.
        command: that runs it.
    """

    row: str
    values: dict[str, Any] | None
    record: str | None
    command: str


@dataclass(frozen=True)
class Shown:
    """A table with all that stands beside it.

    Attributes:
        spec: what it is.
        cells: row by row.
        extras: figures that the paper does not print.
        warmths: of other temperatures.
        boards: of emulated boards.
    """

    spec: TableSpec
    cells: tuple[Cell, ...]
    extras: tuple[Cell, ...]
    warmths: tuple[Warmth, ...]
    boards: tuple[Board, ...]

    def find(self, row: str, column: str) -> Cell | None:
        """A cell, of the extras, too."""
        every = (*self.cells, *self.extras)
        return next((one for one in every if (one.row, one.column.key) == (row, column)), None)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "table": self.spec.name,
            "title": self.spec.title,
            "cells": [cell.to_dict() for cell in self.cells],
            "extras": [cell.to_dict() for cell in self.extras],
            "temperatures": [
                {
                    "row": one.row,
                    "recipe": one.recipe,
                    "temperature": one.temperature,
                    "figures": {
                        column.key: figure and figure.to_dict()
                        for column, figure in zip(self.spec.columns, one.figures, strict=True)
                    },
                    "logit_spread": one.scale and one.scale.to_dict(),
                }
                for one in self.warmths
            ],
            "boards": [
                {"row": one.row, "record": one.record, "values": one.values} for one in self.boards
            ],
        }


def assemble(spec: TableSpec, rows: list[Row], index: Index, selection: Selection) -> Shown:
    """A table from stored records.

    Args:
        rows: that are shown, measured or not.
        index: of the records.
        selection: for the commands that measure what is missing.
    """
    cells, extras, boards, warmths = [], [], [], []
    for row in rows:
        for column in spec.columns:
            if row.kind in column.kinds:
                cells.append(_cell(spec, row, column, index, selection))
        for column in spec.extras:
            if row.kind in column.kinds:
                extras.append(_cell(spec, row, column, index, selection))
        warmths += _warmths(spec, row, index)
        if spec.board is not None and row.kind != "A":
            boards.append(_board(spec, row, index, selection))
    return Shown(spec, tuple(cells), tuple(extras), tuple(warmths), tuple(boards))


def _cell(spec: TableSpec, row: Row, column: Column, index: Index, selection: Selection) -> Cell:
    as_paper = _figure(index, column.source, row, "paper", column)
    best = _figure(index, column.source, row, "best", column)
    adaptive, missing = None, {}
    for recipe, figure in (("paper", as_paper), ("best", best)):
        if figure is None:
            missing[recipe] = command_for(
                spec.name, row.name, recipe, 1, "cells", selection.arguments
            )
    if column.adaptive is not None:
        adaptive = _figure(index, column.adaptive, row, "best", column) or _figure(
            index, column.adaptive, row, "paper", column
        )
        if adaptive is None:
            missing["adaptive"] = command_for(
                spec.name, row.name, "best", 1, "adaptive", selection.arguments
            )
    return Cell(
        row.name,
        column,
        spec.paper(row, column),
        as_paper,
        best,
        adaptive,
        missing,
        index.is_papers(spec.dataset),
    )


def _figure(
    index: Index, source: Source, row: Row, recipe: Recipe, column: Column
) -> Figure | None:
    found = index.find(source, row, recipe)
    if found is None or not found.values:
        return None
    scale = _PERCENT if column.percent else 1.0
    values = [scale * value for value in found.values]
    ours = estimate(values)
    assert ours is not None
    error = _sampling_error(found)
    return Figure(
        ours,
        None if error is None else scale * error,
        found.counted,
        recipe,
        found.ids,
    )


def _sampling_error(found: Measurements) -> float | None:
    """Of one seed's share, from its 95 % interval, or else binomial; None of what is no share."""
    record, name = found.records[0], found.source.value
    low, high = (record.number(name.replace("accuracy", end)) for end in ("low", "high"))
    if "accuracy" in name and low is not None and high is not None:
        return sampling_error(low, high)
    share, count = record.number(name), found.counted
    if share is None or not count or not 0 <= share <= 1 or "l2" in name:
        return None
    return float((share * (1 - share) / count) ** 0.5)


def _warmths(spec: TableSpec, row: Row, index: Index) -> list[Warmth]:
    found = []
    for recipe in ("paper", "best"):
        for temperature in spec.temperatures:
            more = (("temperature", temperature),)
            sources = [
                Source("fgsm", column.source.value, (*column.source.settings, *more))
                for column in spec.columns
            ]
            figures = tuple(
                _figure(index, source, row, recipe, column)
                for source, column in zip(sources, spec.columns, strict=True)
            )
            if any(figures):
                plain = Column("scale", "", Source("fgsm", "logit_spread", more), percent=False)
                scale = _figure(index, plain.source, row, recipe, plain)
                found.append(Warmth(row.name, recipe, temperature, figures, scale))
    return found


def _board(spec: TableSpec, row: Row, index: Index, selection: Selection) -> Board:
    source = spec.board_source()
    command = command_for(spec.name, row.name, "best", 1, "board", selection.arguments)
    for recipe in ("best", "paper"):
        found = index.find(source, row, recipe)
        if found is not None:
            record = found.records[0]
            return Board(row.name, dict(record.values), record.id, command)
    return Board(row.name, None, None, command)
