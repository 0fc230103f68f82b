"""Faster lines: agreed on, proven, given up, lost and found again; the C server, bit by bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from baud_line import BaudTransport, LineDevice, hear
from link_rig import INFO, LINE_SOURCES, compile_c, digits, fake_logits

from bnnmcu.errors import LinkTimeoutError, PortGoneError, RemoteError
from bnnmcu.link.baud import LADDER, PROOF_BYTES, BaudPlan, give_back, negotiate
from bnnmcu.link.device import Device
from bnnmcu.link.frame import Frame, FrameDecoder, encode_frame
from bnnmcu.link.protocol import (
    BaudRequest,
    ErrorCode,
    ErrorReport,
    InferRequest,
    MessageType,
)
from bnnmcu.link.timing import Timing

IMAGE = digits(1)[0]
PLAN = BaudPlan(115200, 921600)
HELLO, BAUD = MessageType.HELLO, MessageType.BAUD


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(tmp_path_factory.mktemp("c") / "line", LINE_SOURCES)


@pytest.fixture
def board(program: Path) -> Iterator[LineDevice]:
    device = LineDevice(program)
    yield device
    device.close()


def connect(port: BaudTransport, plan: BaudPlan | None = PLAN) -> Device:
    return Device(port, timing=Timing(clock=port.clock, sleep=port.clock.sleep), baud=plan)


def check(device: Device) -> None:
    assert device.infer(IMAGE, [7]).logits[0].tolist()[:-1] == fake_logits(IMAGE, 7)


# --- the model of the line ------------------------------------------------------------------------


def test_bits_are_heard_as_a_uart_hears_them() -> None:
    data = random.Random(1).randbytes(200)
    heard = hear(data, 115200, 117000)
    assert bytes(value for value, _, _ in heard) == data
    assert not any(bad for _, bad, _ in heard)
    # Of 55, every bit is heard twice: 0 01100110 0.
    assert hear(b"\x55", 115200, 230400)[0][:2] == (0x66, True)
    assert hear(b"\x00", 115200, 230400) == [(0, True, 4.75)]
    # Nine low bits are one start bit and a bit of the next at an eighth of the rate.
    assert len(hear(b"\x00" * 8, 921600, 115200)) <= 8


# --- agreeing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bears", "garbled_above", "most", "expected"),
    [
        (10_000_000, 10_000_000, 921600, 921600),
        (10_000_000, 10_000_000, 2_000_000, 2_000_000),
        (10_000_000, 10_000_000, 115200, 115200),
        (10_000_000, 10_000_000, 500_000, 500_000),
        (230400, 10_000_000, 921600, 230400),
        (10_000_000, 460800, 921600, 460800),
        (10_000_000, 115200, 921600, 115200),
        # More than a sixteenth of the UART's 48 MHz is out of its reach.
        (10_000_000, 10_000_000, 50_000_000, 3_000_000),
    ],
)
def test_the_fastest_baud_that_all_bear(
    board: LineDevice, bears: int, garbled_above: int, most: int, expected: int
) -> None:
    port = BaudTransport(board, bears=bears, garbles=lambda baud: (baud > garbled_above) / 50)
    with connect(port, BaudPlan(115200, most)) as device:
        assert (port.baud, board.baud) == (expected, expected)
        check(device)
        assert device.stats.retries <= (expected == 115200) * 64 or expected < most
    # A board that is left with another baud would be deaf to the next program.
    assert (port.baud, board.baud) == (115200, 115200)


def test_a_baud_is_proven_with_large_frames(board: LineDevice) -> None:
    port = BaudTransport(board)
    with connect(port):
        proof = [wire for baud, wire in port.sent if baud == 921600]
    assert sum(map(len, proof)) > PROOF_BYTES
    assert max(map(len, proof)) > 900
    longest = max(proof, key=len)
    assert len(set(longest)) > 200


@pytest.mark.parametrize("answer", ["other bytes", "another baud", "too short", "nothing"])
def test_what_comes_back_must_be_what_was_sent(board: LineDevice, answer: str) -> None:
    """A line that looks sound but carries something else is not relied on."""

    class Odd(Scripted):
        def exchange(self, kind: MessageType, payload: bytes, **_: object) -> bytes:
            if kind == HELLO:
                return super().exchange(kind, payload)
            if int.from_bytes(payload[:4], "little"):
                return payload
            if answer == "nothing":
                raise LinkTimeoutError("nothing")
            return {
                "other bytes": (self.baud).to_bytes(4, "little") + payload[4:-1] + b"?",
                "another baud": (self.baud // 2).to_bytes(4, "little") + payload[4:],
                "too short": payload[:3],
            }[answer]

    line, notes = Odd(), list[str]()
    assert negotiate(line, PLAN, notes.append) == 115200
    assert line.baud == 115200
    assert len(notes) == 3


class Scripted:
    """A line whose device is written here: one that can do everything."""

    def __init__(self) -> None:
        self.baud = 115200
        self.asked: list[tuple[int, MessageType, bytes]] = []

    def exchange(
        self, kind: MessageType, payload: bytes, *, waits: tuple[float, ...] = ()
    ) -> bytes:
        self.asked.append((self.baud, kind, payload))
        if kind == HELLO:
            return INFO.pack()
        wanted = int.from_bytes(payload[:4], "little") or self.baud
        return wanted.to_bytes(4, "little") + payload[4:]

    def set_baud(self, baud: int) -> None:
        self.baud = baud


@pytest.mark.parametrize(
    ("code", "asked"),
    [(ErrorCode.UNKNOWN_TYPE, 1), (ErrorCode.BAD_LENGTH, 1), (ErrorCode.BAD_ARGUMENT, 3)],
)
def test_a_device_that_refuses_stays(code: int, asked: int) -> None:
    class Refusing(Scripted):
        def exchange(self, kind: MessageType, payload: bytes, **_: object) -> bytes:
            super().exchange(kind, payload)
            raise RemoteError("no", code=code)

    line, notes = Refusing(), list[str]()
    assert negotiate(line, PLAN, notes.append) == 115200
    assert (line.baud, len(line.asked), len(notes)) == (115200, asked, asked)


def test_a_port_that_goes_is_not_taken_for_a_slow_bridge() -> None:
    class Gone(Scripted):
        def set_baud(self, baud: int) -> None:
            raise PortGoneError("unplugged")

    with pytest.raises(PortGoneError):
        negotiate(Gone(), PLAN, str)
    give_back(Gone(), PLAN, 921600)  # best effort


def test_the_ladder_descends() -> None:
    assert list(LADDER) == sorted(set(LADDER), reverse=True)


# --- losing it, and coming home -------------------------------------------------------------------


FASTER = (230400, 460800, 921600, 1_000_000, 1_500_000)


@pytest.mark.parametrize("tells", [True, False], ids=["framing errors", "no framing errors"])
@pytest.mark.parametrize("baud", FASTER)
def test_a_killed_host_leaves_no_deaf_board(program: Path, baud: int, tells: bool) -> None:
    """A new host begins at the board's baud, which the board left."""
    board = LineDevice(program, tells=tells)
    port = BaudTransport(board)
    greeted = connect(port, BaudPlan(115200, baud))
    assert board.baud == baud
    del greeted  # killed: nothing is given back
    port.set_baud(115200)
    greetings = 0
    while board.baud != 115200:
        port.write(encode_frame(Frame(HELLO, greetings, b"")))
        greetings += 1
        assert greetings < 30
    # So few do where framing errors show; else it takes zeros that nobody sent.
    assert greetings <= (3 if tells else 24)
    port.reset_input()
    with connect(port, None) as device:
        check(device)
    board.close()


