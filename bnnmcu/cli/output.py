"""What the commands print: tables and progress for people, JSON for scripts.

Results go to standard output, everything else to standard error, so that
``--json`` output can be piped as it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bnnmcu.errors import BnnmcuError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "last_line",
    "note",
    "print_json",
    "print_table",
    "progress_bar",
    "report_error",
    "stderr_console",
]


def stderr_console() -> Console:
    """Where notes and progress go; rich turns colours off when it is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def note(text: str) -> None:
    """One line for people, on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result for scripts, on standard output."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str | None = None,
    text_columns: int = 1,
    last_is_total: bool = False,
) -> None:
    """A table on standard output: first columns of text, then columns of numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < text_columns else "right", overflow="fold")
    cells = [list(row) for row in rows]
    for i, row in enumerate(cells):
        if last_is_total and i == len(cells) - 1:
            table.add_section()
        table.add_row(*row)
    # A pipe has no width: let nothing be cut there.
    # No markup either: "bnnmcu[sim]" is a name here, not a style.
    width = None if sys.stdout.isatty() else 120
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    # Not as the table's own title, which would be wrapped to the table's width.
    console.print(title, style="bold")
    console.print(table)
    if caption:
        console.print(caption, style="dim")


def progress_bar() -> Progress:
    """A progress display on standard error, with rate and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
        console=stderr_console(),
        transient=False,
    )


@contextmanager
def last_line(verbose: bool) -> Iterator[Callable[[str], None]]:
    """Where a program's lines go: all of them, or on a terminal just the latest, in one place."""
    if verbose or not sys.stderr.isatty():
        yield note if verbose else lambda line: None
        return
    from rich.text import Text

    with stderr_console().status("starting") as status:
        # Text, not a string: brackets in a compiler's line are no markup.
        yield lambda line: status.update(Text(line.strip(), no_wrap=True, overflow="ellipsis"))


def report_error(error: BnnmcuError, *, as_json: bool, shown: bool = False) -> int:
    """Print an error and give the exit code; ``shown`` if people have seen it already."""
    if not shown:
        print(f"error: {error}", file=sys.stderr)
    if as_json:
        print_json(error.as_dict())
        sys.stdout.flush()
    return error.exit_code
