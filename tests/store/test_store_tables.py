"""Tables for other programs, and that whatever a run can hold comes back as it was."""

from __future__ import annotations

import csv
import json
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_rig as rig
from hypothesis import given, settings
from hypothesis import strategies as st

from bnnmcu.errors import StoreError, UsageError
from bnnmcu.store import Example, Store
from bnnmcu.store.export import COLUMNS, export_csv, export_parquet
from bnnmcu.store.merge import merge

IMAGES = 20


def _values(path: Path) -> list[dict[str, Any]]:
    """What the view in the file says, as SQLite gives it."""
    with closing(sqlite3.connect(path)) as file:
        file.row_factory = sqlite3.Row
        rows = [dict(row) for row in file.execute("SELECT * FROM queries")]
    for row in rows:
        logits = np.frombuffer(row.pop("logits"), "<i8").tolist()
        row |= {f"logit_{i}": value for i, value in enumerate(logits)}
    return rows


def test_tables_hold_what_the_file_holds(whole: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    assert export_csv(whole, tmp_path / "run.csv").rows == 120
    assert export_parquet(whole, tmp_path / "run.parquet").rows == 120
    expected = _values(whole)
    assert list(expected[0]) != []
    table = parquet.read_table(tmp_path / "run.parquet")
    assert table.column_names == [*COLUMNS, *(f"logit_{i}" for i in range(rig.CLASSES))]
    assert table.to_pylist() == expected
    assert json.loads(table.schema.metadata[b"bnnmcu.identity"]) == rig.identity(IMAGES)
    with (tmp_path / "run.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{name: str(value) for name, value in row.items()} for row in expected]
    # Written again in place, but never over results.
    export_csv(whole, tmp_path / "run.csv")
    with pytest.raises(UsageError, match="results file"):
        export_csv(whole, whole)


def test_what_is_not_known_is_an_empty_cell(old: Path) -> None:
    output = old.with_name("old.csv")
    assert export_csv(old, output).to_dict() == {"rows": 21, "unanswered": 1}
    with output.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["latency_s"], row["attempts"]) for row in rows} == {("", "")}
    assert [row["ticks"] == "" for row in rows[:9]] == [row["image"] == "2" for row in rows[:9]]


_names = st.from_regex(r"\A[a-z][a-z0-9_.-]{0,10}\Z")
_answers = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4),
        st.integers(0, 2**32 - 1),
    ),
    min_size=2,
    max_size=2,
)


@settings(max_examples=15)
@given(
    attack=_names,
    pixels=st.binary(min_size=6, max_size=6),
    l2=st.floats(0, 1e3),
    share=st.floats(0, 1),
    answers=_answers,
    latency=st.none() | st.floats(0, 1e6),
    board=st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20),
    target=st.none() | st.sampled_from([0, 1, 2]),
    seeded=st.booleans(),
)
def test_anything_a_run_can_hold_comes_back(
    attack: str,
    pixels: bytes,
    l2: float,
    share: float,
    answers: list[tuple[int, list[int], int]],
    latency: float | None,
    board: str,
    target: int | None,
    seeded: bool,
) -> None:
    array = np.frombuffer(pixels, np.uint8).reshape(1, 2, 3)
    seeds, logits, ticks = (list(column) for column in zip(*answers, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder, "run.db"), Path(folder, "merged.db")
        with Store.open(path, {"data": {"images": 9}}) as store:
            one = Example(attack, 3, 8, 3, array, 255, l2, share, {"x": board}, target)
            store.add_examples([one])
            store.add_answer(
                1, np.array(seeds, np.uint64) if seeded else None,
                np.array(logits, np.int64), np.array(ticks, np.uint32), True,
                latency_s=latency, attempts=7, board=board,
            )  # fmt: skip
        merge([path, path], copy)
        for file in (path, copy):
            with Store.read(file) as store:
                (one,) = store.rows()
                (judged,) = store.judged()
            assert (one.attack, one.pixels, one.l2, one.zero_gradients, one.target) == (
                attack, pixels, l2, share, target,
            )  # fmt: skip
            assert (judged.target, judged.details, judged.seeded) == (target, {"x": board}, seeded)
            assert json.loads(one.crafted_by) == {"x": board}
            told = [f"{seed:016x}" if seeded else "unknown" for seed in seeds]
            found = [(d.seed, list(d.logits), d.ticks) for d in one.draws]
            assert found == list(zip(told, logits, ticks, strict=True))
            assert {(d.latency_s, d.attempts, d.board, d.polluted) for d in one.draws} == {
                (latency, 7, board, True)
            }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attack", "a b"),
        ("levels", 255_001),
        ("image", -1),
        ("l2", float("nan")),
        ("linf", 300),
        ("target", 1),
        ("target", -1),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path: Path, field: str, value: object) -> None:
    good = Example("pgd", 3, 1, 1, np.zeros((1, 1, 1), np.uint8))
    with Store.open(tmp_path / "run.db", {}) as store:
        with pytest.raises(StoreError, match=field):
            store.add_examples([good, replace(good, **{"image": 2, field: value})])  # type: ignore[arg-type]
        assert store.examples("pgd", 3) == set()
        store.add_examples([good])
        with pytest.raises(StoreError, match="board"):
            store.add_answer(1, np.array([1]), np.eye(1, dtype=int), None, False, board="\x1b[2J")
        assert store.judged() == []
