"""A run's figures on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bnnmcu.cli.output import note, print_table

if TYPE_CHECKING:
    from bnnmcu.attack.metrics import Summary
    from bnnmcu.report.document import Table

__all__ = ["print_summary", "print_tables"]


def print_summary(summary: Summary, *, details: bool = True) -> None:
    """Flags first, then what is left right and, with details, what the attacks did."""
    from bnnmcu.report.attack_tables import accuracy_table, summary_tables
    from bnnmcu.report.attacks import looked_at
    from bnnmcu.report.flag_text import told

    for line in told(summary.flags):
        note(line)
    for line in looked_at(summary):
        note(line)
    print_tables(summary_tables(summary) if details else [accuracy_table(summary)])


def print_tables(tables: Iterable[Table]) -> None:
    """Tables of a report on standard output."""
    for number, table in enumerate(tables):
        if number:
            print()
        print_table(
            table.title,
            table.columns,
            table.rows,
            text_columns=table.text_columns,
            caption=table.caption,
        )
