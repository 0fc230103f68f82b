"""Progress on a terminal: a bar for each lane, and below what went wrong on its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnnmcu.cli.output import stderr_console
from bnnmcu.cli.progress import Display, Lane, link_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

__all__ = ["BarDisplay"]

# Columns; a longer line is harder to read across.
_WIDEST = 110
_REFRESHES_PER_SECOND = 4
# Below this many columns a bar says nothing that the numbers do not.
_NARROWEST_WITH_BAR = 72
_NARROWEST_BAR = 6


class BarDisplay(Display):
    """Lanes as bars that stay in their place; other lines go above them.

    They are drawn again by a thread of rich's, so that what the line counts is
    seen while a board does not answer.
    """

    def __init__(self) -> None:
        from rich.live import Live

        super().__init__()
        self._console = stderr_console()
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_SECOND,
        )

    def __enter__(self) -> BarDisplay:
        self._live.start()
        return self

    def end(self) -> None:
        """Leaves the lanes as they ended."""
        self._live.stop()
        if self.lanes and not self._console.is_terminal:
            # rich ends the last line only where it can go back over it.
            self._console.line()

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        width = min(self._console.width, _WIDEST)
        # Those that this session had nothing to do for would only be in the way.
        lanes = [lane for lane in self.lanes if not lane.idle]
        numbers = [_numbers(lane) for lane in lanes]
        fixed = sum(max((len(row[i]) for row in numbers), default=0) + 1 for i in range(3))
        with_bar = width >= _NARROWEST_WITH_BAR
        room = width - fixed - (_NARROWEST_BAR + 1 if with_bar else 0)
        table = Table.grid(padding=(0, 1), expand=True)
        table.width = width
        table.add_column(no_wrap=True)
        if with_bar:
            table.add_column(ratio=1)
        for _ in range(3):
            table.add_column(justify="right", no_wrap=True)
        for lane, row in zip(lanes, numbers, strict=True):
            bar = [ProgressBar(total=lane.total, completed=lane.done)] if with_bar else []
            table.add_row(Text(_title(lane, room)), *bar, *row)
        return Group(table, *self._wrong(lanes)) if lanes else Group()

    def _wrong(self, lanes: list[Lane]) -> list[Text]:
        from rich.text import Text

        boards = [lane for lane in lanes if lane.board]
        found = [(lane.name, link_text(lane.stats)) for lane in boards]
        # With one board its name is in the line above.
        return [
            Text(f"  {name}: {text}" if len(boards) > 1 else f"  {text}", style="yellow")
            for name, text in found
            if text
        ]


def _numbers(lane: Lane) -> tuple[str, str, str]:
    return f"{lane.done:,}/{lane.total:,}", lane.rate_text(), lane.time_text()


def _title(lane: Lane, room: int) -> str:
    """Who works at what; of a name that is too long its end is left out."""
    spare = room - len(lane.case) - 2
    name = lane.name if len(lane.name) <= spare else lane.name[: max(0, spare - 1)] + "…"
    return f"{name}: {lane.case}"[: max(1, room)]
