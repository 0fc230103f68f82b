"""A minimal client for a bnnmcu board, written from docs/SPEC.md alone; see --help."""

import argparse
import re
import secrets
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION, HELLO, INFER, REPLY, FAULT, ERROR = 1, 0x01, 0x02, 0x80, 0xFE, 0xFF
BAD_FRAME, OVERRUN = 1, 2
TRIES = 6  # noise from before we came may cost the first few
LONGEST_CODED = 66_000  # a body of 65,545 bytes, and a byte of COBS for each 254 of them
PGM_HEAD = re.compile(rb"P5" + rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,5})" * 3 + rb"\s")  # with comments


@dataclass(frozen=True)
class Frame:
    kind: int
    sequence: int
    payload: bytes


DAMAGED = Frame(ERROR, 0, bytes([BAD_FRAME, 0, 0, 0]))  # here or there: the same retry helps


def encode(frame: Frame) -> bytes:
    head = struct.pack("<BBHH", VERSION, frame.kind, frame.sequence, len(frame.payload))
    body = head + frame.payload + struct.pack("<I", zlib.crc32(head + frame.payload))
    # A block of 254 implies no zero after it, so an empty block follows that says the zero.
    blocks = [run[i : i + 254] for run in body.split(b"\0") for i in range(0, len(run) + 1, 254)]
    if not blocks[-1] and body[-1]:
        blocks.pop()  # unless the body ends there
    return b"\0" + b"".join(bytes([len(block) + 1]) + block for block in blocks) + b"\0"


def decode(coded: bytes) -> Frame:
    body, at = bytearray(), 0
    while at < len(coded):
        code, block = coded[at], coded[at + 1 : at + coded[at]]
        at += code
        body += block if code == 255 or at == len(coded) else block + b"\0"
    if at != len(coded) or len(body) < 10:  # a code points past the end, or half a frame
        return DAMAGED
    version, kind, sequence, length = struct.unpack_from("<BBHH", body)
    if len(body) != length + 10 or zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
        return DAMAGED
    if version != VERSION:
        sys.exit(f"error: the board speaks protocol {version}; flash firmware of version {VERSION}")
    return Frame(kind, sequence, bytes(body[6:-4]))


def frames(port: Any) -> Iterator[Frame]:
    """Frames as they come, and now and then an empty one, for the caller to look at its clock."""
    received = b""
    while True:  # what is too long for a frame is cut, and then its CRC is wrong
        received = received[:LONGEST_CODED] + port.read(max(1, port.in_waiting))
        *ended, received = received.split(b"\0")
        yield from (decode(coded) for coded in ended if coded)
        yield Frame(0, 0, b"")


def request(port: Any, incoming: Iterator[Frame], frame: Frame, patience: float) -> bytes:
    for attempt in range(TRIES):
        port.write(encode(frame))  # a retry is the same bytes: the board may keep its reply
        deadline = time.monotonic() + patience * 2**attempt
        while time.monotonic() < deadline:
            reply = next(incoming)
            if reply.kind == FAULT:
                sys.exit("error: the firmware crashed; reset the board and try again")
            if reply.kind == ERROR and len(reply.payload) == 4:
                code, detail = struct.unpack("<BxH", reply.payload)
                if code in (BAD_FRAME, OVERRUN):
                    break  # a frame was lost: send again at once
                if reply.sequence == frame.sequence:
                    sys.exit(f"error: {code}, detail {detail}; look it up in docs/SPEC.md, 8")
            if (reply.kind, reply.sequence) == (frame.kind | REPLY, frame.sequence):
                return reply.payload  # any other answers a retry that was not needed
    sys.exit("error: no sound reply; check the port and --baud, reset the board, and try again")


def text(payload: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + payload[at] if at < len(payload) else at + 1
    if end > len(payload):
        sys.exit("error: the board's HELLO is too short; flash its firmware again")
    return ascii(payload[at + 1 : end].decode(errors="replace")), end  # no escapes to a terminal


def read_pgm(path: Path, height: int, width: int, channels: int) -> bytes:
    data = path.read_bytes()
    head = PGM_HEAD.match(data)
    fields = [*map(int, head.groups()), 1, len(data) - head.end()] if head else []
    if not head or fields != [width, height, 255, channels, width * height]:
        sys.exit(f"error: {path}: give a whole P5 file of {width}x{height}x{channels}, maximum 255")
    return data[head.end() :]


def classify(args: argparse.Namespace) -> None:
    import serial  # here, so that --help works without pyserial

    count, first = len(args.seeds), secrets.randbelow(65536)  # random: late replies are not ours
    with serial.serial_for_url(args.port, args.baud, timeout=0.05, write_timeout=90) as port:
        port.read(port.in_waiting)  # resynchronisation: old bytes away, and HELLO before all else
        incoming = frames(port)
        hello = request(port, incoming, Frame(HELLO, first, b""), 0.5)
        board, end = text(hello, 64)
        model, _ = text(hello, end)
        limit, room, h, w, c, classes, size = struct.unpack_from("<7xB4xH2x4HB", hello)
        print(f"board {board}, model {model}, {h}x{w}x{c}, {classes} classes")
        fits = count <= limit and 2 + h * w * c + 8 * count <= room
        if not fits or min(args.seeds) < 0 or max(args.seeds) >> 64:
            sys.exit(f"error: bad --seeds; give at most {limit}, each from 0 to 2**64 - 1")
        image = read_pgm(args.image, h, w, c) if args.image else bytes(h * w * c)
        asked = bytes([0, count]) + image + struct.pack(f"<{count}Q", *args.seeds)
        patience = 5 + 20 * len(asked) / args.baud
        reply = request(port, incoming, Frame(INFER, (first + 1) % 65536, asked), patience)
    expected = (4 + count * (4 + classes * size), count, size)
    if size not in (4, 8) or (len(reply), *reply[:2]) != expected:
        sys.exit("error: the reply does not fit HELLO; flash the firmware again")
    draws = [*struct.iter_unpack(f"<4x{classes}{'q' if size == 8 else 'i'}", reply[4:])]
    for seed, logits in zip(args.seeds, draws, strict=True):
        print(f"seed {seed}: logits {[*logits]}")
    print("label", max(range(classes), key=lambda label: sum(draw[label] for draw in draws)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify one image on a bnnmcu board.")
    parser.add_argument("port", help="serial port, or a pyserial URL")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--image", type=Path, help="binary PGM (P5) of the model's size")
    source.add_argument("--zeros", action="store_true", help="a black image (the default)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--baud", type=int, default=115200)
    try:
        classify(parser.parse_args())
    except KeyboardInterrupt:
        sys.exit("error: interrupted; start again when you like")
    except (ImportError, OSError, ValueError, ArithmeticError) as error:
        sys.exit(f"error: {error}; check the port, --baud, --image, and that pyserial is installed")


if __name__ == "__main__":
    main()
