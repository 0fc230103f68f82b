"""``bnnmcu runs export``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.options import json_option
from bnnmcu.cli.output import note, print_json
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.store.export import Exported

__all__ = ["export_run"]

_STDOUT = "-"


@click.command("export")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--csv",
    "csv_name",
    metavar="FILE",
    # Text, since as a path './-' would be '-'.
    type=click.Path(allow_dash=True),
    help="CSV file to write; '-' is standard output.",
)
@click.option(
    "--parquet",
    "parquet_name",
    metavar="FILE",
    type=click.Path(),
    help="Parquet file to write.",
)
@json_option
def export_run(run: Path, csv_name: str | None, parquet_name: str | None, as_json: bool) -> None:
    """Write all answers as a table for other programs.

    One row a draw, logits as columns logit_0 and so on, values as they are. A
    program that takes cells for formulas or digits for numbers must be told to
    read 'seed' and 'input_sha256' as text.

    \b
    Example:
      bnnmcu runs export attack.sqlite --csv attack.csv
      bnnmcu runs export attack.sqlite --csv - | head
      bnnmcu runs export attack.sqlite --parquet attack.parquet
    """
    from bnnmcu.store.export import export_csv, export_parquet
    from bnnmcu.store.place import check_tables

    if csv_name is None and parquet_name is None:
        raise UsageError("no table is asked for", where="export", hint="--csv FILE, --parquet FILE")
    if parquet_name == _STDOUT:
        raise UsageError(
            "Parquet is not written to standard output",
            where="--parquet",
            hint="give the name of a file, or use '--csv -'",
        )
    streamed = csv_name == _STDOUT
    if streamed and as_json:
        raise UsageError(
            "both would be written to standard output",
            where="--csv -, --json",
            hint="give --csv the name of a file, or leave out --json",
        )
    wanted: list[tuple[str, Path, Callable[[Path, Path], Exported]]] = []
    if csv_name is not None and not streamed:
        wanted.append(("csv", Path(csv_name), export_csv))
    if parquet_name is not None:
        wanted.append(("parquet", Path(parquet_name), export_parquet))
    # All of them before the first is written.
    check_tables(file for _, file, _ in wanted)
    if streamed:
        _stream(run)
    done: dict[str, Any] = {}
    for kind, file, write in wanted:
        result = write(run, file)
        done[kind] = {"path": str(file), **result.to_dict()}
        _note_export(result, str(file))
    if as_json:
        print_json(done)


def _stream(run: Path) -> None:
    from bnnmcu.store.export import stream_csv

    try:
        result = stream_csv(run, sys.stdout.buffer)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`), which click would take for a failure.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  open until the process ends
    else:
        _note_export(result, "standard output")


def _note_export(result: Exported, where: str) -> None:
    note(f"{result.rows:,} answers written to {where}")
    if result.unanswered:
        note(f"images without an answer, and so without a row: {result.unanswered:,}")
