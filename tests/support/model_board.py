"""A board and its line in Python, in virtual time: docs/SPEC.md's device side, and flaws at will.

Nothing sleeps: the clock advances when the host reads and nothing is there, so
that waits can be checked as numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from link_rig import INFO, digits, fake_logits, fake_words

from bnnmcu.errors import LinkError, PortGoneError
from bnnmcu.link.device import Device
from bnnmcu.link.frame import Frame, FrameDecoder, encode_frame
from bnnmcu.link.hello import DeviceInfo
from bnnmcu.link.protocol import (
    REPLY,
    CheckReply,
    CountersReply,
    ErrorCode,
    ErrorReport,
    InferReply,
    InferRequest,
    MessageType,
    SampleReply,
    SampleRequest,
)
from bnnmcu.link.timing import Timing

IMAGES = digits(12)
START_BAUD = 115200
#: Frames in a row that it cannot read, after which a board goes back to its own baud.
GARBLED = 3


class Clock:
    """Seconds that pass when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def logits(image: np.ndarray, seed: int) -> list[int]:
    """What a board answers; the last class tells nothing here."""
    return [*fake_logits(image, seed), 0]


def ticks(image: np.ndarray, seed: int) -> int:
    return (int(image.sum(dtype=np.int64)) + seed) % 2**32


class ModelBoard:
    """One request at a time, in order; the last reply is kept; a ring for what waits.

    Args:
        clock: its time.
        info: its greeting.
        seconds: a draw takes.
        boot: seconds from a reset to being able to receive.
    """

    def __init__(
        self, clock: Clock, info: DeviceInfo = INFO, seconds: float = 0.01, boot: float = 0.05
    ) -> None:
        self.clock, self.info, self.seconds, self.boot = clock, info, seconds, boot
        self.computed = 0
        self.seen: list[tuple[float, int, int]] = []  # time, type, sequence of all sound frames
        self.reset()
        self.ready = clock.now

    def reset(self) -> None:
        """As its button does."""
        self.decoder = FrameDecoder(max_payload=self.info.max_request)
        self.cache: tuple[Frame, Frame] | None = None
        self.last: list[int] | None = None
        self.baud = START_BAUD
        self.garbled = self.bad = 0
        self.busy = self.ready = self.clock.now + self.boot
        self.ring: list[tuple[float, int]] = []  # until when, how many bytes

    def take(self, data: bytes, at: float, baud: int) -> list[tuple[float, Frame]]:
        """Bytes whose last one has come at a time; the frames sent for them, and when."""
        if at < self.ready:
            return []
        if baud != self.baud:
            data = bytes(byte ^ 0x55 or 1 for byte in data) + b"\0"
        sent = []
        # Cut so that what is corrupt is reported in its place.
        for piece in data.split(b"\0"):
            before = self.decoder.bad_frames
            frames = self.decoder.feed(piece + b"\0")
            if self.decoder.bad_frames > before:
                self.bad += 1
                self.garbled += 1
                if self.garbled >= GARBLED:
                    self.baud = START_BAUD
                report = ErrorReport(ErrorCode.BAD_FRAME, 0, self.bad)
                sent.append((max(at, self.busy), Frame(0xFF, 0, report.pack())))
            for frame in frames:
                sent.append(self._receive(frame, len(piece), at))
        return sent

    def _receive(self, frame: Frame, size: int, at: float) -> tuple[float, Frame]:
        self.garbled = 0
        self.ring = [(until, bytes_) for until, bytes_ in self.ring if until > at]
        room = (self.info.window - 1) * (self.info.max_request + 16) + 32
        if self.busy > at and sum(bytes_ for _, bytes_ in self.ring) + size > room:
            report = ErrorReport(ErrorCode.OVERRUN, 0, 0)
            return self.busy, Frame(0xFF, 0, report.pack())
        self.ring.append((max(at, self.busy), size))
        self.seen.append((at, frame.type, frame.sequence))
        if self.cache is not None and self.cache[0] == frame:
            return max(at, self.busy), self.cache[1]
        took, reply = self._answer(frame)
        self.busy = max(at, self.busy) + took
        if reply.type != MessageType.ERROR:
            self.cache = frame, reply
        return self.busy, reply

    def _answer(self, frame: Frame) -> tuple[float, Frame]:
        kind, payload, took = frame.type, b"", 0.0
        if kind == MessageType.HELLO:
            payload = self.info.pack()
        elif kind == MessageType.INFER:
            payload, took = self._infer(frame.payload)
        elif kind == MessageType.COUNTERS:
            if self.last is None:
                return 0.0, self._refuse(frame, ErrorCode.NOT_READY)
            payload = CountersReply(np.array(self.last, np.uint32), False).pack()
        elif kind == MessageType.SAMPLE:
            ask = SampleRequest.unpack(frame.payload)
            words = fake_words(ask.layer, ask.seed, ask.first, ask.count)
            payload = SampleReply(np.array(words, np.uint32)).pack()
        elif kind == MessageType.CHECK:
            payload, took = CheckReply(7, 7, 4096).pack(), 0.3
        elif kind == MessageType.BAUD:
            wanted = int.from_bytes(frame.payload[:4], "little") or self.baud
            self.baud, payload = wanted, wanted.to_bytes(4, "little") + frame.payload[4:]
        else:
            return 0.0, self._refuse(frame, ErrorCode.UNKNOWN_TYPE)
        return took, Frame(kind | REPLY, frame.sequence, payload)

    def _infer(self, payload: bytes) -> tuple[bytes, float]:
        shape = self.info.input_shape
        request = InferRequest.unpack(payload, int(np.prod(shape)))
        image = np.frombuffer(request.image, np.uint8).reshape(shape)
        self.computed += len(request.seeds)
        counts = [ticks(image, seed) for seed in request.seeds]
        self.last = [counts[-1]] * len(self.info.layers)
        reply = InferReply(
            np.array([logits(image, seed) for seed in request.seeds], np.int64),
            np.array(counts, np.uint32),
            False,
        )
        return reply.pack(self.info.logit_bytes), self.seconds * len(request.seeds)

    @staticmethod
    def _refuse(frame: Frame, code: ErrorCode) -> Frame:
        return Frame(0xFF, frame.sequence, ErrorReport(code, frame.type, 0).pack())


