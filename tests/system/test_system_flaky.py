"""Emulated boards behind bad lines: every answer comes, once, and is the right one."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from needs import need_digits, need_emulator

from bnnmcu.backend.project import Project, load_project
from bnnmcu.data import load_digits
from bnnmcu.link.device import Device, Inference
from bnnmcu.link.flaky import FlakyTransport, FlawCounts, Flaws, parse_flaws
from bnnmcu.link.reconnect import port_opener
from bnnmcu.target import build_for_emulation
from bnnmcu.toolchain import unicorn_board
from bnnmcu.toolchain.emulator import open_emulator
from bnnmcu.toolchain.native import NativeTwin
from bnnmcu.toolchain.tcp_bridge import TcpBridge

Built = Callable[[str], tuple[Project, Path]]

#: The line that results must survive: what a cheap bridge in a noisy room may do, and more.
BAD = "corrupt=1/20000,drop=0.002,duplicate=0.001,stall=0.0005:0.1,seed=11"
EVERY_KIND = ("corrupt", "drop", "duplicate", "reorder", "split", "stall")


@pytest.fixture(scope="module")
def built(shipped: Callable[[str], Path]) -> Built:
    """A shipped network's project and its ELF."""
    need_digits()
    done: dict[str, tuple[Project, Path]] = {}

    def build(name: str) -> tuple[Project, Path]:
        if name not in done:
            project = load_project(shipped(name))
            done[name] = project, build_for_emulation(project, None, lambda _: None).elf
        return done[name]

    return build


def asked(count: int, draws: int) -> list[tuple[npt.NDArray[np.uint8], list[int]]]:
    """Images, each once, with seeds that are all different."""
    images = load_digits().stratified(count).images
    return [(image, [1000 * i + d for d in range(draws)]) for i, image in enumerate(images)]


def right(
    project: Project, requests: Sequence[tuple[npt.NDArray[np.uint8], list[int]]]
) -> list[str]:
    """Rows as :func:`rows` makes them, from the same C on this machine without any line."""
    images = np.stack([image for image, _ in requests])
    seeds = np.array([seeds for _, seeds in requests], dtype=np.uint64)
    return [str(logits.tolist()) for logits in NativeTwin(project.graph).run(images, seeds)]


def rows(answers: Iterator[Inference]) -> list[str]:
    return [str(answer.logits.tolist()) for answer in answers]


def spoiled(
    project: Project, elf: Path, count: int, draws: int, flaws: Flaws
) -> tuple[list[str], FlawCounts, int]:
    """Rows of a run on unicorn behind a bad line, what was done to it, and how much was resent."""
    line = FlakyTransport(open_emulator("unicorn", elf, project.board), flaws)
    with Device(line, expect_model=project.sha256) as device:
        found = rows(device.infer_many(asked(count, draws)))
        return found, line.counts, device.stats.retries


def test_a_thousand_images_over_a_bad_line(built: Built) -> None:
    need_emulator("unicorn")
    project, elf = built("b64")
    found, counts, retries = spoiled(project, elf, 1000, 1, parse_flaws(BAD))
    # Row by row and in order, so none is missing, wrong or there twice.
    assert found == right(project, asked(1000, 1))
    for kind in ("corrupt", "drop", "duplicate", "stall"):
        assert getattr(counts, kind) > 0, f"{kind} never happened: {counts}"
    assert retries >= counts.drop // 2 > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_several_seeds_over_a_far_worse_line(built: Built, seed: int) -> None:
    """A reply of 20 draws is 28 chunks, of which each may be hit in each of six ways."""
    need_emulator("unicorn")
    project, elf = built("s64")
    flaws = parse_flaws(
        "corrupt=1/8000,drop=0.003,duplicate=0.003,reorder=0.004:3,split=0.03:0.001,"
        f"stall=0.003:0.05,seed={seed}"
    )
    found, counts, _ = spoiled(project, elf, 20, 20, flaws)
    assert found == right(project, asked(20, 20))
    for kind in EVERY_KIND:
        assert getattr(counts, kind) > 0, f"{kind} never happened: {counts}"


