"""INFER of a board in field mode: a count of draws goes there, and no seed.

The board draws with seeds of its own, PRF(device key, counter); the reply says
where its counter stood, so that the owner of the key can compute them again
(:mod:`bnnmcu.field`).  Layouts are in docs/SPEC.md, section 5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bnnmcu.errors import LinkError
from bnnmcu.link.protocol import InferReply, check

__all__ = ["FieldInferReply", "FieldInferRequest"]

_HEAD = struct.Struct("<BB")
_REPLY_HEAD = 4
_FIRST = struct.Struct("<Q")


@dataclass(frozen=True)
class FieldInferRequest:
    """Classify one image a number of times, each with a draw of the board's own.

    Attributes:
        image: the pixels, row by row, channels innermost.
        draws: 1 to 255.
    """

    image: bytes
    draws: int

    def pack(self) -> bytes:
        """The payload."""
        if not 1 <= self.draws <= 255:
            raise LinkError(f"{self.draws} draws in one request")
        return _HEAD.pack(0, self.draws) + self.image

    @classmethod
    def unpack(cls, payload: bytes, pixels: int) -> FieldInferRequest:
        """Read a request for images of ``pixels`` bytes."""
        check(len(payload) == _HEAD.size + pixels, f"an INFER request of {len(payload)} bytes")
        flags, draws = _HEAD.unpack_from(payload)
        check(flags == 0 and draws > 0, "an INFER request with unknown flags or no draws")
        return cls(payload[_HEAD.size :], draws)


@dataclass(frozen=True)
class FieldInferReply:
    """What an image gave.

    Attributes:
        first: value of the board's counter for the first draw; the others follow it.
        answer: logits and ticks, as in evaluation mode.
    """

    first: int
    answer: InferReply

    def pack(self, logit_bytes: int) -> bytes:
        """The payload, with logits of 4 or 8 bytes."""
        plain = self.answer.pack(logit_bytes)
        return plain[:_REPLY_HEAD] + _FIRST.pack(self.first) + plain[_REPLY_HEAD:]

    @classmethod
    def unpack(
        cls, payload: bytes, *, draws: int, classes: int, logit_bytes: int
    ) -> FieldInferReply:
        """Read the reply to a request for ``draws`` draws."""
        size = _REPLY_HEAD + _FIRST.size
        check(len(payload) >= size, "an INFER reply without its head")
        (first,) = _FIRST.unpack_from(payload, _REPLY_HEAD)
        check(first + draws <= 1 << 64, "a counter that wraps around")
        plain = payload[:_REPLY_HEAD] + payload[size:]
        answer = InferReply.unpack(plain, seeds=draws, classes=classes, logit_bytes=logit_bytes)
        return cls(first, answer)
