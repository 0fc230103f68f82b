"""``make bench``: what fails it, and what it records."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from needs import need_digits, need_emulator, need_toolchain

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """benchmarks/bench.py."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("bench")
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("bench", "judge", "networks"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def judge(script: ModuleType) -> ModuleType:
    """benchmarks/judge.py."""
    return sys.modules["judge"]


_ROW = {"row": "r", "run": "a", "figure": "f", "must": 100, "aim": 50}


@pytest.mark.parametrize(
    ("row", "measured", "verdict", "missed"),
    [
        ({}, 50, "aim reached", False),
        ({}, 51, "must holds", False),
        ({}, 100, "must holds", False),
        ({}, 101, "MISSED", True),
        ({}, None, "NOT MEASURED", True),
        ({"at_least": True, "must": 5, "aim": 10}, 4.99, "MISSED", True),
        ({"at_least": True, "must": 5, "aim": 10}, 10, "aim reached", False),
        ({"run": "native twin"}, 101, "MISSED (this machine; not judged)", False),
    ],
)
def test_targets(
    judge: ModuleType, row: dict[str, Any], measured: float | None, verdict: str, missed: bool
) -> None:
    whole = _ROW | row
    figures = {} if measured is None else {whole["run"]: {"f": measured}}
    (line,) = judge.lines([whole], figures)
    assert (line.verdict, line.missed) == (verdict, missed)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"f": 102}, 0),
        ({"f": 103}, 1),
        ({"f": 50}, 0),
        ({}, 1),
        ({"f": 100, "new": 5}, 1),
        ({"f": 103, "toolchain": "gcc 13"}, 0),
        ({"f": 100, "MAC per instruction": 9.9}, 1),
    ],
)
def test_growth_against_the_history(judge: ModuleType, now: dict[str, Any], said: int) -> None:
    history = {"a": {"toolchain": "gcc 12", "f": 100}, "native twin": {"images per second": 9}}
    measured = {"a": {"toolchain": "gcc 12"} | now}
    assert len(list(judge.against_history(history, measured))) == said


def test_a_ratio_must_not_fall(judge: ModuleType) -> None:
    history = {"a": {"toolchain": "gcc 12", "MAC per instruction": 10.0}}
    for value, said in ((9.9, 0), (9.7, 1), (12.0, 0)):
        measured = {"a": {"toolchain": "gcc 12", "MAC per instruction": value}}
        assert len(list(judge.against_history(history, measured))) == said


def test_the_page_shows_what_is_recorded(judge: ModuleType) -> None:
    history = json.loads((FOLDER / "history.json").read_text(encoding="utf-8"))
    rows = json.loads((FOLDER / "targets.json").read_text(encoding="utf-8"))["rows"]
    table = judge.markdown(judge.lines(rows, history), history)
    assert "not written down" not in table, "say in targets.json why the aim is missed"
    assert table in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_every_target_names_a_run(judge: ModuleType) -> None:
    targets = json.loads((FOLDER / "targets.json").read_text(encoding="utf-8"))
    runs = {*targets["runs"], judge.TIMED}
    assert {row["run"] for row in targets["rows"]} <= runs
    for row in targets["rows"]:
        better = np.sign(row["aim"] - row["must"])
        assert better in ((0, 1) if row.get("at_least") else (0, -1)), row["row"]


