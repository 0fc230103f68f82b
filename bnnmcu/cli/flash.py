"""``bnnmcu flash``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnnmcu.cli.inputs import open_project
from bnnmcu.cli.options import json_option, project_argument
from bnnmcu.cli.output import last_line, note, print_json
from bnnmcu.errors import LinkError, UsageError

if TYPE_CHECKING:
    from bnnmcu.backend.project import Project
    from bnnmcu.boards import Board
    from bnnmcu.link.hello import DeviceInfo

__all__ = ["command"]

START_TIMEOUT = 15.0
"""Seconds after an upload in which the board must answer; a USB port may come back late."""
_PAUSE = 0.5


@click.command("flash")
@project_argument
@click.option(
    "--port",
    metavar="URL",
    help="Serial port on which the board must answer afterwards; 'auto' for the only candidate.",
)
@click.option("--baud", type=int, help="Baud rate of --port; the board's by default.")
@click.option("--upload-port", metavar="PORT", help="For the uploader; found by PlatformIO.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask about boards that were never run.")
@click.option("-v", "--verbose", is_flag=True, help="Show all that PlatformIO prints.")
@json_option
def command(
    project: Path,
    port: str | None,
    baud: int | None,
    upload_port: str | None,
    yes: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Build a project and write it to a board, through PlatformIO.

    With --port, the board is then asked for its greeting, and whether it runs
    this project's network.

    \b
    Example:
      bnnmcu flash s64 --port auto
    """
    from bnnmcu.backend.project import MLPERF
    from bnnmcu.toolchain.flash import check_possible, flash

    loaded = open_project(project)
    check_possible(loaded.board)
    if port is not None:
        loaded.check_answers()
        _check_port(loaded.board, port)
    _ask(loaded.board, yes)
    with last_line(verbose) as log:
        flash(loaded.folder, loaded.board, upload_port=upload_port, log=log, announce=note)
    info = None if port is None else _greeting(loaded, port, baud)
    if as_json:
        print_json(
            {
                "board": loaded.board.name,
                "model": loaded.sha256.hex(),
                "answered": None if info is None else info.board,
            }
        )
        return
    print(f"{loaded.graph.name} is on {loaded.board.title}")
    key = " --device-key FILE" if loaded.board.field_mode else ""
    if loaded.server == MLPERF:
        note("  next: ask it by the MLPerf Tiny runner, or examples/mlperf_tiny.py")
    elif info is None:
        note(f"  next: bnnmcu verify {project} --port auto{key}")
    else:
        note(f"it answers as {info.board} with this network\n  next: bnnmcu verify {project}{key}")


def _check_port(board: Board, port: str) -> None:
    """Notice a wrong ``--port`` before anything is written.

    Raises:
        LinkError: there is no such port, or several may be meant.
    """
    from bnnmcu.link.ports import AUTO, candidates, list_ports, resolve_port

    ports = list_ports()
    if port == AUTO and not candidates(ports, board.usb.ids):
        # A probe may show its port only once it has been written to.
        note(f"no port for {board.title} is there yet; it is looked for again after the upload")
        return
    name = resolve_port(port, board.usb.ids, board.title)
    there = (
        "://" in name
        or Path(name).exists()
        # Windows' ports are no files.
        or (os.name == "nt" and name.upper() in {one.device.upper() for one in ports})
    )
    if not there:
        names = ", ".join(map(str, ports))
        raise LinkError(
            "no such port; nothing was written",
            where=port,
            hint=f"choose one of {names}" if ports else "plug the board in, or leave out --port",
        )


def _ask(board: Board, yes: bool) -> None:
    from bnnmcu.toolchain.flash import warning

    text = warning(board)
    if text is None:
        return
    note(f"warning: {text}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody can be asked whether to write to it all the same",
            where=board.name,
            hint="--yes, if that is meant",
        )
    click.confirm("write to it all the same?", abort=True, err=True)


def _greeting(project: Project, port: str, baud: int | None) -> DeviceInfo:
    """What the board says, once it does.

    Raises:
        LinkError: it does not answer, or runs another network.
    """
    from bnnmcu.link.device import Device
    from bnnmcu.link.ports import resolve_port
    from bnnmcu.link.transport import open_port

    board = project.board
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            url = resolve_port(port, board.usb.ids, board.title)
            transport = open_port(url, baud or board.uart.baud)
            try:
                with Device(transport, expect_model=project.sha256) as device:
                    return device.info
            finally:
                transport.close()
        except LinkError:
            # The probe may re-enumerate after an upload.
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE)
