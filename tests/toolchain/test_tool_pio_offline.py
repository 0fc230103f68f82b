"""A PlatformIO core folder made of what is installed; ``pio test`` on an emulated board."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_network import IMAGES, small_network

from bnnmcu.backend.checksum import image_crc
from bnnmcu.backend.project import write_project
from bnnmcu.boards import Board, all_boards
from bnnmcu.cli.main import main
from bnnmcu.errors import BnnmcuError, MissingDependencyError, ModelFileError, UsageError
from bnnmcu.link.device import Device
from bnnmcu.passes import lower
from bnnmcu.toolchain import pio_offline
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.elf import read_firmware
from bnnmcu.toolchain.emulator import open_emulator
from bnnmcu.toolchain.platformio import environment
from bnnmcu.toolchain.pty_bridge import PtyBridge
from bnnmcu.toolchain.qemu import QemuBoard


@pytest.fixture
def project(tmp_path: Path, board: Board) -> Path:
    write_project(lower(small_network()).graph, board, tmp_path / "project")
    return tmp_path / "project"


def _needs_all() -> None:
    absent = pio_offline.missing()
    if absent is not None:
        pytest.skip(absent.what)


def test_the_command_gives_lines_for_a_shell(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _needs_all()
    core = tmp_path / "a core's folder"
    for _ in range(2):  # filling it again changes nothing
        with pytest.raises(SystemExit) as stop:
            main(["pio-offline", str(project), "--core", str(core)])
        assert stop.value.code == 0
        printed = capsys.readouterr()
        done = subprocess.run(
            ["sh", "-c", f'{printed.out}\nprintf %s "$PLATFORMIO_CORE_DIR"'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert Path(done.stdout) == core.resolve()
        assert "stands in for the pinned 12.3.1" in printed.err


def test_json(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _needs_all()
    with pytest.raises(SystemExit):
        main(["pio-offline", str(project), "--core", str(tmp_path / "core"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["pinned"] == "12.3.1"
    assert found["environment"] == {"PLATFORMIO_CORE_DIR": str((tmp_path / "core").resolve())}


@pytest.mark.parametrize(
    ("module", "program", "what"),
    [
        ("platformio", None, "PlatformIO"),
        ("SCons", None, "SCons"),
        (None, "arm-none-eabi-gcc", "gcc"),
    ],
)
def test_what_is_missing_is_named(
    project: Path,
    board: Board,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str | None,
    program: str | None,
    what: str,
) -> None:
    monkeypatch.setattr(pio_offline, "find_spec", lambda name: None if name == module else name)
    monkeypatch.setattr(
        "bnnmcu.toolchain.pio_offline.shutil.which",
        lambda name: None if name == program else f"/bin/{name}",
    )
    with pytest.raises(MissingDependencyError, match=what) as caught:
        pio_offline.seed_core(tmp_path / "core", project, board)
    assert caught.value.hint
    assert not (tmp_path / "core").exists()


def test_a_folder_in_use_is_left_alone(project: Path, board: Board, tmp_path: Path) -> None:
    _needs_all()
    core = tmp_path / "core"
    core.mkdir()
    (core / "appstate.json").write_text("{}")
    with pytest.raises(UsageError, match="not empty"):
        pio_offline.seed_core(core, project, board)
    assert [path.name for path in core.iterdir()] == ["appstate.json"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "names no platform"),
        ("[platformio]\n", "names no platform"),
        ("no ini at all", "names no platform"),
        ("[env:a]\nplatform = ststm32\nplatform_packages = x\n", "does not pin"),
        ("[env:a]\nplatform = platformio/ststm32@1.2.3\nplatform_packages = x\n", "does not pin"),
    ],
)
def test_projects_that_pin_nothing(
    project: Path, board: Board, tmp_path: Path, text: str | None, what: str
) -> None:
    _needs_all()
    (project / "platformio.ini").unlink()
    if text is not None:
        (project / "platformio.ini").write_text(text)
    with pytest.raises(ModelFileError, match=what):
        pio_offline.seed_core(tmp_path / "core", project, board)


def test_uploading_is_refused_in_words(
    project: Path, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _needs_all()
    from bnnmcu.toolchain.flash import flash

    for name, value in pio_offline.seed_core(tmp_path / "core", project, board).environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BnnmcuError, match="a stand-in platform cannot upload"):
        flash(project, board)


def test_pio_test_verifies_the_board(project: Path, board: Board, tmp_path: Path) -> None:
    """On an emulated one behind a terminal; then on a firmware of another network."""
    _needs_all()
    if not shutil.which("qemu-system-arm"):
        pytest.skip("qemu-system-arm is not installed")
    other = tmp_path / "other"
    write_project(lower(small_network(drawn=True)).graph, board, other)
    variables = pio_offline.seed_core(tmp_path / "core", project, board).environment

    def test(port: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "platformio", "test", "-d", str(project)),
                *("--without-uploading", "--without-building", "--test-port", port),
            ],
            env={**environment(), **variables, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    for folder, status in ((project, 0), (other, 1)):
        elf = build_firmware(folder, "gcc").elf
        with PtyBridge(open_emulator("qemu", elf, board)) as bridge:
            thread = threading.Thread(target=bridge.serve, daemon=True)
            thread.start()
            done = test(bridge.port)
        assert done.returncode == status, done.stdout + done.stderr
        assert ("1 succeeded" in done.stdout) == (status == 0)
    assert "the board runs 'small'" in done.stdout + done.stderr


ON_PLATFORMIO = tuple(board for board in all_boards() if board.platformio.board)


@pytest.mark.parametrize("board", ON_PLATFORMIO, ids=lambda board: board.name)
def test_every_board_builds_with_its_ini_and_boots(board: Board, tmp_path: Path) -> None:
    """By ``pio run`` alone, as it was exported; then the greeting, where QEMU can."""
    _needs_all()
    project = tmp_path / "project"
    write_project(lower(small_network()).graph, board, project)
    variables = pio_offline.seed_core(tmp_path / "core", project, board).environment
    done = subprocess.run(
        [sys.executable, "-m", "platformio", "run", "-d", str(project)],
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    elf = project / ".pio" / "build" / board.name / "firmware.elf"
    held, computed = image_crc(elf)
    assert held == computed
    # The same bytes as a direct build: the platform's own flags have no part in it.
    direct = read_firmware(build_firmware(project, "gcc").elf)
    assert read_firmware(elf).segments == direct.segments
    if board.emulator.qemu and shutil.which("qemu-system-arm"):
        with Device(QemuBoard(elf, board)) as device:
            assert device.info.board == board.name
            assert len(device.infer(IMAGES[0], [1]).logits[0]) == 4