class _Run:
    """main() with figures that are given instead of measured, and files of its own."""

    def __init__(self, script: ModuleType, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        need_emulator("qemu")
        need_toolchain("gcc")
        self._script, self._patch = script, monkeypatch
        self.history, self.readme = folder / "history.json", folder / "README.md"
        self.readme.write_text(f"before\n{script.START}{script.END}after\n", encoding="utf-8")
        monkeypatch.setattr(script, "HISTORY", self.history)
        monkeypatch.setattr(script, "README", self.readme)
        targets = json.loads((FOLDER / "targets.json").read_text(encoding="utf-8"))
        self.figures: dict[str, dict[str, Any]] = {}
        for row in targets["rows"]:
            run = self.figures.setdefault(row["run"], {})
            run[row["figure"]] = row["must"]
        for name, run in self.figures.items():
            run |= {"toolchain": "gcc 1"} if name != "native twin" else _TWIN

    def __call__(self, *arguments: str) -> int:
        self._patch.setattr(sys, "argv", ["bench.py", *arguments])
        self._patch.setattr(self._script, "measure", lambda runs: self.figures)
        code: int = self._script.main()
        return code


_FIRST_WEIGHTS = [71, -75, 88, -114]
_TWIN = {"machine": "a machine", "compiler": "cc 1"}


@pytest.fixture
def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Run:
    return _Run(script, monkeypatch, tmp_path)


def test_what_is_recorded_passes_and_is_shown(
    run: _Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--update") == 0
    assert json.loads(run.history.read_text()) == run.figures
    assert run("--check") == 0
    assert run() == 0
    text = run.readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| B64, speed: network | ≤ 1,120,000 |" in text
    run.readme.write_text(text.replace("1,120,000 | must", "1,119,999 | must"), encoding="utf-8")
    assert run("--check") == 1
    assert "does NOT show" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run_name", "figure", "value", "said"),
    [
        ("b64 size", "conv1", 1030, "b64 size, conv1: 1,000 to 1,030"),
        ("b64 speed", "instructions", 1_120_001, "MISSED: B64, speed: network"),
        ("b64 speed", "spread", 1, "MISSED: B64, speed: instructions that differ"),
        ("padded speed", "conv MAC per instruction", 10.99, "MISSED: 3x3"),
        ("b64 m0", None, None, "MISSED: B64 on Cortex-M0: network: not measured"),
        ("b64 m7", "error", "b64 m7: it does not compile", "FAILED: b64 m7: it does not compile"),
    ],
)
def test_what_fails_it(
    run: _Run,
    capsys: pytest.CaptureFixture[str],
    run_name: str,
    figure: str | None,
    value: Any,
    said: str,
) -> None:
    run.figures["b64 size"]["conv1"] = 1000
    assert run("--update") == 0
    if figure is None:
        del run.figures[run_name]
    else:
        run.figures[run_name] = run.figures[run_name] | {figure: value}
    assert run() == 1
    assert said in capsys.readouterr().out


def test_a_slow_machine_fails_nothing(run: _Run) -> None:
    run.figures["native twin"]["images per second"] = 10
    assert run("--update") == 0
    run.figures["native twin"]["images per second"] = 1
    assert run() == 0


def test_without_tools_nothing_is_measured_and_that_is_said(
    run: _Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    run.figures = {}
    assert run() == 0
    assert "NOTHING was measured" in capsys.readouterr().out


def test_one_run_is_measured_as_it_says(script: ModuleType) -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    need_digits()
    figures = script.run("padded", "padded-random", "nucleo_f446re", "speed")
    assert "error" not in figures, figures
    macs = 9 * 64 * 64 * 16 * 16
    assert figures["conv MAC per instruction"] == pytest.approx(macs / figures["conv"], abs=1e-3)
    assert 0 < figures["conv without gather"] < figures["conv"] < figures["instructions"]
    assert script.run("x", "padded-random", "no_such_board", "speed")["error"].startswith("x: ")


def test_random_networks_never_change(script: ModuleType) -> None:
    """Their counts are in the history, so that their weights must be the same for good."""
    networks = sys.modules["networks"]
    first, second = networks.padded(), networks.padded()
    for a, b in zip(first.nodes, second.nodes, strict=True):
        for name in ("weights", "value", "kind"):
            if hasattr(a, name):
                assert np.array_equal(getattr(a, name), getattr(b, name))
    assert first.nodes[0].weights[:4].reshape(-1).tolist() == _FIRST_WEIGHTS


def test_what_is_recorded_holds_every_must(judge: ModuleType) -> None:
    targets = json.loads((FOLDER / "targets.json").read_text())
    history = json.loads((FOLDER / "history.json").read_text())
    assert history.keys() >= targets["runs"].keys()
    missed = [line.row for line in judge.lines(targets["rows"], history) if line.missed]
    assert missed == []


#: Rows of the table in the front page: the run that each is of.
FRONT = {
    "B64": "b64 balanced",
    "B64, `--optimize speed`": "b64 speed",
    "B64, `--optimize size`": "b64 size",
    "C64": "c64 balanced",
    "S64": "s64 balanced",
}


@pytest.mark.parametrize("row", FRONT)
def test_the_front_page_shows_what_is_recorded(row: str) -> None:
    history = json.loads((FOLDER / "history.json").read_text())[FRONT[row]]
    text = (ROOT / "README.md").read_text()
    line = next(x for x in text.splitlines() if x.startswith(f"| {row} |"))
    shown = [cell.strip() for cell in line.strip("|").split("|")][2:]
    assert shown == [f"{history[name]:,}" for name in ("instructions", "flash", "ram")]
