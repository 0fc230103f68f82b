"""The tables of earlier versions, to the letter; only ever compared with and read from."""

from __future__ import annotations

__all__ = ["OLD_TABLES"]

_VERSION_1 = """
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

# Times and counts got tables of their own; an image had no target yet.
_VERSION_2 = """
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
    true_label INTEGER NOT NULL,
    pixels BLOB NOT NULL,
    sha256 TEXT NOT NULL,
    linf INTEGER NOT NULL,
    l2 REAL NOT NULL,
    zero_gradients REAL NOT NULL,
    crafted_by TEXT NOT NULL,
    UNIQUE (attack, levels, image)
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
SELECT e.attack, e.levels, e.image, e.true_label, q.draw, q.input_sha256, q.seed, q.label,
    q.logits, e.linf, e.l2, e.zero_gradients, e.crafted_by, t.board, t.answered_at, t.latency_s,
    t.attempts, t.ticks, t.polluted, t.session
FROM example e
JOIN query q ON q.example = e.id
JOIN timing t ON t.example = q.example AND t.draw = q.draw;
"""

#: Statements by version, each a whole schema.
OLD_TABLES = {1: _VERSION_1, 2: _VERSION_2}
