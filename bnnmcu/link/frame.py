"""Frames on the wire: COBS between zero bytes, a fixed header, a CRC-32.

``0x00 COBS(version type sequence:2 length:2 payload crc32:4) 0x00``, all
integers little-endian; docs/SPEC.md has the whole protocol and golden frames.
COBS keeps zero out of a coded frame, so a receiver that is lost in the middle
finds its feet again at the next zero.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from cobs import cobs

from bnnmcu.errors import LinkError

__all__ = ["MAX_PAYLOAD", "VERSION", "Frame", "FrameDecoder", "encode_frame"]

#: The protocol version of this package, and of the firmware it generates.
VERSION = 1

#: The largest payload that the 16-bit length field can announce.
MAX_PAYLOAD = 0xFFFF

_HEADER = struct.Struct("<BBHH")
_CRC = struct.Struct("<I")
_OVERHEAD = _HEADER.size + _CRC.size


@dataclass(frozen=True)
class Frame:
    """One frame, its CRC already checked or not yet computed.

    Attributes:
        type: message type, see :class:`bnnmcu.link.protocol.MessageType`.
        sequence: chosen by the host, repeated in the reply; 0 to 65535.
        payload: at most :data:`MAX_PAYLOAD` bytes.
        version: protocol version of the sender.
    """

    type: int
    sequence: int
    payload: bytes
    version: int = VERSION


def encode_frame(frame: Frame) -> bytes:
    """The bytes of a frame on the wire, with a zero before and after.

    Raises:
        LinkError: a field does not fit.
    """
    if len(frame.payload) > MAX_PAYLOAD:
        raise LinkError(
            f"a payload of {len(frame.payload)} bytes; a frame carries {MAX_PAYLOAD} at most"
        )
    try:
        header = _HEADER.pack(frame.version, frame.type, frame.sequence, len(frame.payload))
    except struct.error as error:
        raise LinkError(f"a field of the frame is out of range: {error}") from error
    body = header + frame.payload
    coded: bytes = cobs.encode(body + _CRC.pack(zlib.crc32(body)))
    # The leading zero ends whatever noise or half a frame the line carried before.
    return b"\0" + coded + b"\0"


def _parse(coded: bytes, max_payload: int) -> Frame | None:
    """The frame in the bytes between two zeros, or None if it is not sound."""
    try:
        body = cobs.decode(coded)
    except cobs.DecodeError:
        return None
    if len(body) < _OVERHEAD:
        return None
    version, kind, sequence, length = _HEADER.unpack_from(body)
    if length != len(body) - _OVERHEAD or length > max_payload:
        return None
    covered = _HEADER.size + length
    if _CRC.unpack_from(body, covered)[0] != zlib.crc32(body[:covered]):
        return None
    return Frame(kind, sequence, body[_HEADER.size : covered], version)


class FrameDecoder:
    """Cuts a byte stream into frames; what is not a sound frame is counted and dropped.

    Memory is bounded: a run without a zero that is longer than the largest
    frame is thrown away as it comes.

    Args:
        max_payload: payloads above this are bad frames.
    """

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self._max_payload = max_payload
        body = max_payload + _OVERHEAD
        self._limit = body + body // 254 + 1
        self._buffer = bytearray()
        self._overlong = False
        #: Frames dropped so far: cut, corrupt, too short or too long.
        self.bad_frames = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Take in bytes as they come; return the frames that they complete."""
        frames = []
        *ends, rest = data.split(b"\0")
        for piece in ends:
            self._append(piece)
            frame = self._finish()
            if frame is not None:
                frames.append(frame)
        self._append(rest)
        return frames

    def reset(self) -> None:
        """Forget a half-received frame; the count of bad ones stays."""
        self._buffer.clear()
        self._overlong = False

    def _append(self, piece: bytes) -> None:
        if self._overlong or len(self._buffer) + len(piece) > self._limit:
            self._buffer.clear()
            self._overlong = True
        else:
            self._buffer += piece

    def _finish(self) -> Frame | None:
        coded, overlong = bytes(self._buffer), self._overlong
        self.reset()
        if not coded and not overlong:
            return None  # two zeros in a row: the end of one frame, the start of the next
        frame = None if overlong else _parse(coded, self._max_payload)
        if frame is None:
            self.bad_frames += 1
        return frame
