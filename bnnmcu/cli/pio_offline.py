"""``bnnmcu pio-offline``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from bnnmcu.cli.inputs import open_project
from bnnmcu.cli.options import json_option, project_argument
from bnnmcu.cli.output import note, print_json

__all__ = ["command"]


@click.command("pio-offline")
@project_argument
@click.option(
    "--core",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to fill; several projects may share it.",
)
@json_option
def command(project: Path, core: Path, as_json: bool) -> None:
    """Let 'pio run' build a project where nothing can be downloaded.

    Fills a PlatformIO core folder with stand-ins for what the project's
    platformio.ini pins: a platform that does to a build what the real one does,
    and the arm-none-eabi-gcc and SCons that are installed.  The project is used
    unchanged.  Uploading needs the real platform.

    \b
    Example:
      bnnmcu pio-offline s64 --core pio-core
      PLATFORMIO_CORE_DIR=$PWD/pio-core pio run -d s64
    """
    from bnnmcu.toolchain.pio_offline import seed_core

    loaded = open_project(project)
    seed = seed_core(core, loaded.folder, loaded.board)
    if as_json:
        print_json(
            {
                "core": str(seed.core),
                "environment": dict(seed.environment),
                "compiler": seed.compiler,
                "pinned": seed.pinned,
            }
        )
    else:
        # For a shell to take as it is.
        for name, value in seed.environment.items():
            print(f"export {name}={shlex.quote(value)}")
    note(
        f"the system's gcc {seed.compiler} stands in for the pinned {seed.pinned}: "
        "its code may differ a little in size and speed, never in results\n"
        f"  next: PLATFORMIO_CORE_DIR={shlex.quote(str(seed.core))} pio run -d {project}"
    )
