"""What SECURITY.md says is tested is tested; and what a hostile name in a model can do."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnnmcu.errors import GraphError
from bnnmcu.graph import INPUT, Dense, Graph

_ROOT = Path(__file__).resolve().parents[2]


def _invariants() -> list[tuple[int, str]]:
    """Number and row of each invariant."""
    text = (_ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| I(\d+) \|(.*)\|$", text, flags=re.MULTILINE)
    return [(int(number), row) for number, row in rows]


def _functions(path: Path) -> set[str]:
    """Tests of a file, those of state machines (``X.TestCase``) by their assigned names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_invariants_are_numbered_without_a_gap() -> None:
    numbers = [number for number, _ in _invariants()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 15


@pytest.mark.parametrize(("number", "row"), _invariants())
def test_every_invariant_names_tests_that_exist(number: int, row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
    assert named, f"I{number} names no test"
    for file, function in named:
        path = _ROOT / "tests" / file
        assert path.is_file(), f"I{number}: {file}"
        assert function in _functions(path), f"I{number}: {file}::{function}"


_HOSTILE = ['x"; int y = system("id"); //', "x*/ int y; /*", "x\n#include <evil.h>", "x\\", "", "é"]


@pytest.mark.parametrize("name", _HOSTILE)
def test_names_cannot_break_out_of_the_generated_c(name: str) -> None:
    """They stand in strings and comments there."""
    graph = Graph("net", (1, 1, 2), (Dense("dense", INPUT, np.ones((2, 2), np.int16)),))
    with pytest.raises(GraphError):
        replace(graph, name=name)
    with pytest.raises(GraphError):
        Dense(name, INPUT, np.ones((2, 2), np.int16))
