"""What a user meets: help, one clear message for each mistake, exit codes that scripts can use."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import click
import numpy as np
import pytest
from needs import need_digits

from bnnmcu.cli import main
from bnnmcu.errors import ModelFileError, UsageError
from bnnmcu.modelfile import write_model
from bnnmcu.target import TargetOptions

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples" / "models"
COMMANDS = tuple(main._COMMANDS)


def test_help_lists_every_command(cli) -> None:
    shown = cli("--help").stdout
    for command in COMMANDS:
        assert f"  {command} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(cli, command: str) -> None:
    shown = cli(command, "--help").stdout
    example = shown.split("Example:")[1]
    assert f"bnnmcu {command}" in example


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command: str) -> None:
    context = click.Context(main.cli)
    todo = [main.cli.get_command(context, command)]
    while todo:
        found = todo.pop()
        assert found is not None
        assert found.help, found.name
        for option in found.params:
            if isinstance(option, click.Option):
                assert option.help, (found.name, option.opts)
        todo += getattr(found, "commands", {}).values()


@pytest.mark.parametrize(
    "code", ["import bnnmcu", "from bnnmcu.cli.main import main; main(['-h'])"]
)
def test_starting_is_light(code: str) -> None:
    """Under 0.3 s is the aim; here the reason for it: no heavy package is imported."""
    check = f"""
import atexit, sys
atexit.register(lambda: print(sorted({{"torch", "numpy", "rich", "jinja2"}} & set(sys.modules))))
{code}
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", check], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def _nan_model(path: Path) -> None:
    from bnnmcu.modelfile import read_model

    model = read_model(MODELS / "b64.pt")
    bad = {name: array.copy() for name, array in model.tensors.items()}
    bad["conv2.weight"].reshape(-1)[7] = np.nan
    write_model(path, model.manifest, bad)


def _model_a(path: Path) -> None:
    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.paper import build
    from bnnmcu.nn.training import save_net

    save_net(path, build(PaperConfig("A", 8), seed=1))


def _truncated(path: Path) -> None:
    data = (MODELS / "b64.pt").read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _no_state_dict(path: Path) -> None:
    import torch

    torch.save([1, 2, 3], path)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Harmful(path.with_name("harmed"))))


def _unsafe_torch(path: Path) -> None:
    import torch

    torch.save({"manifest": "{}", "state_dict": _Harmful(path.with_name("harmed"))}, path)


