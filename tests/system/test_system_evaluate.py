"""``bnnmcu evaluate`` on a board: the answers of the native twin, stored, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from needs import need_digits, need_emulator

from bnnmcu import target
from bnnmcu.boards import load_board
from bnnmcu.errors import LinkError, ToolchainError

MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"
_FIGURES = ("error", "spread", "majority_error", "worst_error", "intervals", "images", "draws")


def _content(path: Path) -> list[tuple[Any, ...]]:
    """Every answer of a store, without what depends on time."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT image, draw, seed, logits, label FROM query JOIN example ON id = example "
            "ORDER BY image, draw"
        ).fetchall()


def _provenance(path: Path) -> dict[str, Any]:
    """Of the last session of a store."""
    with closing(sqlite3.connect(path)) as database:
        (text,) = database.execute(
            "SELECT provenance FROM session ORDER BY id DESC LIMIT 1"
        ).fetchone()
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(
    ("flaws", "counters"),
    [
        (None, {}),
        ("corrupt=1/2000,drop=0.01,duplicate=0.01", {"retries": 1, "reported": 1}),
        ("cut=1/100,seed=3", {"reconnects": 1}),
    ],
)
def test_a_board_gives_the_answers_of_the_native_twin(
    shipped: Callable[[str], Path],
    cli,
    tmp_path: Path,
    flaws: str | None,
    counters: dict[str, int],
) -> None:
    need_digits()
    need_emulator("unicorn")
    command = ("evaluate", shipped("s64"), "-n", "20", "--draws", "5", "--json", "-o")
    bad_line: tuple[str | Path, ...] = ("--flaky", flaws) if flaws else ()
    log = tmp_path / "log"
    if flaws is None and os.name == "posix":
        # A log whose reader goes away, as of `| head`: it must not take the results with it.
        os.mkfifo(log)
        threading.Thread(target=lambda: log.open("rb").close(), daemon=True).start()
        bad_line = ("--trace", log)
    native = cli(*command, tmp_path / "native.sqlite")
    board = cli(*command, tmp_path / "board.sqlite", "--emulate", "unicorn", *bad_line)
    for done in (native, board):
        assert done.returncode == 0, done.stderr
    expected, found = json.loads(native.stdout), json.loads(board.stdout)
    assert {key: found[key] for key in _FIGURES} == {key: expected[key] for key in _FIGURES}
    content = _content(tmp_path / "board.sqlite")
    assert len(content) == 20 * 5
    assert content == _content(tmp_path / "native.sqlite")

    assert (found["label"], expected["label"]) == ("emulated", "native")
    assert found["results"] == str(tmp_path / "board.sqlite")
    assert (found["link"]["requests"] >= 20, expected["link"]) == (True, {})
    if flaws is None:
        assert found["link"]["retries"] == found["link"]["reconnects"] == 0
    for name, least in counters.items():
        assert found["link"][name] >= least, (name, board.stderr)
    assert board.stderr.count(f"warning: {log}: Broken pipe") == ("--trace" in bad_line)
    # An emulator that is started again says so.
    assert ("started again" in board.stderr) == ("reconnects" in counters)


