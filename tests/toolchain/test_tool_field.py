"""Field mode on emulated boards: the counter in flash, whose key it takes, who cannot have it."""

from __future__ import annotations

import random
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from echo_rig import needs
from link_rig import QUICK
from small_network import IMAGES, small_network

from bnnmcu.backend.project import KEY_FILE, fixed_files, load_project, write_project
from bnnmcu.boards import Board, all_boards, load_board
from bnnmcu.cli.export import command as export
from bnnmcu.cli.main import cli
from bnnmcu.data import Dataset
from bnnmcu.errors import (
    BoardError,
    DeviceMismatchError,
    MismatchFoundError,
    RemoteError,
    ToolchainError,
    UsageError,
)
from bnnmcu.field import DeviceKey
from bnnmcu.graph import Graph
from bnnmcu.link.device import Device, Inference
from bnnmcu.link.protocol import ErrorCode
from bnnmcu.passes import lower
from bnnmcu.reference import run
from bnnmcu.target import TargetOptions, open_target
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.emulator import choose_emulator, open_emulator
from bnnmcu.toolchain.unicorn_board import UnicornBoard
from bnnmcu.verify import verify

KEY = DeviceKey(bytes(range(100, 116)))
MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"
BLOCK = 65536
_MARK_BYTE = 0xFF


@pytest.fixture(scope="module")
def graph() -> Graph:
    return lower(small_network(drawn=True)).graph


@pytest.fixture(scope="module")
def board() -> Board:
    return load_board("nucleo_f446re").with_field_mode()


