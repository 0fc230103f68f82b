"""The results file: whole or not at all, one process, one run, and clear refusals."""

from __future__ import annotations

import copy
import hashlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.errors import StoreError, UsageError
from bnnmcu.store import Example, Store

IDENTITY: dict[str, Any] = {
    "config": {"attacks": [{"attack": "fgsm", "epsilon": 0.1}], "draws": 3, "seed": 1},
    "data": {"images": 1000},
}


def example(image: int, attack: str = "clean") -> Example:
    """A small image that tells its index."""
    return Example(attack, 0, image, 1, np.full((2, 2, 1), image % 256, np.uint8))


def answer(store: Store, row: int, label: int = 1) -> None:
    """Three draws that all give ``label``."""
    logits = np.zeros((3, 4), dtype=np.int64)
    logits[:, label] = -(2**40) + 2**41
    seeds = np.array([0, 2**63, 2**64 - 1], dtype=np.uint64)
    store.add_answer(row, seeds, logits, np.array([5, 6, 2**32 - 1], dtype=np.uint32), False)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path = tmp_path / "run ?#%.db"
    with Store.open(path, IDENTITY, provenance={"command": ["x"]}) as store:
        assert not store.resumed
        store.add_examples([example(2), example(0)])
        assert store.examples("clean", 0) == {(0, None), (2, None)}
        assert store.examples("clean", 1) == set()
        todo = store.unanswered("clean", 0, (2, 2, 1))
        assert [(one.image, one.pixels.tolist()) for one in todo] == [
            (0, [[[0], [0]], [[0], [0]]]),
            (2, [[[2], [2]], [[2], [2]]]),
        ]
        answer(store, todo[1].row)
        assert [one.image for one in store.unanswered("clean", 0, (2, 2, 1))] == [0]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with Store.read(path) as store:
        (judged,) = store.judged()
        assert (judged.image, judged.labels, judged.ticks) == (2, (1, 1, 1), (5, 6, 2**32 - 1))
        assert store.identity == IDENTITY
    with sqlite3.connect(path) as database:
        seeds = [row[0] for row in database.execute("SELECT seed FROM query ORDER BY draw")]
        assert seeds == ["0" * 16, "8" + "0" * 15, "f" * 16]
        (blob,) = database.execute("SELECT logits FROM query").fetchone()
        assert np.frombuffer(blob, "<i8").tolist() == [0, 2**40, 0, 0]
        (provenance,) = database.execute("SELECT provenance FROM session").fetchone()
        assert '"command": ["x"]' in provenance
        assert '"numpy"' in provenance
        timing = database.execute("SELECT draw, attempts, ticks, polluted FROM timing").fetchall()
        assert timing == [(0, 1, 5, 0), (1, 1, 6, 0), (2, 1, 2**32 - 1, 0)]
        assert database.execute(
            "SELECT count(*) FROM queries WHERE input_sha256 = ?",
            (hashlib.sha256(bytes([2, 2, 2, 2])).hexdigest(),),
        ).fetchone() == (3,)


def test_resuming_keeps_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    for session in range(3):
        with Store.open(path, IDENTITY) as store:
            assert store.resumed == (session > 0)
            assert store.examples("clean", 0) == {(image, None) for image in range(session)}
            store.add_examples([example(session)])


@pytest.mark.parametrize("answers", [False, True])
def test_a_failing_transaction_leaves_nothing(tmp_path: Path, answers: bool) -> None:
    with Store.open(tmp_path / "run.db", IDENTITY) as store:
        store.add_examples([example(1)])
        (todo,) = store.unanswered("clean", 0, (2, 2, 1))
        if answers:
            answer(store, todo.row)
            with pytest.raises(StoreError, match="UNIQUE"):
                answer(store, todo.row)
        else:
            with pytest.raises(StoreError, match="UNIQUE"):
                store.add_examples([example(0), example(1)])
        assert store.examples("clean", 0) == {(1, None)}


def _changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    identity = copy.deepcopy(IDENTITY)
    target: Any = identity
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return identity


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("config", "draws"), 4, r"config\.draws \(3 in the file, 4 now\)"),
        (("config", "attacks", 0, "epsilon"), 0.2, r"config\.attacks\.0\.epsilon"),
        (("config", "attacks"), [], r"config\.attacks "),
        (("data", "sha256"), "ab", r"data\.sha256 \(null in the file"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(
    tmp_path: Path, path: tuple[Any, ...], value: Any, message: str
) -> None:
    file = tmp_path / "run.db"
    with Store.open(file, IDENTITY) as store, pytest.raises(StoreError, match=message):
        store.check(_changed(path, value))
    before = file.read_bytes()
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(file, _changed(path, value))
    assert caught.value.hint is not None
    assert "new file" in caught.value.hint
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [file.name]


def _foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (a)")
    database.close()


def _newer_schema(path: Path) -> None:
    Store.open(path, IDENTITY).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def _damaged(path: Path) -> None:
    with Store.open(path, IDENTITY) as store:
        store.add_examples([example(i, attack) for attack in "abcdef" for i in range(200)])
    raw = bytearray(path.read_bytes())
    raw[5000:-100] = b"\xa5" * (len(raw) - 5100)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"PNG, say" * 200), "not a sound results file"),
        (_foreign_database, "no results of bnnmcu"),
        (_newer_schema, "schema version 99"),
        (_damaged, "damaged|not a sound"),
        (lambda path: path.mkdir(), "is a folder, not a file"),
    ],
    ids=["text", "foreign", "newer", "damaged", "folder"],
)
def test_other_files_are_refused_and_left_alone(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "run.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises((StoreError, UsageError), match=message):
        Store.open(path, IDENTITY)
    if before is not None:
        assert path.read_bytes() == before
        with pytest.raises(StoreError, match=message):
            Store.read(path)


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder does not exist"):
        Store.open(tmp_path / "no" / "run.db", IDENTITY)
    with pytest.raises(StoreError, match="no such results file"):
        Store.read(tmp_path / "run.db")
    path = tmp_path / "run.db"
    Store.open(path, IDENTITY).close()
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        if os.access(path, os.W_OK):
            pytest.skip("this user may write read-only files (root)")
        with Store.read(path) as store:
            assert store.judged() == []
        with pytest.raises(StoreError, match="cannot be written"):
            Store.open(path, IDENTITY)
    finally:
        tmp_path.chmod(0o755)


def test_a_full_disk_is_named_and_harmless(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    with Store.open(path, IDENTITY) as store:
        store.add_examples([example(0)])
        (pages,) = store._database.execute("PRAGMA page_count").fetchone()
        # SQLite reports a file at its page limit as it reports a full disk.
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="disk is full") as caught:
            store.add_examples([example(i) for i in range(1, 500)])
        assert "resumes" in str(caught.value.hint)
    with Store.open(path, IDENTITY) as store:
        assert store.examples("clean", 0) == {(0, None)}
