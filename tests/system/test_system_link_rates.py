"""The link's rates by ``make bench``: what is measured, and what fails it."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from needs import need_digits, need_emulator, need_toolchain


@pytest.fixture(scope="module")
def rates() -> Iterator[ModuleType]:
    """benchmarks/link_rates.py."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("link_rates")
    finally:
        sys.path.remove(str(folder))
        for name in ("link_rates", "bench", "judge", "networks"):
            sys.modules.pop(name, None)


FIGURES = {
    "line": {"share of the line": 0.9},
    "unicorn": {"share of the echo": 0.1, "share of the computing echo": 0.7},
    "qemu without icount": {"share of the echo": 0.7, "share of the computing echo": 0.7},
}


@pytest.mark.parametrize(
    ("name", "figure", "value", "says"),
    [
        ("line", "share of the line", 0.9, None),
        ("line", "share of the line", 0.89, "89.0% of the line, not 90%"),
        ("unicorn", "share of the echo", 0.01, None),
        ("unicorn", "share of the computing echo", 0.69, "unicorn: 69% of the computing echo"),
        ("qemu without icount", "share of the echo", 0.69, "69% of the echo's rate, not 70%"),
        ("qemu without icount", "share of the computing echo", 0.5, "50% of the computing echo"),
    ],
)
def test_what_fails_it(
    rates: ModuleType, name: str, figure: str, value: float, says: str | None
) -> None:
    found: dict[str, dict[str, float]] = copy.deepcopy(FIGURES)
    found[name][figure] = value
    missed = rates.judge(found)
    if says is None:
        assert missed == []
    else:
        assert len(missed) == 1
        assert says in missed[0]


def test_all_figures_are_measured(
    rates: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_digits()
    need_toolchain("gcc")
    need_emulator("unicorn")
    need_emulator("qemu")
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    for name, value in {"PACED": 8, "UNICORN": 8, "QEMU": 8, "REPEATS": 1}.items():
        monkeypatch.setattr(rates, name, value)
    found: dict[str, Any] = rates.measure(lambda _: None)
    rates.judge(found)
    rates.show(found)
    shown = capsys.readouterr().out
    # No line carries more than it can; the first answer's image was sent before the clock started.
    assert found["line"]["images per second"] > 0
    assert f"of {found['line']['at most']:.2f}" in shown
    for name in rates.EXPECTED:
        entry = found[name]
        # A frame of 10 bytes around pixels, a seed and 2 more, coded; ten logits come back.
        assert 784 + 20 < entry["bytes of a request"] < 784 + 40
        assert 50 < entry["bytes of a reply"] < 120
        assert entry["images per second"] > 0
        assert name in shown
