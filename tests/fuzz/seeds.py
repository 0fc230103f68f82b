"""Inputs to start from, the same every time: what a host sends, sound and spoiled."""

from __future__ import annotations

import struct
from pathlib import Path

from bnnmcu.link.frame import Frame, encode_frame
from bnnmcu.link.protocol import MessageType

__all__ = ["write_seeds"]

_IMAGE = bytes(range(3, 243, 15))


def _infer(sequence: int, *seeds: int) -> bytes:
    payload = bytes([0, len(seeds)]) + _IMAGE + struct.pack(f"<{len(seeds)}Q", *seeds)
    return encode_frame(Frame(MessageType.INFER, sequence, payload))


def _drawn(sequence: int, draws: int) -> bytes:
    """An INFER as in field mode: without seeds."""
    return encode_frame(Frame(MessageType.INFER, sequence, bytes([0, draws]) + _IMAGE))


def _sample(layer: int, first: int, count: int) -> bytes:
    payload = struct.pack("<BQIH", layer, 9, first, count)
    return encode_frame(Frame(MessageType.SAMPLE, 77, payload))


def _plain(kind: int, sequence: int = 1, payload: bytes = b"", version: int = 1) -> bytes:
    return encode_frame(Frame(kind, sequence, payload, version))


def _wires() -> dict[str, bytes]:
    hello = _plain(MessageType.HELLO)
    every = b"".join(_plain(kind, kind) for kind in range(16))
    return {
        "hello": hello,
        "every": every + _plain(0x82) + _plain(0xFF),
        "infer": _infer(1, 0) + _infer(1, 0) + _infer(2, *range(20)) + _plain(3, 3) * 2,
        "refused": _infer(1) + _infer(2, *range(21)) + _plain(2, 3, b"\1\1" + _IMAGE),
        "field": _drawn(1, 3)
        + hello
        + _drawn(1, 3)
        + _sample(1, 0, 1)
        + _drawn(2, 20) * 2
        + b"".join(_drawn(number, 17) for number in range(9, 40))
        + _drawn(1, 3)
        + _drawn(3, 0),
        # The seeds on which the fake model refuses, crashes, vanishes and waits.
        "trouble": _infer(1, 0xE0) + _infer(2, 0xFA) + _plain(6, 3) * 2 + _infer(4, 0xDE, 0x3A),
        "sample": _sample(1, 0, 1) + _sample(1, 3, 20) + _sample(1, 0, 9999) + _sample(9, 0, 1),
        "baud": _plain(7, 4, struct.pack("<I", 115200)) + _plain(7, 5, b"\0\0\0\0abc") + hello,
        "version": _plain(1, 2, version=2) + _plain(1, 2, version=0) + hello,
        "bad": hello[:-3] + b"\0" + b"\xff\0\2\0\1\1\0" + b"x" * 500 + b"\0" + hello,
        "garbled": (b"\0" + b"\xa5\x5a\x80" * 9) * 12 + b"\0" + hello,
    }


_COMMANDS = {
    "greeting": "name%profile%help%timestamp%",
    "infer": f"db load 16%db {_IMAGE[:10].hex()}%db {_IMAGE[10:].hex()}%infer 2 1%results%",
    "print": "db load 5%db 0102030405060708%db print%db 09%",
    "seed": f"seed 18446744073709551615%seed%db load 16%db {_IMAGE.hex()}%infer%logits%seed 1 2%",
    "refused": "infer%results%logits%db%db load%db load 0%db load 17%db 0%db 0g%db load 3 4%",
    "numbers": "infer 0%infer 1 -1%infer 99999999999999999999 1%infer x%seed 0x1%",
    "long": "x" * 90 + "%name%" + "db load 16%db " + "00" * 40 + "%name%",
    "odd": "%%  %name  %\r\nname\r\n%\x00\x80name%na",
}


def _inputs() -> dict[str, dict[str, bytes]]:
    """By harness and name."""
    wires = _wires()
    return {
        "frame": {name: bytes([size]) + wire for name, wire in wires.items() for size in (255,)},
        # Its length chooses the board that an input comes to; zeros do no harm.
        "server": {
            f"{name}{more}": wire + bytes(more)
            for name, wire in wires.items()
            for more in (range(16) if name in ("infer", "field") else (0,))
        },
        "mlperf": {name: text.encode("latin-1") for name, text in _COMMANDS.items()},
    }


def write_seeds(root: Path) -> None:
    """Write them to ``frame``, ``server`` and ``mlperf`` in a folder."""
    for harness, found in _inputs().items():
        folder = root / harness
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in found.items():
            (folder / name).write_bytes(data)
