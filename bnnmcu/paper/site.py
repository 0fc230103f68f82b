"""The pages: every table and figure with what it shows, and where each number is from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from bnnmcu.errors import MissingDependencyError
from bnnmcu.modelfile import atomic_write
from bnnmcu.paper.assemble import Shown, assemble
from bnnmcu.paper.lookup import Index
from bnnmcu.paper.pages import boards_table, extras_table, main_table, missing, warmth_table
from bnnmcu.paper.published import SOURCE
from bnnmcu.paper.recipes import Recipe
from bnnmcu.paper.record import Record
from bnnmcu.paper.results import total_seconds
from bnnmcu.paper.selection import Selection
from bnnmcu.paper.story import in_short, story
from bnnmcu.paper.tables import TABLES
from bnnmcu.paper.tables.spec import Row, TableSpec
from bnnmcu.report.document import Document, Picture, Section, Table
from bnnmcu.report.html import to_html
from bnnmcu.report.markdown import to_markdown

__all__ = ["document", "write_pages"]

_TITLE = "Attacking Binarized Neural Networks: the paper, measured again"
_HOUR = 3600.0


def write_pages(folder: Path, index: Index, selection: Selection, results: Path) -> list[Path]:
    """Write ``index.md``, ``index.html``, ``index.json`` and the figures.

    Args:
        folder: made if need be.
        selection: for the commands of what was not run.
        results: the file that the records are from.

    Returns:
        The files.

    Raises:
        StoreError: a record does not hold what its measure gives.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures, drawn = _figures(index, folder)
    made = document(index, selection, results, figures)
    texts = {
        "index.md": to_markdown(made),
        "index.html": to_html(made, folder),
        "index.json": json.dumps(made.facts, indent=1, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        atomic_write(folder / name, text.encode())
    return [*(folder / name for name in texts), *drawn]


def document(
    index: Index, selection: Selection, results: Path, figures: Sequence[Section] = ()
) -> Document:
    """The whole report: all rows of the paper, run or not, and others that were run."""
    tables = []
    for name in TABLES:
        spec = TABLES[name]
        known = {str(one.what["model"]["filters"]) for one in index.records}
        rows = list(spec.rows())
        more = sorted({int(k) for k in known} - {row.filters for row in rows})
        own = [row for row in spec.rows(tuple(more)) if _is_there(spec, row, index)]
        tables.append(assemble(spec, [*rows, *own], index, selection))
    sections = [
        Section(
            "In short",
            paragraphs=(f"Beside the numbers of {SOURCE}.", *_whose(index)),
            points=tuple(in_short(tables)),
        ),
        *(_section(shown) for shown in tables),
        *figures,
        _made(index.records, results),
        _records(index.records),
    ]
    facts = {
        "format": "bnnmcu-paper-report",
        "version": 1,
        "source": SOURCE,
        "tables": [shown.to_dict() for shown in tables],
    }
    return Document(_TITLE, tuple(sections), facts)


def _is_there(spec: TableSpec, row: Row, index: Index) -> bool:
    """Whether a row that the paper does not have was measured for a table."""
    return any(
        index.find(column.source, row, recipe)
        for column in spec.columns
        for recipe in get_args(Recipe)
        if row.kind in column.kinds
    )


def _whose(index: Index) -> Iterator[str]:
    names = sorted({f"{one.data_name} ({one.data_images:,} images)" for one in index.records})
    if names:
        yield f"Judged on {', '.join(names)}."
    if not index.is_papers("mnist"):
        yield (
            "These are not the paper's data: figures beside the paper's show that the machinery "
            "works, and are held against nothing."
        )
    if index.left_out:
        yield f"{len(index.left_out)} records of other images are not shown."
    yield (
        "B, C and S are integer networks here, answered by the C that a board runs; A is "
        "full precision, and no board runs it. 'As in the paper' is the authors' training "
        "(identity estimator, Adam at a constant rate), 'our best' has a clipped estimator and a "
        "falling rate. Point at a number for the records behind it; they are listed below each "
        "table, too."
    )


def _section(shown: Shown) -> Section:
    tables = (
        replace(main_table(shown, split=False), title="The paper's numbers and ours"),
        extras_table(shown),
        warmth_table(shown),
        boards_table(shown),
    )
    return Section(
        main_table(shown).title,
        paragraphs=(story(shown),),
        tables=tuple(table for table in tables if table is not None),
        notes=(*_references(shown), *(f"not run: {one}" for one in missing(shown))),
    )


def _references(shown: Shown) -> Iterator[str]:
    """Which records each row is from."""
    for row in dict.fromkeys(cell.row for cell in shown.cells):
        own = [cell for cell in (*shown.cells, *shown.extras) if cell.row == row]
        parts = []
        for words, name in (
            ("as in the paper", "as_paper"),
            ("our best", "best"),
            ("adaptive", "adaptive"),
        ):
            figures = [getattr(cell, name) for cell in own]
            ids = dict.fromkeys(one for figure in figures if figure for one in figure.ids)
            if ids:
                parts.append(f"{words} {' '.join(ids)}")
        others = [
            one
            for warmth in shown.warmths
            if warmth.row == row
            for figure in warmth.figures
            if figure
            for one in figure.ids
        ]
        if others:
            parts.append(f"temperatures {' '.join(dict.fromkeys(others))}")
        boards = [one.record for one in shown.boards if one.row == row and one.record]
        if boards:
            parts.append(f"board {' '.join(boards)}")
        if parts:
            yield f"records of {row}: {'; '.join(parts)}"


def _made(records: Sequence[Record], results: Path) -> Section:
    """Hours, machines and versions."""
    training, measuring = total_seconds(records)
    versions = sorted(
        {f"{name} {one}" for record in records for name, one in record.versions.items() if one}
    )
    points = [
        f"{len(records):,} records in {results.name}, measured in {measuring / _HOUR:.1f} "
        f"core-hours; training took {training / _HOUR:.1f} core-hours, as far as it was written "
        "down",
        "machines: " + "; ".join(sorted({record.machine for record in records}) or ["none"]),
        "versions: " + (", ".join(versions) or "none"),
        "again: bnnmcu paper all; a single row by the command of its records; see PAPER.md",
    ]
    return Section("How it was made", points=tuple(points))


def _records(records: Sequence[Record]) -> Section:
    """Every record, with the command that makes it."""
    rows = tuple(
        (
            record.id,
            record.name,
            str(record.what["recipe"]),
            record.measure,
            _settings(record),
            str(record.seed),
            record.made_at,
            record.command,
        )
        for record in sorted(
            records, key=lambda one: (one.measure, one.name, one.what["recipe"], one.seed, one.id)
        )
    )
    table = Table(
        "Records",
        ("id", "network", "recipe", "measure", "settings", "seed", "made at", "command"),
        rows,
        text_columns=8,
    )
    return Section(
        "Records", tables=(table,) if rows else (), paragraphs=() if rows else ("None.",)
    )


_TOLD = ("preset", "variant", "iterations", "temperature", "attack", "pairs", "images")


def _settings(record: Record) -> str:
    settings = record.what["settings"]
    return ", ".join(
        f"{name} {settings[name]}" for name in _TOLD if settings.get(name) not in (None, 1.0)
    )


def _figures(index: Index, folder: Path) -> tuple[list[Section], list[Path]]:
    """The figures that have records, drawn; the others in words."""
    try:
        from bnnmcu.paper.figures.catalogue import FIGURES, draw

        drawn = draw(tuple(FIGURES), index.records, folder)
    except MissingDependencyError as error:
        return [Section("Figures", paragraphs=(f"Not drawn: {error.what}.",))], []
    sections, files = [], []
    for one in drawn:
        if one.svg is None:
            sections.append(
                Section(one.title, (one.caption,), notes=(f"not run: bnnmcu paper {one.name}",))
            )
            continue
        files += [path for path in (one.svg, one.png) if path is not None]
        picture = Picture(one.svg.name, one.title, one.caption)
        sections.append(
            Section(
                one.title,
                (one.note,) if one.note else (),
                pictures=(picture,),
                notes=(f"records: {' '.join(one.ids)}",) if one.ids else (),
            )
        )
    return sections, files
