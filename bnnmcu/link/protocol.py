"""The messages inside the frames: one dataclass each, with every length checked.

``pack`` and ``unpack`` are inverse; layouts and meanings are in docs/SPEC.md.
Requests flow from the host, replies carry the type of the request with
:data:`REPLY` set.  Unpacking raises :class:`LinkError` on anything that the
protocol does not allow, whichever side it comes from.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import LinkError

__all__ = [
    "REPLY",
    "BaudReply",
    "BaudRequest",
    "CheckReply",
    "CountersReply",
    "ErrorCode",
    "ErrorReport",
    "InferReply",
    "InferRequest",
    "MessageType",
    "SampleReply",
    "SampleRequest",
    "check",
]

#: Set in the type of a reply.
REPLY = 0x80

_POLLUTED = 0x01
_SAMPLE = struct.Struct("<BQIH")
_INFER_REPLY = struct.Struct("<BBBB")
_COUNTERS_REPLY = struct.Struct("<BBH")
_CHECK_REPLY = struct.Struct("<III")
_BAUD = struct.Struct("<I")
_ERROR = struct.Struct("<BBH")


class MessageType(enum.IntEnum):
    """Types of requests, and of the two frames that answer without being asked."""

    HELLO = 0x01
    INFER = 0x02
    COUNTERS = 0x03
    SAMPLE = 0x04
    CHECK = 0x05
    LAST_FAULT = 0x06
    BAUD = 0x07
    FAULT = 0xFE
    ERROR = 0xFF


class ErrorCode(enum.IntEnum):
    """What an ERROR frame says; the meaning of its detail in brackets."""

    BAD_FRAME = 1  # [bad frames so far] sequence 0: which request it was is unknown
    OVERRUN = 2  # [0] sequence 0 likewise
    BAD_VERSION = 3  # [version spoken by the device]
    UNKNOWN_TYPE = 4  # [0]
    BAD_LENGTH = 5  # [payload length expected]
    BAD_ARGUMENT = 6  # [offset of the field in the payload]
    MODEL = 7  # [error code of the runtime, without its minus sign]
    NOT_READY = 8  # [0] counters before the first inference; no fault is kept
    CORRUPT = 9  # [0] the firmware in flash is not what was built
    FIELD = 10  # [0] field mode tells no such thing
    COUNTER = 11  # [0] field mode: flash takes no record of the counter


def check(condition: bool, what: str) -> None:
    """Raise a LinkError naming what the two ends disagree on, unless ``condition`` holds."""
    if not condition:
        raise LinkError(f"the device and this bnnmcu disagree: {what}", hint="rebuild and flash it")


@dataclass(frozen=True)
class InferRequest:
    """Classify one image, once per seed.

    Attributes:
        image: the pixels, row by row, channels innermost.
        seeds: unsigned 64-bit numbers, at least one.
    """

    image: bytes
    seeds: tuple[int, ...]

    def pack(self) -> bytes:
        """The payload; the seeds come last so that the image is aligned on the device."""
        count = len(self.seeds)
        if not 1 <= count <= 255 or any(not 0 <= seed < 1 << 64 for seed in self.seeds):
            raise LinkError(f"{count} seeds, or one that is not an unsigned 64-bit number")
        return struct.pack("<BB", 0, count) + self.image + struct.pack(f"<{count}Q", *self.seeds)

    @classmethod
    def unpack(cls, payload: bytes, pixels: int) -> InferRequest:
        """Read a request for images of ``pixels`` bytes."""
        check(len(payload) >= 2, "an INFER request without its head")
        flags, count = payload[0], payload[1]
        check(flags == 0 and count > 0, "an INFER request with unknown flags or no seeds")
        check(len(payload) == 2 + pixels + 8 * count, f"an INFER request of {len(payload)} bytes")
        seeds = struct.unpack_from(f"<{count}Q", payload, 2 + pixels)
        return cls(payload[2 : 2 + pixels], seeds)


@dataclass(frozen=True)
class InferReply:
    """What an image gave.

    Attributes:
        logits: int64, shape ``(n_seeds, classes)``.
        ticks: uint32, shape ``(n_seeds,)``, in the device's counter.
        polluted: bytes were received during a count, so it is too high.
    """

    logits: npt.NDArray[np.int64]
    ticks: npt.NDArray[np.uint32]
    polluted: bool

    @staticmethod
    def _draw(classes: int, logit_bytes: int) -> np.dtype[np.void]:
        return np.dtype([("ticks", "<u4"), ("logits", f"<i{logit_bytes}", (classes,))])

    def pack(self, logit_bytes: int) -> bytes:
        """The payload, with logits of 4 or 8 bytes."""
        count, classes = self.logits.shape
        draws = np.zeros(count, dtype=self._draw(classes, logit_bytes))
        draws["ticks"], draws["logits"] = self.ticks, self.logits
        flags = _POLLUTED if self.polluted else 0
        return _INFER_REPLY.pack(count, logit_bytes, flags, 0) + draws.tobytes()

    @classmethod
    def unpack(cls, payload: bytes, *, seeds: int, classes: int, logit_bytes: int) -> InferReply:
        """Read the reply to a request with ``seeds`` seeds."""
        check(len(payload) >= _INFER_REPLY.size, "an INFER reply without its head")
        count, width, flags, _ = _INFER_REPLY.unpack_from(payload)
        check(count == seeds, f"{count} draws in reply to {seeds} seeds")
        check(width == logit_bytes, f"logits of {width} bytes where HELLO said {logit_bytes}")
        draw = cls._draw(classes, logit_bytes)
        body = payload[_INFER_REPLY.size :]
        check(len(body) == count * draw.itemsize, f"an INFER reply of {len(payload)} bytes")
        draws = np.frombuffer(body, dtype=draw)
        return cls(
            draws["logits"].astype(np.int64).reshape(count, classes),
            draws["ticks"].astype(np.uint32),
            bool(flags & _POLLUTED),
        )


@dataclass(frozen=True)
class CountersReply:
    """Ticks of every layer in the last inference.

    Attributes:
        ticks: uint32, shape ``(layers,)``.
        polluted: bytes were received during that inference.
    """

    ticks: npt.NDArray[np.uint32]
    polluted: bool

    def pack(self) -> bytes:
        """The payload."""
        flags = _POLLUTED if self.polluted else 0
        return _COUNTERS_REPLY.pack(len(self.ticks), flags, 0) + self.ticks.astype("<u4").tobytes()

    @classmethod
    def unpack(cls, payload: bytes, *, layers: int) -> CountersReply:
        """Read the reply of a device with that many layers."""
        check(len(payload) == _COUNTERS_REPLY.size + 4 * layers, "a COUNTERS reply's length")
        count, flags, _ = _COUNTERS_REPLY.unpack_from(payload)
        check(count == layers, f"{count} counters for {layers} layers")
        ticks = np.frombuffer(payload, "<u4", offset=_COUNTERS_REPLY.size).astype(np.uint32)
        return cls(ticks, bool(flags & _POLLUTED))


@dataclass(frozen=True)
class SampleRequest:
    """Words of the weights that a seed draws: ``count`` of them from ``first`` on."""

    layer: int
    seed: int
    first: int
    count: int

    def pack(self) -> bytes:
        """The payload."""
        try:
            return _SAMPLE.pack(self.layer, self.seed, self.first, self.count)
        except struct.error as error:
            raise LinkError(f"a field of a SAMPLE request is out of range: {error}") from error

    @classmethod
    def unpack(cls, payload: bytes) -> SampleRequest:
        """Read a request."""
        check(len(payload) == _SAMPLE.size, f"a SAMPLE request of {len(payload)} bytes")
        return cls(*_SAMPLE.unpack(payload))


@dataclass(frozen=True)
class SampleReply:
    """Drawn weights, uint32, shape ``(count,)``, packed as the device computes with them."""

    words: npt.NDArray[np.uint32]

    def pack(self) -> bytes:
        """The payload: nothing but the words."""
        return self.words.astype("<u4").tobytes()

    @classmethod
    def unpack(cls, payload: bytes, *, count: int) -> SampleReply:
        """Read the reply to a request for ``count`` words."""
        check(len(payload) == 4 * count, f"a SAMPLE reply of {len(payload)} bytes")
        return cls(np.frombuffer(payload, "<u4").astype(np.uint32))


@dataclass(frozen=True)
class CheckReply:
    """The CRC-32 of the firmware in flash.

    Attributes:
        expected: as recorded when it was built.
        found: as computed just now.
        size: bytes that it covers; 0 where the build recorded none.
    """

    expected: int
    found: int
    size: int

    def pack(self) -> bytes:
        """The payload."""
        return _CHECK_REPLY.pack(self.expected, self.found, self.size)

    @classmethod
    def unpack(cls, payload: bytes) -> CheckReply:
        """Read the reply."""
        check(len(payload) == _CHECK_REPLY.size, f"a CHECK reply of {len(payload)} bytes")
        return cls(*_CHECK_REPLY.unpack(payload))


@dataclass(frozen=True)
class BaudRequest:
    """Go over to another baud after the answer, and send some bytes back.

    Attributes:
        baud: the one to go over to; 0 to stay.
        pattern: any bytes; the reply repeats them.
    """

    baud: int
    pattern: bytes = b""

    def pack(self) -> bytes:
        """The payload."""
        return _pack_baud(self.baud, self.pattern)

    @classmethod
    def unpack(cls, payload: bytes) -> BaudRequest:
        """Read a request."""
        check(len(payload) >= _BAUD.size, f"a BAUD request of {len(payload)} bytes")
        return cls(_BAUD.unpack_from(payload)[0], payload[_BAUD.size :])


@dataclass(frozen=True)
class BaudReply:
    """The answer to a BAUD request, sent before going over.

    Attributes:
        baud: what the device makes from now on, exactly; for a request to stay, what it makes.
        pattern: the request's.
    """

    baud: int
    pattern: bytes = b""

    def pack(self) -> bytes:
        """The payload."""
        return _pack_baud(self.baud, self.pattern)

    @classmethod
    def unpack(cls, payload: bytes) -> BaudReply:
        """Read the reply."""
        check(len(payload) >= _BAUD.size, f"a BAUD reply of {len(payload)} bytes")
        return cls(_BAUD.unpack_from(payload)[0], payload[_BAUD.size :])


def _pack_baud(baud: int, pattern: bytes) -> bytes:
    try:
        return _BAUD.pack(baud) + pattern
    except struct.error as error:
        raise LinkError(f"a baud of {baud} does not fit a message") from error


@dataclass(frozen=True)
class ErrorReport:
    """The payload of an ERROR frame; ``request`` is the type it answers, or 0."""

    code: int
    request: int
    detail: int

    @property
    def text(self) -> str:
        """What the device complains of, in words."""
        texts: dict[int, str] = {
            ErrorCode.BAD_FRAME: "a frame came in corrupt",
            ErrorCode.OVERRUN: "it could not receive as fast as bytes came",
            ErrorCode.BAD_VERSION: f"it speaks protocol version {self.detail}",
            ErrorCode.UNKNOWN_TYPE: f"it knows no request of type 0x{self.request:02x}",
            ErrorCode.BAD_LENGTH: f"it expected a payload of {self.detail} bytes",
            ErrorCode.BAD_ARGUMENT: f"the field at payload offset {self.detail} is out of range",
            ErrorCode.MODEL: f"its runtime failed with error -{self.detail}",
            ErrorCode.NOT_READY: "there are no counters before the first inference"
            if self.request == MessageType.COUNTERS
            else "there is nothing to tell",
            ErrorCode.CORRUPT: "the firmware in its flash does not match its checksum",
            ErrorCode.FIELD: "it is in field mode, takes no seeds, and tells no drawn weights, "
            "no counts of layers and no checksum (docs/FIELD.md)",
            ErrorCode.COUNTER: "it is in field mode and cannot keep its counter: the flash is "
            "worn out, or an emulator has none that can be written (docs/FIELD.md)",
        }
        return texts.get(self.code, f"unknown error code {self.code} (detail {self.detail})")

    def pack(self) -> bytes:
        """The payload."""
        return _ERROR.pack(self.code, self.request, self.detail)

    @classmethod
    def unpack(cls, payload: bytes) -> ErrorReport:
        """Read the payload of an ERROR frame."""
        check(len(payload) == _ERROR.size, f"an ERROR frame of {len(payload)} bytes")
        return cls(*_ERROR.unpack(payload))
