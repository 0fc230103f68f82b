"""Boards that are reset, ports that go and come back, and hosts that are interrupted."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from link_rig import INFO
from model_board import IMAGES, Clock, ModelBoard, ModelLine, check, line, virtual

from bnnmcu.errors import (
    DeviceMismatchError,
    LinkError,
    PortGoneError,
    RemoteError,
)
from bnnmcu.link.baud import BaudPlan
from bnnmcu.link.device import Device
from bnnmcu.link.frame import Frame, encode_frame
from bnnmcu.link.protocol import InferReply, MessageType
from bnnmcu.link.reconnect import port_opener

INFER = MessageType.INFER


class Ports:
    """One board after another behind one opener."""

    def __init__(self, *later: ModelLine | LinkError) -> None:
        self.later = list(later)
        self.opened = 0

    def __call__(self) -> ModelLine:
        self.opened += 1
        found = self.later.pop(0) if len(self.later) > 1 else self.later[0]
        if isinstance(found, LinkError):
            raise found
        found.closed = found.cut = False
        found.inbox.clear()
        return found


def connected(port: ModelLine, *later: ModelLine | LinkError, **options: Any) -> Device:
    return Device(port, timing=virtual(port.clock), reopen=Ports(*later), **options)


def after(count: int, act: Callable[[], None]) -> Callable[[], None]:
    left = [count]

    def once() -> None:
        left[0] -= 1
        if left[0] == 0:
            act()

    return once


@pytest.mark.parametrize("reads", range(1, 8))
def test_a_board_reset_in_mid_stream(reads: int) -> None:
    port = line(seconds=0.05)
    device = Device(port, timing=virtual(port.clock))
    check(device)
    port.while_reading = after(reads, port.reset_board)
    check(device, seeds=3)
    assert device.stats.reconnects == 0


@pytest.mark.parametrize("reads", range(1, 8))
def test_a_port_that_goes_in_mid_stream(reads: int) -> None:
    trace = io.StringIO()
    port = line(seconds=0.05)
    busy = LinkError("the port is busy: minicom (process 7) has it open", where="/dev/ttyACM0")
    device = connected(port, busy, busy, port, trace=trace)
    check(device)
    port.while_reading = after(reads, lambda: setattr(port, "cut", True))
    check(device, seeds=3)
    assert device.stats.reconnects == 1
    assert "! the port has vanished" in trace.getvalue()
    assert "! connected again to model board (" in trace.getvalue()


def test_a_port_that_does_not_come_back_says_why() -> None:
    port = line()
    busy = LinkError("the port is busy: minicom (process 7) has it open", hint="close it")
    device = connected(port, busy, reconnect=20.0)
    port.cut = True
    start = port.clock.now
    with pytest.raises(PortGoneError, match=r"did not come back within 20 s: .*minicom"):
        device.infer(IMAGES[0], [1])
    assert 20 <= port.clock.now - start < 22
    # It is there again later: the same device goes on.
    device._session._reopen.later = [port]  # type: ignore[union-attr]
    check(device)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"board": "nucleo_f401re"},
            "another board .*: nucleo_f401re, before it was nucleo_f446re",
        ),
        ({"model_sha256": bytes(32)}, "another model"),
        ({"firmware": (9, 9, 9)}, "another firmware"),
        ({"max_seeds": 10}, "another build"),
    ],
)
def test_another_board_is_not_gone_on_with(changes: dict[str, Any], words: str) -> None:
    port = line(seconds=0.05)
    other = ModelLine(ModelBoard(port.clock, replace(INFO, **changes)))
    device = connected(port, other)
    stream = device.infer_many((image, [1]) for image in IMAGES)
    next(stream)
    port.cut = True
    with pytest.raises(DeviceMismatchError, match=words):
        list(stream)
    assert INFER not in [kind for _, kind, _ in other.board.seen]
    # Nor later, should somebody try.
    with pytest.raises(DeviceMismatchError, match=words):
        device.infer(IMAGES[0], [1])


@pytest.mark.parametrize("how", ["in a pause", "in a pause of the stream", "with a request"])
def test_a_network_that_changes_on_an_open_port_answers_nothing(how: str) -> None:
    """As where a debug probe flashes the board, and keeps the port."""
    port = line(seconds=0.05)
    device = Device(port, timing=virtual(port.clock))
    stream = device.infer_many((image, [1]) for image in IMAGES)
    found = [next(stream) for _ in range(3)]
    if how == "in a pause":
        stream.close()
    if how != "with a request":
        port.clock.sleep(2)
    port.reset_board()
    port.board.info = replace(INFO, model_sha256=bytes(32))
    port.board.ready = port.clock.now
    if how == "in a pause":
        stream = device.infer_many((image, [1]) for image in IMAGES)
    with pytest.raises(DeviceMismatchError, match="another model"):
        found.extend(stream)
    # At most what the first network had answered and nobody had read.
    assert len(found) <= 4
    with pytest.raises(DeviceMismatchError, match="another model"):
        device.infer(IMAGES[0], [1])


def test_what_comes_before_the_greeting_answers_nothing() -> None:
    """Even with the number of a request in flight: it was not sent over this connection."""
    port = line(seconds=0.05)
    other = ModelLine(ModelBoard(port.clock))

    class Forged(Ports):
        def __call__(self) -> ModelLine:
            found = super().__call__()
            forged = InferReply(np.ones((1, 10), np.int64), np.zeros(1, np.uint32), False).pack(8)
            sequence = port.board.seen[-1][2]
            for number in (sequence, sequence - 1):
                wire = encode_frame(Frame(0x82, number % 65536, forged))
                found.inbox.append((port.clock.now + 0.001, wire, found.baud))
            return found

    device = Device(port, timing=virtual(port.clock), reopen=Forged(other))
    port.while_reading = after(4, lambda: setattr(port, "cut", True))
    check(device)
    assert device.stats.stale == 2


def test_a_port_that_keeps_going_is_given_up() -> None:
    port = line()
    device = connected(port, port)
    write = port.write

    def fragile(data: bytes) -> None:
        port.cut = len(data) > 700
        write(data)

    port.write = fragile  # type: ignore[method-assign]
    with pytest.raises(PortGoneError):
        device.infer(IMAGES[0], [1])
    assert 4 <= device.stats.reconnects < 40


def test_what_a_crash_says_is_not_lost_in_a_reconnect() -> None:
    port = line()
    device = connected(port, port)
    port.cut = True
    with pytest.raises(RemoteError, match="before the first"):
        device.counters()


@pytest.mark.parametrize("event", ["reset_board", "cut"])
def test_a_baud_lost_by_a_reset_is_agreed_on_again(event: str) -> None:
    port = line(seconds=0.05)
    port.set_baud(115200)

    def reopened() -> ModelLine:
        # As open_port leaves it.
        port.closed = port.cut = False
        port.set_baud(115200)
        port.reset_board()
        return port

    with Device(
        port, timing=virtual(port.clock), reopen=reopened, baud=BaudPlan(115200, 921600)
    ) as device:
        assert port.baud == port.board.baud == 921600
        for _ in range(6):
            check(device)  # proves the baud
        act = port.reset_board if event == "reset_board" else lambda: setattr(port, "cut", True)
        port.while_reading = after(3, act)
        check(device, seeds=2)
        assert port.baud == port.board.baud == 921600
        assert device.stats.reconnects == (event == "cut")
    # A board that is left with another baud would be deaf to the next program.
    assert port.board.baud == 115200


def test_a_baud_that_does_not_bear_is_given_up() -> None:
    port = line(seconds=0.05)
    device = Device(port, timing=virtual(port.clock), baud=BaudPlan(115200, 921600))

    def noisy() -> None:
        if port.baud > 115200:
            port.inbox.clear()

    port.while_reading = noisy
    check(device)
    assert port.baud == 115200
    check(device)


class Interrupted(ModelLine):
    """Ctrl-C arrives at one call, half-way through what it does."""

    countdown = 0

    def _step(self) -> bool:
        self.countdown -= 1
        return self.countdown == 0

    def write(self, data: bytes) -> None:
        if self._step():
            super().write(data[: len(data) // 2])
            raise KeyboardInterrupt
        super().write(data)

    def read(self, size: int, timeout: float) -> bytes:
        data = super().read(size, timeout)
        if self._step():
            raise KeyboardInterrupt  # and what was read is lost
        return data


@pytest.mark.parametrize("plan", [None, BaudPlan(115200, 921600)])
def test_an_interrupt_at_any_moment_leaves_a_usable_board(plan: BaudPlan | None) -> None:
    done, at = False, 0
    while not done:
        at += 1
        port = Interrupted(ModelBoard(Clock(), seconds=0.02), pace=115200)
        port.up.kinds.append("")
        port.countdown = at
        done = True
        try:
            with Device(port, timing=virtual(port.clock), baud=plan) as device:
                done = port.countdown > 0
                check(device, 6, seeds=2)
                port.countdown = 0  # that is for a second Ctrl-C
        except KeyboardInterrupt:
            done = False
        assert port.closed
        # The next program opens it again.
        port.closed, port.countdown = False, 0
        port.set_baud(115200)
        with Device(port, timing=virtual(port.clock)) as device:
            check(device, 2)
    assert at >= 14


def test_an_interrupted_host_can_go_on_itself() -> None:
    for at in range(1, 24):
        port = Interrupted(ModelBoard(Clock(), seconds=0.02), pace=115200)
        device = Device(port, timing=virtual(port.clock))
        port.countdown = at
        with pytest.raises(KeyboardInterrupt):
            check(device)
        check(device)


# --- which port it is ---------------------------------------------------------------------------


def usb(device: str, serial: str | None, vid: int | None = 0x0483, **rest: Any) -> SimpleNamespace:
    pid = 0x374B if vid else None
    facts = {"location": None, "description": "n/a", **rest}
    return SimpleNamespace(device=device, vid=vid, pid=pid, serial_number=serial, **facts)


@pytest.mark.parametrize(
    ("before", "later", "opened"),
    [
        ([usb("/dev/ttyACM0", "A")], [usb("/dev/ttyACM1", "A")], "/dev/ttyACM1"),
        (
            [usb("/dev/ttyACM0", "A")],
            [usb("/dev/ttyACM0", "B"), usb("/dev/ttyACM2", "A")],
            "/dev/ttyACM2",
        ),
        # The second port of one bridge, plugged in elsewhere.
        (
            [usb("/dev/ttyACM0", "A", location="1-1:1.1")],
            [
                usb("/dev/ttyACM3", "A", location="2-4.1:1.0"),
                usb("/dev/ttyACM4", "A", location="2-4.1:1.1"),
            ],
            "/dev/ttyACM4",
        ),
        ([usb("/dev/ttyACM0", None)], [usb("/dev/ttyACM0", None)], "/dev/ttyACM0"),
        # No USB device: nothing to tell it by.
        ([usb("/dev/ttyACM0", None, vid=None)], [], "/dev/ttyACM0"),
        ([], [], "/dev/ttyACM0"),
    ],
)
def test_the_same_port_is_found_again(before: Any, later: Any, opened: str) -> None:
    there, names = [before], []
    again = port_opener(
        "/dev/ttyACM0",
        57600,
        scan=lambda: there[0],
        opener=lambda url, baud: names.append((url, baud)),  # type: ignore[arg-type, return-value]
    )
    again()
    there[0] = later
    again()
    assert names == [("/dev/ttyACM0", 57600), (opened, 57600)]


@pytest.mark.parametrize(
    ("before", "later", "words"),
    [
        ([usb("/dev/ttyACM0", "A")], [], "with the serial number A is not there"),
        (
            [usb("/dev/ttyACM0", "A")],
            [usb("/dev/ttyACM0", "B")],
            r"A is not there; /dev/ttyACM0 \(0483:374b, serial B\) is another one",
        ),
        (
            [usb("/dev/ttyACM0", "A")],
            [usb("/dev/ttyACM1", "A"), usb("/dev/ttyACM2", "A")],
            "2 ports have the serial number A",
        ),
        (
            [usb("/dev/ttyUSB0", None)],
            [usb("/dev/ttyUSB0", "C")],
            "another device has taken the name: /dev/ttyUSB0 .*serial C",
        ),
    ],
)
def test_never_another_port(before: Any, later: Any, words: str) -> None:
    there = [before]
    opened: list[str] = []
    again = port_opener(
        before[0].device,
        scan=lambda: there[0],
        opener=lambda url, baud: opened.append(url),  # type: ignore[arg-type, return-value, func-returns-value]
    )
    again()
    there[0] = later
    with pytest.raises(LinkError, match=words) as caught:
        again()
    assert caught.value.hint
    assert len(opened) == 1


def test_a_board_that_comes_back_under_another_name() -> None:
    port = line(seconds=0.05)
    port.name = "/dev/ttyACM0"
    there = [usb("/dev/ttyACM0", "A")]
    lines = {"/dev/ttyACM0": port}
    again = port_opener(
        "/dev/ttyACM0", scan=lambda: list(there), opener=lambda url, baud: lines[url]
    )
    with Device(again(), timing=virtual(port.clock), reopen=again) as device:

        def replugged() -> None:
            port.cut = True
            there[0] = usb("/dev/ttyACM1", "A")
            lines["/dev/ttyACM1"] = ModelLine(port.board, name="/dev/ttyACM1")
            port.board.reset()

        port.while_reading = after(4, replugged)
        check(device, seeds=2)
        assert device.name == "/dev/ttyACM1"
        assert port.closed
