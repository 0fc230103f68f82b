"""From earlier versions of the schema to the present one."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from bnnmcu.store.database import harden, transaction
from bnnmcu.store.rows import NO_TARGET, pixels_sha256
from bnnmcu.store.schema import create
from bnnmcu.store.values import Checker

__all__ = ["in_memory", "migrate"]

# In an order in which every table stands before those that refer to it.
_OLD = {
    1: ("run", "session", "example", "query"),
    2: ("run", "session", "example", "crafting", "query", "timing"),
}


def migrate(path: Path, database: sqlite3.Connection, version: int) -> Path:
    """Bring a checked file of that earlier version up to date; gives the copy that was kept.

    All in one transaction: after a kill the file is of one version or the other.

    Raises:
        StoreError: the file was altered.
    """
    copy = _keep_copy(path, database, version)
    with transaction(database):
        _upgrade(path, database, version)
    return copy


def in_memory(path: Path, database: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """The present version of a checked file of an earlier one, which stays as it is."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        harden(memory)
        database.backup(memory)
        with transaction(memory):
            _upgrade(path, memory, version)
    except BaseException:
        memory.close()
        raise
    return memory


def _keep_copy(path: Path, database: sqlite3.Connection, version: int) -> Path:
    """``NAME.v1`` beside the file, or ``NAME.v1-2`` where that is taken."""
    first = f"{path.name}.v{version}"
    names = itertools.chain([first], (f"{first}-{i}" for i in itertools.count(2)))
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


def _upgrade(path: Path, database: sqlite3.Connection, version: int) -> None:
    """To the present version, as part of the open transaction."""
    database.execute("PRAGMA defer_foreign_keys = ON")
    # A view would be rewritten to follow the tables that it reads.
    database.execute("DROP VIEW IF EXISTS queries")
    for table in _OLD[version]:
        database.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    create(database)
    database.execute("INSERT INTO run SELECT id, identity FROM old_run")
    if version == 1:
        _from_1(path, database)
    else:
        _from_2(database)
    for table in reversed(_OLD[version]):
        database.execute(f"DROP TABLE old_{table}")


def _from_2(database: sqlite3.Connection) -> None:
    """Version 2 knew no targets: every attack was untargeted."""
    database.execute("INSERT INTO session SELECT * FROM old_session")
    database.execute(
        "INSERT INTO example SELECT id, attack, levels, image, ?, true_label, pixels, sha256, "
        "linf, l2, zero_gradients, crafted_by FROM old_example",
        (NO_TARGET,),
    )
    database.execute("INSERT INTO crafting SELECT * FROM old_crafting")
    database.execute("INSERT INTO query SELECT * FROM old_query")
    database.execute("INSERT INTO timing SELECT * FROM old_timing")


def _from_1(path: Path, database: sqlite3.Connection) -> None:
    """Version 1 had times and counts among the content, and another hash of the pixels."""
    boards = {}
    for session, started, provenance in database.execute("SELECT * FROM old_session").fetchall():
        about = Checker(path, f"session {session}").mapping("provenance", provenance)
        boards[session] = str(about.get("board", ""))[:200]
        database.execute(
            "INSERT INTO session VALUES (?, ?, NULL, ?)", (session, started, provenance)
        )
    for row, *values, session in database.execute("SELECT * FROM old_example ORDER BY id"):
        values[5] = _new_sha256(path, row, values[4], values[5])
        values.insert(3, NO_TARGET)
        database.execute("INSERT INTO example VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", (row, *values))
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
