"""Drives PlatformIO on a generated project, without telemetry, and explains it.

The project pins its platform and compiler in ``platformio.ini``.  On the first
build PlatformIO downloads them into its core folder (``PLATFORMIO_CORE_DIR``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.boards import Board
from bnnmcu.errors import MissingDependencyError, ToolchainError
from bnnmcu.toolchain.detect import package_version, pio_command, program_version
from bnnmcu.toolchain.process import Log, error_lines, run

__all__ = ["PlatformIOTool", "build", "environment", "explained", "find", "is_offline"]

QUIET = {
    "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
    "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
    "PLATFORMIO_DISABLE_PROGRESSBAR": "true",
    "PLATFORMIO_NO_ANSI": "true",
}
"""No network call but for what the project needs, and plain text."""

_OFFLINE = (
    "HTTPClientError",
    "InternetConnectionError",
    "You are not connected to the Internet",
    "Could not install package",
    "UnknownPackageError",
    "ConnectionError",
    "Max retries exceeded",
)
_STARTING = "running pio run; the first time it downloads its platform and compiler (minutes)"
# PlatformIO prints the class of an error even where it has nothing to say about it.
_BARE = re.compile(r"^\s*\w+:?\s*$")
_DIRECT = "--toolchain gcc or --toolchain zig builds without PlatformIO"


@dataclass(frozen=True)
class PlatformIOTool:
    """How PlatformIO is called, and what of its surroundings changes a build."""

    command: tuple[str, ...]
    version: str
    environment: tuple[str, ...]


def find() -> PlatformIOTool:
    """The installed PlatformIO.

    Raises:
        MissingDependencyError: there is none.
    """
    command = pio_command()
    if command is None:
        raise MissingDependencyError(
            "PlatformIO is not installed",
            hint=f"pip install 'bnnmcu[flash]'; {_DIRECT}",
        )
    version = package_version("platformio") or program_version(command[0])
    return PlatformIOTool(command, version, (os.environ.get("PLATFORMIO_CORE_DIR", ""),))


def build(
    project: Path,
    board: Board,
    tool: PlatformIOTool,
    log: Log | None,
    announce: Log | None = None,
) -> None:
    """Run ``pio run`` in the project.

    Args:
        log: is given each line it prints.
        announce: is told that it starts, as it says nothing while it downloads.

    Raises:
        ToolchainError: it fails, and why; offline it says what to do instead.
    """
    command = [*tool.command, "run", "-d", str(project), "-e", board.name]
    if announce is not None:
        announce(_STARTING)
    code, output = run(command, cwd=project, log=log, env=environment())
    if code != 0:
        raise explained(project, output)


def environment() -> dict[str, str]:
    """For a run of PlatformIO: quiet, and without settings that change what is built or where."""
    changes = ("PLATFORMIO_BUILD_", "PLATFORMIO_SRC_", "PLATFORMIO_EXTRA_", "PLATFORMIO_BUILD")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(changes)}
    return {**kept, **QUIET}


def is_offline(output: str) -> bool:
    """Whether it failed for want of packages that it could not download."""
    return any(sign in output for sign in _OFFLINE)


def explained(project: Path, output: str) -> ToolchainError:
    """An error from what ``pio run`` printed."""
    if is_offline(output):
        lines = [line for line in error_lines(output).splitlines() if not _BARE.match(line)]
        return ToolchainError(
            "\n".join(["PlatformIO could not download its packages (no internet?)", *lines]),
            where=str(project),
            hint=f"{_DIRECT}; 'bnnmcu pio-offline' lets PlatformIO use the compiler that is here",
        )
    if "UnknownBoard" in output or "Unknown board" in output:
        return ToolchainError(
            f"PlatformIO does not know the board:\n  {error_lines(output)}",
            where=str(project / "platformio.ini"),
            hint="correct platformio.board in the board's .toml file and export again",
        )
    return ToolchainError(
        f"PlatformIO failed:\n  {error_lines(output)}",
        where=str(project),
        hint=f"see all of its output: bnnmcu build -v; {_DIRECT}",
    )
