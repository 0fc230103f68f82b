"""From version 1 of the schema to the present one."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from bnnmcu.store.database import harden, transaction
from bnnmcu.store.rows import pixels_sha256
from bnnmcu.store.schema import create
from bnnmcu.store.values import Checker

__all__ = ["in_memory", "migrate"]

_OLD = ("run", "session", "example", "query")


def migrate(path: Path, database: sqlite3.Connection) -> Path:
    """Bring a checked file of version 1 up to date; gives the copy that was kept.

    All in one transaction: after a kill the file is of one version or the other.

    Raises:
        StoreError: the file was altered.
    """
    copy = _keep_copy(path, database)
    with transaction(database):
        _upgrade(path, database)
    return copy


def in_memory(path: Path, database: sqlite3.Connection) -> sqlite3.Connection:
    """The present version of a checked file of version 1, which stays as it is."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        harden(memory)
        database.backup(memory)
        with transaction(memory):
            _upgrade(path, memory)
    except BaseException:
        memory.close()
        raise
    return memory


def _keep_copy(path: Path, database: sqlite3.Connection) -> Path:
    """``NAME.v1`` beside the file, or ``NAME.v1-2`` where that is taken."""
    names = itertools.chain(
        [f"{path.name}.v1"], (f"{path.name}.v1-{i}" for i in itertools.count(2))
    )
    copy = next(candidate for name in names if not (candidate := path.with_name(name)).exists())
    partial = path.with_name(f".{copy.name}.partial")
    partial.unlink(missing_ok=True)
    target = sqlite3.connect(partial)
    try:
        database.backup(target)
        # The copy of a killed run would otherwise want a log of its own.
        target.execute("PRAGMA journal_mode = DELETE")
    except BaseException:
        target.close()
        partial.unlink(missing_ok=True)
        raise
    target.close()
    return partial.rename(copy)


def _upgrade(path: Path, database: sqlite3.Connection) -> None:
    database.execute("PRAGMA defer_foreign_keys = ON")
    for table in _OLD:
        database.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    create(database)
    database.execute("INSERT INTO run SELECT id, identity FROM old_run")
    boards = {}
    for session, started, provenance in database.execute("SELECT * FROM old_session").fetchall():
        about = Checker(path, f"session {session}").mapping("provenance", provenance)
        boards[session] = str(about.get("board", ""))[:200]
        database.execute(
            "INSERT INTO session VALUES (?, ?, NULL, ?)", (session, started, provenance)
        )
    for row, *values, session in database.execute("SELECT * FROM old_example ORDER BY id"):
        values[5] = _new_sha256(path, row, values[4], values[5])
        database.execute("INSERT INTO example VALUES (?,?,?,?,?,?,?,?,?,?,?)", (row, *values))
        # When it was crafted, version 1 did not say.
        database.execute("INSERT INTO crafting VALUES (?, ?, NULL, NULL)", (row, session))
    database.execute(
        "INSERT INTO query SELECT q.example, q.draw, e.sha256, q.seed, q.logits, q.label "
        "FROM old_query q JOIN example e ON e.id = q.example"
    )
    database.executemany(
        "INSERT INTO timing SELECT example, draw, session, ?, answered_at, NULL, NULL, ticks, "
        "polluted FROM old_query WHERE session = ?",
        [(board, session) for session, board in boards.items()],
    )
    for table in reversed(_OLD):
        database.execute(f"DROP TABLE old_{table}")


def _new_sha256(path: Path, row: int, pixels: bytes, old: str) -> str:
    """Version 1 hashed the shape too, but did not store it: one of the possible ones must fit."""
    for shape in _shapes(len(pixels)):
        if hashlib.sha256(repr(shape).encode() + pixels).hexdigest() == old:
            return pixels_sha256(pixels)
    raise Checker(path, f"example {row}").fail("its pixels were altered: no shape has its SHA-256")


def _shapes(size: int) -> Iterator[tuple[int, int, int]]:
    """(H, W, C) of that many values, few channels first."""
    divisors = [n for n in range(1, int(size**0.5) + 1) if size % n == 0]
    divisors = sorted({*divisors, *(size // n for n in divisors)})
    for channels in divisors:
        for height in divisors:
            if (size // channels) % height == 0:
                yield height, size // channels // height, channels
