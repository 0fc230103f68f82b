"""What the commands print: tables and progress for people, JSON for scripts.

Results go to standard output, everything else to standard error, so that
``--json`` output can be piped as it is.  What standard error carries is chosen
once for a process (:func:`show_as`): text, JSON lines, or errors alone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from bnnmcu.errors import BnnmcuError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "INTERRUPTED",
    "Mode",
    "emit",
    "last_line",
    "note",
    "print_json",
    "print_table",
    "progress_bar",
    "report_error",
    "report_interrupt",
    "show_as",
    "shown_as",
    "stderr_console",
]

#: What standard error carries: ``bar`` and ``plain`` text, ``json`` lines, or ``quiet``: errors,
#: warnings and nothing else.  ``auto`` is ``bar`` on a terminal and else ``plain``.
Mode = Literal["auto", "bar", "plain", "json", "quiet"]

#: Exit code of a command that Ctrl-C ended, as of a shell's.
INTERRUPTED = 130

_WARNING = "warning: "
# Columns of a terminal that has room for every table.
_WIDE = 90
_started = time.monotonic()
# Reentrant, since Ctrl-C may come while a line is written.
_writing = threading.RLock()
_mode: Mode = "auto"


def show_as(mode: Mode) -> None:
    """Choose what standard error carries, until the process ends."""
    global _mode
    _mode = mode


def shown_as() -> Literal["bar", "plain", "json", "quiet"]:
    """What standard error carries."""
    if _mode != "auto":
        return _mode
    # A dumb terminal cannot go back over what it has shown.
    return "bar" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"


def emit(event: str, **fields: Any) -> None:
    """One JSON line on standard error, where that was asked for; see docs/ERRORS.md."""
    if _mode != "json":
        return
    elapsed = round(time.monotonic() - _started, 3)
    line = json.dumps({"event": event, "elapsed_s": elapsed, **fields}, allow_nan=False)
    # One write under a lock: progress comes from another thread.
    with _writing:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def stderr_console() -> Console:
    """Where notes and progress go; rich turns colours off when it is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


def note(text: str) -> None:
    """One line for people, on standard error; one that begins with ``warning:`` if it must be seen.

    Nothing of it where that was not wanted, but warnings are always shown.
    """
    warning = text.startswith(_WARNING)
    if _mode == "json":
        level = "warning" if warning else "note"
        emit("note", level=level, text=text.removeprefix(f"{level}: "))
    elif _mode != "quiet" or warning:
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

    # A pipe has no width: let nothing be cut there.
    # No markup either: "bnnmcu[sim]" is a name here, not a style.
    width = None if sys.stdout.isatty() else 120
    console = Console(highlight=False, markup=False, emoji=False, width=width)
    # The widest tables fit into 80 columns if the gaps are as narrow as can be.
    narrow = console.width < _WIDE
    table = Table(box=box.SIMPLE_HEAD, show_header=any(columns), collapse_padding=narrow)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < text_columns else "right", overflow="fold")
    cells = [list(row) for row in rows]
    for i, row in enumerate(cells):
        if last_is_total and i == len(cells) - 1:
            table.add_section()
        table.add_row(*row)
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
    if verbose or shown_as() != "bar":
        yield note if verbose else lambda line: None
        return
    from rich.text import Text

    with stderr_console().status("starting") as status:
        # Text, not a string: brackets in a compiler's line are no markup.
        yield lambda line: status.update(Text(line.strip(), no_wrap=True, overflow="ellipsis"))


def report_error(error: BnnmcuError, *, as_json: bool, shown: bool = False) -> int:
    """Print an error and give the exit code; ``shown`` if people have seen it already."""
    if _mode == "json":
        emit("error", **error.as_dict())
        emit("end", exit_code=error.exit_code)
    elif not shown:
        print(f"error: {error}", file=sys.stderr)
    if as_json:
        print_json(error.as_dict())
        sys.stdout.flush()
    return error.exit_code


def report_interrupt(text: str, **fields: str | int) -> int:
    """Say what an interrupted run leaves and how it goes on, and give the exit code.

    Args:
        text: what is stored, for people.
        fields: of the JSON line; ``next`` is the command that goes on.
    """
    if _mode == "json":
        emit("interrupted", **fields)
        emit("end", exit_code=INTERRUPTED)
    else:
        print(
            f"interrupted: {text}\n  next: the same command goes on: {fields['next']}",
            file=sys.stderr,
            flush=True,
        )
    return INTERRUPTED
