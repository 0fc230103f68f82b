"""Runs after they were made: migrated, compared and merged."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import store_rig as rig

from bnnmcu.attack.metrics import summarize
from bnnmcu.errors import StoreError, UsageError
from bnnmcu.store import Example, Store
from bnnmcu.store.compare import compare, content_rows
from bnnmcu.store.merge import merge

IMAGES = 20


def test_version_1_is_read_as_it_is_and_migrated_when_it_goes_on(old: Path) -> None:
    before = old.read_bytes()
    with closing(sqlite3.connect(old)) as file:
        answers = file.execute(
            "SELECT attack, image, draw, seed, logits, ticks, polluted, answered_at FROM example "
            "JOIN query ON example = id ORDER BY 1, 2, 3"
        ).fetchall()
    with Store.read(old) as store:
        assert store.version == 1
        identity, rows, sessions = store.identity, list(store.rows()), store.sessions()
        figures = summarize(store)
    assert old.read_bytes() == before
    found = [
        (one.attack, one.image, i, draw.seed, np.array(draw.logits, "<i8").tobytes(), draw.ticks,
         int(draw.polluted), draw.answered_at)
        for one in rows for i, draw in enumerate(one.draws)
    ]  # fmt: skip
    assert found == answers
    assert len(found) == 7 * 3
    assert {draw.board for one in rows for draw in one.draws} == {"nucleo_f446"}
    assert {draw.attempts for one in rows for draw in one.draws} == {None}

    content = list(content_rows(old))
    with Store.open(old, identity) as store:
        assert store.version == 1
        (todo,) = store.unanswered("fgsm", 25, (4, 3, 2))
        assert (todo.image, todo.target) == (3, None)
        store.add_answer(
            todo.row, np.arange(3, dtype=np.uint64), np.eye(3, dtype=np.int64), None, False
        )
    copy = old.with_name("old.sqlite.v1")
    assert list(content_rows(copy)) == content
    assert sorted(file.name for file in old.parent.iterdir()) == [old.name, copy.name]
    with Store.read(old) as store:
        assert store.version == 3
        assert list(store.rows())[:7] == rows[:7]
        assert store.sessions()[:2] == sessions
        assert store.sessions()[2].provenance["copy_kept"] == copy.name
        assert summarize(store).cases[0] == figures.cases[0]
        assert summarize(store).complete


def test_version_2_is_read_as_it_is_and_migrated_when_it_goes_on(version2: Path) -> None:
    """The same of all columns, as the view in the file itself has them."""
    before = version2.read_bytes()
    with closing(sqlite3.connect(version2)) as file:
        rows = file.execute(
            "SELECT attack, levels, image, true_label, draw, input_sha256, seed, logits, label, "
            "linf, l2, zero_gradients, crafted_by, board, answered_at, latency_s, attempts, ticks, "
            "polluted, session FROM queries ORDER BY levels, image, draw"
        ).fetchall()
        crafting = file.execute("SELECT * FROM crafting ORDER BY example").fetchall()
    with Store.read(version2) as store:
        assert store.version == 2
        identity, stored, sessions = store.identity, list(store.rows()), store.sessions()
        figures = summarize(store)
    assert version2.read_bytes() == before
    assert rows == [
        (one.attack, one.levels, one.image, one.true_label, i, one.sha256, draw.seed,
         np.array(draw.logits, "<i8").tobytes(), draw.label, one.linf, one.l2, one.zero_gradients,
         one.crafted_by, draw.board, draw.answered_at, draw.latency_s, draw.attempts, draw.ticks,
         int(draw.polluted), draw.session)
        for one in stored for i, draw in enumerate(one.draws)
    ]  # fmt: skip
    assert len(rows) == 11 * 3
    assert {one.target for one in stored} == {None}
    assert [(one.row, one.session, one.crafted_at, one.crafting_s) for one in stored] == crafting
    assert all(one.ended_at for one in sessions)

    content = list(content_rows(version2))
    with Store.open(version2, identity) as store:
        (todo,) = store.unanswered("pgd", 51, rig.SHAPE)
        assert (todo.image, todo.target, todo.details["attack"]) == (3, None, "pgd")
        store.add_answer(todo.row, *rig.answer(("pgd", 51), 3), None, False)
    copy = version2.with_name("old.sqlite.v2")
    assert list(content_rows(copy)) == content
    assert sorted(file.name for file in version2.parent.iterdir()) == [version2.name, copy.name]
    with Store.read(version2) as store:
        assert store.version == 3
        assert list(store.rows())[:11] == stored[:11]
        assert store.sessions()[:2] == sessions
        assert store.sessions()[2].provenance["migrated_from"] == 2
        assert summarize(store).cases[:2] == figures.cases[:2]
        assert summarize(store).complete


def test_a_killed_run_of_an_earlier_version(any_old: tuple[Path, int], tmp_path: Path) -> None:
    """What only its log holds is read, migrated and in the copy."""
    old, version = any_old
    folder = tmp_path / "killed"
    folder.mkdir()
    with closing(sqlite3.connect(old, isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("UPDATE session SET started_at = '2026-02-03T04:05:06Z'")
        for name in (old.name, f"{old.name}-wal"):
            shutil.copy(tmp_path / name, folder)
    path = folder / old.name
    copied = f"{old.name}.v{version}"
    for migrate in (False, True):
        if migrate:
            assert Store.migrate(path) == folder / copied
            assert sorted(file.name for file in folder.iterdir()) == [old.name, copied]
        for name in [old.name, copied][: 1 + migrate]:
            with Store.read(folder / name) as store:
                assert {one.started_at for one in store.sessions()} == {"2026-02-03T04:05:06Z"}
                assert len(store.judged()) == len(list(store.rows())) - 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("old", "UPDATE example SET pixels = zeroblob(24) WHERE id = 5", "pixels were altered"),
        ("old", "UPDATE session SET provenance = '{'", "provenance is no sound JSON"),
        ("old", "CREATE TRIGGER t AFTER INSERT ON query BEGIN SELECT 1; END", "trigger 't'"),
        ("version2", "DROP VIEW queries", "view 'queries'"),
        ("version2", "PRAGMA user_version = 3", "table 'example'"),
        ("version2", "PRAGMA user_version = 4", "schema version 4; this bnnmcu reads 1 to 3"),
    ],
)
def test_an_altered_file_is_not_migrated(
    request: pytest.FixtureRequest, name: str, change: str, message: str
) -> None:
    path: Path = request.getfixturevalue(name)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(change)
    before = list(closing_dump(path))
    for use in (Store.read, Store.migrate):
        with pytest.raises(StoreError, match=message):
            use(path)
    assert list(closing_dump(path)) == before


def closing_dump(path: Path) -> list[str]:
    """All of a database as SQL."""
    with closing(sqlite3.connect(path)) as file:
        return [str(file.execute("PRAGMA user_version").fetchone()), *file.iterdump()]


def test_migrating_keeps_every_copy(any_old: tuple[Path, int]) -> None:
    old, version = any_old
    again = shutil.copy(old, old.with_name("again"))
    assert Store.migrate(old) == old.with_name(f"old.sqlite.v{version}")
    assert Store.migrate(old) is None
    shutil.copy(again, old)
    assert Store.migrate(old) == old.with_name(f"old.sqlite.v{version}-2")
    assert compare(old, Path(again)).same


ORACLE = "UPDATE run SET identity = replace(identity, 'emulated', 'hardware')"
SEED = "UPDATE query SET seed = '0000000000000001' WHERE example = 25 AND draw = 2"
COMPARED: list[tuple[str, bool, tuple[int, int, int, int], list[tuple[str, str]]]] = [
    ("UPDATE timing SET ticks = 9, attempts = 5, latency_s = 7.0, board = 'x'", True,
     (120, 0, 0, 0), []),
    (ORACLE, True, (120, 0, 0, 0), []),
    ("UPDATE run SET identity = replace(identity, 'toy', 'boy')", False, (120, 0, 0, 0), []),
    (SEED, False, (119, 1, 0, 0), [("fgsm 25/255, image 4, draw 2", "seed")]),
    ("UPDATE example SET l2 = 0.5 WHERE id = 1", False, (117, 3, 0, 0),
     [(f"clean, image 0, draw {draw}", "l2") for draw in range(2)]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "same", "counts", "shown"), COMPARED)
def test_comparing(
    whole: Path,
    tmp_path: Path,
    change: str,
    same: bool,
    counts: tuple[int, int, int, int],
    shown: list[tuple[str, str]],
) -> None:
    found = compare(whole, rig.altered(whole, tmp_path / "other.sqlite", change), show=2)
    assert found.same == same
    assert (found.equal, found.differing, found.only_first, found.only_second) == counts
    assert [(one.place, one.column) for one in found.first_differences] == shown
    assert bool(found.identity) == ("identity" in change)


def test_comparing_with_a_part(whole: Path, tmp_path: Path) -> None:
    some = rig.part(tmp_path / "part.sqlite", IMAGES, 2 + 5)
    found = compare(some, whole)
    # Five clean images are answered in both, fifteen in one.
    assert (found.equal, found.differing) == (15, 0)
    assert (found.only_first, found.only_second) == (15, 15 * 3 + 60)
    assert (found.first_differences[0].place, found.first_differences[0].first) == (
        "clean, image 5",
        True,
    )
    reverse = compare(whole, some)
    assert (reverse.only_first, reverse.only_second) == (found.only_second, found.only_first)


def test_merging_parts_gives_the_whole(whole: Path, tmp_path: Path) -> None:
    """One part has the beginning, one was answered backwards on another machine."""
    first = rig.part(tmp_path / "first.sqlite", IMAGES, 2 + 13)
    second = tmp_path / "second.sqlite"
    with Store.open(second, rig.identity(IMAGES), provenance={"board": "other"}) as store:
        for case in reversed(rig.CASES):
            store.add_examples([rig.example(case, image) for image in reversed(range(IMAGES))])
            for row, image, *_ in store.unanswered(*case, rig.SHAPE)[10:]:
                store.add_answer(row, *rig.answer(case, image), None, False, board="other")
    third = tmp_path / "third.sqlite"
    with Store.open(third, rig.identity(IMAGES)) as store:
        case = rig.CASES[1]
        store.add_examples([rig.example(case, image) for image in range(10)])
        for row, image, *_ in store.unanswered(*case, rig.SHAPE):
            store.add_answer(row, *rig.answer(case, image), None, True)
    output = tmp_path / "merged.sqlite"
    merged = merge([first, second, third], output)
    assert (merged.images, merged.queries, merged.twice, merged.sessions) == (40, 120, 9, 3)
    assert list(content_rows(output)) == list(content_rows(whole))
    assert list(rig.go_on(output, IMAGES)) == []
    with Store.read(output) as store, Store.read(whole) as other:
        assert store.cases() == other.cases()
        assert [one.labels for one in store.judged()] == [one.labels for one in other.judged()]
        boards = {
            one.image: store.sessions()[one.draws[0].session - 1].provenance.get("board")
            for one in store.rows([rig.CASES[0]])
        }
    assert boards == {image: None if image < 13 else "other" for image in range(IMAGES)}


def test_several_targets_of_an_image_stay_apart(tmp_path: Path) -> None:
    """In order, once each, compared and merged by target; each case has its number of draws."""
    identity = {"data": {"images": 3}}
    first, second, merged = (tmp_path / name for name in ("a.db", "b.db", "m.db"))
    pixels = np.zeros((1, 1, 1), np.uint8)
    for path, targets in ((first, (2, 0)), (second, (0, 3))):
        with Store.open(path, identity) as store:
            examples = [Example("cw", 0, 1, 1, pixels, target=target) for target in targets]
            store.add_examples([*examples, Example("clean", 0, 1, 1, pixels)])
            assert store.examples("cw", 0) == {(1, target) for target in targets}
            waiting = store.unanswered("cw", 0, (1, 1, 1))
            assert [one.target for one in waiting] == sorted(targets)
            for one in waiting:
                logits = np.full((2, 4), int(path == second and one.target == 0))
                store.add_answer(one.row, np.array([1, 2], np.uint64), logits, None, False)
            (one,) = store.unanswered("clean", 0, (1, 1, 1))
            store.add_answer(one.row, None, np.zeros((5, 4), int), None, False)
            with pytest.raises(StoreError, match="UNIQUE"):
                store.add_examples([examples[0]])
    found = compare(first, second, show=1)
    assert (found.equal, found.differing, found.only_first, found.only_second) == (5, 2, 2, 2)
    assert found.first_differences[0].place == "cw, image 1 to class 0, draw 0"
    with pytest.raises(StoreError, match="image 1 to class 0: answers differ"):
        merge([first, second], merged)
    zeros = "UPDATE query SET logits = zeroblob(32) WHERE example = 1"
    merge([first, rig.altered(second, tmp_path / "d.db", zeros)], merged)
    with Store.read(merged) as store:
        assert [(one.attack, one.target) for one in store.rows()] == [
            ("cw", 0), ("cw", 2), ("cw", 3), ("clean", None),
        ]  # fmt: skip
        assert [len(one.labels) for one in store.judged()] == [2, 2, 2, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (SEED, "image 4: answers differ"),
        ("UPDATE example SET l2 = 0.5 WHERE id = 1", r"image 0: l2 differ .*0\.0 and 0\.5"),
        (ORACLE, r"oracle\.label"),
    ],
)
def test_parts_that_contradict_each_other(
    whole: Path, tmp_path: Path, change: str, message: str
) -> None:
    other, output = rig.altered(whole, tmp_path / "b.sqlite", change), tmp_path / "m.sqlite"
    before = other.read_bytes()
    with pytest.raises(StoreError, match=message):
        merge([whole, other], output)
    assert other.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [other.name]


def test_merging_overwrites_nothing(whole: Path, tmp_path: Path) -> None:
    output = Path(shutil.copy(whole, tmp_path / "m.sqlite"))
    with pytest.raises(StoreError, match="there already"):
        merge([whole, whole], output)
    with pytest.raises(UsageError, match="at least two"):
        merge([whole], tmp_path / "n.sqlite")
    assert output.read_bytes() == whole.read_bytes()


def test_the_revision_of_a_checkout_is_known(tmp_path: Path) -> None:
    from bnnmcu.store.provenance import git_revision

    assert git_revision(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    try:
        subprocess.run([*git, "init", "-q"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not installed")
    (tmp_path / "f").write_text("1")
    subprocess.run([*git, "add", "f"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    clean = git_revision(tmp_path)
    (tmp_path / "f").write_text("2")
    assert clean is not None
    assert len(clean) == 40
    assert git_revision(tmp_path) == f"{clean}-dirty"
