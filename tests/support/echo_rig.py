"""A small firmware on the real port: generated, built and spoken to by the tests."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from bnnmcu.backend import checksum
from bnnmcu.backend.emit import render, template_bytes
from bnnmcu.boards import Board
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.qemu import QemuBoard
from bnnmcu.toolchain.unicorn_board import UnicornBoard

ECHO_MAIN = Path(__file__).resolve().parents[1] / "c" / "echo_main.c"
RX_BYTES = 2048
STACK_BYTES = 2048
PATIENCE = 30.0
"""Seconds until a silent firmware fails a test; the machine may be busy."""


class Stream(Protocol):
    def read(self, size: int, timeout: float) -> bytes: ...

    def write(self, data: bytes) -> None: ...


@dataclass(frozen=True)
class Info:
    """The answer to the command ``I``."""

    counter: int
    clock_hz: int
    capacity: int
    stack_free: int
    received: int
    overrun: int
    board: str


@dataclass(frozen=True)
class Fault:
    """What the firmware sends from its fault handler."""

    frame: tuple[int, ...]
    cfsr: int
    hfsr: int
    mmfar: int
    bfar: int


def needs(tool: str) -> None:
    """Skip the test if a tool is missing."""
    programs = {"gcc": "arm-none-eabi-gcc", "qemu": "qemu-system-arm"}
    packages = {"zig": "ziglang", "unicorn": "unicorn", "platformio": "platformio"}
    if tool in programs and shutil.which(programs[tool]) is None:
        pytest.skip(f"{programs[tool]} is not installed")
    if tool in packages and importlib.util.find_spec(packages[tool]) is None:
        pytest.skip(f"the package {packages[tool]} is not installed")


def write_echo_project(
    folder: Path, board: Board, *, main: str | None = None, stack_bytes: int = STACK_BYTES
) -> Path:
    """A project as ``bnnmcu export`` writes it, with the echo firmware for a network."""
    variables = {
        "board": board,
        "model": {"name": "echo", "sha256": "0" * 64},
        "stack_bytes": stack_bytes,
        "rx_bytes": RX_BYTES,
        "version": "0.0.0",
    }
    files = {
        "include/bnn_board.h": render("project/bnn_board.h.j2", **variables),
        "linker.ld": render("project/linker.ld.j2", **variables),
        "board.toml": board.source.encode(),
        "manifest.json": json.dumps({"format": "bnnmcu-project", "board": board.name}).encode(),
        "src/main.c": ECHO_MAIN.read_bytes() if main is None else main.encode(),
    }
    if board.platformio.board:
        files["platformio.ini"] = render("project/platformio.ini.j2", **variables)
        files["bnn_build.py"] = template_bytes("project/bnn_build.py")
        files["bnn_checksum.py"] = Path(checksum.__file__).read_bytes()
    for name in board.port_headers:
        files[f"include/{name}"] = template_bytes(f"port/{name}")
    for name in board.port_sources:
        files[f"src/{name}"] = template_bytes(f"port/{name}")
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def build_echo(folder: Path, board: Board, toolchain: str) -> BuildResult:
    needs(toolchain)
    return build_firmware(write_echo_project(folder, board), toolchain)


def emulate(kind: str, elf: Path, board: Board, *, count: bool = False) -> QemuBoard | UnicornBoard:
    needs(kind)
    if kind == "qemu":
        return QemuBoard(elf, board)
    return UnicornBoard(elf, board, count=count)


def receive(stream: Stream, size: int) -> bytes:
    """Exactly ``size`` bytes, or a failed test."""
    data = b""
    deadline = time.monotonic() + PATIENCE
    while len(data) < size:
        assert time.monotonic() < deadline, f"{len(data)} of {size} bytes came: {data[:64]!r}"
        data += stream.read(size - len(data), 1.0)
    return data


def ask_info(stream: Stream) -> Info:
    stream.write(b"I")
    *values, length = struct.unpack("<BIIIIBB", receive(stream, 19))
    return Info(*values, receive(stream, length).decode())


def ask_echo(stream: Stream, data: bytes) -> bytes:
    stream.write(b"E" + struct.pack("<H", len(data)) + data)
    return receive(stream, len(data))


def ask_work(stream: Stream, rounds: int) -> tuple[int, int]:
    """Ticks and result of some rounds of work."""
    stream.write(b"W" + struct.pack("<I", rounds))
    ticks, result = struct.unpack("<II", receive(stream, 8))
    return ticks, result


def ask_baud(stream: Stream, baud: int) -> int:
    """What the UART makes of a baud, which it then has if that is not 0."""
    stream.write(b"R" + struct.pack("<I", baud))
    return int.from_bytes(receive(stream, 4), "little")


def ask_garbled(stream: Stream) -> int:
    """Bytes without a stop bit so far."""
    stream.write(b"G")
    return int.from_bytes(receive(stream, 4), "little")


def ask_fault(stream: Stream, kind: bytes) -> Fault:
    stream.write(kind)
    mark, *words = struct.unpack("<c12I", receive(stream, 49))
    assert mark == b"F"
    return Fault(tuple(words[:8]), *words[8:])


def worked(rounds: int) -> int:
    """What the work of the firmware computes: xorshift32 (Marsaglia 2003)."""
    state = 0x12345678
    for _ in range(rounds):
        state = (state ^ (state << 13)) & 0xFFFFFFFF
        state ^= state >> 17
        state = (state ^ (state << 5)) & 0xFFFFFFFF
    return state
