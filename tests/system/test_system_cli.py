"""What a user meets: help, one clear message for each mistake, exit codes that scripts can use."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from needs import need_digits, need_emulator

from bnnmcu.modelfile import write_model

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples" / "models"
COMMANDS = (
    *("train", "evaluate", "inspect", "agreement", "export", "build", "run", "verify", "diff"),
    *("bench", "attack", "boards", "doctor", "demo"),
)


def test_help_lists_every_command(cli) -> None:
    shown = cli("--help").stdout
    for command in COMMANDS:
        assert f"  {command} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_an_example(cli, command: str) -> None:
    shown = cli(command, "--help").stdout
    example = shown.split("Example:")[1]
    assert f"bnnmcu {command}" in example


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


# --- boards on ports ---------------------------------------------------------------------------


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


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
def test_a_board_that_vanishes_is_named(shipped: Callable[[str], Path], cli, served) -> None:
    need_digits()
    process, port = served("b64")
    threading.Timer(3.0, process.kill).start()
    started = time.monotonic()
    done = cli("verify", shipped("b64"), "--port", port, "-n", "5000")
    assert done.returncode == 10, done.stderr
    assert port in done.stderr
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
