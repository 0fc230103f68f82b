"""Emulated boards behind a real terminal device, opened with pyserial."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from echo_rig import emulate, needs

from bnnmcu.boards import Board
from bnnmcu.errors import LinkError, ToolchainError
from bnnmcu.toolchain import pty_bridge
from bnnmcu.toolchain.compiler import BuildResult
from bnnmcu.toolchain.pty_bridge import PtyBridge
from bnnmcu.toolchain.qemu import QemuBoard

serial = pytest.importorskip("serial")
PATIENCE = 30
BOTH = pytest.mark.parametrize("bridge", ["qemu", "unicorn"], indirect=True)


@pytest.fixture
def bridge(
    request: pytest.FixtureRequest, echo: Callable[[str], BuildResult], board: Board
) -> Iterator[PtyBridge]:
    if os.name != "posix":
        pytest.skip("there are no pseudo-terminals on this system")
    with PtyBridge(emulate(request.param, echo("gcc").elf, board)) as served:
        yield served


def open_port(bridge: PtyBridge) -> Any:
    return serial.serial_for_url(bridge.port, 115200, timeout=PATIENCE, exclusive=True)


@BOTH
def test_every_byte_passes_unchanged(bridge: PtyBridge) -> None:
    # Control characters, newlines and 0xff are what a terminal would change.
    data = bytes(range(256)) * 4
    with open_port(bridge) as port:
        port.write(b"E" + struct.pack("<H", len(data)) + data)
        assert port.read(len(data)) == data


@BOTH
def test_clients_come_and_go(bridge: PtyBridge) -> None:
    for round_ in range(3):
        with open_port(bridge) as port:
            text = f"round {round_}".encode()
            port.write(b"E" + struct.pack("<H", len(text)) + text)
            assert port.read(len(text)) == text


@BOTH
def test_a_client_that_does_not_read_stalls_nothing(bridge: PtyBridge) -> None:
    """More than a terminal holds, all written before the first byte is read."""
    data = bytes(index * 11 & 0xFF for index in range(12_000))
    with open_port(bridge) as port:
        port.write_timeout = PATIENCE
        port.write(b"E" + struct.pack("<H", len(data)) + data)
        assert port.read(len(data)) == data


def test_serving_ends_with_the_board(echo: Callable[[str], BuildResult], board: Board) -> None:
    needs("qemu")
    device = QemuBoard(echo("gcc").elf, board)
    with PtyBridge(device) as bridge:
        os.kill(device.pid, signal.SIGKILL)
        with pytest.raises(LinkError, match="QEMU has ended"):
            bridge.serve()


def test_close_ends_serving_and_the_board(echo: Callable[[str], BuildResult], board: Board) -> None:
    device = emulate("unicorn", echo("gcc").elf, board)
    bridge = PtyBridge(device)
    bridge.close()
    bridge.close()
    bridge.serve()
    with pytest.raises(LinkError, match="is closed"):
        device.read(1, 0)


def test_without_terminals_it_says_so(
    echo: Callable[[str], BuildResult], board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = emulate("unicorn", echo("gcc").elf, board)
    monkeypatch.setattr(pty_bridge, "os", type("Windows", (), {"name": "nt"}))
    with pytest.raises(ToolchainError, match="Windows has not"):
        PtyBridge(device)
