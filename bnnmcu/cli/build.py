"""``bnnmcu build``."""

from __future__ import annotations

from pathlib import Path

import click

from bnnmcu.cli.inputs import open_project
from bnnmcu.cli.options import json_option, project_argument
from bnnmcu.cli.output import note, print_json, print_table

__all__ = ["command"]


@click.command("build")
@project_argument
@click.option(
    "--toolchain",
    type=click.Choice(["platformio", "gcc", "zig"]),
    default="platformio",
    show_default=True,
    help="platformio drives 'pio run'; gcc and zig compile directly.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the compiler's output.")
@json_option
def command(project: Path, toolchain: str, verbose: bool, as_json: bool) -> None:
    """Compile a project and print its size.

    \b
    Example:
      bnnmcu build s64 --toolchain gcc
    """
    from bnnmcu.toolchain.compiler import build_firmware

    loaded = open_project(project)
    log = note if verbose else None
    result = build_firmware(loaded.folder, toolchain, log=log, announce=note)
    board = loaded.board
    if as_json:
        print_json(
            {
                "elf": str(result.elf),
                "toolchain": result.toolchain,
                "version": result.version,
                "flash": result.flash_bytes,
                "ram": result.ram_bytes,
                "board_flash": board.flash.size,
                "board_ram": board.ram.size,
            }
        )
        return
    rows = [
        [name, f"{used:,}", f"{there:,}", f"{100 * used / there:.1f} %"]
        for name, used, there in (
            ("flash", result.flash_bytes, board.flash.size),
            ("RAM (stack included)", result.ram_bytes, board.ram.size),
        )
    ]
    print_table(
        f"{loaded.graph.name} on {board.title}",
        ["", "bytes", "of", "share"],
        rows,
        caption=f"as linked by {result.toolchain} {result.version}: {result.elf}",
    )
