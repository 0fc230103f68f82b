"""The line that is bad on purpose: what it does, how often, and that it does it again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import fields

import pytest

from bnnmcu.errors import PortGoneError, UsageError
from bnnmcu.link.flaky import BUFFER, FlakyTransport, Flaws, parse_flaws
from bnnmcu.link.flaws import CHUNK, KINDS, FlawCounts, Piece, SpoiledStream

TEXT = bytes((7 * i + i // 251) & 0xFF for i in range(200 * CHUNK))


class Loop:
    """Sends back what it gets; its power can be cycled."""

    name = "loop"

    def __init__(self) -> None:
        self.heard = bytearray()
        self.queue = bytearray()
        self.resets = 0
        self.closed = False
        # As of a port: what one thread writes while another reads is not lost.
        self.lock = threading.Lock()

    def write(self, data: bytes) -> None:
        with self.lock:
            self.heard += data
            self.queue += data

    def read(self, size: int, timeout: float) -> bytes:
        if not self.queue:
            time.sleep(timeout)
        with self.lock:
            data = bytes(self.queue[:size])
            del self.queue[:size]
        return data

    def reset_input(self) -> None:
        self.queue.clear()

    def reset(self) -> None:
        self.resets += 1

    def close(self) -> None:
        self.closed = True


def through(flaws: Flaws, data: bytes = TEXT, *, step: int = 4096, name: str = "a") -> list[Piece]:
    stream = SpoiledStream(flaws, name)
    return [p for at in range(0, len(data), step) for p in stream.feed(data[at : at + step])]


def joined(pieces: list[Piece]) -> bytes:
    return b"".join(piece.data for piece in pieces)


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


SOME = "corrupt=1/500,drop=0.05,duplicate=0.05,reorder=0.05:3,split=0.05:0.01,stall=0.02:0.1,seed="


@pytest.mark.parametrize("step", [1, 7, 64, 100, len(TEXT)])
def test_only_seed_and_position_decide(step: int) -> None:
    flaws = parse_flaws(SOME + "7")
    assert joined(through(flaws, step=step)) == joined(through(flaws))
    assert joined(through(flaws)) != TEXT
    assert joined(through(parse_flaws(SOME + "8"))) != joined(through(flaws))
    assert joined(through(flaws, name="b")) != joined(through(flaws)), "both ways alike"


def test_a_sound_line_changes_nothing() -> None:
    assert joined(through(Flaws())) == TEXT
    assert all(not piece.delay and not piece.event for piece in through(Flaws()))


def test_one_kind_does_not_move_another() -> None:
    """Each chunk that is dropped alone is dropped in company as well."""
    alone, both = SpoiledStream(Flaws(drop=0.1), "a"), SpoiledStream(Flaws(0.01, 0.1, 0.1), "a")
    alone.feed(TEXT)
    both.feed(TEXT)
    assert alone.counts["drop"] == both.counts["drop"] > 5


def _only_dropped(out: bytes, count: int) -> bool:
    rest = iter(chunks(TEXT))
    return all(any(c == kept for c in rest) for kept in chunks(out)) and len(out) == len(TEXT) - (
        count * CHUNK
    )


def _only_changed(out: bytes, count: int) -> bool:
    return sum(a != b for a, b in zip(out, TEXT, strict=True)) == count


def _only_doubled(out: bytes, count: int) -> bool:
    whole, at, twice = chunks(out), 0, 0
    for chunk in chunks(TEXT):
        if whole[at] != chunk:
            return False
        again = whole[at + 1 : at + 2] == [chunk]
        at += 1 + again
        twice += again
    return twice == count and at == len(whole)


def _only_moved(out: bytes, count: int) -> bool:
    if len(out) != len(TEXT) or sorted(chunks(out)) != sorted(chunks(TEXT)):
        return False
    order = [chunks(TEXT).index(chunk) for chunk in chunks(out)]
    overtaken = sum(any(later < i for later in order[:at]) for at, i in enumerate(order))
    # Up to two pass by, as is the default.
    return all(at - i <= 2 for at, i in enumerate(order)) and overtaken > 0 and count > 0


@pytest.mark.parametrize(
    ("kind", "often", "holds"),
    [
        ("drop", 0.05, _only_dropped),
        ("corrupt", 0.005, _only_changed),
        ("duplicate", 0.05, _only_doubled),
        ("reorder", 0.05, _only_moved),
    ],
)
def test_a_kind_does_what_it_says_and_counts_it(
    kind: str, often: float, holds: Callable[[bytes, int], bool]
) -> None:
    # Chunks that are all different, so that each is recognised.
    assert len(set(chunks(TEXT))) == 200
    stream = SpoiledStream(Flaws(**{kind: often}), "a")
    out = joined(stream.feed(TEXT)) + joined(stream.release())
    places = len(TEXT) if kind == "corrupt" else 200
    assert 0.3 * often * places < stream.counts[kind] < 3 * often * places
    assert holds(out, stream.counts[kind])
    assert stream.counts["bytes"] == len(TEXT)
    assert stream.counts["chunks"] == 200


def test_split_stall_cut_and_reset() -> None:
    pieces = through(Flaws(split=1, split_seconds=0.03))
    assert joined(pieces) == TEXT
    assert len(pieces) == 3 * 200
    assert sum(piece.delay for piece in pieces) == pytest.approx(2 * 200 * 0.03)
    late = [piece for piece in through(Flaws(stall=0.1, stall_seconds=2)) if piece.delay]
    assert 5 < len(late) < 40
    assert {piece.delay for piece in late} == {2}
    resets = [piece.event for piece in through(Flaws(reset=0.1)) if piece.event]
    assert 5 < len(resets) < 40
    assert set(resets) == {"reset"}
    first = through(Flaws(cut=0.02), step=len(TEXT))
    assert first[-1].event == "cut"
    assert TEXT.startswith(joined(first))
    assert len(joined(first)) < len(TEXT)


def test_probability_one_is_always_and_a_cut_line_gets_on() -> None:
    assert joined(through(Flaws(drop=1))) == b""
    stream = SpoiledStream(Flaws(cut=1), "a")
    for _ in range(5):
        assert stream.feed(TEXT[: 2 * CHUNK])[-1].event == "cut"
    assert stream.counts["chunks"] == 4, "no chunk may be cut for ever"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("corrupt=1/20000", Flaws(corrupt=1 / 20000)),
        ("drop=0.002, duplicate=.001 ,seed=9", Flaws(drop=0.002, duplicate=0.001, seed=9)),
        ("stall=5e-4:0.25", Flaws(stall=0.0005, stall_seconds=0.25)),
        ("split=1:0", Flaws(split=1, split_seconds=0)),
        ("reorder=0.1:5,cut=0,reset=1/2", Flaws(reorder=0.1, reorder_window=5, reset=0.5)),
    ],
)
def test_flaws_are_read(text: str, expected: Flaws) -> None:
    assert parse_flaws(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no flaw"),
        ("lose=0.1", "one of corrupt, drop"),
        ("drop", "KIND=PROBABILITY"),
        ("drop=0.1,,stall=0.1", "is no flaw"),
        ("drop=0.1,drop=0.2", "drop is named twice"),
        ("drop=much", "'much' is no number"),
        ("drop=-0.1", "is no number"),
        ("drop=1.5", "from 0 to 1"),
        ("drop=1/0", "divides by zero"),
        ("drop=1/2/3", "is no number"),
        ("drop=nan", "is no number"),
        ("drop=0.1:3", "nothing after a colon"),
        ("stall=0.1:", "is no number"),
        ("stall=0.1:61", "0 to 60 seconds"),
        ("reorder=0.1:0", "1 to 64 chunks"),
        ("reorder=0.1:1.5", "no whole number"),
        ("seed=-1", "no whole number"),
        ("seed=1e3", "no whole number"),
    ],
)
def test_what_is_no_flaw_is_refused_with_help(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_flaws(text)
    assert says in str(caught.value)
    assert caught.value.where
    assert caught.value.hint


def received(line: FlakyTransport, size: int) -> bytes:
    data, deadline = b"", time.monotonic() + 120
    while len(data) < size:
        assert time.monotonic() < deadline, f"{len(data)} of {size} bytes"
        data += line.read(4096, 0.5)
    return data


def test_a_pace_takes_its_time_each_way() -> None:
    line = FlakyTransport(Loop(), Flaws(), pace=57_600)
    start = time.monotonic()
    line.write(TEXT[:4000])
    written = time.monotonic() - start
    # All but what the buffer holds has left when write() returns.
    assert written >= (4000 - BUFFER) * 10 / 57_600 * 0.98
    assert received(line, 4000) == TEXT[:4000]
    took = time.monotonic() - start
    assert took >= 4000 * 10 / 57_600 * 0.98
    # Both ways at once: not twice as long, even if this machine is very busy.
    assert received_at_once(line) == TEXT[:100]


def received_at_once(line: FlakyTransport) -> bytes:
    line.write(TEXT[:100])
    return received(line, 100)


def test_a_read_waits_no_longer_than_asked() -> None:
    line = FlakyTransport(Loop(), Flaws(stall=1, stall_seconds=30))
    line.write(b"x")
    start = time.monotonic()
    assert line.read(1, 0.1) == b""
    assert line.read(1, 0.0) == b""
    assert 0.1 <= time.monotonic() - start < 15


def test_a_stall_delays_and_loses_nothing() -> None:
    line = FlakyTransport(Loop(), Flaws(stall=1, stall_seconds=0.2))
    start = time.monotonic()
    line.write(b"hello")
    assert received(line, 5) == b"hello"
    assert time.monotonic() - start >= 0.4, "once on the way out, once on the way back"
    assert line.counts == FlawCounts(bytes=10, chunks=2, stall=2)


def test_a_chunk_that_nothing_overtakes_still_comes() -> None:
    line = FlakyTransport(Loop(), Flaws(reorder=1))
    line.write(b"hello")
    assert received(line, 5) == b"hello"
    assert line.counts.reorder == 0, "nothing was out of order"


def test_a_cut_line_is_gone_until_it_is_renewed() -> None:
    board = Loop()
    line = FlakyTransport(board, Flaws(cut=0.2, seed=3))
    heard = 0
    hints: list[str | None] = []
    for _ in range(20):
        try:
            line.write(TEXT[:CHUNK])
            heard += len(line.read(4096, 0.2))
        except PortGoneError as error:
            with pytest.raises(PortGoneError):
                line.write(b"x")
            with pytest.raises(PortGoneError):
                line.read(1, 0.1)
            hints.append(error.hint)
            line.renew()
    assert len(hints) == line.counts.cut > 1
    assert all(hints)
    assert 0 < heard <= (20 - len(hints)) * CHUNK
    another = Loop()
    line.renew(another)
    line.write(b"x")
    assert another.heard == b"x"
    line.close()
    assert another.closed
    assert not board.closed


def test_a_reset_reaches_the_board_or_is_refused() -> None:
    board = Loop()
    line = FlakyTransport(board, Flaws(reset=1))
    line.write(TEXT[: 3 * CHUNK])
    assert received(line, 3 * CHUNK) == TEXT[: 3 * CHUNK]
    assert board.resets == line.counts.reset == 6

    class Port(Loop):
        reset = property()  # as a serial port: there is none

    with pytest.raises(UsageError, match="cannot be reset"):
        FlakyTransport(Port(), Flaws(reset=0.1))


@pytest.mark.parametrize("pace", [0, 299, 12_000_001])
def test_paces_that_no_line_has(pace: int) -> None:
    with pytest.raises(UsageError, match="300 to 12000000"):
        FlakyTransport(Loop(), Flaws(), pace=pace)


def test_input_is_forgotten_but_not_what_is_on_its_way() -> None:
    line = FlakyTransport(Loop(), Flaws())
    line.write(b"old")
    line.reset_input()
    line.write(b"new")
    assert received(line, 3) == b"new"
    slow = FlakyTransport(Loop(), Flaws(stall=1, stall_seconds=0.2))
    slow.write(b"late")
    slow.reset_input()
    assert received(slow, 4) == b"late"


def test_a_thread_reads_while_another_writes() -> None:
    line = FlakyTransport(Loop(), Flaws(split=0.1, split_seconds=0.001), pace=1_000_000)
    writer = threading.Thread(target=line.write, args=(TEXT,))
    writer.start()
    assert received(line, len(TEXT)) == TEXT
    writer.join(30)
    assert not writer.is_alive()


def test_every_kind_has_a_field_and_a_count() -> None:
    assert {*KINDS} <= {field.name for field in fields(Flaws)}
    assert {*KINDS} <= {field.name for field in fields(FlawCounts)}
    assert str(FlawCounts(bytes=100, chunks=2, drop=1)) == "100 bytes, 2 chunks; drop 1"
    assert str(FlawCounts()).endswith("no flaw")
