"""Writes a firmware to a board through PlatformIO, and explains what goes wrong.

PlatformIO knows the probes, their drivers and the flash of every chip; this
adds what it does not say: which of the usual causes its uploader's words mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.boards import Board, is_shipped
from bnnmcu.errors import BoardError, MissingDependencyError, ToolchainError
from bnnmcu.toolchain import platformio
from bnnmcu.toolchain.process import Log, run

__all__ = ["check_possible", "explained", "flash", "warning"]

_ELF = "'bnnmcu build --toolchain gcc' makes an ELF for a tool of your own"


@dataclass(frozen=True)
class _Cause:
    """What an uploader prints, what that means, and what helps."""

    pattern: str
    what: str
    hint: str


_CAUSES = (
    _Cause(
        r"LIBUSB_ERROR_ACCESS|Permission denied|Access is denied|Operation not permitted",
        "no permission to use the probe or port",
        "'bnnmcu doctor' says which rule or group is missing",
    ),
    _Cause(
        r"LIBUSB_ERROR_BUSY|Device or resource busy|Could not exclusively lock|claim interface",
        "another program holds the probe or port",
        "close serial monitors, debuggers and other uploads",
    ),
    _Cause(
        r"open failed|No (device|probe|debug probe)s? ?(found|connected|available)?"
        r"|unable to open .*(cmsis|st-?link|j-?link)|unable to find a matching"
        r"|Cannot connect to J-?Link|no ST-?LINK|Please specify `upload_port`"
        r"|Could not find .*(drive|disk)",
        "no debug probe or board was found",
        "plug the board in with a cable that carries data; 'bnnmcu doctor' lists what is seen",
    ),
    _Cause(
        r"init mode failed|unable to connect to the target|not examined|target voltage"
        r"|Failed to (init|connect)|no target|WAIT_FOR_HALT|Target not found",
        "the probe is there, but the chip does not answer",
        "power the board, hold RESET while the upload starts, and check that it is this board",
    ),
    _Cause(
        r"auto erase failed|flash write failed|verify failed|checksum mismatch|write protect",
        "the flash could not be written",
        "erase the chip with its vendor's tool (write protection may be on) and try again",
    ),
    _Cause(
        r"could not open port|FileNotFoundError.*tty|No such file or directory: .*/dev/",
        "there is no such port",
        "'bnnmcu doctor' lists the ports that are there",
    ),
)


def warning(board: Board) -> str | None:
    """What a user should know before writing to a board that nobody has run; None if fine.

    A board file of the user may say what it likes: only those that come with bnnmcu,
    as they are, count as measured.
    """
    said = f"{board.evidence.level} ({board.evidence.text})"
    if board.evidence.level == "measured on hardware":
        if is_shipped(board):
            return None
        text = f"its board file, which does not come with bnnmcu as it is, says that it was {said}"
        text = f"{board.title}: {text}"
    else:
        text = f"{board.title} was never run with this firmware by anyone who reported it: {said}"
    if board.reset_clock:
        return text
    how = " (with over-drive)" if board.facts.get("overdrive") else ""
    return (
        f"{text}; it sets its clock to {board.clock_hz / 1e6:g} MHz{how}, which was never seen "
        "on this board"
    )


def check_possible(board: Board) -> platformio.PlatformIOTool:
    """Whether anything can be uploaded to a board; nothing is written or asked before.

    Returns:
        The PlatformIO that will do it.

    Raises:
        BoardError: PlatformIO does not know the board.
        MissingDependencyError: PlatformIO is not installed.
    """
    if not board.platformio.board:
        raise BoardError(
            "PlatformIO does not know this board, so that nothing can be uploaded",
            where=board.name,
            hint=_ELF,
        )
    try:
        return platformio.find()
    except MissingDependencyError as error:
        # Its own hint is for builds, which other compilers can make.
        raise MissingDependencyError(
            error.what, where=error.where, hint=f"pip install 'bnnmcu[flash]'; or: {_ELF}"
        ) from error


def flash(
    project: Path,
    board: Board,
    *,
    upload_port: str | None = None,
    log: Log | None = None,
    announce: Log | None = None,
) -> None:
    """Build a project if need be and write it to the board (``pio run -t upload``).

    Args:
        upload_port: of the uploader; found by PlatformIO if None.
        log: is given each line it prints.
        announce: is told that it starts.

    Raises:
        MissingDependencyError: PlatformIO is not installed.
        BoardError: PlatformIO does not know the board.
        ToolchainError: it fails, with the likely cause and what helps.
    """
    tool = check_possible(board)
    project = project.resolve()
    command = [*tool.command, "run", "-d", str(project), "-e", board.name, "-t", "upload"]
    if upload_port is not None:
        command += ["--upload-port", upload_port]
    if announce is not None:
        announce(f"{' '.join(['pio', *command[len(tool.command) :]])}")
    code, output = run(command, cwd=project, log=log, env=platformio.environment())
    if code != 0:
        raise explained(project, output)


def explained(project: Path, output: str) -> ToolchainError:
    """An error from what PlatformIO and its uploader printed."""
    for cause in _CAUSES:
        found = re.search(cause.pattern, output, re.IGNORECASE)
        # What the compiler says comes first, and is no matter of probes.
        if found and "Compiling" not in output[found.start() :]:
            line = output[: found.end()].splitlines()[-1].strip()
            rest = output[found.end() :].splitlines()[:1]
            return ToolchainError(
                f"{cause.what}:\n  {line}{rest[0] if rest else ''}",
                where=str(project),
                hint=f"{cause.hint}; all output: bnnmcu flash -v",
            )
    error = platformio.explained(project, output)
    if platformio.is_offline(output):
        hint = "connect once so that PlatformIO can fetch its packages, the uploader among them"
        return ToolchainError(error.what, where=error.where, hint=f"{hint}; or: {_ELF}")
    if error.hint is not None and "bnnmcu build -v" in error.hint:
        return ToolchainError(error.what, where=error.where, hint="all output: bnnmcu flash -v")
    return error
