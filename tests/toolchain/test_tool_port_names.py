"""A port that does not open: what is wrong with this one, and what helps."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from bnnmcu.errors import LinkError
from bnnmcu.link import transport
from bnnmcu.link.transport import open_port


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a port that is taken, but not listened on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def refusal(url: str) -> tuple[str, str]:
    with pytest.raises(LinkError) as caught:
        open_port(url)
    assert caught.value.where == url
    return caught.value.what, str(caught.value.hint)


@pytest.mark.parametrize("url", ["foo://x", "FOO://x", "cp2110://x"])
def test_unknown_schemes(url: str) -> None:
    what, hint = refusal(url)
    assert f"{url.partition(':')[0]}:// is unknown" in what
    assert "socket://HOST:PORT" in hint
    assert "rfc2217://HOST:PORT" in hint


@pytest.mark.parametrize("scheme", ["socket", "rfc2217"])
def test_a_refused_connection(refusing: str, scheme: str) -> None:
    what, hint = refusal(f"{scheme}://{refusing}")
    assert "refused" in what
    assert "listening" in hint
    assert "/dev/" not in hint


@pytest.mark.parametrize(
    ("url", "says", "helps"),
    [
        ("socket://localhost", "incomplete", "HOST:PORT"),
        ("socket://localhost:99999", "incomplete", "HOST:PORT"),
        ("rfc2217://localhost", "incomplete", "HOST:PORT"),
        ("hwgrep://no such board", "no such board", ""),
    ],
)
def test_other_urls(url: str, says: str, helps: str) -> None:
    what, hint = refusal(url)
    assert says in what
    assert helps in hint


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (socket.gaierror(-2, "Name or service not known"), "host is unknown"),
        (TimeoutError("timed out"), "does not answer"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_hosts_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, error: OSError, says: str
) -> None:
    def fail(*_: object, **__: object) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    assert says in refusal("socket://board.example:2000")[0]


@pytest.mark.skipif(os.name != "posix", reason="there are no device files on this system")
@pytest.mark.parametrize("path", ["/dev/null", "/", __file__, "alt:///dev/null"])
def test_what_is_no_serial_port(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "/" and os.geteuid() != 0:
        path = "/tmp"
    monkeypatch.setattr(transport, "_known_ports", lambda: "the ports there are")
    assert refusal(path) == (
        "cannot open the port: it exists, but is no serial port",
        "the ports there are",
    )
