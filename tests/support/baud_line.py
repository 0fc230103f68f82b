"""A serial line bit by bit, with a baud at each end, and the C server behind it.

Bits go onto the line at the sender's baud and are looked at in their middle at
the receiver's, from the edge of the start bit on: so equal bauds carry bytes,
and different ones what a UART makes of them.  Time is virtual.
"""

from __future__ import annotations

import math
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from model_board import Clock

from bnnmcu.errors import LinkError

__all__ = ["BaudTransport", "LineDevice", "hear"]

_WORD = struct.Struct("<I")
_SAME = 0.03  # a receiver bears about as much


def hear(data: bytes, sent: int, heard: int, start: float = 0.0) -> list[tuple[int, bool, float]]:
    """What a receiver makes of bytes without gaps between them.

    Args:
        data: the bytes.
        sent: the sender's baud.
        heard: the receiver's.
        start: when the receiver begins to listen, in the sender's bits.

    Returns:
        For each byte heard: its value, whether its stop bit is missing, and
        when it ends, in the sender's bits.
    """
    line = [bit for byte in data for bit in (0, *(byte >> i & 1 for i in range(8)), 1)]
    step = sent / heard
    found = []
    at = math.ceil(start)
    while at < len(line):
        # A falling edge: what is low already when listening begins is none.
        if line[at] or (at > 0 and not line[at - 1]):
            at += 1
            continue
        places = [int(at + (bit + 0.5) * step) for bit in range(10)]
        levels = [line[place] if place < len(line) else 1 for place in places]
        if levels[0]:
            at += 1  # shorter than half a bit
            continue
        value = sum(level << bit for bit, level in enumerate(levels[1:9]))
        end = at + 9.5 * step
        found.append((value, not levels[9], end))
        at = math.ceil(end)
    return found


class LineDevice:
    """The C server on a UART: ``tests/c/line_tool.c``.

    Args:
        program: it, compiled.
        tells: its UART knows of missing stop bits.
    """

    def __init__(self, program: Path, *, tells: bool = True) -> None:
        self.process = subprocess.Popen(
            [str(program), *([] if tells else ["deaf"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.baud = 115200

    def _ask(self, letter: bytes, data: bytes) -> tuple[int, list[tuple[int, bytes]]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(letter + _WORD.pack(len(data)) + data)
        self.process.stdin.flush()
        (size,) = _WORD.unpack(self.process.stdout.read(4))
        answer = self.process.stdout.read(size)
        taken, self.baud = struct.unpack_from("<II", answer)
        pieces, at = [], 8
        while at < len(answer):
            baud, length = struct.unpack_from("<II", answer, at)
            pieces.append((baud, answer[at + 8 : at + 8 + length]))
            at += 8 + length
        return taken, pieces

    def hear(self, data: bytes, sent: int) -> list[tuple[int, bytes]]:
        """Receive bytes sent at a baud; what is answered, with the baud of each piece."""
        replies: list[tuple[int, bytes]] = []
        start = 0.0
        while data:
            if abs(sent / self.baud - 1) < _SAME:
                whole = -(-start // 10)
                heard = [(x, False, 10 * (whole + i + 1)) for i, x in enumerate(data[int(whole) :])]
            else:
                heard = hear(data, sent, self.baud, start)
            pairs = b"".join(bytes((value, bad)) for value, bad, _ in heard)
            taken, pieces = self._ask(b"P", pairs)
            replies += pieces
            if taken == len(heard):
                break
            # It has another baud from that byte on.
            start = heard[taken - 1][2]
        return replies

    def reset(self) -> None:
        """As its button does."""
        self._ask(b"R", b"")

    def close(self) -> None:
        """End it; a sanitizer's complaint fails the test."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0
        self.process.stdout.close()


class BaudTransport:
    """The host's end of the line, with a bridge in between.

    Args:
        device: at the other end.
        bears: the fastest baud that the bridge makes.
        garbles: of each byte at a baud, the probability that the line changes it.
    """

    name = "line"

    def __init__(
        self,
        device: LineDevice,
        *,
        bears: int = 10_000_000,
        garbles: Callable[[int], float] = lambda baud: 0.0,
    ) -> None:
        self.device, self.bears, self.garbles = device, bears, garbles
        self.clock = Clock()
        self.baud = 115200
        self.sent: list[tuple[int, bytes]] = []
        self._inbox = b""
        self._random = random.Random(5)

    def _spoil(self, data: bytes, baud: int) -> bytes:
        rate = self.garbles(baud)
        if not rate:
            return data
        return bytes(
            byte ^ 1 << self._random.randrange(8) if self._random.random() < rate else byte
            for byte in data
        )

    def write(self, data: bytes) -> None:
        self.sent.append((self.baud, data))
        for baud, piece in self.device.hear(self._spoil(data, self.baud), self.baud):
            if abs(baud / self.baud - 1) < _SAME:
                self._inbox += self._spoil(piece, self.baud)
            else:
                self._inbox += bytes(value for value, _, _ in hear(piece, baud, self.baud))

    def read(self, size: int, timeout: float) -> bytes:
        if not self._inbox:
            self.clock.sleep(timeout)
        data, self._inbox = self._inbox[:size], self._inbox[size:]
        return data

    def set_baud(self, baud: int) -> None:
        if baud > self.bears:
            raise LinkError(f"the bridge does not make {baud} baud", where=self.name)
        self.baud = baud

    def reset_input(self) -> None:
        self._inbox = b""

    def close(self) -> None:
        pass
