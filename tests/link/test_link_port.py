"""pyserial ports: a real tty (one end of a pseudo-terminal) and a TCP socket."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from link_rig import QUICK, SEED_VANISH, digits, fake_logits

from bnnmcu.errors import LinkError, LinkTimeoutError
from bnnmcu.link.device import Device
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
