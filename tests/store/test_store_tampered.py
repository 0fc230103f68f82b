"""A results file is untrusted input: nothing in it acts, and no value is taken on trust."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import store_rig as rig

from bnnmcu.attack.config import CampaignConfig
from bnnmcu.errors import StoreError, UsageError
from bnnmcu.store import Store
from bnnmcu.store.compare import content_rows
from bnnmcu.store.export import export_csv
from bnnmcu.store.merge import merge

IMAGES = 12


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rig.finish(tmp_path_factory.mktemp("sound") / "run.db", IMAGES)


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    """A sound run, to be spoilt."""
    return Path(shutil.copy(sound, tmp_path))


def alter(path: Path, *statements: str) -> None:
    """Change a file by hand, past all of its own checks."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for statement in statements:
            file.execute(statement)


SECOND = "WHERE example = 2 AND draw = 1"
VALUES = {
    "pixels": ("UPDATE example SET pixels = zeroblob(24) WHERE id = 3", "pixels were altered"),
    "size": ("UPDATE example SET pixels = x'00' WHERE id = 3", "pixels were altered"),
    "hash": ("UPDATE example SET sha256 = 'xyz' WHERE id = 3", "64 hexadecimal digits"),
    "levels": ("UPDATE example SET levels = 255001 WHERE id = 3", "levels is 255001"),
    "attack": ("UPDATE example SET attack = char(27) || '[2J' WHERE id = 3", "not a name"),
    "image": ("UPDATE example SET image = 99 WHERE id = 3", "image is 99"),
    "negative": ("UPDATE example SET image = -1 WHERE id = 3", "image is -1"),
    "target": ("UPDATE example SET target = 5 WHERE id = 3", "target is 5"),
    "own target": ("UPDATE example SET target = true_label WHERE id = 3", "the image's own class"),
    "truth": ("UPDATE example SET true_label = 5 WHERE id = 3", "true_label is 5"),
    "linf": ("UPDATE example SET linf = 300 WHERE id = 3", "linf is 300"),
    "l2": ("UPDATE example SET l2 = 9e999 WHERE id = 3", "l2 is inf"),
    "gradients": ("UPDATE example SET zero_gradients = -0.5 WHERE id = 3", "zero_gradients is"),
    "json": ("UPDATE example SET crafted_by = '{' WHERE id = 3", "crafted_by is no sound JSON"),
    "infinite": ("UPDATE example SET crafted_by = '{\"a\": 1e999}' WHERE id = 3", "not finite"),
    "nan": ("UPDATE example SET crafted_by = '{\"a\": NaN}' WHERE id = 3", "not finite"),
    "deep": (
        "UPDATE example SET crafted_by = replace(hex(zeroblob(50000)), '0', '[') WHERE id = 3",
        "nested too deeply",
    ),
    "list": ("UPDATE example SET crafted_by = '[]' WHERE id = 3", "no JSON object"),
    "seed": (f"UPDATE query SET seed = 'FFFFFFFFFFFFFFFF' {SECOND}", "16 hexadecimal digits"),
    "label": (f"UPDATE query SET label = (label + 1) % 5 {SECOND}", "its logits say"),
    "logits": (f"UPDATE query SET logits = x'0000' {SECOND}", "8 for each class"),
    "classes": (
        "UPDATE query SET logits = zeroblob(8), label = 0 WHERE example = 1",
        r"\(3, 5\); others have \(3, 1\)",
    ),
    "no logits": ("UPDATE query SET logits = x'' WHERE example = 2", "8 for each class"),
    "input": (f"UPDATE query SET input_sha256 = 'ab' {SECOND}", "answered another image"),
    "latency": (f"UPDATE timing SET latency_s = -1.0 {SECOND}", "latency_s is -1"),
    "attempts": (f"UPDATE timing SET attempts = 0 {SECOND}", "attempts is 0"),
    "ticks": (f"UPDATE timing SET ticks = 4294967296 {SECOND}", "ticks is 4294967296"),
    "polluted": (f"UPDATE timing SET polluted = 2 {SECOND}", "polluted is 2"),
    "board": (f"UPDATE timing SET board = char(27) {SECOND}", "not plain text"),
    "answered": (f"UPDATE timing SET answered_at = 'now' {SECOND}", "answered_at is 'now'"),
    "crafted": ("UPDATE crafting SET at = '2026-02-30T00:00:00Z' WHERE example = 3", "not a time"),
    "escape": ("UPDATE example SET crafted_by = '{\"a\": \"' || char(155) || '\"}' WHERE id = 3",
               "control characters"),
    "no timing": (f"DELETE FROM timing {SECOND}", "session is None"),
    "no crafting": ("DELETE FROM crafting WHERE example = 3", "session is None"),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_that_no_run_writes(run: Path, name: str) -> None:
    statement, message = VALUES[name]
    alter(run, statement)
    with Store.read(run) as store, pytest.raises(StoreError, match=message) as caught:
        store.judged()
    assert str(run) in str(caught.value)
    assert "altered" in str(caught.value)


DRAWS = {
    "a hole": ("DELETE FROM timing WHERE draw = 1", "DELETE FROM query WHERE draw = 1"),
    "one more": (
        "INSERT INTO query SELECT example, 3, input_sha256, seed, logits, label "
        "FROM query WHERE example = 2 AND draw = 1",
        "INSERT INTO timing SELECT example, 3, session, board, answered_at, latency_s, attempts, "
        "ticks, polluted FROM timing WHERE example = 2 AND draw = 1",
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_of_which_one_is_missing_or_double(run: Path, name: str) -> None:
    alter(run, *DRAWS[name])
    for use in (
        lambda: list(content_rows(run)),
        lambda: export_csv(run, run.with_name("x.csv")),
        lambda: merge([run, run], run.with_name("x.db")),
    ):
        with pytest.raises(StoreError, match=r"draw 1 is missing|answers of shape \(4, 5\)"):
            use()
    assert [file.name for file in run.parent.iterdir()] == [run.name]


SCHEMA = {
    "trigger": "CREATE TRIGGER t AFTER INSERT ON session BEGIN DELETE FROM query; END",
    "view": "CREATE VIEW v AS SELECT * FROM example",
    "table": "CREATE TABLE extra (a)",
    "index": "CREATE INDEX i ON query (seed)",
    "column": "ALTER TABLE example ADD COLUMN more TEXT",
    "another view": "DROP VIEW queries",
    "full text": "CREATE VIRTUAL TABLE f USING fts5(a)",
}


@pytest.mark.parametrize("name", SCHEMA)
def test_a_schema_of_its_own_is_refused(run: Path, name: str) -> None:
    alter(run, SCHEMA[name])
    before = run.read_bytes()
    uses: list[Callable[[], object]] = [
        lambda: Store.read(run),
        lambda: Store.open(run, rig.identity(IMAGES)),
        lambda: Store.migrate(run),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="its tables are not those of a results file"):
            use()
    assert run.read_bytes() == before


def test_a_redefined_table_is_refused(run: Path) -> None:
    """A default or a check may call a function when a row is written."""
    alter(
        run,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, 'ended_at TEXT', "
        "'ended_at TEXT DEFAULT (hex(randomblob(9)))') WHERE name = 'session'",
    )
    with pytest.raises(StoreError, match="table 'session'"):
        Store.open(run, rig.identity(IMAGES))


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ("[]", "which run"),
        ("{", "which run"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "which run"),
        ('{"data": {"images": 1' + "0" * 30 + "}}", "which run"),
        ('{"data": {"images": -1}}', r"data\.images is -1, not an integer from 0"),
        ('{"data": {"images": true}}', r"data\.images is True"),
        ('{"data": {"name": 7}}', r"data\.name is 7, not a name"),
        ('{"config": {"draws": 0}}', r"config\.draws is 0, not an integer from 1 to 1000"),
        ('{"config": {"draws": 1001}}', r"config\.draws is 1001"),
        ('{"config": {"seed": -1}}', r"config\.seed is -1"),
        ('{"config": {"chunk": 10001}}', r"config\.chunk is 10001"),
        ('{"config": {"attacks": [7]}}', "not a list of attacks"),
        ('{"config": {"attacks": [{"attack": "a b"}]}}', r"attacks\.0\.attack is 'a b'"),
        (
            '{"config": {"attacks": [{"attack": "cw", "case": "a b"}]}}',
            r"attacks\.0\.case is 'a b'",
        ),
        (
            '{"config": {"attacks": [{"attack": "cw", "levels": 255001}]}}',
            r"attacks\.0\.levels is 255001",
        ),
        (
            '{"config": {"attacks": [{"attack": "pgd", "eot_draws": 1001}]}}',
            r"attacks\.0\.eot_draws is 1001",
        ),
        ('{"model": {"name": ["S64"]}}', r"model\.name is \['S64'\], not a name"),
        ('{"model": {"stochastic": 1}}', r"model\.stochastic is 1, neither"),
        ('{"oracle": [1]}', r"oracle is \[1\], not a group of facts"),
        ('{"oracle": {"label": "' + "a" * 10_001 + '"}}', r"oracle\.label is 'aaa"),
    ],
)
def test_identities_that_are_none(run: Path, identity: str, message: str) -> None:
    alter(run, f"UPDATE run SET identity = '{identity}'")
    with pytest.raises(StoreError, match=message):
        Store.read(run)


def test_the_bounds_of_an_identity_are_those_of_a_campaign(tmp_path: Path) -> None:
    """The store does not know campaigns, so it has numbers of its own."""
    for name, low, high in (("draws", 1, 1000), ("seed", 0, 2**63 - 1), ("chunk", 1, 10_000)):
        for value in (low, high):
            CampaignConfig((), **{name: value})
            Store.open(tmp_path / f"{name}.db", {"config": {name: low}}).close()
        for value in (low - 1, high + 1):
            with pytest.raises(UsageError, match=name):
                CampaignConfig((), **{name: value})
            with pytest.raises(StoreError, match=rf"config\.{name} is {value}"):
                Store.open(tmp_path / "new.db", {"config": {name: value}})
    assert not (tmp_path / "new.db").exists()


SESSIONS = {
    "started": ("started_at = 'yesterday'", "started_at is 'yesterday', not a time"),
    "zone": ("started_at = '2026-01-31T23:59:59+01:00'", "not a time"),
    "month": ("ended_at = '2026-13-31T23:59:59Z'", "ended_at is '2026-13-31"),
    "more": ("ended_at = '2026-01-31T23:59:59Z' || char(10)", "not a time"),
    "board": ("provenance = '{\"board\": 3}'", "board is 3, not text"),
    "command": ("provenance = '{\"command\": [3]}'", r"command is \[3\], not a list of words"),
    "versions": ("provenance = '{\"versions\": [3]}'", r"versions is \[3\], not names"),
}  # fmt: skip


@pytest.mark.parametrize("name", SESSIONS)
def test_sessions_that_no_run_writes(run: Path, name: str) -> None:
    change, message = SESSIONS[name]
    alter(run, f"UPDATE session SET {change}")
    with Store.read(run) as store, pytest.raises(StoreError, match=message):
        store.sessions()


@pytest.mark.parametrize("about", [{"board": 3}, {"command": "attack"}])
def test_a_session_that_could_not_be_read_is_not_written(
    run: Path, about: dict[str, object]
) -> None:
    with pytest.raises(StoreError, match=r"this session: (board|command) is"):
        Store.open(run, rig.identity(IMAGES), provenance=about)
    with Store.read(run) as store:
        assert len(store.sessions()) == 1


def test_rows_that_belong_to_nothing(run: Path) -> None:
    alter(run, "DELETE FROM example WHERE id = 2")
    with pytest.raises(StoreError, match="damaged"):
        Store.read(run)


def test_a_second_name_is_refused(run: Path) -> None:
    """SQLite would keep a log for each name."""
    os.link(run, run.with_name("other.db"))
    with pytest.raises(StoreError, match="hard links"):
        Store.open(run, rig.identity(IMAGES))
    with Store.read(run) as store:
        assert len(store.judged()) == 2 * IMAGES


def test_a_file_that_only_looks_like_a_lock_is_kept(run: Path) -> None:
    other = run.with_name("run.db.lock")
    other.write_text("my notes on locks\n")
    with pytest.raises(StoreError, match="no lock of bnnmcu's"):
        Store.open(run, rig.identity(IMAGES))
    assert other.read_text() == "my notes on locks\n"
    other.write_text("pid 1 on a.killed-one\n")
    Store.open(run, rig.identity(IMAGES)).close()
    assert not other.exists()


def test_a_link_in_place_of_the_lock_is_not_followed(run: Path) -> None:
    precious = run.with_name("precious.txt")
    precious.write_text("mine")
    run.with_name("run.db.lock").symlink_to(precious)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.open(run, rig.identity(IMAGES))
    assert precious.read_text() == "mine"
