"""Emulated boards behind a TCP port: one client at a time, and the next one after it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from echo_rig import emulate, needs

from bnnmcu.boards import Board
from bnnmcu.errors import LinkError, PortGoneError, UsageError
from bnnmcu.link.flaky import FlakyTransport, Flaws
from bnnmcu.link.transport import open_port
from bnnmcu.toolchain.compiler import BuildResult
from bnnmcu.toolchain.qemu import QemuBoard
from bnnmcu.toolchain.tcp_bridge import TcpBridge, parse_address

Echo = Callable[[str], BuildResult]
PATIENCE = 30


@pytest.fixture
def bridge(echo: Echo, board: Board) -> Iterator[TcpBridge]:
    with TcpBridge(emulate("unicorn", echo("gcc").elf, board)) as served:
        yield served


def connect(bridge: TcpBridge) -> socket.socket:
    host, _, port = bridge.port.removeprefix("socket://").rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(b"E" + struct.pack("<H", len(data)) + data)
    heard = b""
    while len(heard) < len(data):
        piece = client.recv(4096)
        if not piece:
            raise EOFError
        heard += piece
    return heard


@pytest.mark.parametrize("kind", ["qemu", "unicorn"])
def test_every_byte_passes_and_clients_come_and_go(echo: Echo, board: Board, kind: str) -> None:
    data = bytes(range(256)) * 40  # more than any buffer on the way
    with TcpBridge(emulate(kind, echo("gcc").elf, board)) as bridge:
        assert not bridge.public
        for _ in range(3):
            with connect(bridge) as client:
                assert ask(client, data) == data


def test_a_second_client_is_sent_away_and_disturbs_nothing(bridge: TcpBridge) -> None:
    with connect(bridge) as first:
        assert ask(first, b"one") == b"one"
        for _ in range(3):
            with connect(bridge) as second:
                assert second.recv(10) == b"", "two programs would share one board"
        assert ask(first, b"two") == b"two"
    with connect(bridge) as third:
        assert ask(third, b"three") == b"three"


@pytest.mark.parametrize("how", ["closes", "resets the connection", "never reads"])
def test_a_client_that_leaves_badly_leaves_the_board(bridge: TcpBridge, how: str) -> None:
    client = connect(bridge)
    # Half a command, and nobody reads the answer.
    client.sendall(b"E\xff\xff" + b"x" * (60_000 if how == "never reads" else 1000))
    if how == "resets the connection":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with connect(bridge) as following:
        # At most so many bytes are echoed until the board takes a command again.
        following.sendall(b"x" * 70_000)
        following.sendall(b"E\x04\x00next")
        heard = b""
        while not heard.endswith(b"next"):
            piece = following.recv(65536)
            assert piece, "the next client was cut off"
            heard += piece


def test_a_cut_line_costs_the_client_its_connection_and_no_more(echo: Echo, board: Board) -> None:
    inner = emulate("unicorn", echo("gcc").elf, board)
    line = FlakyTransport(inner, Flaws(cut=0.05, seed=1))
    right = cuts = 0
    with TcpBridge(line) as bridge:
        while cuts < 3 and right < 5000:
            inner.reset()  # or it would wait for the rest of a command that was cut
            with connect(bridge) as client, contextlib.suppress(EOFError, ConnectionError):
                while ask(client, b"hello") == b"hello":
                    right += 1
            cuts += 1
        assert line.counts.cut == cuts == 3
        assert right > 0


def test_serving_ends_with_the_board(echo: Echo, board: Board) -> None:
    needs("qemu")
    device = QemuBoard(echo("gcc").elf, board)
    with TcpBridge(device) as bridge:
        os.kill(device.pid, signal.SIGKILL)
        with pytest.raises(LinkError, match="QEMU has ended"):
            bridge.serve()


def test_a_cut_that_cannot_be_mended_ends_it() -> None:
    class Gone:
        name = "gone"

        def read(self, size: int, timeout: float) -> bytes:
            raise PortGoneError("the port has vanished")

        def write(self, data: bytes) -> None:
            raise PortGoneError("the port has vanished")

        def close(self) -> None:
            pass

    with TcpBridge(Gone()) as bridge, pytest.raises(PortGoneError):
        bridge.serve()


def test_a_serial_client_reads_it_as_a_port(bridge: TcpBridge) -> None:
    with open_port(bridge.port) as port:
        port.write(b"E\x05\x00hello")
        heard = b""
        while len(heard) < 5:
            heard += port.read(5, PATIENCE)
        assert heard == b"hello"


def test_closing_twice_and_a_port_that_is_taken(echo: Echo, board: Board) -> None:
    first = TcpBridge(emulate("unicorn", echo("gcc").elf, board))
    port = int(first.port.rpartition(":")[2])
    device = emulate("unicorn", echo("gcc").elf, board)
    with pytest.raises(LinkError, match="cannot listen there"):
        TcpBridge(device, "127.0.0.1", port)
    with pytest.raises(LinkError, match="is closed"):
        device.read(1, 0)
    first.close()
    first.close()
    first.serve()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5000", ("127.0.0.1", 5000)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:7", ("::1", 7)),
        ("lab.example:65535", ("lab.example", 65535)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "x", "65536", "host:", ":5000", "::1:5000", "a:b", "-1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no TCP port"):
        parse_address(text)


def test_whether_other_machines_can_reach_it(echo: Echo, board: Board) -> None:
    with TcpBridge(emulate("unicorn", echo("gcc").elf, board), "0.0.0.0") as bridge:
        assert bridge.public
