"""Where a results file, or a table made of one, may be written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from bnnmcu.errors import StoreError, UsageError
from bnnmcu.outputs import output_path

__all__ = ["check_place", "check_tables", "new_results", "table_path"]

_MAGIC = b"SQLite format 3\0"
#: What SQLite takes for a part of the file beside it.
_LOGS = ("-wal", "-shm", "-journal")
_SIDECARS = (*_LOGS, ".lock")
_TABLE_HINT = "give the name of a file, or use '--csv -' for standard output: '--csv - > FILE'"


def check_place(path: Path) -> None:
    """Raise an error if no results file can be at ``path``; nothing is opened.

    Raises:
        StoreError: its folder does not exist.
        UsageError: a folder, a device or a pipe is there.
    """
    _check_folder(path)
    # What the system refuses is told by whoever opens it.
    with contextlib.suppress(OSError):
        output_path(path)


def new_results(output: Path) -> Path:
    """Where a results file that is not there yet is made, behind all links.

    Raises:
        StoreError: something is there already, or its folder does not exist.
        UsageError: what is there is no file, or the name belongs to another results file.
    """
    target = output_path(output)
    if target.exists():
        raise StoreError("is there already", where=str(output), hint="choose a new file for -o")
    _check_folder(target)
    _refuse_sidecar(output, target)
    for suffix in _LOGS:
        log = target.with_name(target.name + suffix)
        if os.path.lexists(log):
            raise StoreError(
                "is of a file that is gone, and would be taken for a part of the new one",
                where=str(log),
                hint="move it away, or choose another file for -o",
            )
    return target


def table_path(output: Path) -> Path:
    """Where a table is written, behind all links; a file that is there may be replaced.

    Raises:
        UsageError: what is there is no file, a results file or a part of one, or its
            folder does not exist.
        OSError: what is there cannot be looked at.
    """
    target = output_path(output, hint=_TABLE_HINT)
    if not target.parent.is_dir():
        raise UsageError(
            "its folder does not exist", where=str(output), hint=f"mkdir -p {target.parent}"
        )
    if _is_results(target):
        raise UsageError(
            "a results file would be overwritten",
            where=str(output),
            hint="choose another file for the table",
        )
    _refuse_sidecar(output, target)
    return target


def check_tables(outputs: Iterable[Path]) -> None:
    """Raise an error if one of several tables cannot be written, or two would be one file.

    Raises:
        UsageError: see :func:`table_path`.
        OSError: likewise.
    """
    seen: dict[str, Path] = {}
    for output in outputs:
        name = os.path.normcase(table_path(output))
        if name in seen:
            raise UsageError(
                "two tables in one file",
                where=f"{seen[name]}, {output}",
                hint="give each a file of its own",
            )
        seen[name] = output


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise StoreError(
            "its folder does not exist", where=str(path), hint=f"mkdir -p {path.parent}"
        )


def _is_results(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def _refuse_sidecar(output: Path, target: Path) -> None:
    """Its log holds answers, and its lock keeps others out: neither is there for long."""
    for suffix in _SIDECARS:
        owner = target.with_name(target.name.removesuffix(suffix))
        if target.name.endswith(suffix) and owner.name and _is_results(owner):
            raise UsageError(
                f"the name belongs to the results file {owner.name}",
                where=str(output),
                hint="choose another file",
            )
