"""pyserial ports: a real tty (one end of a pseudo-terminal), TCP sockets, RFC 2217; and thieves."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import serial
import serial.rfc2217
from link_rig import QUICK, REPO, SEED_VANISH, digits, fake_logits

from bnnmcu.errors import LinkError, LinkTimeoutError, PortGoneError
from bnnmcu.link.device import Device
from bnnmcu.link.reconnect import port_opener
from bnnmcu.link.transport import open_port

IMAGES = digits(20)


@pytest.fixture
def terminal(mnist_server: Path) -> Iterator[str]:
    """A tty with the C server on its other end."""
    master, slave = os.openpty()
    tty.setraw(slave)
    process = subprocess.Popen(
        [str(mnist_server)], pass_fds=[master], env={**os.environ, "BNN_PORT_FD": str(master)}
    )
    os.close(master)
    yield os.ttyname(slave)
    os.close(slave)
    assert process.wait(timeout=10) == 0


def test_inference_over_a_tty(terminal: str) -> None:
    with Device(open_port(terminal), timing=QUICK) as device:
        assert device.name == terminal
        results = device.infer_many((image, [i, 2]) for i, image in enumerate(IMAGES))
        for index, result in enumerate(results):
            expected = [fake_logits(IMAGES[index], seed) for seed in (index, 2)]
            assert result.logits[:, :-1].tolist() == expected


def test_a_port_can_be_opened_again(terminal: str) -> None:
    for _ in range(2):
        with Device(open_port(terminal), timing=QUICK) as device:
            assert device.infer(IMAGES[0], [1]).logits.shape == (1, 10)


def test_a_busy_port(terminal: str) -> None:
    with open_port(terminal), pytest.raises(LinkError, match=r"busy.*\n.*close the serial monitor"):
        open_port(terminal)


def test_a_device_that_vanishes(terminal: str) -> None:
    with (
        Device(open_port(terminal), timing=QUICK) as device,
        pytest.raises(LinkError, match="vanished"),
    ):
        device.infer(IMAGES[0], [SEED_VANISH])


def test_a_read_waits_no_longer_than_asked(terminal: str) -> None:
    with open_port(terminal) as port:
        start = time.monotonic()
        assert port.read(10, 0.1) == b""
        assert 0.1 <= time.monotonic() - start < 2


def test_a_port_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnnmcu.link.transport.WRITE_TIMEOUT", 0.1)
    master, slave = os.openpty()
    tty.setraw(slave)
    with (
        open_port(os.ttyname(slave)) as port,
        pytest.raises(LinkTimeoutError, match="took no bytes"),
    ):
        port.write(bytes(1_000_000))
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("/dev/does-not-exist", "no such port"),
        ("/dev/null", "cannot open the port"),
        ("nonsense://x", "cannot open the port"),
        ("socket://127.0.0.1:1", "cannot open the port"),
    ],
)
def test_ports_that_cannot_be_opened(url: str, match: str) -> None:
    with pytest.raises(LinkError, match=match) as caught:
        open_port(url)
    assert caught.value.where == url
    assert caught.value.hint


def test_inference_over_a_socket(mnist_server: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"socket://127.0.0.1:{listener.getsockname()[1]}"
    port = open_port(url)
    peer, _ = listener.accept()
    listener.close()
    process = subprocess.Popen(
        [str(mnist_server)],
        pass_fds=[peer.fileno()],
        env={**os.environ, "BNN_PORT_FD": str(peer.fileno())},
    )
    peer.close()
    with Device(port, timing=QUICK) as device:
        result = device.infer(IMAGES[0], list(range(20)))
        assert result.logits[:, :-1].tolist() == [fake_logits(IMAGES[0], s) for s in range(20)]
        with pytest.raises(LinkError, match="vanished"):
            device.infer(IMAGES[0], [SEED_VANISH])
    assert process.wait(timeout=10) == 0


def right(device: Device, act: Callable[[int], None] = lambda index: None) -> None:
    """Every answer of a stream is the model's, whatever happens meanwhile."""
    images = [(image, [i, 2]) for i, image in enumerate(IMAGES)] * 3
    for index, result in enumerate(device.infer_many(images)):
        image, seeds = images[index]
        assert result.logits[:, :-1].tolist() == [fake_logits(image, seed) for seed in seeds]
        act(index)
    assert index == len(images) - 1


