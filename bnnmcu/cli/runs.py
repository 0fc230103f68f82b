"""``bnnmcu runs``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.options import json_option
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.cli.run_tables import export_run
from bnnmcu.errors import MismatchFoundError, StoreError

if TYPE_CHECKING:
    pass

__all__ = ["command"]

_SUFFIX = ".sqlite"
_SHOWN = 10

_run = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))


@click.group("runs")
def command() -> None:
    """List, show, compare, merge and export stored results.

    A run is one file, written by 'evaluate' and 'attack'; looking at one that is
    going on is safe. What is in it: docs/RUNS.md.

    \b
    Example:
      bnnmcu runs list
      bnnmcu runs show s64/results/attack-0123456789ab.sqlite
      bnnmcu runs export attack.sqlite --csv attack.csv
    """


@command.command("list")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
@json_option
def list_runs(paths: tuple[Path, ...], as_json: bool) -> None:
    """List runs with what is answered.

    PATH is a results file or a folder of *.sqlite. Without PATH, those in
    folders called 'results' below this one.

    \b
    Example:
      bnnmcu runs list
      bnnmcu runs list s64/results b64/results --json
    """
    from bnnmcu.report.stored import printable

    found = list(_named(paths)) if paths else list(_below(Path(), only_results=True))
    rows = [row for path, named in found if (row := _row(path, named)) is not None]
    if as_json:
        print_json(rows)
        return
    if not rows:
        note("no runs here: name a folder or a file ('bnnmcu runs list PATH')")
        return
    print_table(
        f"{len(rows)} run{'' if len(rows) == 1 else 's'}",
        ["run", "model", "oracle", "last session (UTC)", "flags", "cases", "answered"],
        [
            [
                printable(row["path"]),
                row["model"],
                f"{row['oracle']} ({row['label']})",
                _time(row["last_session"]),
                ", ".join(row["flags"]) or "-",
                str(row["cases"]),
                f"{row['answered']}/{row['total']}",
            ]
            for row in rows
        ],
        text_columns=5,
        caption="answered: examples of all cases; 'bnnmcu runs show RUN' has the figures",
    )


def _named(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    for path in paths:
        if path.is_dir():
            yield from _below(path, only_results=False)
        else:
            yield path, True


def _below(folder: Path, *, only_results: bool) -> Iterator[tuple[Path, bool]]:
    for where, folders, files in os.walk(folder):
        # Neither .git nor a virtual environment holds results, and both are large.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(where).resolve().name == "results" or not only_results:
            yield from (
                (Path(where) / name, False) for name in sorted(files) if name.endswith(_SUFFIX)
            )


def _row(path: Path, named: bool) -> dict[str, Any] | None:
    """What the list says of one file; None with a note where it was only come across."""
    from bnnmcu.report.stored import printable, summary_of
    from bnnmcu.store import Store

    try:
        with Store.read(path) as store:
            summary, sessions = summary_of(store), store.sessions()
    except StoreError as error:
        if named:
            raise
        note(printable(f"left out: {error.where}: {error.what}"))
        return None
    identity = summary.identity
    return {
        "path": str(path),
        "model": identity["model"]["name"],
        "oracle": identity["oracle"]["name"],
        "label": identity["oracle"]["label"],
        "data": identity["data"]["name"],
        "cases": 1 + len(identity["config"]["attacks"]),
        "answered": sum(case.examples for case in summary.cases),
        "total": summary.planned,
        "complete": summary.complete,
        "flags": list(dict.fromkeys(flag.code for flag in summary.flags)),
        "sessions": len(sessions),
        "last_session": sessions[-1].started_at if sessions else None,
    }


@command.command("show")
@_run
@json_option
def show(run: Path, as_json: bool) -> None:
    """Show a run's figures and sessions.

    Works while the run is going on: it shows what is answered by now.

    \b
    Example:
      bnnmcu runs show s64/results/attack-0123456789ab.sqlite
    """
    from bnnmcu.cli.summary import print_summary
    from bnnmcu.report.stored import printable, summary_of
    from bnnmcu.store import Store
    from bnnmcu.store.lock import is_held
    from bnnmcu.store.timing import timing_of

    with Store.read(run) as store:
        summary, sessions, timing = summary_of(store), store.sessions(), timing_of(store.rows())
        version = store.version
    going_on = is_held(run)
    shown = [printable(asdict(session)) for session in sessions]
    if as_json:
        print_json(
            summary.to_dict()
            | {"schema_version": version, "going_on": going_on, "sessions": shown}
            | {"timing": asdict(timing)}
        )
        return
    print_summary(summary)
    print_table(
        "sessions" + (" (the last one is going on)" if going_on else ""),
        ["started (UTC)", "ended", "board", "bnnmcu", "command"],
        [
            [
                _time(session["started_at"]),
                _time(session["ended_at"]),
                session["provenance"].get("board") or "-",
                (session["provenance"].get("versions") or {}).get("bnnmcu", "?"),
                " ".join(session["provenance"].get("command") or ()) or "-",
            ]
            for session in shown
        ],
        text_columns=5,
        caption=f"{timing.text()}; schema version {version}; without an end: killed, or going on",
    )


def _time(text: str | None) -> str:
    """To the second, in UTC."""
    return text[:19].replace("T", " ") if text else "-"


@command.command("compare")
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "--show",
    "shown",
    type=click.IntRange(0, 1_000_000),
    default=_SHOWN,
    show_default=True,
    help="How many differences to print.",
)
@json_option
def compare_runs(first: Path, second: Path, shown: int, as_json: bool) -> None:
    """Hold two runs against each other, row by row.

    Exit code 1 if they differ. Compared is what must be the same in every run of
    a campaign: configuration, images, seeds, logits. Times, ticks and attempts
    are not, and which oracle answered is told but does not count.

    \b
    Example:
      bnnmcu runs compare emulated.sqlite board.sqlite
    """
    from bnnmcu.report.stored import printable
    from bnnmcu.store.compare import compare

    found = compare(first, second, show=shown)
    if as_json:
        print_json(printable(found.to_dict()))
        if not found.same:
            raise click.exceptions.Exit(1)
        return
    print_table(
        f"{first} (A) against {second} (B)",
        ["rows", ""],
        [
            ["equal", f"{found.equal:,}"],
            ["different", f"{found.differing:,}"],
            ["only in A", f"{found.only_first:,}"],
            ["only in B", f"{found.only_second:,}"],
        ],
    )
    for one in (*found.identity, *found.first_differences):
        mine, theirs = (printable(f"{value!r:.60}") for value in (one.first, one.second))
        print(f"{one.place}: {one.column}: {mine} in A, {theirs} in B")
    if not found.same:
        raise MismatchFoundError(
            "the runs differ", where=f"{first}, {second}", hint="--show N prints more of it"
        )


@command.command("merge")
@click.argument("parts", metavar="A B...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="New results file.",
)
@json_option
def merge_runs(parts: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Put parts of one campaign together.

    They are only read. All must be of the same campaign. Where two answer the same image, they must
    agree: if not, nothing is written.

    \b
    Example:
      bnnmcu runs merge monday.sqlite tuesday.sqlite -o whole.sqlite
    """
    from bnnmcu.store.merge import merge

    merged = merge(parts, output)
    if as_json:
        print_json(merged.to_dict())
    else:
        print(
            f"{merged.images:,} images and {merged.queries:,} answers of {len(parts)} parts; "
            f"{merged.twice:,} answers were in several, and equal"
        )
    note(f"written to {output}")


@command.command("migrate")
@_run
@json_option
def migrate_run(run: Path, as_json: bool) -> None:
    """Bring a run of an older bnnmcu up to date.

    A copy of the old file is kept. Reading, comparing and exporting need no
    migration, and going on with a run does it by itself.

    \b
    Example:
      bnnmcu runs migrate old.sqlite
    """
    from bnnmcu.store.store import Store

    copy = Store.migrate(run)
    if as_json:
        print_json({"path": str(run), "migrated": copy is not None, "copy": str(copy or "")})
    elif copy is None:
        print(f"{run} is up to date")
    else:
        print(f"{run} is up to date now; as it was: {copy}")


command.add_command(export_run)
