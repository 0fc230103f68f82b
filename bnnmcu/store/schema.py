"""The tables of a results file, and the check that a file has these and nothing else.

*Content* is what two runs of one campaign must have in common, bit for bit:
``run``, ``example`` and ``query``.  Whatever may differ from one run to the next
(times, counts, machines, how often a request was sent) is in tables of its own,
so that runs can be compared without knowing which column means what.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bnnmcu.errors import StoreError
from bnnmcu.store.schema_old import OLD_TABLES

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "check_objects", "create"]

SCHEMA_VERSION = 3
#: "bnnr" in ASCII: tells our files from other SQLite databases.
APPLICATION_ID = 0x626E6E72

_TABLES = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    identity TEXT NOT NULL
) STRICT;
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    ended_at TEXT,
    provenance TEXT NOT NULL
) STRICT;
CREATE TABLE example (
    id INTEGER PRIMARY KEY,
    attack TEXT NOT NULL,
    levels INTEGER NOT NULL,
    image INTEGER NOT NULL,
    target INTEGER NOT NULL,
    true_label INTEGER NOT NULL,
    pixels BLOB NOT NULL,
    sha256 TEXT NOT NULL,
    linf INTEGER NOT NULL,
    l2 REAL NOT NULL,
    zero_gradients REAL NOT NULL,
    crafted_by TEXT NOT NULL,
    UNIQUE (attack, levels, image, target)
) STRICT;
CREATE TABLE crafting (
    example INTEGER PRIMARY KEY REFERENCES example (id),
    session INTEGER NOT NULL REFERENCES session (id),
    at TEXT,
    seconds REAL
) STRICT;
CREATE TABLE query (
    example INTEGER NOT NULL REFERENCES example (id),
    draw INTEGER NOT NULL,
    input_sha256 TEXT NOT NULL,
    seed TEXT NOT NULL,
    logits BLOB NOT NULL,
    label INTEGER NOT NULL,
    PRIMARY KEY (example, draw)
) STRICT, WITHOUT ROWID;
CREATE TABLE timing (
    example INTEGER NOT NULL,
    draw INTEGER NOT NULL,
    session INTEGER NOT NULL REFERENCES session (id),
    board TEXT NOT NULL,
    answered_at TEXT NOT NULL,
    latency_s REAL,
    attempts INTEGER,
    ticks INTEGER,
    polluted INTEGER NOT NULL,
    PRIMARY KEY (example, draw),
    FOREIGN KEY (example, draw) REFERENCES query (example, draw)
) STRICT, WITHOUT ROWID;
CREATE VIEW queries AS
SELECT e.attack, e.levels, e.image, e.target, e.true_label, q.draw, q.input_sha256, q.seed,
    q.label, q.logits, e.linf, e.l2, e.zero_gradients, e.crafted_by, t.board, t.answered_at,
    t.latency_s, t.attempts, t.ticks, t.polluted, t.session
FROM example e
JOIN query q ON q.example = e.id
JOIN timing t ON t.example = q.example AND t.draw = q.draw;
"""


def create(database: sqlite3.Connection) -> None:
    """Make the tables of the present version, as part of the open transaction."""
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    # Not executescript(), which would commit first.
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            database.execute(statement)


def _objects(database: sqlite3.Connection) -> set[tuple[str, str, str, str]]:
    # None belongs to the indices that SQLite makes by itself.
    query = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master"
    return {(str(a), str(b), str(c), str(d)) for a, b, c, d in database.execute(query)}


def check_objects(path: Path, database: sqlite3.Connection, version: int) -> None:
    """Raise a StoreError unless the file has exactly the tables of that version.

    A trigger, view or column of somebody else's could run or hide things while
    we read and write, so the text of every definition must be the one above.
    """
    expected = sqlite3.connect(":memory:")
    try:
        expected.executescript(_TABLES if version == SCHEMA_VERSION else OLD_TABLES[version])
        wanted = _objects(expected)
    finally:
        expected.close()
    found = _objects(database)
    if found == wanted:
        return
    odd = sorted(f"{kind} {name!r}" for kind, name, _, _ in found ^ wanted)
    raise StoreError(
        f"its tables are not those of a results file: {', '.join(dict.fromkeys(odd[:5]))}",
        where=str(path),
        hint="somebody altered the file: move it away and start a new run",
    )
