"""``bnnmcu boards``."""

from __future__ import annotations

import click

from bnnmcu.cli.options import json_option
from bnnmcu.cli.output import print_json, print_table

__all__ = ["command"]


@click.command("boards")
@json_option
def command(as_json: bool) -> None:
    """List the boards, with what is known about each.

    \b
    Example:
      bnnmcu boards --json
    """
    from bnnmcu.boards import all_boards

    boards = all_boards()
    if as_json:
        print_json(
            [
                {
                    "name": board.name,
                    "aliases": list(board.aliases),
                    "title": board.title,
                    "chip": board.chip,
                    "core": board.core,
                    "flash": board.flash.size,
                    "ram": board.ram.size,
                    "clock_hz": board.clock.hz,
                    "emulators": _emulators(board.emulator.qemu, board.emulator.unicorn),
                    "level": board.evidence.level,
                    "evidence": board.evidence.text,
                }
                for board in boards
            ]
        )
        return
    print_table(
        "Boards",
        ["name", "chip", "flash", "RAM", "clock", "emulators", "level"],
        [
            [
                board.name,
                board.chip,
                f"{board.flash.size // 1024} KB",
                f"{board.ram.size // 1024} KB",
                f"{board.clock.hz / 1e6:.0f} MHz",
                ", ".join(_emulators(board.emulator.qemu, board.emulator.unicorn)),
                board.evidence.level,
            ]
            for board in boards
        ],
        text_columns=7,
        caption="1 KB is 1,024 bytes here. A board of your own: give its .toml file to --board.",
    )


def _emulators(qemu: str, unicorn: bool) -> list[str]:
    return ([f"qemu {qemu}"] if qemu else []) + (["unicorn"] if unicorn else [])