@pytest.fixture(scope="module")
def elf(graph: Graph, board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs("gcc")
    needs("unicorn")
    folder = tmp_path_factory.mktemp("field") / "project"
    write_project(graph, board, folder, key=KEY)
    return build_firmware(folder, "gcc").elf


def exact(graph: Graph, answer: Inference) -> list[int]:
    """Values of the counter of an answer to the first image, held against the reference."""
    assert answer.counters is not None
    seeds = KEY.seeds(answer.counters)[np.newaxis]
    assert np.array_equal(run(graph, IMAGES[:1], seeds)[0], answer.logits)
    return [int(value) for value in answer.counters]


def test_power_goes_while_flash_is_written(graph: Graph, board: Board, elf: Path) -> None:
    """The driver itself, over the model of the controller: no value comes twice."""
    rng = random.Random(5)
    values: list[int] = []
    with UnicornBoard(elf, board) as chip:
        flash = chip.flash
        assert flash is not None
        with Device(chip, timing=QUICK) as device:
            for _ in range(8):
                at, done = flash.written + rng.randrange(4), rng.choice([0, 0xFFFF_FFFF])
                flash.power = lambda n, at=at, done=done: done if n == at else None
                # The host greets the board again and sends the request once more.
                values += exact(graph, device.infer(IMAGES[0], range(3)))
                values += exact(graph, device.infer(IMAGES[0], range(2)))
                chip.reset()
        assert len(values) == 40
        assert all(later > before for before, later in pairwise(values))
        marks = flash.bytes[: flash.bytes.index(_MARK_BYTE)]
        assert 8 * len(marks) >= max(values) // BLOCK - 8


def test_a_retry_over_a_reset_is_another_draw_and_one_without_is_not(
    graph: Graph, board: Board, elf: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "flash.bin"
    firsts = []
    for _ in range(2):
        with UnicornBoard(elf, board, storage=kept) as chip, Device(chip) as device:
            firsts.append(exact(graph, device.infer(IMAGES[0], range(25))))
    # As if it were the same board: the second process goes on behind the first.
    assert firsts == [list(range(BLOCK, BLOCK + 25)), list(range(3 * BLOCK, 3 * BLOCK + 25))]
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(ToolchainError, match="the emulated board's sector has 131072"):
        UnicornBoard(elf, board, storage=kept)


def test_a_worn_or_full_sector_ends_all_answers(board: Board, elf: Path) -> None:
    with UnicornBoard(elf, board) as chip:
        assert chip.flash is not None
        # All but the last two marks of the sector: one more start, then none.
        chip.flash.bytes[:-1] = bytes(chip.flash.size - 1)
        chip.flash.bytes[-1] = 0b1100_0000
        with Device(chip) as device:
            last = device.infer(IMAGES[0], [0])
            assert last.counters is not None
            assert last.counters.tolist() == [((1 << 20) - 1) * BLOCK]
            chip.reset()
            with pytest.raises(RemoteError, match="cannot keep its counter") as caught:
                device.infer(IMAGES[0], [0])
    assert caught.value.code == ErrorCode.COUNTER


def test_its_owner_verifies_it_and_nobody_else(graph: Graph, board: Board, elf: Path) -> None:
    data = Dataset("test", IMAGES[:3], np.zeros(3, np.int64), labelled=False)
    with UnicornBoard(elf, board) as chip, Device(chip) as device:
        found = verify(graph, device, data, seeds=4, key=KEY)
        assert found.exact
        assert (found.logits, found.drawn_words) == (12 * graph.classes, 0)
        assert found.counters == (BLOCK, BLOCK + 11)
        with pytest.raises(MismatchFoundError, match="differ from those of this key"):
            verify(graph, device, data, key=DeviceKey(bytes(16))).raise_if_different()
        with pytest.raises(UsageError, match="only the owner of its key"):
            verify(graph, device, data)


def test_a_project_of_another_mode_is_refused(elf: Path) -> None:
    """The same network on the board, but what it answers would be taken for something else."""
    other = replace(load_project(elf.parents[2]), board=load_board("nucleo_f446re"))
    options = TargetOptions(emulate="unicorn", toolchain="gcc")
    with (
        pytest.raises(DeviceMismatchError, match="in field mode; the project is for evaluation"),
        open_target(other, options, lambda _: None),
    ):
        pass


# --- the choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize("board", all_boards(), ids=lambda board: board.name)
def test_boards_without_a_driver_refuse(board: Board, tmp_path: Path) -> None:
    if board.storage is not None:
        chosen = board.with_field_mode()
        assert chosen.with_field_mode() is chosen
        (tmp_path / "field.toml").write_text(chosen.source)
        assert load_board(str(tmp_path / "field.toml")) == chosen
        assert chosen.usable_flash == board.flash.size - (128 << 10)
        assert board.usable_flash == board.flash.size
        return
    with pytest.raises(BoardError, match="no driver") as caught:
        board.with_field_mode(all_boards())
    assert "boards that can: blackpill_f411ce, " in str(caught.value.hint)
    (tmp_path / "asked.toml").write_text(f"field_mode = true\n{board.source}")
    with pytest.raises(BoardError, match="no driver"):
        load_board(str(tmp_path / "asked.toml"))


def test_emulators_without_such_flash_refuse(board: Board, elf: Path) -> None:
    assert choose_emulator("auto", board) == "unicorn"
    with pytest.raises(ToolchainError, match="QEMU has no flash that a firmware can write"):
        open_emulator("qemu", elf, board)


def _export(tmp_path: Path, *options: str, model: str = "s64") -> tuple[int, str]:
    arguments = [str(MODELS / f"{model}.pt"), "-o", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(export, arguments)
    return done.exit_code, f"{done.output}{done.stderr}{done.exception or ''}"


F446 = ("--board", "nucleo_f446")
REFUSED = {
    "no key": ([*F446, "--field"], "needs a secret of its own"),
    "no field": ([*F446, "--device-key", "KEY"], "only a board in field mode has a secret"),
    "library": (["--format", "library", "--field"], "a library takes its seeds"),
    "mlperf": ([*F446, "--server", "mlperf", "--field", "--device-key", "KEY"], "MLPerf"),
    "board": (["--board", "mps2_an386", "--field", "--device-key", "KEY"], "boards that can"),
}


@pytest.mark.parametrize(("options", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_in_field_mode(tmp_path: Path, options: list[str], says: str) -> None:
    key = tmp_path / "board.key"
    code, text = _export(tmp_path, *[str(key) if x == "KEY" else x for x in options])
    assert code != 0
    assert says in text
    # And no key was made for nothing.
    assert not key.exists()


def test_a_network_that_draws_nothing_has_no_seeds_to_keep(tmp_path: Path) -> None:
    key = tmp_path / "board.key"
    options = (*F446, "--field", "--device-key", str(key))
    code, text = _export(tmp_path, *options, model="b64")
    assert code != 0
    assert "draws no weights" in text
    assert not key.exists()


def test_the_key_is_in_one_file_and_that_is_not_for_others(tmp_path: Path) -> None:
    key = tmp_path / "board.key"
    code, text = _export(tmp_path, *F446, "--field", "--device-key", str(key))
    assert code == 0, text
    folder = tmp_path / "out"
    assert f"the key is in {folder / KEY_FILE}" in text
    secret = DeviceKey.load(key).secret
    shown = ", ".join(f"0x{octet:02X}" for octet in secret)
    holding = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and {shown.encode(), secret, secret.hex().encode()} & _found(path, secret)
    ]
    assert holding == [KEY_FILE]
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    ignored = (folder / ".gitignore").read_text().splitlines()
    assert {f"/{KEY_FILE}", "/build/", "/.pio/"} <= set(ignored)
    assert shown not in (folder / "manifest.json").read_text()
    project = load_project(folder)
    assert project.board.field_mode
    assert project.edited == ()
    # Exported once more without field mode, the folder keeps no key.
    code, text = _export(tmp_path, *F446)
    assert code == 0, text
    assert not (folder / KEY_FILE).exists()
    assert not load_project(folder).board.field_mode


def _found(path: Path, secret: bytes) -> set[bytes]:
    """Which spellings of a secret a file holds."""
    data = path.read_bytes()
    shown = ", ".join(f"0x{octet:02X}" for octet in secret).encode()
    return {text for text in (shown, secret, secret.hex().encode()) if text in data}


@pytest.mark.parametrize("command", ["bench", "diff", "boards report"])
def test_commands_that_need_seeds_say_why_not(
    tmp_path: Path, graph: Graph, board: Board, command: str
) -> None:
    folder = tmp_path / "field"
    write_project(graph, board, folder, key=KEY)
    done = CliRunner().invoke(cli, [*command.split(), str(folder), "--emulate"])
    assert isinstance(done.exception, UsageError)
    assert "this project's firmware is in field mode" in done.exception.what


def test_off_nothing_of_it_is_in_a_project(graph: Graph, tmp_path: Path) -> None:
    plain = load_board("nucleo_f446re")
    write_project(graph, plain, tmp_path / "off")
    names = {path.name for path in (tmp_path / "off").rglob("*")}
    assert not {name for name in names if "field" in name or "persist" in name or "sip" in name}
    assert "PERSIST" not in (tmp_path / "off" / "include" / "bnn_board.h").read_text()
    assert not [flag for flag in plain.compile_flags if "FIELD" in flag]
    more = set(fixed_files(plain.with_field_mode())) - set(fixed_files(plain))
    assert {"src/bnn_server_field.c", "src/bnn_persist_stm32f4.c"} <= more
