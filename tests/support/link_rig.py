"""Peers for the link's tests: the C server as a process, and transports that spoil things."""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bnnmcu.errors import LinkError
from bnnmcu.link.frame import Frame, FrameDecoder, encode_frame
from bnnmcu.link.hello import DeviceInfo, LayerInfo
from bnnmcu.link.timing import Timing

REPO = Path(__file__).parents[2]
APP = REPO / "firmware_templates" / "app"
PORT = REPO / "firmware_templates" / "port"
FAKE = REPO / "tests" / "c" / "fake"
SERVER_SOURCES = (
    APP / "bnn_frame.c",
    APP / "bnn_health.c",
    APP / "bnn_server.c",
    APP / "bnn_server_baud.c",
    APP / "bnn_server_device.c",
    APP / "bnn_server_infer.c",
    APP / "main.c",
    PORT / "bnn_port_posix.c",
    FAKE / "fake_model.c",
)
LINE_SOURCES = (
    *(x for x in SERVER_SOURCES if x.name != "main.c" and x.parent != PORT),
    REPO / "tests" / "c" / "line_tool.c",
)
POOR_SOURCES = tuple(FAKE / "poor_port.c" if x.parent == PORT else x for x in SERVER_SOURCES)
CODEC_SOURCES = (APP / "bnn_frame.c", REPO / "tests" / "c" / "codec_tool.c")

#: Words in tests/c/fake/fake_model.c.
FAKE_SHA = bytes([0xA5, *range(1, 31), 0x5A])
SEED_ERROR, SEED_FAULT, SEED_VANISH, SEED_WAIT = 0xE0, 0xFA, 0xDE, 0x3A

#: A greeting such as a board sends.
INFO = DeviceInfo(
    protocol=1,
    firmware=(0, 1, 0),
    mode=0,
    counter=2,
    window=2,
    max_seeds=20,
    clock_hz=180_000_000,
    max_request=946,
    max_reply=1684,
    height=28,
    width=28,
    channels=1,
    classes=10,
    logit_bytes=8,
    generator=1,
    planes=4,
    stack_free=1234,
    model_sha256=bytes(range(32)),
    board="nucleo_f446re",
    model="S64",
    layers=(LayerInfo("conv1", 0), LayerInfo("conv3", 12800)),
)

#: Patience for tests: losses cost little, a busy machine does no harm.
QUICK = Timing(hello=(0.3,) * 20, first=1.0, first_draw=0.0, floor=0.3, attempts=8)
#: Gives up at once.
HASTY = Timing(
    hello=(0.05, 0.05), first=0.05, first_draw=0.0, floor=0.05, factor=1, attempts=2, patience=0.1
)


def compile_c(out: Path, sources: tuple[Path, ...], *defines: str) -> Path:
    """Build for this host under the address and undefined-behaviour sanitizers."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (gcc or clang) on this machine")
    probe = subprocess.run(
        [compiler, "-fsanitize=address,undefined", "-xc", "-", "-o", str(out)],
        input=b"int main(void) { return 0; }",
        capture_output=True,
        check=False,
    )
    if probe.returncode != 0:
        pytest.skip(f"{compiler} cannot link with the sanitizers")
    flags = ["-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    includes = [f"-I{folder}" for folder in (FAKE, APP, PORT)]
    subprocess.run(
        [compiler, *flags, *sanitizers, *includes, *defines]
        + [str(source) for source in sources]
        + ["-o", str(out)],
        check=True,
    )
    return out


class ServerTransport:
    """The C server behind two pipes."""

    def __init__(self, program: Path) -> None:
        self.name = "host process"
        self.process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout

    def read(self, size: int, timeout: float) -> bytes:
        if not select.select([self._out], [], [], timeout)[0]:
            return b""
        data = os.read(self._out.fileno(), size)
        if not data:
            raise LinkError("the process has ended", where=self.name)
        return data

    def write(self, data: bytes) -> None:
        try:
            self._in.write(data)
        except OSError as error:
            raise LinkError("the process has ended", where=self.name) from error

    def reset_input(self) -> None:
        while select.select([self._out], [], [], 0)[0] and os.read(self._out.fileno(), 65536):
            pass

    def close(self) -> None:
        """End the server; a sanitizer's complaint fails the test."""
        if self._in.closed:
            return
        with contextlib.suppress(OSError):
            self._in.close()
        assert self.process.stderr is not None
        complaint = self.process.stderr.read().decode()
        status = self.process.wait(timeout=10)
        self._out.close()
        self.process.stderr.close()
        assert (status, complaint) == (0, "")


