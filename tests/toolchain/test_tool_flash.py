"""Uploading through PlatformIO, without a board: programs that say its words stand in for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from echo_rig import write_echo_project
from small_network import small_network

from bnnmcu.backend.project import write_project
from bnnmcu.boards import LEVELS, Board, Evidence, PlatformIO, all_boards, load_board
from bnnmcu.cli import flash as flash_command
from bnnmcu.cli.export import _next as next_step
from bnnmcu.cli.main import cli, main
from bnnmcu.errors import (
    BoardError,
    LinkError,
    MissingDependencyError,
    ToolchainError,
    UsageError,
)
from bnnmcu.link import ports as link_ports
from bnnmcu.link.ports import PortInfo
from bnnmcu.passes import lower
from bnnmcu.toolchain import flash as flash_module
from bnnmcu.toolchain import platformio
from bnnmcu.toolchain.flash import explained, flash, warning

FakePio = Callable[[str], Path]


@pytest.fixture
def fake_pio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePio:
    """PlatformIO's place, taken by a script; gives where it writes its arguments."""

    def make(body: str) -> Path:
        seen = tmp_path / "seen.json"
        script = tmp_path / "pio.py"
        script.write_text(
            f"import json, os, sys\njson.dump([sys.argv[1:], dict(os.environ)], "
            f"open({str(seen)!r}, 'w'))\n{body}\n"
        )
        tool = platformio.PlatformIOTool((sys.executable, str(script)), "6", ())
        monkeypatch.setattr(platformio, "find", lambda: tool)
        return seen

    return make


@pytest.mark.parametrize("upload_port", [None, "/dev/ttyACM7"])
def test_what_is_called(
    fake_pio: FakePio, tmp_path: Path, board: Board, upload_port: str | None
) -> None:
    seen = fake_pio("print('one'); print('two')")
    project = write_echo_project(tmp_path / "p", board)
    lines: list[str] = []
    flash(project, board, upload_port=upload_port, log=lines.append)
    arguments, environment = json.loads(seen.read_text())
    port = [] if upload_port is None else ["--upload-port", upload_port]
    here = str(project.resolve())
    assert arguments == ["run", "-d", here, "-e", "nucleo_f446re", "-t", "upload", *port]
    assert environment["PLATFORMIO_SETTING_ENABLE_TELEMETRY"] == "no"
    assert lines == ["one", "two"]


# What OpenOCD, st-flash, J-Link and PlatformIO print, and what it means.
WORDS = [
    ("Error: open failed", "no debug probe or board was found", "cable"),
    ("Error: unable to find a matching CMSIS-DAP device", "no debug probe or board", "doctor"),
    ("Error: libusb_open() failed with LIBUSB_ERROR_ACCESS", "no permission", "doctor"),
    ("Error: libusb_claim_interface() failed with LIBUSB_ERROR_BUSY", "another program", "close"),
    ("Error: init mode failed (unable to connect to the target)", "chip does not answer", "RESET"),
    ("Error: auto erase failed", "flash could not be written", "erase"),
    ("could not open port /dev/ttyACM9: [Errno 2]", "there is no such port", "doctor"),
    ("Error: Please specify `upload_port` for environment", "no debug probe or board", "plug"),
    ("HTTPClientError: ", "could not download its packages", "connect once"),
    ("UnknownBoard: Unknown board ID 'x'", "does not know the board", ".toml"),
    ("something else", "PlatformIO failed", "bnnmcu flash -v"),
]


@pytest.mark.parametrize(("printed", "what", "hint"), WORDS, ids=[row[0][:40] for row in WORDS])
def test_failures_are_explained(
    fake_pio: FakePio, tmp_path: Path, board: Board, printed: str, what: str, hint: str
) -> None:
    fake_pio(f"print('Compiling .pio/main.o')\nprint({printed!r})\nraise SystemExit(1)")
    with pytest.raises(ToolchainError) as caught:
        flash(write_echo_project(tmp_path / "p", board), board)
    assert what in caught.value.what
    assert hint in str(caught.value.hint)
    assert "--toolchain zig" not in str(caught.value.hint), "flash has no such option"
    assert caught.value.exit_code == 8


def test_a_compiler_error_is_no_missing_probe() -> None:
    """Its words about files that it cannot open come while it still compiles."""
    output = "main.c: error: open failed\nCompiling .pio/other.o\n*** [main.o] Error 1"
    assert "PlatformIO failed" in explained(Path("p"), output).what


def test_boards_that_platformio_does_not_know(board: Board, tmp_path: Path) -> None:
    unknown = replace(board, platformio=replace(board.platformio, board=""))
    assert isinstance(unknown.platformio, PlatformIO)
    with pytest.raises(BoardError, match="does not know this board"):
        flash(tmp_path, unknown)


def test_without_platformio_the_hint_is_flashs(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformio, "pio_command", lambda: None)
    with pytest.raises(MissingDependencyError, match="PlatformIO is not installed") as caught:
        flash(tmp_path, board)
    assert "bnnmcu[flash]" in str(caught.value.hint)
    assert "--toolchain zig" not in str(caught.value.hint)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shipped", [False, True])
