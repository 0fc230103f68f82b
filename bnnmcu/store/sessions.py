"""Every time a run was started, with what was known of it then."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnnmcu.store.provenance import git_revision, host, now, versions
from bnnmcu.store.values import Checker

__all__ = ["Session", "begin_session", "read_sessions"]


@dataclass(frozen=True)
class Session:
    """One start of a run.

    Attributes:
        row: its number in the file, ascending.
        started_at: UTC, as the clock of the host said.
        ended_at: likewise; None while it goes on, and for ever if it was killed.
        provenance: command, versions, board and whatever else was known.
    """

    row: int
    started_at: str
    ended_at: str | None
    provenance: Mapping[str, Any]


def begin_session(database: sqlite3.Connection, path: Path, about: Mapping[str, Any]) -> int:
    """Add a session that begins now, as part of the open transaction; gives its row.

    Args:
        database: of the present schema.
        path: for messages.
        about: what is known of it; versions, machine and the code's revision are added.

    Raises:
        StoreError: it says of board or command what could not be read again.
    """
    about = {**about, "versions": versions(), "host": host()}
    if revision := git_revision():
        about["bnnmcu_revision"] = revision
    _check_provenance(Checker(path, "this session"), about)
    cursor = database.execute(
        "INSERT INTO session (started_at, provenance) VALUES (?, ?)",
        (now(), json.dumps(about, sort_keys=True, allow_nan=False)),
    )
    return int(cursor.lastrowid or 0)


def _check_provenance(check: Checker, about: Mapping[str, Any]) -> None:
    """Raise a StoreError if what people are shown of a session is not what it should be."""
    board, command, versions = (about.get(name) for name in ("board", "command", "versions"))
    if board is not None and not isinstance(board, str):
        raise check.fail(f"board is {board!r:.40}, not text")
    if command is not None and not (
        isinstance(command, list) and all(isinstance(word, str) for word in command)
    ):
        raise check.fail(f"command is {command!r:.40}, not a list of words")
    if versions is not None and not (
        isinstance(versions, Mapping) and all(isinstance(text, str) for text in versions.values())
    ):
        raise check.fail(f"versions is {versions!r:.40}, not names with versions")


def read_sessions(database: sqlite3.Connection, path: Path) -> list[Session]:
    """All sessions of a file, in order, each value checked.

    Raises:
        StoreError: a value that no session writes.
    """
    found = []
    for row, started, ended, provenance in database.execute(
        "SELECT id, started_at, ended_at, provenance FROM session ORDER BY id"
    ):
        check = Checker(path, f"session {row}")
        about = check.mapping("provenance", provenance)
        _check_provenance(check, about)
        found.append(
            Session(
                row=check.integer("id", row, 1, 2**62),
                started_at=check.time("started_at", started),
                ended_at=None if ended is None else check.time("ended_at", ended),
                provenance=about,
            )
        )
    return found