@dataclass
class Spoil:
    """What happens to the next frames of one direction, one entry each."""

    kinds: deque[str] = field(default_factory=deque)
    stall: float = 3.0

    def __call__(self, wire: bytes) -> list[tuple[float, bytes]]:
        """The pieces that come out, each after some seconds."""
        kind = self.kinds.popleft() if self.kinds else ""
        middle = len(wire) // 2
        corrupt = wire[:middle] + bytes([wire[middle] ^ 0x10 or 0x20]) + wire[middle + 1 :]
        return {
            "": [(0.0, wire)],
            "drop": [],
            "duplicate": [(0.0, wire), (0.0, wire)],
            "corrupt": [(0.0, corrupt)],
            "delay": [(self.stall, wire)],
        }[kind]


class ModelLine:
    """A transport to a board; both directions keep their order and take their time.

    Args:
        board: behind it.
        pace: baud of the line, 0 for one that takes no time.
        name: as a port's.
    """

    def __init__(self, board: ModelBoard, pace: int = 0, name: str = "model board") -> None:
        self.board, self.name, self.closed, self.cut = board, name, False, False
        self.clock = board.clock
        self.baud = START_BAUD
        self.up, self.down = Spoil(), Spoil()
        self.written: list[tuple[float, int]] = []
        self.inbox: deque[tuple[float, bytes, int]] = deque()  # when, what, at which baud
        self.while_reading: Callable[[], None] = lambda: None
        self._byte = 10 / pace if pace else 0.0
        self._up_free = self._down_free = 0.0

    def set_baud(self, baud: int) -> None:
        self.baud = baud
        self.inbox.clear()

    def write(self, data: bytes) -> None:
        self._check()
        self.written.append((self.clock.now, len(data)))
        for stall, piece in self.up(data):
            start = max(self.clock.now, self._up_free) + stall
            self._up_free = start + len(piece) * self._byte
            baud = self.board.baud
            for at, frame in self.board.take(piece, self._up_free, self.baud):
                self._send(at, encode_frame(frame), baud)

    def _send(self, at: float, wire: bytes, baud: int) -> None:
        for stall, piece in self.down(wire):
            start = max(at, self._down_free) + stall
            self._down_free = start + len(piece) * self._byte
            self.inbox.append((self._down_free, piece, baud))

    def read(self, size: int, timeout: float) -> bytes:
        self._check()
        self.while_reading()
        self._check()
        deadline = self.clock.now + timeout
        if not self.inbox or self.inbox[0][0] > deadline:
            self.clock.now = max(deadline, self.clock.now)
            return b""
        at, piece, baud = self.inbox.popleft()
        self.clock.now = max(at, self.clock.now)
        if self.baud != baud:
            return bytes(byte ^ 0x55 or 1 for byte in piece) + b"\0"
        return piece

    def reset_board(self) -> None:
        """The board is reset, and what it would still have sent is not."""
        self.board.reset()
        self.inbox = deque(item for item in self.inbox if item[0] <= self.clock.now)
        self._up_free = self._down_free = self.clock.now

    def jump(self, seconds: float) -> None:
        """The host's clock is set; what is under way takes as long as before."""
        self.clock.now += seconds
        self.inbox = deque((at + seconds, *rest) for at, *rest in self.inbox)
        self._up_free += seconds
        self._down_free += seconds
        self.board.busy += seconds
        self.board.ready += seconds
        self.board.ring = [(until + seconds, size) for until, size in self.board.ring]

    def reset_input(self) -> None:
        self.inbox = deque(item for item in self.inbox if item[0] > self.clock.now)

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if self.closed:
            raise LinkError("it was closed", where=self.name)
        if self.cut:
            raise PortGoneError("the port has vanished (test)", where=self.name)


def virtual(clock: Clock, **changes: Any) -> Timing:
    """The default limits on that clock."""
    return replace(Timing(clock=clock, sleep=clock.sleep), **changes)


def line(seconds: float = 0.01, pace: int = 0, **info: Any) -> ModelLine:
    """To a board of its own; ``info`` changes its greeting."""
    return ModelLine(ModelBoard(Clock(), replace(INFO, **info), seconds=seconds), pace)


def check(device: Device, count: int = 12, seeds: int = 1) -> list[int]:
    """Stream images, and compare every answer; the transmissions that each took."""
    requests = [(IMAGES[i], list(range(i, i + seeds))) for i in range(count)]
    results = list(device.infer_many(requests))
    assert [r.logits.tolist() for r in results] == [
        [logits(image, seed) for seed in seeds] for image, seeds in requests
    ]
    return [r.attempts for r in results]


def sent(port: ModelLine, since: float, size: int = 700) -> list[float]:
    """When requests with an image were written, in seconds after a time."""
    return [at - since for at, length in port.written if at >= since and length > size]
