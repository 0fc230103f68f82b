"""Boards on ports that are missing, busy, foreign or gone: each is named."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from needs import need_digits, need_emulator


def test_a_board_is_needed(shipped: Callable[[str], Path], cli) -> None:
    need_digits()
    done = cli("verify", shipped("b64"))
    assert done.returncode == 2
    assert "--port" in done.stderr
    both = cli("verify", shipped("b64"), "--port", "/dev/null", "--emulate")
    assert both.returncode == 2


@pytest.mark.parametrize("port", ["/dev/ttyNOWHERE", "socket://127.0.0.1:1"])
def test_a_missing_port_is_named(shipped: Callable[[str], Path], cli, port: str) -> None:
    need_digits()
    done = cli("verify", shipped("b64"), "--port", port)
    assert done.returncode == 10, done.stderr
    assert port in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def served(
    shipped: Callable[[str], Path], cli
) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    """Serves a project with ``bnnmcu run`` and gives the process and its port."""
    started: list[subprocess.Popen[str]] = []

    def serve(name: str) -> tuple[subprocess.Popen[str], str]:
        need_emulator("unicorn")
        process = subprocess.Popen(
            cli.command("run", shipped(name), "--emulate", "unicorn"),
            env=cli.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port.startswith("/dev/")
        return process, port

    yield serve
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_served_port_is_a_port(
    shipped: Callable[[str], Path], cli, served, tmp_path: Path
) -> None:
    need_digits()
    _, port = served("b64")
    trace = tmp_path / "trace.txt"
    # Twice: the port must outlive a client.
    for _ in range(2):
        done = cli("verify", shipped("b64"), "--port", port, "-n", "10", "--json", "--trace", trace)
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert shown["exact"] is True
        assert shown["logits"] == 100
        assert "(emulated)" in shown["target"]  # nothing emulated is ever called hardware
    assert "HELLO" in trace.read_text()


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_another_model_on_the_board_is_noticed(shipped: Callable[[str], Path], cli, served) -> None:
    need_digits()
    _, port = served("b64")
    done = cli("verify", shipped("s64"), "--port", port)
    assert done.returncode == 11
    assert "B64" in done.stderr
    assert "flash" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_busy_port_is_named(shipped: Callable[[str], Path], cli, served) -> None:
    import serial

    need_digits()
    _, port = served("b64")
    with serial.Serial(port, exclusive=True):
        done = cli("verify", shipped("b64"), "--port", port)
    assert done.returncode == 10
    assert port in done.stderr
    assert "in use" in done.stderr or "busy" in done.stderr


def _kill_once_answered(process: subprocess.Popen[str], store: Path) -> None:
    """However long a busy machine takes to get there."""
    answered = 0
    while not answered:
        time.sleep(0.1)
        with contextlib.suppress(sqlite3.Error):
            # Read only: it must not be this that makes the file.
            database = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
            with contextlib.closing(database):
                ((answered,),) = database.execute("SELECT count(*) FROM query")
    process.kill()


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_board_that_vanishes_is_named(
    shipped: Callable[[str], Path], cli, served, tmp_path: Path
) -> None:
    need_digits()
    process, port = served("b64")
    store = tmp_path / "run.sqlite"
    threading.Thread(target=_kill_once_answered, args=(process, store), daemon=True).start()
    started = time.monotonic()
    done = cli("evaluate", shipped("b64"), "--port", port, "-o", store, "--reconnect", "2")
    assert done.returncode == 10, done.stderr
    assert f"the connection to {port} is lost" in done.stderr
    assert f"images are kept in {store}: the same command goes on" in done.stderr
    assert f"error: {port}: " in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - started < 120


def test_a_port_that_talks_nonsense_is_named(shipped: Callable[[str], Path], cli) -> None:
    need_digits()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"login: \r\n" * 20)
                        time.sleep(0.05)
                except OSError:
                    return

        threading.Thread(target=babble, daemon=True).start()
        port = f"socket://127.0.0.1:{server.getsockname()[1]}"
        done = cli("verify", shipped("b64"), "--port", port)
    assert done.returncode == 10
    assert "not the bnnmcu firmware" in done.stderr
