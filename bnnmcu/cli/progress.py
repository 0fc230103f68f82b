"""Progress of long work: one lane for each board, and one for crafting.

A lane knows what is done, how fast, and what its line had to put up with.  How
lanes are shown is chosen once (``--progress``): as bars on a terminal, as a line
of text every few seconds, as JSON lines for scripts, or not at all.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from bnnmcu.cli.output import emit, note, shown_as

__all__ = [
    "Display",
    "JsonDisplay",
    "Lane",
    "PlainDisplay",
    "Rate",
    "link_counters",
    "link_text",
    "show_progress",
]

#: Seconds between two lines of text, and before the first: short work shows none.
PLAIN_EVERY = 5.0
#: Seconds between two JSON lines of a lane.
JSON_EVERY = 1.0
# Seconds that a rate looks back.
_WINDOW = 30.0
# Shorter spans say nothing: several answers come in one read.
_SHORTEST = 0.2

_COUNTERS = (
    ("retries", "retry", "retries"),
    ("timeouts", "timeout", "timeouts"),
    ("bad_frames", "corrupt reply", "corrupt replies"),
    ("reported", "corrupt request", "corrupt requests"),
    ("reconnects", "reconnect", "reconnects"),
)


def link_counters(stats: Any) -> dict[str, int]:
    """The counters of a ``LinkStats`` by name; none where there is no link."""
    return {} if stats is None else dict(dataclasses.asdict(stats))


def link_text(stats: Any) -> str:
    """What went wrong on a line, as ``3 retries, 1 timeout``; empty if nothing did."""
    found = link_counters(stats)
    parts = []
    for name, one, many in _COUNTERS:
        count = found.get(name, 0)
        if count:
            parts.append(f"{count:,} {one if count == 1 else many}")
    return ", ".join(parts)


class Rate:
    """Things a second, over the last half minute.

    Args:
        clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque([(clock(), 0)])

    def observe(self, count: int) -> None:
        """``count`` things are done since this was made."""
        now = self._clock()
        self._seen.append((now, count))
        # Of what is too old the youngest stays, so that slow work has a rate as well.
        while len(self._seen) > 2 and self._seen[1][0] < now - _WINDOW:
            self._seen.popleft()

    def value(self) -> float | None:
        """The rate; None as long as there is none."""
        (first, before), (last, count) = self._seen[0], self._seen[-1]
        span, silence = last - first, self._clock() - last
        # Work that comes in lots is silent between them; a longer silence counts.
        span += silence if silence > span else 0.0
        return (count - before) / span if count > before and span >= _SHORTEST else None


class Lane:
    """One line of progress.  Changed by one thread, and looked at by another.

    Attributes:
        name: of the board, or of the work.
        board: whether it is a board's.
        case: what it works on now.
        done, total: of this case; what an earlier session did counts.

    Args:
        unit: what is counted, in the plural.
        link: gives the counters of the board's line.
        expected: the most things a second that the line can carry, if known.
        changed: is told when a case begins and when it is finished.
    """

    def __init__(
        self,
        name: str,
        *,
        board: bool,
        unit: str,
        link: Callable[[], Any] | None,
        expected: float | None,
        clock: Callable[[], float],
        changed: Callable[[Lane], None],
    ) -> None:
        self.name = name
        self.board = board
        self.unit = unit
        self.case = ""
        self.done = 0
        self.total = 0
        self._link = link
        self._expected = expected
        self._clock = clock
        self._changed = changed
        self._begun = self._ended = clock()
        self._earlier = 0
        self._rate = Rate(clock)
        # Of the case before: a better guess than none.
        self._before: float | None = None

    def begin(self, case: str, total: int, done: int = 0) -> None:
        """Work on something new, of which an earlier session may have done a part."""
        if self.board:
            self._before = self.rate
        self.case, self.total, self.done = case, total, done
        self._earlier = done
        self._begun = self._ended = self._clock()
        self._rate = Rate(self._clock)
        self._changed(self)

    def update(self, done: int) -> None:
        """So much is done of the case."""
        self.done = done
        self._rate.observe(done - self._earlier)
        if self.finished:
            self._ended = self._clock()
            self._changed(self)

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self.update(self.done + count)

    @property
    def finished(self) -> bool:
        """Whether nothing is left of the case."""
        return self.done >= self.total

    @property
    def idle(self) -> bool:
        """Whether this session has had nothing to do for the case."""
        return self.finished and self.done == self._earlier

    @property
    def rate(self) -> float | None:
        """Things a second, measured in this session; None before there is one."""
        if self.finished:
            span, count = self._ended - self._begun, self.done - self._earlier
            return count / span if count and span >= _SHORTEST else self._before
        return self._rate.value() or self._before

    @property
    def eta(self) -> float | None:
        """Seconds left of this case; before the first rate at what the line can carry."""
        if self.finished:
            return 0.0
        rate = self.rate or self._expected
        return (self.total - self.done) / rate if rate else None

    @property
    def seconds(self) -> float:
        """Seconds that this session has worked, or did work, on the case."""
        return (self._ended if self.finished else self._clock()) - self._begun

    @property
    def stats(self) -> Any:
        """The counters of the line; None without one."""
        return self._link() if self._link else None

    def rate_text(self) -> str:
        """The rate for people; what the line can carry before there is one."""
        if self.rate is not None:
            return f"{_figure(self.rate)} {self.unit}/s"
        if self._expected is not None:
            return f"line: {_figure(self._expected)} {self.unit}/s"
        return ""

    def time_text(self) -> str:
        """The time left, or when finished the time it took."""
        if self.finished:
            return f"in {_duration(self.seconds)}"
        return f"{_duration(self.eta)} left" if self.eta is not None else ""

    def text(self) -> str:
        """All in one line."""
        facts = [f"{self.done:,}/{self.total:,}", self.rate_text(), self.time_text()]
        wrong = link_text(self.stats)
        line = f"{self.name}: {self.case} {', '.join(fact for fact in facts if fact)}"
        return f"{line}; {wrong}" if wrong else line

    def fields(self) -> dict[str, Any]:
        """For a JSON line."""
        rate, eta = self.rate, self.eta
        return {
            "lane": self.name,
            "case": self.case,
            "done": self.done,
            "total": self.total,
            "rate": None if rate is None else round(rate, 3),
            "eta_s": None if eta is None else round(eta, 1),
            "board": self.name if self.board else None,
            "link": link_counters(self.stats),
        }


