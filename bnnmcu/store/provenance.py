"""Where results come from: versions, machine, revision of the code."""

from __future__ import annotations

import contextlib
import platform
import sqlite3
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

__all__ = ["git_revision", "host", "now", "versions"]

_PACKAGES = ("bnnmcu", "numpy", "torch")


def now() -> str:
    """The clock's time in UTC, ``2026-01-31T23:59:59.123Z``; for people, never for order."""
    text = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def versions() -> dict[str, str]:
    """Of Python, SQLite and the packages that decide results."""
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def host() -> str:
    """System and processor; no name of the machine."""
    return platform.platform()


def git_revision(root: Path = Path(__file__).parents[2]) -> str | None:
    """Commit of the checkout that this code runs from, with ``-dirty`` if it was edited.

    None if it is installed, or without git.
    """
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