@pytest.mark.parametrize(
    ("name", "write", "code", "words"),
    [
        ("gone.pt", None, 3, ["gone.pt", "no such file"]),
        ("model.onnx", lambda path: path.write_bytes(b"x"), 3, ["model.onnx", "not an ONNX file"]),
        ("model.h5", lambda path: path.write_bytes(b"x"), 3, [".h5", ".safetensors", ".onnx"]),
        ("model.pt2", lambda path: path.write_bytes(b"x"), 3, [".pt2", "refused"]),
        ("noise.pt", lambda path: path.write_bytes(os.urandom(999)), 3, ["noise.pt", "torch.save"]),
        ("noise.safetensors", lambda path: path.write_bytes(b"\xff" * 99), 3, ["corrupt"]),
        ("half.pt", _truncated, 3, ["half.pt", "cut short"]),
        ("list.pt", _no_state_dict, 3, ["list.pt", "manifest"]),
        ("pickle.pt", _pickle, 3, ["pickle", "run code"]),
        ("unsafe.pt", _unsafe_torch, 3, ["more than tensors", "run code"]),
        ("nan.safetensors", _nan_model, 3, ["conv2.weight", "NaN", "learning rate"]),
        ("a8.safetensors", _model_a, 4, ["conv2", "full-precision", "--model B64"]),
    ],
)
def test_bad_models_are_refused(
    cli,
    tmp_path: Path,
    name: str,
    write: Callable[[Path], None] | None,
    code: int,
    words: list[str],
) -> None:
    pytest.importorskip("torch")
    if write:
        write(tmp_path / name)
    done = cli("export", name, "--board", "nucleo_f446", "-o", "out", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["export", "x.pt", "--board", "nucleo_f464"], 7, ["nucleo_f464", "nucleo_f446re"]),
        (["export", "x.pt", "--board", "my.toml"], 7, ["my.toml", "no such board file"]),
        (["train", "--model", "Z9", "-o", "z.pt"], 2, ["Z9", "S64"]),
        (["train", "--model", "S8", "-o", "z.bin", "--data", "digits"], 2, [".bin"]),
        (["train", "--model", "B8", "-o", "z.pt", "--form", "frozen"], 2, ["S8", "--form"]),
        (["train", "--model", "S8", "-o", "z.pt", "--data", "nowhere"], 12, ["nowhere"]),
        (["verify", "nowhere", "--emulate"], 3, ["not a bnnmcu project", "bnnmcu export"]),
        (["evaluate", "nowhere.pt"], 3, ["no such file"]),
        (["evaluate", "x.pt", "--planes", "9"], 2, ["--planes"]),
        (["attack", "nowhere", "--native"], 3, ["not a bnnmcu project"]),
        (["frobnicate"], 2, ["frobnicate"]),
        (["boards", "--nope"], 2, ["--nope"]),
    ],
)
def test_bad_usage_is_refused(
    cli, tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


_BOARD_OPTIONS = {
    "baud": ("--baud", "9600"),
    "toolchain": ("--toolchain", "zig"),
    "trace": ("--trace", "log"),
    "max_baud": ("--max-baud", "0"),
    # The default, but typed.
    "reconnect": ("--reconnect", "60"),
    "flaky": ("--flaky", "drop=0.1"),
    "pace": ("--pace", "9600"),
}
_WHICH_BOARD = {"port": ("--port", "auto"), "emulate": ("--emulate", "qemu")}


@pytest.mark.parametrize("name", [*_BOARD_OPTIONS, *_WHICH_BOARD])
def test_options_of_a_board_are_not_ignored_without_one(tmp_path: Path, name: str) -> None:
    reachable = {field.name for field in fields(TargetOptions)} - {"count", "profile"}
    assert {*_BOARD_OPTIONS, *_WHICH_BOARD} == reachable
    typed = _BOARD_OPTIONS.get(name) or _WHICH_BOARD[name]
    refused = [("attack", ".", "--native"), ("evaluate", str(tmp_path / "model.pt"))]
    if name in _BOARD_OPTIONS:
        refused.append(("evaluate", "."))
    for command in refused:
        with pytest.raises(UsageError) as caught:
            main.cli.main([*command, *typed], standalone_mode=False)
        assert typed[0] in str(caught.value).split("next:")[0]
        assert f"leave out {'--native, or ' * ('attack' in command)}{typed[0]}" in str(caught.value)


@pytest.mark.parametrize("command", [["evaluate"], ["attack", "--native"]])
def test_defaults_of_a_board_are_no_mistake(tmp_path: Path, command: list[str]) -> None:
    with pytest.raises(ModelFileError):  # so it went on to read the project
        main.cli.main([*command, str(tmp_path)], standalone_mode=False)


def test_errors_are_json_too(cli, tmp_path: Path) -> None:
    done = cli("export", "gone.pt", "--board", "nucleo_f446", "--json", cwd=tmp_path)
    shown = json.loads(done.stdout)
    assert shown["error"] == "ModelFileError"
    assert shown["exit_code"] == done.returncode == 3
    assert shown["where"] == "gone.pt"


def test_usage_errors_are_json_too(cli) -> None:
    done = cli("boards", "--json", "--nope")
    assert json.loads(done.stdout)["exit_code"] == done.returncode == 2
    assert "--nope" in done.stderr


def test_an_unwritable_folder_is_named(cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    target = tmp_path / "file" / "project"
    done = cli("export", MODELS / "b64.pt", "--board", "nucleo_f446", "-o", target)
    assert done.returncode == 14  # not 1: that is kept for differences found
    assert str(target) in done.stderr
    assert "choose another path" in done.stderr


def test_no_images_are_refused(cli, tmp_path: Path) -> None:
    empty = tmp_path / "none.npz"
    np.savez(empty, images=np.zeros((0, 28, 28), np.uint8), labels=np.zeros(0, np.int64))
    done = cli("evaluate", MODELS / "b64.pt", "--data", empty, "--json")
    assert done.returncode == 12
    assert "no images" in done.stderr


def test_images_of_another_shape_are_refused_before_anything_is_built(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    other = tmp_path / "cifar.npz"
    np.savez(other, images=np.zeros((4, 32, 32, 3), np.uint8), labels=np.arange(4))
    done = cli("verify", shipped("b64"), "--emulate", "--data", other)
    assert done.returncode == 12
    assert "(32, 32, 3)" in done.stderr
    assert "compiling" not in done.stderr


def test_a_foreign_state_dict_is_described(cli, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LSTM(4, 4))
    torch.save(net.state_dict(), tmp_path / "lstm.pt")
    done = cli("export", "lstm.pt", "--board", "nucleo_f446", cwd=tmp_path)
    assert done.returncode == 3
    assert "0.weight" in done.stderr
    assert "bnnmcu.save(module, example_input" in done.stderr


def test_images_seen_in_training_are_announced(cli, tmp_path: Path) -> None:
    need_digits()
    from bnnmcu.modelfile import read_model

    model = read_model(MODELS / "b64.pt")
    manifest = dict(model.manifest)
    manifest["training"] = {"data_name": "MNIST train", "first_image": 0}
    write_model(tmp_path / "leaky.pt", manifest, model.tensors)
    done = cli("evaluate", tmp_path / "leaky.pt", "-n", "20")
    assert "warning: the network was trained on images of" in done.stderr
    done = cli("evaluate", MODELS / "b64.pt", "-n", "20")
    assert "warning" not in done.stderr


def test_help_names_files_that_exist(cli) -> None:
    for command in ("", *COMMANDS):
        shown = cli(*filter(None, [command]), "--help").stdout
        for word in shown.split():
            if word.startswith("examples/"):
                assert (ROOT / word).exists(), word


def test_tables_print_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Square brackets are rich's markup, and were lost from "bnnmcu[sim]" once."""
    from bnnmcu.cli.output import print_table

    print_table("a [bold]title", ["tool"], [["pip install 'bnnmcu[sim]'"]], caption=":smile: [x]")
    shown = capsys.readouterr().out
    for text in ("a [bold]title", "'bnnmcu[sim]'", ":smile: [x]"):
        assert text in shown


def test_a_full_disk_is_no_traceback(cli, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            cli.command("boards", "--json"),
            env=cli.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_boards_and_doctor_speak_json(cli) -> None:
    boards = json.loads(cli("boards", "--json").stdout)
    by_name = {board["name"]: board for board in boards}
    assert "nucleo_f446" in by_name["nucleo_f446re"]["aliases"]
    assert "never run on this board" in by_name["nucleo_f446re"]["evidence"]
    found = json.loads(cli("doctor", "--json").stdout)
    assert {tool["name"] for tool in found["tools"]} >= {"unicorn", "ziglang", "platformio"}
