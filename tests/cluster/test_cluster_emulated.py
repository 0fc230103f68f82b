"""Emulated boards behind real workers: their rate, and what becomes of killed ones."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from needs import need_emulator, need_toolchain
from small_network import small_network

pytest.importorskip("distributed", reason="Dask distributed is not installed")

from bnnmcu import reference
from bnnmcu.attack.oracle import TakenBack
from bnnmcu.backend.project import Project, load_project, write_project
from bnnmcu.boards import load_board
from bnnmcu.cluster.boards import FarmOracle
from bnnmcu.cluster.engine import open_cluster
from bnnmcu.cluster.farm import FarmBoard
from bnnmcu.cluster.settings import ClusterSettings
from bnnmcu.passes import lower

# An image takes 120 bytes or so: at this rate the line is what takes the time, by far.
_PACE = 3_000
_IMAGES = 32


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    need_emulator("qemu")
    need_toolchain("gcc")
    folder = tmp_path_factory.mktemp("project") / "p"
    write_project(lower(small_network(drawn=True)).graph, load_board("nucleo_f446re"), folder)
    return load_project(folder)


def farm(count: int, **more: Any) -> list[FarmBoard]:
    return [FarmBoard(name=f"twin-{k}", emulate="qemu", **more) for k in range(1, count + 1)]


def questions(count: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return images, np.arange(3 * count, dtype=np.uint64).reshape(count, 3)


def check(project: Project, oracle: FarmOracle, count: int) -> float:
    """Images a second; every answer is the reference's."""
    images, seeds = questions(count)
    begun = time.monotonic()
    got = {}
    for one in oracle.arrivals(images, seeds):
        assert not isinstance(one, TakenBack)
        got[one[0]] = one[1].logits
    seconds = time.monotonic() - begun
    truth = reference.run(project.graph, images, seeds)
    assert np.array_equal(np.stack([got[k] for k in range(count)]), truth)
    return count / seconds


def test_four_boards_do_more_than_three_times_as_much_as_one(project: Project) -> None:
    with open_cluster(ClusterSettings(workers=1), farm(4, pace=_PACE)) as engine:
        assert engine.boards() == ["twin-1", "twin-2", "twin-3", "twin-4"]
        alone = FarmOracle(engine, project, ["twin-1"])
        one = check(project, alone, _IMAGES)
        four = check(project, FarmOracle(engine, project), 4 * _IMAGES)
    print(f"1 board: {one:.2f} images/s, 4 boards: {four:.2f}, {four / one:.2f} times as much")
    assert four >= 3.2 * one


def test_killed_emulators_and_workers(project: Project) -> None:
    told: list[str] = []
    with open_cluster(ClusterSettings(workers=1), farm(2, pace=_PACE)) as engine:
        oracle = FarmOracle(engine, project, announce=told.append)
        me = psutil.Process()

        def processes(name: str) -> list[psutil.Process]:
            return [one for one in me.children(recursive=True) if one.name().startswith(name)]

        images, seeds = questions(30)
        got = {}
        killed = []
        for count, one in enumerate(oracle.arrivals(images, seeds)):
            assert not isinstance(one, TakenBack)
            got[one[0]] = one[1].logits
            if count == 3:
                # The emulator: its worker starts it again.
                killed.append(processes("qemu")[0].pid)
                os.kill(killed[-1], signal.SIGKILL)
            if count == 12:
                # The worker that owns both boards, and with it whatever it runs.
                (owner,) = {
                    address: pid
                    for address, pid in engine._client.run(os.getpid).items()
                    if address not in [crafter.address for crafter in engine.crafters()]
                }.values()
                killed.append(owner)
                os.kill(owner, signal.SIGKILL)
        assert len(killed) == 2
        truth = reference.run(project.graph, images, seeds)
        assert np.array_equal(np.stack([got[k] for k in range(30)]), truth)
        assert not oracle.quarantined, "both came back"
    deadline = time.monotonic() + 10
    while processes("qemu") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes("qemu"), "none is left behind"


def test_a_board_that_is_not_there(project: Project, tmp_path: Path) -> None:
    told: list[str] = []
    boards = [*farm(1), FarmBoard(name="absent", port=str(tmp_path / "ttyACM7"))]
    with open_cluster(ClusterSettings(workers=1), boards) as engine:
        oracle = FarmOracle(engine, project, announce=told.append)
        check(project, oracle, 5)
        assert list(oracle.quarantined) == ["absent"]
        assert "ttyACM7" in oracle.quarantined["absent"]
        assert any("absent is out" in line for line in told)
