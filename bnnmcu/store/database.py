"""The SQLite file under a store: how it is opened, checked and committed, and its errors."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnnmcu.errors import StoreError
from bnnmcu.store.identity import check_facts
from bnnmcu.store.place import check_place
from bnnmcu.store.schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    check_objects,
    create,
)
from bnnmcu.store.schema_old import OLD_TABLES
from bnnmcu.store.values import MAX_BYTES, differences, plain_json, short

__all__ = [
    "Syncing",
    "check_identity",
    "check_kind",
    "connect",
    "explained",
    "fill_new",
    "harden",
    "is_empty",
    "read_identity",
    "transaction",
]

# Readers hold SQLite's locks for moments only; whoever writes has a lock of his own.
_PATIENCE = 2.0
#: What another program may do meanwhile is of no use with less.
_LITTLE_SPACE = 256 * 1024


def _in_our_words(error: sqlite3.Error, path: Path) -> tuple[str, str]:
    """What went wrong, and what to do next."""
    name, text = str(getattr(error, "sqlite_errorname", "")), str(error)
    again = "free some space and start the run again: it resumes"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another process is using this store", "wait for it, or stop it"
    if name == "SQLITE_FULL":
        return "the disk is full", again
    if name.startswith("SQLITE_IOERR"):
        with contextlib.suppress(OSError):
            if shutil.disk_usage(path.resolve().parent).free < _LITTLE_SPACE:
                return f"the disk is full ({text})", again
        return (
            f"the disk refuses: {text} ({name})",
            "check quota, limits and the disk, then start the run again: it resumes",
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"cannot be written: {text}", "check the folder and its permissions"
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_TOOBIG")) or "decode" in text:
        return f"not a sound results file: {text}", "move it away and start a new run"
    return f"SQLite: {text}", "check the disk and the file"


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours, each with what to do next."""
    try:
        yield
    except sqlite3.Error as error:
        what, hint = _in_our_words(error, path)
        raise StoreError(what, where=str(path), hint=hint) from error


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled it back before us.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


class Syncing:
    """How much a power failure may take: about a second of answers, and no crafted image.

    With a write-ahead log and ``synchronous = NORMAL`` a commit is a write to the
    log: it survives ``kill -9`` at once, and a power failure leaves a sound file
    that may lack the latest commits, up to megabytes of them, since only
    checkpoints wait for the disk.  ``FULL`` waits at every commit, which is slower
    than a fast link.  So a commit waits if none has for a second.

    Args:
        database: in a write-ahead log.
        every: seconds of the monotonic clock, which nobody sets.
    """

    def __init__(self, database: sqlite3.Connection, every: float = 1.0) -> None:
        self._database = database
        self._every = every
        self._last = -every
        self._level = ""

    @contextlib.contextmanager
    def commit(self, *, now: bool = False) -> Iterator[None]:
        """A transaction; ``now`` waits for the disk in any case."""
        begun = time.monotonic()
        waits = now or begun - self._last >= self._every
        level = "FULL" if waits else "NORMAL"
        if level != self._level:
            self._database.execute(f"PRAGMA synchronous = {level}")
            self._level = level
        with transaction(self._database):
            yield
        if waits:
            self._last = begun


def check_identity(path: Path, mine: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Raise a StoreError that names the differing fields if these are two runs."""
    different = [
        f"{name} ({short(theirs)} in the file, {short(now)} now)"
        for name, now, theirs in differences(mine, stored)
    ]
    if different:
        raise StoreError(
            "this file holds another run; different: " + "; ".join(different),
            where=str(path),
            hint="give the run a new file, or repeat it with the settings it was begun with",
        )


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open the file; it is created only where it is to be written.

    Nothing in the file can act: functions in its schema are not trusted, and
    extensions cannot be loaded (Python's default, never switched on).
    """
    if writable:
        check_place(path)
        if path.is_file() and path.stat().st_nlink > 1:
            # SQLite would keep a log for each name, and mix them up.
            raise StoreError(
                "the file has several names (hard links)",
                where=str(path),
                hint=f"make it a file of its own: cp {path} COPY, and use the copy",
            )
    mode = "rwc" if writable else "ro"
    # as_uri() escapes '?' and '#', which would end a path in a URI.
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)
    harden(database)
    if not writable:
        database.execute("PRAGMA query_only = ON")
    return database


def harden(database: sqlite3.Connection) -> None:
    """Trust nothing that a file brings along."""
    database.execute("PRAGMA trusted_schema = OFF")
    database.execute("PRAGMA cell_size_check = ON")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)


def is_empty(database: sqlite3.Connection) -> bool:
    """Whether nothing was ever stored: a new file."""
    (count,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(count == 0)


def fill_new(database: sqlite3.Connection, identity: Mapping[str, Any]) -> None:
    """Tables and identity of a new run, as part of the open transaction."""
    create(database)
    database.execute(
        "INSERT INTO run (id, identity) VALUES (1, ?)", (json.dumps(identity, sort_keys=True),)
    )


def check_kind(path: Path, database: sqlite3.Connection) -> int:
    """The schema's version of a sound file of our own.

    Raises:
        StoreError: it is another kind of file, of an unknown version, altered or damaged.
    """
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreError(
            "an SQLite file, but no results of bnnmcu",
            where=str(path),
            hint="give the run a file of its own",
        )
    if version not in (*OLD_TABLES, SCHEMA_VERSION):
        raise StoreError(
            f"results of schema version {version}; this bnnmcu reads {min(OLD_TABLES)} "
            f"to {SCHEMA_VERSION}",
            where=str(path),
            hint="use the bnnmcu that wrote it, or start a new run",
        )
    # Before any table is touched: what a definition says happens when it is used.
    check_objects(path, database, int(version))
    (state,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if state != "ok" or database.execute("PRAGMA foreign_key_check").fetchone():
        raise StoreError(
            f"the file is damaged: {state if state != 'ok' else 'rows that belong to none'}",
            where=str(path),
            hint="move it away and start a new run",
        )
    return int(version)


def read_identity(path: Path, database: sqlite3.Connection) -> dict[str, Any]:
    """The identity of the run that the file holds."""
    rows = database.execute("SELECT identity FROM run").fetchall()
    try:
        identity = plain_json(rows[0][0]) if len(rows) == 1 else None
    except ValueError:
        identity = None
    if not isinstance(identity, dict):
        raise StoreError(
            "the file does not say which run it is of",
            where=str(path),
            hint="move it away and start a new run",
        )
    check_facts(path, identity)
    return identity
