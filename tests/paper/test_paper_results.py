"""The results file: deterministic, checked to the letter, merged, and never half written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bnnmcu.errors import StoreError, UsageError
from bnnmcu.paper.measure import job
from bnnmcu.paper.published import all_published, published
from bnnmcu.paper.recipes import Trainable
from bnnmcu.paper.record import Record
from bnnmcu.paper.results import (
    add_record,
    merge,
    read_results,
    to_text,
    total_seconds,
    write_results,
)

_DATA = ("MNIST test", "d" * 64)


def record(seed: int = 1, kind: str = "B", **changes: Any) -> Record:
    """A clean error, made up."""
    asked = job(Trainable(kind, 64, seed=seed), "clean")
    made = Record(
        id=asked.id(*_DATA),
        what=asked.what(),
        data_name=_DATA[0],
        data_sha256=_DATA[1],
        data_images=10_000,
        values={"error": 0.015, "images": 10_000, "twin_error": None, "flags": ""},
        model_sha256=f"{seed:064x}",
        graph_sha256="b" * 64,
        training_seconds=500.0,
        measuring_seconds=10.5,
        device="cpu",
        versions={"bnnmcu": "1", "torch": None, "numpy": "2", "python": "3.11"},
        machine="a processor",
        made_at="2026-01-31T12:00:00Z",
        command="bnnmcu paper table6",
    )
    return replace(made, **changes)


def _file(tmp_path: Path, change: Callable[[Any], object]) -> Path:
    value = json.loads(to_text({one.id: one for one in (record(1), record(2))}))
    change(value)
    path = tmp_path / "results.json"
    path.write_text(json.dumps(value))
    return path


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = record(1), record(2)
    first, second = tmp_path / "a" / "r.json", tmp_path / "b.json"
    add_record(first, one)
    add_record(first, two)
    write_results(second, {two.id: two, one.id: one})
    assert first.read_bytes() == second.read_bytes()
    assert read_results(first) == {one.id: one, two.id: two}
    assert {path.name for path in first.parent.iterdir()} == {"r.json"}, "nothing is left behind"
    assert read_results(tmp_path / "none.json") == {}


_UNSOUND: dict[str, Callable[[Any], object]] = {
    "another format": lambda v: v.update(format="x"),
    "a later version": lambda v: v.update(version=2),
    "one field more": lambda v: v.update(more=1),
    "no list": lambda v: v.update(records={}),
    "no object": lambda v: v["records"].append(3),
    "twice": lambda v: v["records"].append(v["records"][0]),
    "a field missing": lambda v: v["records"][0].pop("machine"),
    "a field unknown": lambda v: v["records"][0].update(note="x"),
    "another id": lambda v: v["records"][0].update(id="0" * 16),
    "another seed": lambda v: v["records"][0]["what"]["model"].update(seed=9),
    "another data set": lambda v: v["records"][0]["data"].update(name="digits"),
    "a seed that is none": lambda v: v["records"][0]["what"]["model"].update(seed=True),
    "a figure that is none": lambda v: v["records"][0]["values"].update(error=[1, "x"]),
    "a truth for a figure": lambda v: v["records"][0]["values"].update(error=True),
    "an escape": lambda v: v["records"][0].update(machine="\x1b[2J"),
    "an endless name": lambda v: v["records"][0].update(command="x" * 2000),
    "negative time": lambda v: v["records"][0]["seconds"].update(measuring=-1),
    "a short digest": lambda v: v["records"][0].update(model_sha256="ab"),
    "no time": lambda v: v["records"][0].update(made_at="yesterday"),
    "another device": lambda v: v["records"][0].update(device="abacus"),
}


@pytest.mark.parametrize("name", _UNSOUND)
def test_unsound_files_are_refused_and_kept(tmp_path: Path, name: str) -> None:
    path = _file(tmp_path, _UNSOUND[name])
    before = path.read_bytes()
    for use in (read_results, lambda one: add_record(one, record(3))):
        with pytest.raises(StoreError) as caught:
            use(path)
        assert caught.value.hint
        assert "results.json" in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": NaN}', "[" * 100_000])
def test_what_is_no_file_of_results(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(StoreError):
        read_results(path)


def test_merge_refuses_contradictions_and_no_more() -> None:
    one, two = record(1), record(2)
    elsewhere = replace(one, machine="another", measuring_seconds=3.0, command="bnnmcu paper all")
    assert merge({one.id: one}, {two.id: two, one.id: elsewhere}) == {one.id: one, two.id: two}
    for other, word in (
        (replace(one, values={**one.values, "error": 0.9}), "error"),
        (replace(one, model_sha256="e" * 64), "weights"),
        (replace(one, graph_sha256=None), "graph"),
    ):
        with pytest.raises(StoreError, match=word):
            merge({one.id: one}, {one.id: other})


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    add_record(path, record(1))
    before = path.read_bytes()
    with pytest.raises(StoreError):
        add_record(path, record(2, machine="\n"))
    assert path.read_bytes() == before
    with pytest.raises(UsageError):
        write_results(tmp_path, {})


def test_networks_are_trained_once() -> None:
    one = record(1)
    fgsm = replace(one, id="f" * 16, measuring_seconds=4.5)
    unknown = record(2, training_seconds=None)
    assert total_seconds([one, fgsm, unknown]) == (500.0, 25.5)


def test_published_numbers() -> None:
    # Copied from the tables themselves, not from the file.
    for where, value, plus_minus in (
        (("table1", "B64", "0.3"), 59, 2),
        (("table2", "C256+*", "0.2"), 93.4, 0.3),
        (("table3", "S64", "accuracy"), 71, 2),
        (("table3", "S64", "accuracy at 1000"), 38, 3),
        (("table3", "B256+", "mean_l2"), 2.4, 0.2),
        (("table3", "S64", "error"), 8, 1),
        (("table4", "S64+*", "accuracy"), 56, 1),
        (("table5", "C256+", "transfer"), 27.6, 0.9),
        (("table6", "B128+", "error"), 1.73, 0.09),
    ):
        found = published(*where)
        assert found is not None
        assert (found.value, found.plus_minus) == (value, plus_minus)
    assert published("table6", "S64", "error") is None
    counts = [sum(key[0] == f"table{i}" for key in all_published()) for i in range(1, 7)]
    assert counts == [54, 18, 28, 27, 24, 18]


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_is_no_file_is_not_read(path: str) -> None:
    with pytest.raises(StoreError, match="is no file"):
        read_results(Path(path))