@pytest.mark.parametrize(
    ("baud", "tells"), [*((baud, True) for baud in FASTER), (460800, False), (921600, False)]
)
def test_a_new_program_gets_through_to_it(program: Path, baud: int, tells: bool) -> None:
    board = LineDevice(program, tells=tells)
    first = BaudTransport(board)
    connect(first, BaudPlan(115200, baud))
    assert board.baud == baud
    second = BaudTransport(board)
    with connect(second, BaudPlan(115200, baud)) as device:
        assert (second.baud, board.baud) == (baud, baud)
        check(device)
        assert second.clock.now - 1000 < 16
    board.close()


def test_a_board_that_was_reset_is_found_again(board: LineDevice) -> None:
    port = BaudTransport(board)
    with connect(port) as device:
        for _ in range(60):
            check(device)
        board.reset()
        check(device)
        assert (port.baud, board.baud) == (921600, 921600)


def test_a_host_that_is_too_fast_is_not_listened_to_for_ever(program: Path) -> None:
    """Its frames arrive as a few bytes, most of them without a zero."""
    for tells, most in ((True, 3), (False, 120)):
        board = LineDevice(program, tells=tells)
        port = BaudTransport(board)
        connect(port, BaudPlan(115200, 230400))
        port.set_baud(3_000_000)
        noise = random.Random(2)
        for count in range(most):
            port.write(encode_frame(Frame(2, count, noise.randbytes(940))))
            if board.baud == 115200:
                break
        assert board.baud == 115200
        board.close()