class Listener:
    """A TCP port; whoever connects is handed to ``serve``, one after another."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.client: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.client = client
            with contextlib.suppress(OSError):
                self._serve(client)
            client.close()

    def cut(self) -> None:
        """The connection is lost; another one will be accepted."""
        assert self.client is not None
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with contextlib.suppress(AssertionError):
            self.cut()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_a_tcp_relay_that_is_cut_and_comes_back(mnist_server: Path) -> None:
    def serve(client: socket.socket) -> None:
        # A new process each time: the board has forgotten everything.
        environment = {**os.environ, "BNN_PORT_FD": str(client.fileno())}
        subprocess.run([str(mnist_server)], pass_fds=[client.fileno()], env=environment, check=True)

    relay = Listener(serve)
    opener = port_opener(f"socket://127.0.0.1:{relay.port}")
    with Device(opener(), timing=QUICK, reopen=opener, reconnect=30.0) as device:
        right(device, lambda index: relay.cut() if index in (10, 40) else None)
        assert device.stats.reconnects == 2
        relay.close()
        device._session._reconnect = 0.3
        with pytest.raises(PortGoneError, match=r"did not come back within .*refused"):
            device.infer(IMAGES[0], [1])


def test_rfc2217_that_is_cut_and_comes_back(terminal: str) -> None:
    """pyserial's own server of that protocol, before the tty of the C server."""

    class Tty(serial.Serial):
        # A pseudo-terminal has no such lines.
        cts = dsr = ri = cd = False
        rts = dtr = property(lambda self: False, lambda self, value: None)

    port = Tty(terminal, timeout=0)

    def serve(client: socket.socket) -> None:
        class Writer:
            write = staticmethod(client.sendall)

        manager = serial.rfc2217.PortManager(port, Writer())
        while True:
            ready = select.select([client, port], [], [])[0]
            if client in ready:
                data = client.recv(4096)
                if not data:
                    return
                port.write(b"".join(manager.filter(data)))
            if port in ready:
                client.sendall(b"".join(manager.escape(port.read(port.in_waiting))))

    server = Listener(serve)
    opener = port_opener(f"rfc2217://127.0.0.1:{server.port}")
    with Device(opener(), timing=QUICK, reopen=opener, reconnect=30.0) as device:
        right(device, lambda index: server.cut() if index == 10 else None)
        assert device.stats.reconnects == 1
    server.close()
    port.close()


def test_a_port_opens_with_another_baud(terminal: str) -> None:
    with open_port(terminal) as port:
        port.set_baud(57600)  # type: ignore[attr-defined]
        assert port._port.baudrate == 57600
        with pytest.raises(LinkError, match="cannot make -1 baud"):
            port.set_baud(-1)  # type: ignore[attr-defined]
    with pytest.raises(PortGoneError):
        port.read(1, 0.0)
    listener = socket.create_server(("127.0.0.1", 0))
    with open_port(f"socket://127.0.0.1:{listener.getsockname()[1]}") as other:
        assert not hasattr(other, "set_baud")
    listener.close()


#: Opens a port without asking whether it is free, and takes every other byte or so.
THIEF = """
import os, sys, time
port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
print("ready", flush=True)
end = time.monotonic() + 2
while time.monotonic() < end:
    print(len(os.read(port, 20)), flush=True)
    time.sleep(0.002)
"""


def test_a_thief_of_bytes_costs_time_and_nothing_else(terminal: str) -> None:
    with Device(open_port(terminal), timing=QUICK) as device:
        thief = subprocess.Popen(
            [sys.executable, "-c", THIEF, terminal], stdout=subprocess.PIPE, text=True
        )
        assert thief.stdout is not None
        assert thief.stdout.readline() == "ready\n"
        try:
            while thief.poll() is None:
                # Sooner or later, and never a wrong one.
                with contextlib.suppress(LinkError):
                    right(device)
        finally:
            thief.kill()
            stolen = sum(map(int, thief.stdout.read().split()))
            thief.wait()
        assert stolen > 0
        assert device.stats.retries > 0
        right(device)


def test_a_port_that_is_taken_meanwhile_is_waited_for(terminal: str) -> None:
    opener = port_opener(terminal)
    with Device(opener(), timing=replace(QUICK, pause=0.05), reopen=opener) as device:
        device._session._transport.close()  # as by a plug that was pulled
        holder = serial.Serial(terminal, exclusive=True)
        device._session._reconnect = 0.2
        with pytest.raises(PortGoneError, match=r"did not come back.*: the port is busy"):
            device.infer(IMAGES[0], [1])
        device._session._reconnect = 30.0
        threading.Timer(0.3, holder.close).start()
        right(device)
        assert device.stats.reconnects == 1


#: A host that never ends by itself.
ENDLESS = """
import sys
sys.path[:0] = sys.argv[2:]
from link_rig import digits
from bnnmcu.link.device import Device
from bnnmcu.link.transport import open_port
image = digits(1)[0]
try:
    with Device(open_port(sys.argv[1])) as device:
        print("ready", flush=True)
        while True:
            for _ in device.infer_many((image, [1, 2, 3]) for _ in range(100)):
                pass
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_host_that_was_ended_leaves_a_usable_board(terminal: str, end: signal.Signals) -> None:
    folders = [str(REPO), str(REPO / "tests" / "support")]
    host = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, terminal, *folders],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert host.stdout is not None
        assert host.stdout.readline() == "ready\n"
        time.sleep(0.05)
        host.send_signal(end)
        _, complaint = host.communicate(timeout=30)
    finally:
        host.kill()
    assert (host.returncode, complaint) == ((130, "") if end == signal.SIGINT else (-9, ""))
    with Device(open_port(terminal), timing=QUICK) as device:
        right(device)
