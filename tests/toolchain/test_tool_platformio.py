"""PlatformIO on the generated project: offline, unchanged, and the same code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from echo_rig import ask_info, ask_work, emulate, worked, write_echo_project

from bnnmcu.boards import Board, load_board
from bnnmcu.errors import ToolchainError
from bnnmcu.toolchain import platformio
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.pio_offline import missing, seed_core


@pytest.fixture
def seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Board], Path]:
    absent = missing()
    if absent:
        pytest.skip(absent.what)

    def make(board: Board) -> Path:
        project = write_echo_project(tmp_path / board.name, board)
        seed = seed_core(tmp_path / "core", project, board)
        for name, value in seed.environment.items():
            monkeypatch.setenv(name, value)
        return project

    return make


def test_same_code_as_a_direct_build_and_it_boots(
    seeded: Callable[[Board], Path], echo: Callable[[str], BuildResult], board: Board
) -> None:
    lines: list[str] = []
    project = seeded(board)
    built = build_firmware(project, "platformio", log=lines.append)
    assert any("SUCCESS" in line for line in lines)
    assert built.elf == project.resolve() / ".pio" / "build" / "nucleo_f446re" / "firmware.elf"
    direct = echo("gcc")
    # Byte for byte: the platform's -Os, --relax and libc have no part in it.
    assert read_firmware(built.elf).segments == read_firmware(direct.elf).segments
    assert (built.flash_bytes, built.ram_bytes) == (direct.flash_bytes, direct.ram_bytes)
    assert built.version.endswith(f"gcc {direct.version}")
    assert not build_firmware(project, "platformio").built
    with emulate("qemu", built.elf, board) as device:
        assert ask_info(device).board == "nucleo_f446re"
        assert ask_work(device, 10)[1] == worked(10)


def test_compile_errors_are_shown(seeded: Callable[[Board], Path]) -> None:
    project = seeded(load_board("netduinoplus2"))
    (project / "src" / "main.c").write_text("#error deliberate\n")
    with pytest.raises(ToolchainError, match="#error deliberate") as caught:
        build_firmware(project, "platformio")
    assert "PlatformIO failed" in caught.value.what


@pytest.mark.parametrize(
    ("printed", "what", "hint"),
    [
        ("HTTPClientError: ", "no internet", "--toolchain gcc"),
        ("UnknownBoard: Unknown board ID 'x'", "does not know the board", ".toml"),
        ("src/main.c:1:2: error: #error no", "error: #error no", "build -v"),
        ("", "(no output)", "build -v"),
    ],
)
def test_failures_are_explained(
    tmp_path: Path,
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    what: str,
    hint: str,
) -> None:
    """With a program that fails as PlatformIO does, as far as its output goes."""
    fake = tmp_path / "fake_pio.py"
    fake.write_text(f"print({printed!r})\nraise SystemExit(1)\n")
    tool = platformio.PlatformIOTool((sys.executable, str(fake)), "6", ())
    monkeypatch.setattr(platformio, "find", lambda: tool)
    with pytest.raises(ToolchainError) as caught:
        build_firmware(write_echo_project(tmp_path / "p", board), "platformio")
    assert what in caught.value.what
    assert hint in str(caught.value.hint)


def test_offline_is_told_in_words_alone(
    tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PlatformIO prints the name of an exception and nothing after it."""
    fake = tmp_path / "fake_pio.py"
    fake.write_text("print('Tool Manager: Installing x')\nprint('HTTPClientError: ')\nexit(1)\n")
    tool = platformio.PlatformIOTool((sys.executable, str(fake)), "6", ())
    monkeypatch.setattr(platformio, "find", lambda: tool)
    with pytest.raises(ToolchainError) as caught:
        build_firmware(write_echo_project(tmp_path / "p", board), "platformio")
    assert caught.value.what == "PlatformIO could not download its packages (no internet?)"
    assert "--toolchain gcc or --toolchain zig builds without PlatformIO" in str(caught.value.hint)
    assert "bnnmcu pio-offline" in str(caught.value.hint)


@pytest.mark.parametrize("announced", [True, False])
def test_a_long_silence_is_announced(
    tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    fake = tmp_path / "fake_pio.py"
    fake.write_text("print('first line of pio')\nexit(1)\n")
    tool = platformio.PlatformIOTool((sys.executable, str(fake)), "6", ())
    monkeypatch.setattr(platformio, "find", lambda: tool)
    lines: list[str] = []
    with pytest.raises(ToolchainError):
        build_firmware(
            write_echo_project(tmp_path / "p", board),
            "platformio",
            log=lines.append,
            announce=(lambda text: lines.append(f"note: {text}")) if announced else None,
        )
    start = "note: running pio run; the first time" if announced else "running pio run; the first"
    assert lines[0].startswith(start)
    assert lines[1:] == ["first line of pio"]


def test_it_is_called_quietly(
    tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No telemetry, no upgrade check, and none of the caller's build settings."""
    seen = tmp_path / "seen.json"
    fake = tmp_path / "fake_pio.py"
    fake.write_text(
        "import json, os, sys\n"
        f"json.dump([sys.argv[1:], dict(os.environ)], open({str(seen)!r}, 'w'))\n"
        "raise SystemExit(1)\n"
    )
    tool = platformio.PlatformIOTool((sys.executable, str(fake)), "6", ())
    monkeypatch.setattr(platformio, "find", lambda: tool)
    monkeypatch.setenv("PLATFORMIO_BUILD_FLAGS", "-DSURPRISE")
    project = write_echo_project(tmp_path / "p", board)
    with pytest.raises(ToolchainError):
        build_firmware(project, "platformio")
    arguments, environment = json.loads(seen.read_text())
    assert arguments == ["run", "-d", str(project.resolve()), "-e", "nucleo_f446re"]
    assert environment["PLATFORMIO_SETTING_ENABLE_TELEMETRY"] == "no"
    assert environment["PLATFORMIO_DISABLE_UPGRADE_CHECK"] == "true"
    assert "PLATFORMIO_BUILD_FLAGS" not in environment


def test_versions_are_pinned(tmp_path: Path, board: Board) -> None:
    text = (write_echo_project(tmp_path, board) / "platformio.ini").read_text()
    assert "platform = platformio/ststm32@19.5.0" in text
    assert "platform_packages = platformio/toolchain-gccarmnoneeabi@~1.120301.0" in text
    assert "build_unflags = -Os" in text
