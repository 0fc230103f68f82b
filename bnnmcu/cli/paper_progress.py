"""Progress of ``bnnmcu paper``: one bar, or a line for each thing that is finished."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from bnnmcu.cli.output import emit, note, progress_bar, shown_as
from bnnmcu.paper.record import Record
from bnnmcu.paper.runner import Failure, Lines
from bnnmcu.paper.selection import Task

__all__ = ["Shown"]

# Seconds between two lines of text.
_EVERY = 60.0


class Shown(Lines):
    """Shows what :func:`bnnmcu.paper.runner.run_tasks` tells, as standard error is to carry it."""

    def __init__(self) -> None:
        self._bar: Any = progress_bar() if shown_as() == "bar" else None
        self._task: Any = None
        self._last = time.monotonic()
        self._before = ""

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, info="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def task(self, number: int, total: int, task: Task) -> None:
        """A job begins."""
        self._before = f"{number}/{total} {task.name}"
        self._last = time.monotonic()
        emit("task", number=number, total=total, what=task.name)

    def training(self, task: Task, epoch: int, epochs: int, step: int, steps: int) -> None:
        """A network is trained for it."""
        self._step(f"training, epoch {epoch}/{epochs}", step, steps)

    def measuring(self, task: Task, text: str, done: int, total: int) -> None:
        """It is measured."""
        self._step(text, done, total)

    def note(self, text: str) -> None:
        """Something that is to be known, such as a wait."""
        note(f"{self._before}: {text}")

    def _step(self, text: str, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task, description=f"{self._before}: {text}", completed=done, total=total
            )
            return
        now = time.monotonic()
        if now - self._last >= _EVERY:
            self._last = now
            emit("progress", what=text, done=done, total=total)
            if shown_as() == "plain":
                note(f"{self._before}: {text}, {done:,} of {total:,}")

    def done(self, task: Task, record: Record) -> None:
        """Its record is stored."""
        note(f"{self._before}: record {record.id}, {record.measuring_seconds:.0f} s")

    def failed(self, failure: Failure) -> None:
        """It could not be done; the others go on."""
        note(f"warning: {self._before}: {failure.error}")
