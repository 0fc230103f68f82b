"""Programs that are run for the user: streamed, and explained when they fail."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bnnmcu.errors import ToolchainError

__all__ = ["Log", "error_lines", "run", "version_of"]

Log = Callable[[str], None]

VERSION_TIMEOUT = 30.0
"""Seconds a program may take to say its version; zig unpacks itself first."""

_SHOWN = 4
_ERROR = re.compile(
    r"error:|undefined (reference|symbol)|overflowed|will not fit|cannot (find|open)|bnnmcu:",
    re.IGNORECASE,
)
# "/usr/lib/gcc/arm-none-eabi/12.2.1/../../../arm-none-eabi/bin/ld: region ..."
_LINKER = re.compile(r"^\S*/ld(\.\w+)?: ")


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    log: Log | None = None,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a program to its end, giving each line to ``log`` as it comes.

    Returns:
        The exit status and everything it printed.

    Raises:
        ToolchainError: it cannot be started.
    """
    lines: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise ToolchainError(f"cannot be started: {error.strerror}", where=command[0]) from error
    assert process.stdout is not None
    try:
        with process.stdout as stream:
            for line in stream:
                lines.append(line.rstrip())
                if log is not None:
                    log(lines[-1])
        code = process.wait()
    except BaseException:
        # Ctrl-C, or a log that raised: no compiler stays behind.
        process.kill()
        process.wait()
        raise
    return code, "\n".join(lines)


def error_lines(output: str) -> str:
    """The first lines that say what is wrong, or the last ones if none does."""
    lines = [_LINKER.sub("ld: ", line.strip()) for line in output.splitlines() if line.strip()]
    found = [line for line in lines if _ERROR.search(line)]
    # The linker's driver only repeats that something failed.
    telling = [line for line in found if "ld returned" not in line] or found
    return "\n  ".join(list(dict.fromkeys(telling))[:_SHOWN] or lines[-_SHOWN:] or ["(no output)"])


def version_of(command: Sequence[str]) -> str | None:
    """The first line that a program prints about its version; None if it does not run."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = (done.stdout or done.stderr).strip()
    return text.splitlines()[0] if done.returncode == 0 and text else None