class Spoiler:
    """Drops, doubles, corrupts or cuts frames, both ways, with a fixed seed."""

    def __init__(
        self, inner: ServerTransport, kinds: tuple[str, ...], rate: float, seed: int = 1
    ) -> None:
        self.name = inner.name
        self.inner = inner
        self.spoiled = 0
        self._kinds, self._rate = kinds, rate
        self._random = random.Random(seed)
        self._partial = b""

    def _spoil(self, wire: bytes) -> bytes:
        if len(wire) < 3 or self._random.random() >= self._rate:
            return wire
        self.spoiled += 1
        at = self._random.randrange(1, len(wire) - 1)
        return {
            "drop": lambda: b"",
            "double": lambda: wire + wire,
            "corrupt": lambda: wire[:at] + bytes([wire[at] ^ 0x10]) + wire[at + 1 :],
            "cut": lambda: wire[:at],
            "split": lambda: wire[:at] + b"\0" + wire[at:],
            "noise": lambda: self._random.randbytes(40) + wire,
        }[self._random.choice(self._kinds)]()

    def write(self, data: bytes) -> None:
        self.inner.write(self._spoil(data))

    def read(self, size: int, timeout: float) -> bytes:
        *whole, self._partial = (self._partial + self.inner.read(size, timeout)).split(b"\0")
        return b"".join(self._spoil(b"\0" + piece + b"\0") for piece in whole if piece)

    def reset_input(self) -> None:
        self._partial = b""
        self.inner.reset_input()

    def close(self) -> None:
        self.inner.close()


class Scripted:
    """A device written in Python: answers every sound frame with what ``answer`` returns."""

    def __init__(self, answer: Callable[[Frame], list[Frame | bytes]]) -> None:
        self.name = "scripted"
        self.closed = False
        self.requests: list[Frame] = []
        self._answer = answer
        self._decoder = FrameDecoder()
        self._queue = b""

    def write(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self.requests.append(frame)
            for reply in self._answer(frame):
                self._queue += reply if isinstance(reply, bytes) else encode_frame(reply)

    def read(self, size: int, timeout: float) -> bytes:
        if not self._queue:
            time.sleep(min(timeout, 0.01))
        data, self._queue = self._queue[:size], self._queue[size:]
        return data

    def reset_input(self) -> None:
        self._queue = b""

    def close(self) -> None:
        self.closed = True


class Codec:
    """The C codec as a process: see tests/c/codec_tool.c."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def _ask(self, letter: bytes, data: bytes) -> bytes:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(letter + struct.pack("<I", len(data)) + data)
        self.process.stdin.flush()
        (size,) = struct.unpack("<I", self.process.stdout.read(4))
        return self.process.stdout.read(size)

    def encode(self, frame: Frame) -> bytes:
        return self._ask(b"E", struct.pack("<BH", frame.type, frame.sequence) + frame.payload)

    def decode(self, wire: bytes) -> tuple[list[Frame], int]:
        """Sound frames, and the number of bad ones."""
        events, frames, bad = self._ask(b"D", wire), [], 0
        while events:
            if events[:1] == b"B":
                bad, events = bad + 1, events[1:]
                continue
            version, kind, sequence, length = struct.unpack_from("<BBHH", events, 1)
            frames.append(Frame(kind, sequence, events[7 : 7 + length], version))
            events = events[7 + length :]
        return frames, bad

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0
        self.process.stdout.close()


def fake_logits(image: npt.NDArray[np.uint8], seed: int, classes: int = 10) -> list[int]:
    """What tests/c/fake/fake_model.c computes, without the last class (a running count)."""
    total = int(image.sum(dtype=np.int64))
    values = [(i + 1) * total - seed % 65521 for i in range(classes - 1)]
    return [-value if i % 2 else value for i, value in enumerate(values)]


def fake_words(layer: int, seed: int, first: int, count: int) -> list[int]:
    """What it draws as weights."""
    return [
        ((seed + layer) * 2654435761 + w * 40503) & 0xFFFFFFFF for w in range(first, first + count)
    ]


def digits(count: int, shape: tuple[int, ...] = (28, 28, 1)) -> npt.NDArray[np.uint8]:
    """Images of random pixels, always the same ones."""
    return np.random.default_rng(7).integers(0, 256, size=(count, *shape), dtype=np.uint8)
