"""The paper's tables on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bnnmcu.cli.output import note
from bnnmcu.cli.summary import print_tables
from bnnmcu.paper.pages import boards_table, extras_table, main_table, missing, warmth_table

if TYPE_CHECKING:
    from bnnmcu.paper.assemble import Shown
    from bnnmcu.paper.lookup import Index

__all__ = ["print_shown"]

# Commands for what is missing; --json has all.
_COMMANDS = 3


def print_shown(tables: list[Shown], index: Index, path: Path) -> None:
    """Tables with what stands beside them; then what is missing."""
    for number, shown in enumerate(tables):
        if number:
            print()
        every = (
            main_table(shown),
            extras_table(shown),
            warmth_table(shown),
            boards_table(shown),
        )
        print_tables([table for table in every if table is not None])
        commands = list(missing(shown))
        if commands:
            print("not run:")
            for command in commands[:_COMMANDS]:
                print(f"  {command}")
            if len(commands) > _COMMANDS:
                print(f"  and {len(commands) - _COMMANDS} more; --json has all")
    if index.left_out:
        note(f"warning: {len(index.left_out)} records are of other test images, and not shown")
    note(f"{len(index.records)} records in {path}; every cell's are in --json")
