"""The SQLite file under a store: schema, lock, checks, and its errors in our words."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnnmcu.errors import StoreError

__all__ = [
    "SCHEMA_VERSION",
    "check_identity",
    "check_kind",
    "connect",
    "explained",
    "prepare",
    "read_identity",
]

SCHEMA_VERSION = 1
# "bnnr" in ASCII: tells our files from other SQLite databases.
_APPLICATION_ID = 0x626E6E72

_SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    identity TEXT NOT NULL
) STRICT;
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    provenance TEXT NOT NULL
) STRICT;
CREATE TABLE example (
    id INTEGER PRIMARY KEY,
    attack TEXT NOT NULL,
    levels INTEGER NOT NULL,
    image INTEGER NOT NULL,
    true_label INTEGER NOT NULL,
    pixels BLOB NOT NULL,
    sha256 TEXT NOT NULL,
    linf INTEGER NOT NULL,
    l2 REAL NOT NULL,
    zero_gradients REAL NOT NULL,
    crafted_by TEXT NOT NULL,
    session INTEGER NOT NULL REFERENCES session (id),
    UNIQUE (attack, levels, image)
) STRICT;
CREATE TABLE query (
    example INTEGER NOT NULL REFERENCES example (id),
    draw INTEGER NOT NULL,
    seed TEXT NOT NULL,
    logits BLOB NOT NULL,
    label INTEGER NOT NULL,
    ticks INTEGER,
    polluted INTEGER NOT NULL,
    answered_at TEXT NOT NULL,
    session INTEGER NOT NULL REFERENCES session (id),
    PRIMARY KEY (example, draw)
) STRICT, WITHOUT ROWID;
"""


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, each with what to do next."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            what, hint = "another process is using this store", "wait for it, or stop it"
        elif "full" in text:
            what, hint = "the disk is full", "free some space and start the run again: it resumes"
        elif "readonly" in text or "unable to open" in text:
            what, hint = f"cannot be written: {text}", "check the folder and its permissions"
        elif "not a database" in text or "malformed" in text:
            what, hint = f"not a sound results file: {text}", "move it away and start a new run"
        else:
            what, hint = f"SQLite: {text}", "check the disk and the file"
        raise StoreError(what, where=str(path), hint=hint) from error


def _differences(mine: Any, theirs: Any, prefix: str = "") -> list[str]:
    """Names of the fields in which two identities differ, with both values."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        found = []
        for key in sorted(mine.keys() | theirs.keys()):
            found += _differences(mine.get(key), theirs.get(key), f"{prefix}{key}.")
        return found
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        found = []
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            found += _differences(one, other, f"{prefix}{index}.")
        return found
    if mine == theirs:
        return []

    def short(value: Any) -> str:
        text = json.dumps(value)
        return text if len(text) <= 60 else text[:57] + "..."

    return [f"{prefix[:-1]} ({short(theirs)} in the file, {short(mine)} now)"]


def check_identity(path: Path, mine: dict[str, Any], stored: dict[str, Any]) -> None:
    """Raise a StoreError that names the differing fields if these are two runs."""
    different = _differences(mine, stored)
    if different:
        raise StoreError(
            "this file holds another run; different: " + "; ".join(different),
            where=str(path),
            hint="give the run a new file, or repeat it with the settings it was begun with",
        )


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open the file; it is created only where it is to be written."""
    if writable and not path.parent.is_dir():
        raise StoreError(
            "its folder does not exist", where=str(path), hint=f"mkdir -p {path.parent}"
        )
    mode = "rwc" if writable else "ro"
    # as_uri() escapes '?' and '#', which would end a path in a URI.
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=0.0)


def prepare(path: Path, database: sqlite3.Connection, identity: dict[str, Any]) -> bool:
    """Lock the file, make or check its contents; whether it was there before."""
    # Held until the connection or the process ends; taken with the first access.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    fresh = _is_empty(database)
    if not fresh:
        check_kind(path, database)
    database.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last answers, which are then asked again; it
    # cannot damage the file.
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA foreign_keys = ON")
    if fresh:
        # executescript() would commit before the first statement: begin inside it.
        database.executescript(
            f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION_ID}; "
            f"PRAGMA user_version = {SCHEMA_VERSION}; {_SCHEMA}"
        )
        with database:
            database.execute(
                "INSERT INTO run (id, identity) VALUES (1, ?)",
                (json.dumps(identity, sort_keys=True),),
            )
        return False
    check_identity(path, identity, read_identity(path, database))
    # Writing nothing still proves that the file can be written.
    database.execute("BEGIN IMMEDIATE")
    database.commit()
    return True


def _is_empty(database: sqlite3.Connection) -> bool:
    (count,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(count == 0)


def check_kind(path: Path, database: sqlite3.Connection) -> None:
    """Raise a StoreError unless this is a sound file of our own and of this schema."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION_ID:
        raise StoreError(
            "an SQLite file, but no results of bnnmcu",
            where=str(path),
            hint="give the run a file of its own",
        )
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"results of schema version {version}; this bnnmcu reads {SCHEMA_VERSION}",
            where=str(path),
            hint="use the bnnmcu that wrote it, or start a new run",
        )
    (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if state != "ok":
        raise StoreError(
            f"the file is damaged: {state}",
            where=str(path),
            hint="move it away and start a new run",
        )


def read_identity(path: Path, database: sqlite3.Connection) -> dict[str, Any]:
    """The identity of the run that the file holds."""
    row = database.execute("SELECT identity FROM run WHERE id = 1").fetchone()
    try:
        identity = json.loads(row[0])
    except (TypeError, ValueError):
        identity = None
    if not isinstance(identity, dict):
        raise StoreError(
            "the file does not say which run it is of",
            where=str(path),
            hint="move it away and start a new run",
        )
    return identity
