"""Projects of the shipped networks, exported once for all tests that only read them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples" / "models"


class Cli:
    """Runs ``bnnmcu`` as a user does, in a process of its own."""

    def __call__(
        self, *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=cwd,
            env=self.environment() | (env or {}),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "bnnmcu", *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def cli() -> Cli:
    return Cli()


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Callable[[str], Path]:
    """The exported project of a shipped network, by name; only to be read."""
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    folder = tmp_path_factory.mktemp("projects")

    def export(name: str) -> Path:
        project = folder / name
        if not project.exists():
            done = cli("export", MODELS / f"{name}.pt", "--board", "nucleo_f446", "-o", project)
            assert done.returncode == 0, done.stderr
        return project

    return export
