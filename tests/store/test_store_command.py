"""``bnnmcu runs``: what it prints, how it ends, and that no file can steer it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import store_rig as rig
from click.testing import CliRunner, Result

from bnnmcu.cli.runs import command
from bnnmcu.errors import BnnmcuError, MismatchFoundError, StoreError, UsageError
from bnnmcu.store import Store

IMAGES = 20
SEED = "UPDATE query SET seed = '0000000000000001' WHERE example = 25 AND draw = 2"


def runs(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_the_command_lists_and_shows(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "s64" / "results"
    results.mkdir(parents=True)
    shutil.copy(whole, results / "a.sqlite")
    rig.part(results / "b.sqlite", IMAGES, 5)
    (results / "c.sqlite").write_bytes(b"no database" * 99)
    shutil.copy(whole, tmp_path / "elsewhere.sqlite")
    monkeypatch.chdir(tmp_path)
    done = runs("list", "--json")
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [row["path"] for row in rows] == ["s64/results/a.sqlite", "s64/results/b.sqlite"]
    assert [(row["answered"], row["total"], row["complete"]) for row in rows] == [
        (40, 40, True),
        (3, 40, False),
    ]
    assert "incomplete" in rows[1]["flags"]
    assert "c.sqlite: not a sound results file" in done.stderr
    assert len(json.loads(runs("list", ".", "--json").stdout)) == 3
    assert "tiny" in runs("list", "elsewhere.sqlite").stdout
    assert isinstance(runs("list", "s64/results/c.sqlite").exception, StoreError)

    shown = json.loads(runs("show", whole, "--json").stdout)
    assert shown["complete"] is True
    assert shown["timing"]["repeated"] == shown["timing"]["requests"] == 40
    assert shown["sessions"][0]["provenance"]["versions"]["bnnmcu"]
    with Store.open(results / "b.sqlite", rig.identity(IMAGES)):
        assert json.loads(runs("show", "s64/results/b.sqlite", "--json").stdout)["going_on"] is True
    assert "40 requests, 40 sent more than once" in runs("show", whole).stdout


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE run SET identity = json_set(identity, '$.model.name', char(27, 91, 50, 74, 7))",
        "UPDATE run SET identity = json_set(identity, '$.config.attacks[0].adversary', char(27))",
        "UPDATE run SET identity = json_set(identity, '$.config.attacks[0].loss', char(27))",
        "UPDATE session SET provenance = json_object('board', char(27))",
        "UPDATE session SET provenance = json_object('command', json_array(char(7)))",
    ],
)
def test_showing_a_hostile_run_steers_no_terminal(whole: Path, tmp_path: Path, change: str) -> None:
    other = rig.altered(whole, tmp_path / "b.sqlite", change)
    for arguments in (("show", other), ("show", other, "--json"), ("list", other)):
        done = runs(*arguments)
        assert done.exit_code == 0, done.exception
        assert "\x1b" not in done.output
        assert "\x07" not in done.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("json_set(identity, '$.config.draws', 4)", "clean, 0 levels: 3 draws an image, not 4"),
        (
            "json_set(identity, '$.config.attacks[0].adversary', 'seed-known')",
            "fgsm, 25 levels: 3 draws an image, not 1",
        ),
        ("json_remove(identity, '$.model.name')", "model.name is None"),
        ("json_remove(identity, '$.oracle')", "oracle is None"),
        ("json_remove(identity, '$.config.attacks')", "config.attacks is None"),
    ],
)
def test_showing_what_is_no_campaign(
    whole: Path, tmp_path: Path, change: str, message: str
) -> None:
    """What every campaign says of itself, and only figures need."""
    other = rig.altered(whole, tmp_path / "b.sqlite", f"UPDATE run SET identity = {change}")
    Store.read(other).close()
    for arguments in (("show", other), ("list", other)):
        done = runs(*arguments)
        assert isinstance(done.exception, StoreError)
        assert message in str(done.exception)


def test_the_command_compares_merges_exports_and_migrates(
    whole: Path, old: Path, tmp_path: Path
) -> None:
    other = rig.altered(whole, tmp_path / "b.sqlite", SEED)
    done = runs("compare", whole, other)
    assert isinstance(done.exception, MismatchFoundError)
    assert done.exception.exit_code == 1
    assert "fgsm 25/255, image 4, draw 2: seed: " in done.stdout
    done = runs("compare", whole, other, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["first_differences"][0]["second"] == "0000000000000001"
    assert runs("compare", whole, whole).exit_code == 0

    first, merged = rig.part(tmp_path / "p.sqlite", IMAGES, 9), tmp_path / "m.sqlite"
    done = runs("merge", first, whole, "-o", merged, "--json")
    assert json.loads(done.stdout)["queries"] == 120
    done = runs("export", merged, "--csv", tmp_path / "m.csv", "--json")
    assert json.loads(done.stdout)["csv"]["rows"] == 120
    assert isinstance(runs("export", merged).exception, UsageError)
    done = runs("migrate", old, "--json")
    assert json.loads(done.stdout) == {
        "path": str(old), "migrated": True, "copy": f"{old}.v1"
    }  # fmt: skip
    assert json.loads(runs("migrate", old, "--json").stdout)["migrated"] is False
    for arguments in (("show",), ("compare", whole), ("migrate",)):
        missing = runs(*arguments, tmp_path / "none.sqlite")
        assert isinstance(missing.exception, BnnmcuError)
        assert "no such results file" in str(missing.exception)
