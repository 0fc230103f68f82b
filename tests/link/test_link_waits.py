"""How long the host waits, as numbers in virtual time; and what a stall or a lost frame costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from link_rig import INFO
from model_board import IMAGES, Clock, ModelBoard, ModelLine, check, line, logits, sent, virtual

from bnnmcu.errors import LinkTimeoutError
from bnnmcu.link.device import Device
from bnnmcu.link.frame import Frame, FrameDecoder, encode_frame
from bnnmcu.link.protocol import ErrorCode, ErrorReport, MessageType
from bnnmcu.link.timing import LatencyEstimate, Stopwatch, Timing


def test_a_wait_is_four_times_the_slowest_recent_answer() -> None:
    latency = LatencyEstimate(Timing(first=10, first_draw=5))
    assert latency.wait(20) == 110
    latency.observe(2, 0.5)
    assert latency.wait(2) == 2
    assert latency.wait(20) == 20  # ten times the draws
    assert latency.wait(1) == 2  # may all be transmission
    latency.observe(1, 0.4)
    assert latency.wait(1) == 1.6  # its own from now on
    for _ in range(500):
        latency.observe(1, 0.001)
    assert latency.wait(1) == pytest.approx(0.004, rel=0.01)  # and no floor
    assert LatencyEstimate(Timing(floor=3)).wait(0) >= 2


def test_waits_stay_doubled_until_an_answer_comes_without_one() -> None:
    latency = LatencyEstimate(Timing(longest=5))
    latency.observe(1, 0.5)
    waits = []
    for _ in range(4):
        waits.append(latency.wait(1))
        latency.in_vain()
    assert waits == [2, 4, 5, 5]
    assert latency.wait(4) == 8  # never shorter than what was measured
    latency.observe(1, 0.5)
    assert latency.wait(1) == 2


def test_an_answer_that_waited_for_the_host_does_not_show_a_slow_device() -> None:
    latency = LatencyEstimate(Timing())
    latency.observe(1, 100.0, exact=False)
    assert latency.measured(1) == 3  # as little as before
    latency.observe(1, 0.1)
    assert latency.measured(1) == 0.1
    latency.observe(1, 3.0, exact=False)
    assert latency.measured(1) == 0.1


@pytest.mark.parametrize("draws", [1, 20])
@pytest.mark.parametrize("way", ["up", "down"])
def test_a_lost_frame_costs_four_latencies(way: str, draws: int) -> None:
    port = line(seconds=0.05)
    device = Device(port, timing=virtual(port.clock))
    for _ in range(5):
        device.infer(IMAGES[0], range(draws))
    getattr(port, way).kinds.append("drop")
    start = port.clock.now
    result = device.infer(IMAGES[1], range(draws))
    assert result.logits.tolist() == [logits(IMAGES[1], seed) for seed in range(draws)]
    latency = 0.05 * draws
    assert sent(port, start) == [pytest.approx(0), pytest.approx(4 * latency, rel=1e-3)]
    # Where only the answer was lost it comes at once, from the board's memory.
    assert result.seconds == pytest.approx((5 if way == "up" else 4) * latency, rel=1e-3)
    assert result.attempts == 2
    assert (device.stats.retries, device.stats.timeouts) == (1, 1)


def test_the_second_request_waits_from_the_first_answer_on() -> None:
    """Four seconds after its own sending it would be repeated while it is computed."""
    port = line(seconds=1.0)
    device = Device(port, timing=virtual(port.clock, factor=1.5))
    check(device, 4)
    assert check(device, 12) == [1] * 12
    assert device.stats.retries == 0


def test_corruption_is_answered_at_once_and_not_after_a_wait() -> None:
    for way in ("up", "down"):
        port = line(seconds=0.05)
        device = Device(port, timing=virtual(port.clock))
        check(device)
        getattr(port, way).kinds.append("corrupt")
        start = port.clock.now
        device.infer(IMAGES[0], [1])
        assert port.clock.now - start <= 0.1 + 1e-6
        assert (device.stats.timeouts, device.stats.retries) == (0, 1)
        assert (device.stats.reported, device.stats.bad_frames) in [(1, 0), (0, 1)]


def test_a_device_that_became_slower_is_not_repeated_for_ever() -> None:
    port = line(seconds=0.01)
    device = Device(port, timing=virtual(port.clock))
    check(device)
    port.board.seconds = 1.0
    check(device)
    settled = device.stats.retries
    assert settled <= 6
    check(device)
    assert device.stats.retries == settled


@pytest.mark.parametrize("stall", [2.0, 8.0, 25.0])
def test_a_stalled_line_is_not_filled(stall: float) -> None:
    """Two images more at most, and then greetings, until something comes."""
    port = line(seconds=0.01, pace=115200)
    device = Device(port, timing=virtual(port.clock))
    check(device)
    port.down.stall = stall
    port.down.kinds.append("delay")
    before = sum(length for _, length in port.written)
    check(device, 4)
    extra = sum(length for _, length in port.written) - before - 4 * 810
    assert extra < 6 * 810
    # All is as before afterwards.
    port.clock.now += 60
    retries = device.stats.retries
    check(device)
    assert device.stats.retries == retries


def test_a_busy_host_sends_nothing_twice() -> None:
    """It reads what has come before it thinks that nothing has."""
    port = line(seconds=0.01)
    device = Device(port, timing=virtual(port.clock))
    check(device)

    def requests() -> Iterator[Any]:
        for i in range(6):
            port.clock.now += 100.0  # crafting takes its time
            yield IMAGES[i], [i]

    start = port.clock.now
    assert [r.attempts for r in device.infer_many(requests())] == [1] * 6
    assert device.stats.retries == 0
    # And does not take its own time for the board's.
    port.up.kinds.append("drop")
    start = port.clock.now
    device.infer(IMAGES[0], [1])
    assert port.clock.now - start < 0.1


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_ends_nothing(jump: float) -> None:
    port = line(seconds=1.5)
    device = Device(port, timing=virtual(port.clock))
    reads = 0

    def often() -> None:
        nonlocal reads
        reads += 1
        if reads % 3 == 0:
            port.jump(jump)

    port.while_reading = often
    check(device)
    assert reads > 12
    assert device.stats.timeouts == device.stats.retries == 0
    watch = Stopwatch(port.clock)
    port.clock.now += jump
    watch.lap(2.0)
    assert 0 <= watch.total <= 2


def test_a_request_that_is_never_answered_is_given_up() -> None:
    """In both measures: transmissions, and seconds without any answer."""
    port = line(seconds=0.01)
    device = Device(port, timing=virtual(port.clock))
    check(device)
    take = port.board.take
    port.board.take = lambda *args: [
        x for x in take(*args) if x[1].type != MessageType.INFER | 0x80
    ]  # type: ignore[method-assign]
    start = port.clock.now
    with pytest.raises(LinkTimeoutError, match=r"no answer to INFER after \d+ attempts"):
        device.infer(IMAGES[0], [1])
    assert 30 <= port.clock.now - start < 120
    assert 4 <= len(sent(port, start)) < 16
    port.board.take = take  # type: ignore[method-assign]
    check(device)


def test_a_silent_board_is_given_up_too() -> None:
    port = line()
    device = Device(port, timing=virtual(port.clock))
    check(device)
    port.board.take = lambda *args: []  # type: ignore[method-assign]
    start = port.clock.now
    with pytest.raises(LinkTimeoutError, match="no answer to INFER"):
        device.infer(IMAGES[0], [1])
    assert 30 <= port.clock.now - start < 60


def test_a_flood_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it takes the host longer than waiting for it: that is time, too."""
    clock, feed = Clock(), FrameDecoder.feed

    def slowly(decoder: FrameDecoder, data: bytes) -> list[Frame]:
        clock.now += 0.05
        return feed(decoder, data)

    class Flood(ModelLine):
        def read(self, size: int, timeout: float) -> bytes:
            return encode_frame(Frame(0xFF, 0, ErrorReport(ErrorCode.OVERRUN, 0, 0).pack()))

    monkeypatch.setattr(FrameDecoder, "feed", slowly)
    start = clock.now
    with pytest.raises(LinkTimeoutError, match="no valid answer"):
        Device(Flood(ModelBoard(clock)), timing=virtual(clock))
    assert 10 < clock.now - start < 40


def test_answers_that_were_read_together_show_no_fast_device() -> None:
    """While a write blocks, the answers to two requests may come."""

    class Blocking(ModelLine):
        def write(self, data: bytes) -> None:
            super().write(data)
            self.clock.now = max(self.clock.now, self._up_free)

    port = Blocking(ModelBoard(Clock(), replace(INFO, window=3), seconds=0.005), pace=115200)
    device = Device(port, timing=virtual(port.clock))
    check(device)
    check(device)
    assert (device.stats.retries, device.stats.timeouts) == (0, 0)