def test_boards_that_nobody_ran_come_with_a_warning(
    board: Board, monkeypatch: pytest.MonkeyPatch, level: str, shipped: bool
) -> None:
    """What a user's file claims is no evidence."""
    board = replace(board, evidence=Evidence(level, "seen by A. Person"))
    if shipped:
        monkeypatch.setattr(flash_module, "is_shipped", lambda one: one is board)
    text = warning(board)
    assert (text is None) == (shipped and level == "measured on hardware")
    if text:
        assert level in text
        assert "A. Person" in text
        assert "it sets its clock to 180 MHz (with over-drive)" in text


@pytest.mark.parametrize("shipped", all_boards(), ids=lambda board: board.name)
def test_the_warning_names_a_clock_that_is_set_up(shipped: Board) -> None:
    clocks = {"pico": "12 MHz,", "netduinoplus2": "168 MHz,", "nucleo_f446re": "180 MHz (with over"}
    text = str(warning(shipped))
    expected = clocks.get(shipped.name)
    assert ("sets its clock" in text) == (expected is not None)
    assert expected is None or f"it sets its clock to {expected}" in text


def test_nothing_is_written_unasked(
    fake_pio: FakePio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = fake_pio("")
    project = _exported(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["flash", str(project)])  # no terminal, no --yes
    assert stop.value.code == UsageError.exit_code
    assert "--yes" in capsys.readouterr().err
    assert not seen.exists()
    with pytest.raises(SystemExit) as stop:
        main(["flash", str(project), "--yes"])
    assert stop.value.code == 0
    assert seen.exists()


@pytest.mark.parametrize(("answer", "written"), [("n\n", False), ("y\n", True)])
def test_the_user_decides(
    fake_pio: FakePio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    written: bool,
) -> None:
    class Terminal:
        """Standard input of the command, which a person types into."""

        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __getattr__(self, name: str) -> object:
            return getattr(self.stream, name)

        def isatty(self) -> bool:
            return True

    seen = fake_pio("")
    project = _exported(tmp_path)

    class Sys:
        @property
        def stdin(self) -> Terminal:
            return Terminal(sys.stdin)

        def __getattr__(self, name: str) -> object:
            return getattr(sys, name)

    monkeypatch.setattr(flash_command, "sys", Sys())
    done = CliRunner().invoke(cli, ["flash", str(project)], input=answer)
    assert "was never run" in done.output
    assert seen.exists() == written
    assert (done.exit_code == 0) == written


def test_a_board_that_does_not_answer_afterwards(
    fake_pio: FakePio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = fake_pio("")
    monkeypatch.setattr(flash_command, "START_TIMEOUT", 0.1)
    (tmp_path / "port").touch()
    with pytest.raises(SystemExit) as stop:
        main(["flash", str(_exported(tmp_path)), "--yes", "--port", str(tmp_path / "port")])
    assert stop.value.code == LinkError.exit_code
    assert "no serial port" in capsys.readouterr().err
    assert seen.exists()


@pytest.mark.parametrize(
    ("port", "ports", "says", "written"),
    [
        ("/dev/none", [], "no such port; nothing was written", False),
        ("/dev/none", ["/dev/ttyACM3"], "choose one of /dev/ttyACM3", False),
        ("serial:77", ["/dev/ttyACM3"], "no port has that serial number", False),
        ("auto", ["/dev/ttyACM3", "/dev/ttyACM4"], "2 ports may be", False),
        ("auto", [], "looked for again after the upload", True),
    ],
)
def test_a_wrong_port_is_noticed_before_anything_is_written(
    fake_pio: FakePio,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    port: str,
    ports: list[str],
    says: str,
    written: bool,
) -> None:
    seen = fake_pio("")
    monkeypatch.setattr(flash_command, "START_TIMEOUT", 0.1)
    found = [PortInfo(name, "0483:374b", None, "") for name in ports]
    monkeypatch.setattr(link_ports, "list_ports", lambda *_: tuple(found))
    with pytest.raises(SystemExit) as stop:
        main(["flash", str(_exported(tmp_path)), "--yes", "--port", port])
    assert stop.value.code == LinkError.exit_code
    assert says in capsys.readouterr().err
    assert seen.exists() == written


def test_what_cannot_be_flashed_is_said_before_anything_is_asked(
    fake_pio: FakePio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pio("")
    project = _exported(tmp_path, "mps2_an385")
    with pytest.raises(SystemExit) as stop:
        main(["flash", str(project)])  # no terminal, no --yes
    assert stop.value.code == BoardError.exit_code
    printed = capsys.readouterr().err
    assert "does not know this board" in printed
    assert "never run" not in printed


def _exported(tmp_path: Path, board: str = "nucleo_f446re") -> Path:
    graph = lower(small_network()).graph
    write_project(graph, load_board(board), tmp_path / "p")
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nucleo_f446re", "bnnmcu verify p --emulate"),
        ("nucleo_l476rg", "bnnmcu flash p"),
        ("mps2_an385", "bnnmcu verify p --emulate"),
    ],
)
def test_export_names_a_step_that_works(name: str, expected: str) -> None:
    board = load_board(name)
    assert next_step(board, Path("p"), "bnnmcu") == expected
    assert next_step(board, Path("p"), "mlperf") == "bnnmcu build p, and docs/MLPERF.md"
    unknown = replace(board, platformio=PlatformIO("", "", ()))
    if "flash" in expected:
        assert next_step(unknown, Path("p"), "bnnmcu") == "bnnmcu build p"
