"""What is wrong with a line: which bytes of a stream are hit, and how.

Positions count from the first byte of a direction, and chunks are the 64-byte
pieces from there on, wherever a program's writes begin and end.  So the seed
and the position decide alone, and one kind's positions are not moved by
another kind.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields

from bnnmcu.errors import UsageError

__all__ = ["CHUNK", "KINDS", "FlawCounts", "Flaws", "Piece", "SpoiledStream", "parse_flaws"]

CHUNK = 64
"""Bytes of a chunk: a packet of USB at full speed."""
KINDS = ("corrupt", "drop", "duplicate", "reorder", "split", "stall", "cut", "reset")

MOST_SECONDS = 60.0
MOST_WINDOW = 64
_SPLIT_INTO = 3
_EXAMPLE = "e.g. corrupt=1/20000,drop=0.002,stall=0.0005:0.5,seed=7"
#: Kinds that take a figure after a colon, and its field.
_SECOND = {"stall": "stall_seconds", "split": "split_seconds", "reorder": "reorder_window"}


@dataclass(frozen=True)
class Flaws:
    """How bad a line is, in each direction.

    Attributes:
        corrupt: probability that a byte is changed.
        drop: probability that a chunk is lost; so for all that follow.
        duplicate: ... comes twice, the copy right after it.
        reorder: ... is overtaken by up to ``reorder_window`` chunks after it.
        split: ... comes in three pieces, ``split_seconds`` apart.
        stall: ... comes ``stall_seconds`` late, and holds up what follows.
        cut: ... and all that follows is lost, since the connection goes.
        reset: the board is reset as the chunk begins.
        stall_seconds: 0 to 60.
        split_seconds: 0 to 60.
        reorder_window: chunks, 1 to 64.
        seed: not negative; the same seed hits the same positions.

    Raises:
        UsageError: a figure out of its range.
    """

    corrupt: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    split: float = 0.0
    stall: float = 0.0
    cut: float = 0.0
    reset: float = 0.0
    stall_seconds: float = 0.5
    split_seconds: float = 0.02
    reorder_window: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for kind in KINDS:
            if not 0 <= getattr(self, kind) <= 1:  # false for NaN too
                raise _wrong(f"{kind} is a probability, from 0 to 1", f"{kind}=1/1000")
        for name in ("stall_seconds", "split_seconds"):
            if not 0 <= getattr(self, name) <= MOST_SECONDS:
                kind = name.partition("_")[0]
                raise _wrong(f"{kind} takes 0 to {MOST_SECONDS:g} seconds", f"{kind}=0.001:0.5")
        if not 1 <= self.reorder_window <= MOST_WINDOW:
            raise _wrong(f"reorder takes 1 to {MOST_WINDOW} chunks", "reorder=0.001:2")
        if self.seed < 0:
            raise _wrong("the seed must not be negative", "seed=7")


def parse_flaws(text: str) -> Flaws:
    """Read flaws as they are written on a command line.

    ``KIND=PROBABILITY`` with commas between, probabilities as ``0.002`` or
    ``1/20000``; ``stall`` and ``split`` take ``:SECONDS`` after it, ``reorder``
    takes ``:CHUNKS``; ``seed=NUMBER``.

    Raises:
        UsageError: anything else, and what is named twice.
    """
    values: dict[str, float | int] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in (*KINDS, "seed") or not equals:
            raise _wrong(
                f"{item.strip()!r} is no flaw",
                f"KIND=PROBABILITY, with KIND one of {', '.join(KINDS)}; or seed=NUMBER",
            )
        if name in values:
            raise _wrong(f"{name} is named twice", "name each kind once")
        first, colon, second = value.partition(":")
        if name == "seed":
            values[name] = _whole(name, value)
            continue
        values[name] = _probability(name, first)
        if colon and name not in _SECOND:
            raise _wrong(f"{name} takes nothing after a colon", f"{name}={first}")
        if colon and name == "reorder":
            values[_SECOND[name]] = _whole(name, second)
        elif colon:
            values[_SECOND[name]] = _number(name, second)
    return Flaws(**values)  # type: ignore[arg-type]  # its own check knows the types


def _probability(name: str, text: str) -> float:
    over, slash, under = text.partition("/")
    if not slash:
        return _number(name, over)
    above, below = _number(name, over), _number(name, under)
    if not below:
        raise _wrong(f"{name}={text} divides by zero", f"{name}=1/20000")
    return above / below


def _number(name: str, text: str) -> float:
    if not re.fullmatch(r"(\d+\.?\d*|\.\d+)(e-?\d{1,2})?", text, re.ASCII):
        raise _wrong(f"{name}: {text!r} is no number", _EXAMPLE)
    return float(text)


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise _wrong(f"{name}: {text!r} is no whole number", _EXAMPLE)
    return int(text)


def _wrong(what: str, hint: str) -> UsageError:
    return UsageError(what, where="flaws of the line", hint=hint)


@dataclass(frozen=True)
class FlawCounts:
    """What was done to a line so far, both directions together.

    Attributes:
        bytes: that were put in.
        chunks: that were begun.
        corrupt: bytes that came out changed; for the rest, how often it happened.
    """

    bytes: int = 0
    chunks: int = 0
    corrupt: int = 0
    drop: int = 0
    duplicate: int = 0
    reorder: int = 0
    split: int = 0
    stall: int = 0
    cut: int = 0
    reset: int = 0

    @classmethod
    def of(cls, *counters: Counter[str]) -> FlawCounts:
        """The sum of some counters."""
        return cls(**{f.name: sum(counter[f.name] for counter in counters) for f in fields(cls)})

    def __str__(self) -> str:
        done = [f"{kind} {getattr(self, kind)}" for kind in KINDS if getattr(self, kind)]
        return f"{self.bytes} bytes, {self.chunks} chunks; " + (", ".join(done) or "no flaw")


@dataclass(frozen=True)
class Piece:
    """What comes out of a stream, in order.

    Attributes:
        data: bytes.
        delay: seconds that it comes later than it could.
        event: ``"cut"`` or ``"reset"``, with no bytes; else ``""``.
    """

    data: bytes
    delay: float = 0.0
    event: str = ""


@dataclass
class _Late:
    """A chunk that others overtake, until the chunk ``until`` begins."""

    data: bytearray
    until: int
    ends: int


class SpoiledStream:
    """One direction of a line: bytes in, spoiled bytes out.

    What comes out depends on what was put in and on the seed, on nothing else,
    unless :meth:`release` is called, which whoever knows the time does.

    Args:
        flaws: what happens, how often.
        name: tells the two directions of a line apart.
    """

    def __init__(self, flaws: Flaws, name: str) -> None:
        self.counts: Counter[str] = Counter()
        self._flaws = flaws
        self._hits = {
            kind: _Hits(f"{flaws.seed}/{name}/{kind}", getattr(flaws, kind)) for kind in KINDS
        }
        self._random = {kind: _generator(f"{flaws.seed}/{name}/{kind}/how") for kind in KINDS}
        self._position = 0
        self._dropping = False
        self._copy: bytearray | None = None
        self._holding: _Late | None = None
        self._late: list[_Late] = []
        self._gaps: list[int] = []
        self._delay = 0.0

    @property
    def holds(self) -> bool:
        """Whether chunks wait here to be overtaken."""
        return bool(self._late)

    def feed(self, data: bytes) -> list[Piece]:
        """Put bytes in; what comes out by now.  Nothing that follows a cut comes out."""
        out: list[Piece] = []
        while data:
            begun = self._position % CHUNK
            if not begun:
                out += self._begin(self._position // CHUNK)
                if out and out[-1].event == "cut":
                    break
            part, data = data[: CHUNK - begun], data[CHUNK - begun :]
            out += self._go_on(begun, self._corrupted(part))
            self._position += len(part)
            self.counts["bytes"] += len(part)
            if not self._position % CHUNK:
                out += self._end()
        return out

    def release(self) -> list[Piece]:
        """Let go what waits to be overtaken, since nothing seems to come."""
        self._holding = None
        return list(self._let_go(sys.maxsize))

    def _begin(self, chunk: int) -> Iterator[Piece]:
        # First, so that a chunk whose connection was cut is judged by the others when it comes.
        if self._hit("cut", chunk):
            yield Piece(b"", event="cut")
            return
        self.counts["chunks"] += 1
        yield from self._let_go(chunk)
        if self._hit("reset", chunk):
            yield Piece(b"", event="reset")
        if self._hit("stall", chunk):
            self._delay += self._flaws.stall_seconds
        how = self._random["split"]
        cuts = how.sample(range(1, CHUNK), _SPLIT_INTO - 1) if self._hit("split", chunk) else []
        self._gaps = sorted(cuts)
        self._dropping = self._hit("drop", chunk)
        self._copy = bytearray() if self._hits["duplicate"].at(chunk) else None
        self._holding = None
        if self._hits["reorder"].at(chunk):
            overtaking = self._random["reorder"].randint(1, self._flaws.reorder_window)
            if not self._dropping:
                self._holding = _Late(bytearray(), chunk + 1 + overtaking, (chunk + 1) * CHUNK)
                self._late.append(self._holding)

    def _go_on(self, begun: int, part: bytes) -> Iterator[Piece]:
        if self._dropping:
            return
        if self._copy is not None:
            self._copy += part
        if self._holding is not None:
            self._holding.data += part
            return
        ends = [gap for gap in self._gaps if begun <= gap < begun + len(part)]
        for start, end in zip([begun, *ends], [*ends, begun + len(part)], strict=True):
            if start in ends:
                self._delay += self._flaws.split_seconds
            if end > start:
                yield self._piece(part[start - begun : end - begun])

    def _end(self) -> Iterator[Piece]:
        copy, self._copy = self._copy, None
        if copy is None or self._dropping:
            return
        self.counts["duplicate"] += 1
        if self._holding is not None:
            self._holding.data += copy
        else:
            yield self._piece(bytes(copy))

    def _let_go(self, chunk: int) -> Iterator[Piece]:
        ready = [late for late in self._late if late.until <= chunk]
        self._late = [late for late in self._late if late.until > chunk]
        for late in ready:
            self.counts["reorder"] += self._position > late.ends
            if late.data:
                yield self._piece(bytes(late.data))

    def _piece(self, data: bytes) -> Piece:
        delay, self._delay = self._delay, 0.0
        return Piece(data, delay)

    def _corrupted(self, part: bytes) -> bytes:
        hits, changed = self._hits["corrupt"], bytearray(part)
        for at in range(hits.next - self._position, len(part)):
            if hits.at(self._position + at):
                changed[at] ^= self._random["corrupt"].randrange(1, 256)
                self.counts["corrupt"] += not self._dropping
        return bytes(changed)

    def _hit(self, kind: str, chunk: int) -> bool:
        hit = self._hits[kind].at(chunk)
        self.counts[kind] += hit
        return hit


class _Hits:
    """The positions at which something happens, each with the same probability."""

    def __init__(self, name: str, probability: float) -> None:
        self._random = _generator(name)
        self._probability = probability
        self.next = -1
        self._go_on()

    def at(self, position: int) -> bool:
        """Whether it happens there; positions may only grow."""
        if position < self.next:
            return False
        self._go_on()
        return True

    def _go_on(self) -> None:
        # The gap to the next hit is geometric, which costs one draw a hit instead of one a byte.
        if self._probability <= 0:
            self.next = sys.maxsize
        elif self._probability >= 1:
            self.next += 1
        else:
            tries = math.log(1.0 - self._random.random()) / math.log1p(-self._probability)
            self.next += 1 + int(min(tries, 1e15))


def _generator(name: str) -> random.Random:
    # Reproducible is what it has to be; nobody's secret depends on it.
    return random.Random(name)  # noqa: S311
