"""What benchmarks/board_sizes.py judges, and what it refuses to be silent about."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "board_sizes.py"
BOARD = "nucleo_f446re"  # with gcc alone: another board of its core comes first for zig


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with both compilers there and builds that cost nothing."""
    spec = importlib.util.spec_from_file_location("board_sizes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    monkeypatch.setitem(sys.modules, "board_sizes", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "zig_command", lambda: ("zig",))
    monkeypatch.setattr(module.shutil, "which", lambda _: "gcc")
    monkeypatch.setattr(module, "build", lambda *_: dict(FOUND))
    return module


FOUND = {"model": "B64", "compiler": "12.2.1", "flash": 1000, "ram": 200}


@pytest.mark.parametrize(
    ("kept", "code", "says"),
    [
        ({}, 0, ""),
        ({"flash": 1001}, 1, "SIZES CHANGED: nucleo_f446re (gcc)"),
        ({"compiler": "13.2.1"}, 1, "NOTHING WAS COMPARED"),
        ({"compiler": "13.2.1"}, 1, "not judged: 1,000, 200 with 13.2.1"),
        (None, 1, "NO SIZE KEPT: nucleo_f446re (gcc)"),
    ],
)
def test_what_check_fails_for(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kept: dict[str, Any] | None,
    code: int,
    says: str,
) -> None:
    path = tmp_path / "kept.json"
    rows = {} if kept is None else {BOARD: {"gcc": FOUND | kept}}
    path.write_text(script.json.dumps(rows))
    monkeypatch.setattr(script, "KEPT", path)
    monkeypatch.setattr(sys, "argv", ["board_sizes.py", "--check", BOARD])
    assert script.main() == code
    assert says in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["board_sizes.py", BOARD])
    assert script.main() == 0, "without --check it shows them alone"


def test_some_that_another_compiler_made_are_said_and_no_failure(script: ModuleType) -> None:
    comparison = script.Comparison()
    assert comparison.add("a (gcc)", FOUND, FOUND) == ""
    assert "not judged" in comparison.add("b (zig)", FOUND, FOUND | {"compiler": "0.1"})
    assert (comparison.unjudged, comparison.faults()) == (["b (zig)"], [])


@pytest.mark.parametrize("missing", ["gcc", "zig"])
def test_check_needs_both_compilers(
    script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    if missing == "gcc":
        monkeypatch.setattr(script.shutil, "which", lambda _: None)
    else:
        monkeypatch.setattr(script, "zig_command", lambda: None)
    monkeypatch.setattr(sys, "argv", ["board_sizes.py", "--check", BOARD])
    assert script.main() == 1
    assert f"{missing} not installed" in capsys.readouterr().out