def test_a_session_says_where_its_answers_come_from(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    need_digits()
    need_emulator("unicorn")
    project = tmp_path / "checkout" / "b64"
    shutil.copytree(shipped("b64"), project)
    command = ("evaluate", project, "--emulate", "unicorn", "-n", "10")
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    (store,) = (project / "results").glob("evaluate-*.sqlite")  # nobody named one
    about = _provenance(store)
    assert about["board"] == "nucleo_f446re"
    assert about["port"] is about["usb_serial"] is about["baud"] is None
    assert about["command"] == list(map(str, command))
    assert (
        about["model_sha256"]
        == json.loads((project / "manifest.json").read_text())["model"]["sha256"]
    )
    assert len(about["image_crc"]) == 8
    assert about["firmware"].count(".") == 2
    assert about["edited_files"] == []
    assert about["project_revision"] is None

    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (
        ("init", "--quiet"),
        (*identity, "commit", "--quiet", "--allow-empty", "-m", "a project"),
    ):
        subprocess.run(["git", "-C", str(project.parent), *arguments], check=True)
    done = cli(*command)
    assert "going on with the run" in done.stderr
    about = _provenance(store)
    assert len(about["project_revision"]) == 40


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_an_evaluation_that_was_stopped_goes_on(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    need_digits()
    need_emulator("unicorn")
    store = tmp_path / "run.sqlite"
    command = (
        "evaluate", shipped("s64"), "--emulate", "unicorn", "-n", "100", "--draws", "10",
        "-o", store, "--progress", "json", "--json",
    )  # fmt: skip

    def stopped(how: signal.Signals) -> tuple[int, str, int]:
        """Exit code, what was said, and answers stored when it had begun to work."""
        process = subprocess.Popen(
            cli.command(*command),
            env=cli.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            event = json.loads(line)
            # A few answers of this session, and many left.
            if event["event"] == "progress" and event["link"]["requests"] > 8:
                process.send_signal(how)
                break
        said += process.stderr.read()
        process.stderr.close()
        return process.wait(), said, event["done"]

    code, _, before = stopped(signal.SIGKILL)
    assert code == -signal.SIGKILL
    killed = len(_content(store)) // 10
    assert before <= killed < 100

    code, said, _ = stopped(signal.SIGINT)
    assert code == 130
    interrupted, end = (json.loads(line) for line in said.splitlines()[-2:])
    assert (end["event"], end["exit_code"]) == ("end", 130)
    stored = len(_content(store)) // 10
    assert killed < stored == interrupted["stored"] < interrupted["total"] == 100
    assert interrupted["next"].startswith("bnnmcu evaluate ")
    assert interrupted["results"] == str(store)

    done = cli(*command)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    first = next(event for event in events if event["event"] == "progress")
    assert (first["done"], first["rate"]) == (stored, None)  # no rate from what was done before
    content = _content(store)
    assert len(content) == len(set(content)) == 100 * 10
    assert json.loads(done.stdout)["images"] == 100


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_an_interrupted_attack_says_what_it_keeps(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    """While images are crafted, which no signal can stop: a second Ctrl-C ends that too."""
    need_digits()
    store = tmp_path / "run.sqlite"
    process = subprocess.Popen(
        cli.command(
            "attack", shipped("s64"), "--native", "-n", "20", "--attack", "pgd",
            "--eps", "0.3", "--steps", "4000", "-o", store, "--progress", "plain",
        ),
        env=cli.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.readline()
    while "crafting: pgd" not in said:
        assert process.poll() is None, said
        said = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again" in process.stderr.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130
    assert time.monotonic() - started < 60  # crafting would take an hour
    lines = [line for line in said.splitlines() if not line.startswith("crafting")]
    assert lines[0] == f"interrupted: answers to 20 of 40 images are kept in {store}"
    assert lines[1].startswith("  next: the same command goes on: bnnmcu attack ")
    assert "Traceback" not in said
    assert len(_content(store)) == 20 * 21


def test_a_model_file_is_no_firmware(cli, tmp_path: Path) -> None:
    done = cli("evaluate", MODELS / "b64.pt", "--emulate", cwd=tmp_path)
    assert done.returncode == 2
    for words in ("b64.pt", "model file", "next: bnnmcu export"):
        assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bad_line_is_described_rightly(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    need_digits()
    done = cli("evaluate", shipped("b64"), "--emulate", "--flaky", "corupt=1/2000", "-n", "20")
    assert done.returncode == 2
    assert "corupt" in done.stderr
    assert "corrupt" in done.stderr
    assert "compiling" not in done.stderr


# --- the way to the board -----------------------------------------------------------------------


class _Transport:
    def __init__(self, name: str) -> None:
        self.name = name

    def close(self) -> None: ...


def test_a_port_is_looked_for_again_under_its_serial_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ports = [SimpleNamespace(device="/dev/ttyACM0", vid=0x0483, pid=0x374B, serial_number="A1")]
    for port in ports:
        port.description = port.interface = None
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(ports))
    monkeypatch.setattr(target, "open_port", lambda url, baud: _Transport(url))
    said: list[str] = []
    project: Any = SimpleNamespace(board=load_board("nucleo_f446re"))
    way = target._Port(project, target.TargetOptions(port="auto", reconnect=5.0), said.append)
    assert (way.port, way.usb_serial) == ("/dev/ttyACM0", "A1")
    assert way.plan is not None
    assert (way.plan.start, way.plan.most) == (115200, 921600)
    assert way.open().name == "/dev/ttyACM0"
    ports[0].device = "/dev/ttyACM7"
    ports[0].serial_number = "B2"  # another board, plugged in first
    for _ in range(3):
        with pytest.raises(LinkError, match="A1"):
            way.open()
    ports[0].serial_number = "A1"
    assert way.open().name == "/dev/ttyACM7"
    assert said == [
        "auto is /dev/ttyACM0",
        "the connection to /dev/ttyACM0 is lost: trying for 5 s to have it back",
        "connected to /dev/ttyACM7 again",
    ]


@pytest.mark.parametrize(
    ("port", "baud", "most", "start", "raised_to"),
    [
        ("/dev/ttyACM0", None, None, 115200, 921600),
        ("/dev/ttyACM0", 57600, 230400, 57600, 230400),
        ("/dev/ttyACM0", None, 0, 115200, None),
        ("/dev/ttyACM0", None, 115200, 115200, None),
        ("rfc2217://host:1", None, None, 115200, None),
        ("rfc2217://host:1", None, 230400, 115200, 230400),
        ("socket://host:1", None, None, None, None),
    ],
)
def test_which_ports_are_made_faster(
    port: str, baud: int | None, most: int | None, start: int | None, raised_to: int | None
) -> None:
    project: Any = SimpleNamespace(board=load_board("nucleo_f446re"))
    options = target.TargetOptions(port=port, baud=baud, max_baud=most)
    way = target._Port(project, options, lambda line: None)
    assert way.baud == start
    assert (way.plan and way.plan.most) == raised_to


def test_an_emulator_that_ends_again_and_again_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = SimpleNamespace(elf=Path("firmware.elf"))
    monkeypatch.setattr(target, "build_for_emulation", lambda *_: build)
    monkeypatch.setattr(target, "open_emulator", lambda *_, **__: _Transport("emulator"))
    said: list[str] = []
    project: Any = SimpleNamespace(board=load_board("nucleo_f446re"))
    way = target._Emulator(project, target.TargetOptions(emulate="unicorn"), said.append)
    for _ in range(101):
        way.open()
    with pytest.raises(ToolchainError, match="ended 101 times"):
        way.open()
    assert len([line for line in said if "started again" in line]) == 100