def test_a_unicorn_that_is_stopped_goes_on_where_it_was(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 2.1.4, unicorn lost registers when it was stopped in a computation."""
    need_emulator("unicorn")
    project, elf = built("b64")
    monkeypatch.setattr(unicorn_board, "WATCH_PERIOD", 0.0005)
    monkeypatch.setattr(unicorn_board, "SLICE", 0.001)
    with Device(unicorn_board.UnicornBoard(elf, project.board)) as device:
        found = rows(device.infer_many(asked(20, 1)))
    assert found == right(project, asked(20, 1))


@pytest.mark.parametrize("kind", ["unicorn", "qemu"])
def test_a_board_whose_power_fails_in_the_middle(built: Built, kind: str) -> None:
    need_emulator(kind)
    project, elf = built("b64")
    board = open_emulator(kind, elf, project.board, icount=False)
    requests, found = asked(40, 1), []
    with Device(board, expect_model=project.sha256) as device:
        for done, answer in enumerate(device.infer_many(requests)):
            found += rows(iter([answer]))
            if done in (5, 20, 21):
                board.reset()
        assert device.stats.retries > 0, "nothing was in flight: the test shows nothing"
    assert found == right(project, requests)


def test_resets_that_nobody_plans(built: Built) -> None:
    need_emulator("unicorn")
    project, elf = built("b64")
    found, counts, _ = spoiled(project, elf, 60, 1, Flaws(reset=0.005, seed=5))
    assert found == right(project, asked(60, 1))
    assert counts.reset >= 2


def test_a_connection_that_is_cut_and_comes_back(built: Built) -> None:
    need_emulator("unicorn")
    project, elf = built("b64")
    line = FlakyTransport(
        open_emulator("unicorn", elf, project.board), parse_flaws("cut=0.005,drop=0.002,seed=4")
    )
    with TcpBridge(line) as bridge:
        opener = port_opener(bridge.port)
        with Device(opener(), expect_model=project.sha256, reopen=opener) as device:
            found = rows(device.infer_many(asked(60, 1)))
            reconnects = device.stats.reconnects
    assert found == right(project, asked(60, 1))
    assert reconnects >= line.counts.cut >= 2


@pytest.fixture(scope="module")
def soak() -> Iterator[ModuleType]:
    """benchmarks/soak.py."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("soak")
    finally:
        sys.path.remove(str(folder))
        for name in ("soak", "bench", "judge", "networks"):
            sys.modules.pop(name, None)


def test_kills_and_resets_leave_the_same_results(
    built: Built, soak: ModuleType, tmp_path: Path
) -> None:
    need_emulator("unicorn")
    project, elf = built("b64")
    found = soak.killed_run(project, elf, tmp_path, count=90, kills=6, resets=3, seed=2)
    assert found["same"], found
    assert found["rows that are equal"] == 90
    assert (found["kills"], found["resets"]) == (6, 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"different": 1}, "1 of 10 rows differ"),
        ({"missing or too many": 2}, "rows differ"),
        ({"line": {"corrupt": 1, "drop": 0, "duplicate": 1, "stall": 1}}, "drop never happened"),
        ({"same": False}, "10 rows are equal"),
        ({"rows that are equal": 9}, "9 rows are equal"),
    ],
)
def test_what_the_soak_calls_a_loss(
    soak: ModuleType, change: dict[str, Any], says: str | None
) -> None:
    line = {"images": 10, "different": 0, "missing or too many": 0}
    line["line"] = dict.fromkeys(("corrupt", "drop", "duplicate", "stall"), 1)
    run = {"images": 10, "same": True, "rows that are equal": 10}
    for name, value in change.items():
        (line if name in line else run)[name] = value
    missed = soak.judge({"bad line": [line], "kills and resets": run})
    assert (says is None and not missed) or says in "; ".join(missed)


@contextmanager
def served(cli: Any, *arguments: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``bnnmcu run``: its port, and the process, which is interrupted at the end."""
    process = subprocess.Popen(
        cli.command("run", *arguments, "--json"),
        env=cli.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.communicate()
            text += line
        yield json.loads(text)["port"], process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for one process")
def test_a_bad_line_for_everybody(shipped: Callable[[str], Path], cli: Any) -> None:
    need_digits()
    need_emulator("unicorn")
    project = shipped("b64")
    flaws = "corrupt=1/5000,drop=0.002,cut=0.003,seed=2"
    with served(
        cli, project, "--emulate", "unicorn", "--tcp", "0", "--flaky", flaws, "--pace", "921600"
    ) as (port, process):
        assert port.startswith("socket://127.0.0.1:")
        done = cli("verify", project, "--port", port, "-n", "60", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["exact"] is True
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "flaky line at 921600 baud" in said
    assert re.search(r"the line: \d+ bytes, \d+ chunks; corrupt \d+, drop \d+, cut \d+", said), said
    assert "WARNING" not in said


def test_a_port_for_other_machines_is_announced(shipped: Callable[[str], Path], cli: Any) -> None:
    need_emulator("unicorn")
    with served(cli, shipped("b64"), "--emulate", "unicorn", "--tcp", "0.0.0.0:0") as (_, process):
        assert process.stderr is not None
        said = ""
        while "Ctrl-C ends it" not in said:
            said += process.stderr.readline()
    assert "WARNING: other machines can reach this port" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--flaky", "lose=1"], "is no flaw"),
        (["--flaky", "cut=0.1"], "add --tcp 0"),
        (["--tcp", "nowhere"], "is no TCP port"),
        (["--pace", "1"], "300 to 12000000 baud"),
    ],
)
def test_run_refuses_what_makes_no_line(
    shipped: Callable[[str], Path], cli: Any, arguments: list[str], says: str
) -> None:
    done = cli("run", shipped("b64"), "--emulate", "unicorn", *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "next:" in done.stderr
