"""A project with the MLPerf Tiny server: which commands refuse it, and who can ask it."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need_emulator, need_toolchain
from small_network import IMAGES, small_network

from bnnmcu.backend.project import write_project
from bnnmcu.boards import load_board
from bnnmcu.cli.main import main
from bnnmcu.errors import LinkError, LinkTimeoutError, ModelFileError, UsageError
from bnnmcu.passes import lower
from bnnmcu.toolchain import flash as uploader

_EXAMPLE = Path(__file__).parents[2] / "examples" / "mlperf_tiny.py"


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one project of each server, and images that both take."""
    folder = tmp_path_factory.mktemp("servers")
    graph = lower(small_network(drawn=True)).graph
    for server in ("mlperf", "bnnmcu"):
        write_project(graph, load_board("nucleo_f446re"), folder / server, server=server)
    labels = np.arange(len(IMAGES), dtype=np.int64) % 4
    np.savez(folder / "images.npz", images=IMAGES, labels=labels)
    return folder


#: Commands that ask a board, each with a port that does not exist.
_ASKING = [
    "verify {} -n 2",
    "bench {}",
    "evaluate {} --data {data} -n 2",
    "attack {} --data {data} -n 2",
    "diff {}",
    "boards report {}",
    "flash {} --yes",
]


@pytest.mark.parametrize("line", _ASKING, ids=lambda line: line.partition(" {}")[0])
def test_a_command_that_needs_the_other_protocol_says_so_before_anything_else(
    projects: Path,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(projects)
    monkeypatch.setattr(uploader, "check_possible", lambda board: None)

    def run(server: str) -> tuple[object, str]:
        words = line.format(server, data="images.npz").split()
        with pytest.raises(SystemExit) as stop:
            main([*words, "--port", "nowhere"])
        return stop.value.code, capsys.readouterr().err

    code, said = run("mlperf")
    assert code == UsageError.exit_code
    assert "mlperf: this project's firmware speaks the protocol of the MLPerf Tiny" in said
    assert "examples/mlperf_tiny.py" in said
    # All else is in order: this one gets as far as the port.
    code, said = run("bnnmcu")
    assert code == LinkError.exit_code
    assert "nowhere: no such port" in said


@pytest.fixture
def example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The example's exit code and what it prints."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(_EXAMPLE), *map(str, arguments)])
        program = runpy.run_path(str(_EXAMPLE))["main"]
        # Long enough for an emulated board, which is on this machine.
        program.__globals__["GREETING_S"] = 0.5
        code = program()
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.skipif(os.name != "posix", reason="an emulated board's port is a POSIX terminal")
def test_the_example_asks_an_emulated_board(
    projects: Path, example: Callable[..., tuple[int, str, str]], cli: Any
) -> None:
    need_emulator("unicorn")
    need_toolchain("gcc")
    project = projects / "mlperf"
    process = subprocess.Popen(
        cli.command("run", project, "--emulate", "unicorn", "--toolchain", "gcc"),
        env=cli.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, process.communicate()
        code, out, err = example(project, port, "-n", "5", "--seed", "7")
        assert (code, err) == (0, "small does not take digits: comparing on noise (see --data)\n")
        assert out.splitlines()[:2] == [
            "nucleo_f446re runs small",
            "0 of 5 images differ from the reference",
        ]
        assert "no times" in out
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert f"next: the MLPerf Tiny runner, or examples/mlperf_tiny.py {project} {port}\n" in said
    assert "verify" not in said


@pytest.mark.skipif(os.name != "posix", reason="a silent port is made of a POSIX terminal")
def test_the_example_says_what_is_wrong(
    projects: Path, example: Callable[..., tuple[int, str, str]]
) -> None:
    import pty

    ours, theirs = pty.openpty()
    silent = os.ttyname(theirs)
    try:
        for project, port, error, says in (
            ("mlperf", "nowhere", LinkError, "nowhere: no such port"),
            ("mlperf", silent, LinkTimeoutError, "no m-ready within 0.5 s; nothing came"),
            ("bnnmcu", silent, UsageError, "bnnmcu: this project's firmware speaks bnnmcu's own"),
            ("none", silent, ModelFileError, "none: not a bnnmcu project"),
        ):
            code, out, err = example(projects / project, port)
            assert (code, out) == (error.exit_code, "")
            assert f"error: {says}" in err.replace(f"{projects}{os.sep}", "")
    finally:
        os.close(ours)
        os.close(theirs)