class Display:
    """Lanes, and a way to show them; this one shows nothing.  A context manager.

    Args:
        every: seconds between two looks at the lanes; 0 for none.
        clock: for tests.
    """

    def __init__(self, every: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.lanes: list[Lane] = []
        self._every = every
        self._clock = clock
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def lane(
        self,
        name: str,
        *,
        board: bool = False,
        unit: str = "images",
        link: Callable[[], Any] | None = None,
        expected: float | None = None,
    ) -> Lane:
        """A new lane; see :class:`Lane`."""
        lane = Lane(
            name,
            board=board,
            unit=unit,
            link=link,
            expected=expected,
            clock=self._clock,
            changed=self.changed,
        )
        self.lanes.append(lane)
        return lane

    def changed(self, lane: Lane) -> None:
        """A case has begun, or is finished."""

    def tick(self) -> None:
        """Called every so often, also when nothing moves."""

    def end(self) -> None:
        """All work is over, or has failed."""

    def __enter__(self) -> Self:
        if self._every:
            # Of its own, since a board that does not answer moves nothing.
            self._ticker = threading.Thread(target=self._run, name="bnnmcu-progress", daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._ticker is not None:
            self._ticker.join()
        self.end()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.tick()


class PlainDisplay(Display):
    """A line of text for each lane at work, every few seconds."""

    def __init__(
        self, every: float = PLAIN_EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(every, clock)
        self._told = False

    def tick(self) -> None:
        """See :meth:`Display.tick`."""
        for lane in self.lanes:
            if not lane.finished:
                self._told = True
                note(lane.text())

    def changed(self, lane: Lane) -> None:
        """Says how a case ended, once the work has turned out to be long."""
        if self._told and lane.finished and not lane.idle:
            note(lane.text())


class JsonDisplay(Display):
    """A JSON line for each lane at work every second, and when a case begins or ends."""

    def __init__(
        self, every: float = JSON_EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(every, clock)

    def tick(self) -> None:
        """See :meth:`Display.tick`."""
        for lane in self.lanes:
            if not lane.finished:
                self.changed(lane)

    def end(self) -> None:
        """See :meth:`Display.end`: how far the work had come when it was given up."""
        self.tick()

    def changed(self, lane: Lane) -> None:
        """See :meth:`Display.changed`."""
        emit("progress", **lane.fields())


@contextmanager
def show_progress() -> Iterator[Display]:
    """The display that was asked for with ``--progress``."""
    mode = shown_as()
    if mode == "bar":
        from bnnmcu.cli.bars import BarDisplay

        display: Display = BarDisplay()
    else:
        kinds: dict[str, type[Display]] = {"plain": PlainDisplay, "json": JsonDisplay}
        display = kinds.get(mode, Display)()
    with display:
        yield display


def _figure(rate: float) -> str:
    """Three digits, or all that are left of the point."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, as ``1:02:03``; an ETA is rounded up, so never 0 too soon."""
    whole = max(0, -int(-seconds // 1))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
