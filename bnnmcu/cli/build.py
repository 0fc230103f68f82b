"""``bnnmcu build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import open_project
from bnnmcu.cli.options import json_option, project_argument
from bnnmcu.cli.output import last_line, note, print_json, print_table

if TYPE_CHECKING:
    from bnnmcu.backend.project import Project
    from bnnmcu.toolchain.compiler import BuildResult
    from bnnmcu.toolchain.stack import StackBound

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
    """Compile a project and print its size, and how deep the stack can get.

    \b
    Example:
      bnnmcu build s64 --toolchain gcc
    """
    from bnnmcu.toolchain.compiler import build_firmware

    loaded = open_project(project)
    with last_line(verbose) as log:
        result = build_firmware(loaded.folder, toolchain, log=log, announce=note)
    predicted = loaded.predicted(toolchain)
    if as_json:
        print_json(_as_dict(result, loaded, predicted))
    else:
        _print(result, loaded, predicted)


def _as_dict(
    result: BuildResult, project: Project, predicted: dict[str, Any] | None
) -> dict[str, Any]:
    bound = result.stack_bound
    return {
        "elf": str(result.elf),
        "toolchain": result.toolchain,
        "version": result.version,
        "flash": result.flash_bytes,
        "ram": result.ram_bytes,
        "board_flash": project.board.usable_flash,
        "board_ram": project.board.ram.size,
        "predicted": predicted,
        "stack": {
            "reserved": result.stack_bytes,
            "bound": None if bound is None else bound.to_dict(),
        },
    }


def _print(result: BuildResult, project: Project, predicted: dict[str, Any] | None) -> None:
    board, expected = project.board, predicted or {}
    rows = [
        [name, f"{used:,}", _figure(expected.get(key)), f"{there:,}", f"{100 * used / there:.1f} %"]
        for name, key, used, there in (
            ("flash", "flash", result.flash_bytes, board.usable_flash),
            ("RAM (stack included)", "ram", result.ram_bytes, board.ram.size),
        )
    ]
    bound = result.stack_bound
    if bound is not None and bound.bytes is not None:
        share = f"{100 * bound.bytes / result.stack_bytes:.1f} %"
        rows.append(["stack, at most", f"{bound.bytes:,}", "", f"{result.stack_bytes:,}", share])
    facts = [f"as linked by {result.toolchain} {result.version}: {result.elf}"]
    if predicted is not None:
        yours = "" if _same(predicted, result) else f"; yours is {result.version}"
        facts.append(f"predicted for {predicted['compiler']}{yours}")
    facts.append(_stack_note(bound))
    print_table(
        f"{project.graph.name} on {board.title}",
        ["", "bytes", "predicted", "of", "share"],
        rows,
        caption="; ".join(facts),
    )


def _figure(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _same(predicted: dict[str, Any], result: BuildResult) -> bool:
    """Whether the compiler is the one whose code was measured."""
    # PlatformIO's version comes first in "6.1.18, gcc 12.3.1".
    version: str = result.version.rpartition("gcc ")[2]
    return str(predicted["compiler"]).rpartition(" ")[2] == version


def _stack_note(bound: StackBound | None) -> str:
    if bound is None:
        return "no bound for the stack: that needs --toolchain gcc, 10 or newer"
    if bound.bytes is None:
        return f"no bound for the stack: {'; '.join(bound.reasons)}"
    return f"deepest stack: {' > '.join(bound.path)}, and {bound.interrupt} bytes for an interrupt"