def test_bytes_without_a_delimiter_bring_it_home_too(board: LineDevice) -> None:
    port = BaudTransport(board)
    connect(port)
    port.write(b"\x55" * 7000)
    assert board.baud == 921600
    port.write(b"\x55" * 1000)
    assert board.baud == 115200


def test_noise_on_a_good_line_does_not(board: LineDevice) -> None:
    """One byte in 20,000 is wrong, then one in 3,000, which spoils every fourth frame."""
    port = BaudTransport(board)
    with connect(port) as device:
        port.garbles = lambda baud: 1 / 20_000
        for seed in range(60):
            rows = device.infer(IMAGE, [seed] * 5).logits.tolist()
            assert [row[:-1] for row in rows] == [fake_logits(IMAGE, seed)] * 5
        assert device.stats.retries > 0
        port.garbles = lambda baud: 1 / 3000
        request = InferRequest(IMAGE.tobytes(), (1,) * 20).pack()
        for sequence in range(300):
            port.write(encode_frame(Frame(MessageType.INFER, sequence, request)))
        assert (port.baud, board.baud) == (921600, 921600)
        port.garbles = lambda baud: 0.0
        port.reset_input()


# --- the device alone -----------------------------------------------------------------------------


def ask(board: LineDevice, wire: bytes) -> list[tuple[int, list[Frame]]]:
    return [
        (baud, FrameDecoder().feed(data)) for baud, data in board.hear(wire, board.baud) if data
    ]


def test_it_answers_at_the_old_baud_and_goes_over_each_time(board: LineDevice) -> None:
    wire = encode_frame(Frame(BAUD, 9, BaudRequest(921600, b"abc").pack()))
    reply = Frame(0x87, 9, BaudRequest(round(48_000_000 / 52), b"abc").pack())
    assert ask(board, wire) == [(115200, [reply])]
    assert board.baud == 921600
    # 32 delimiters bring it home, if no sound frame is in between, whose own two count, too.
    stay = encode_frame(Frame(BAUD, 10, BaudRequest(0).pack()))
    for data in (b"\0" * 30, stay, b"\0" * 30, stay, b"\0" * 31):
        ask(board, data)
        assert board.baud == 921600
    ask(board, b"\0")
    assert board.baud == 115200
    # The same request, a retry, is carried out again and not only answered.
    assert ask(board, wire) == [(115200, [reply])]
    assert board.baud == 921600


@pytest.mark.parametrize(
    ("baud", "made"),
    [
        (0, round(48_000_000 / 417)),
        (115200, round(48_000_000 / 417)),
        (57600, round(48_000_000 / 833)),
        (3_000_000, 3_000_000),
        (2_800_000, round(48_000_000 / 17)),
        (2_900_000, None),  # 2.6 % off
        (3_100_000, None),
        (733, round(48_000_000 / 65_484)),
        (600, None),
        (48_000_000, None),
        (100_000_000, None),
        (2**32 - 1, None),
        (1, None),
    ],
)
def test_bauds_that_can_be_made(board: LineDevice, baud: int, made: int | None) -> None:
    ((_, (reply,)),) = ask(board, encode_frame(Frame(BAUD, 1, BaudRequest(baud).pack())))
    if made is None:
        assert ErrorReport.unpack(reply.payload) == ErrorReport(ErrorCode.BAD_ARGUMENT, BAUD, 0)
        assert board.baud == 115200
    else:
        assert reply == Frame(0x87, 1, BaudRequest(made).pack())
        assert board.baud == (baud or 115200)
