"""Real clusters of this machine: any number of workers, also killed ones, gives the same run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_network import small_network

pytest.importorskip("distributed", reason="Dask distributed is not installed")
pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.campaign import Campaign, Progress, campaign_identity
from bnnmcu.attack.config import CampaignConfig, CwConfig, FgsmConfig, PgdConfig, SquareConfig
from bnnmcu.attack.oracle import ReferenceOracle
from bnnmcu.cluster.crafting import ClusterCrafter
from bnnmcu.cluster.engine import Engine, open_cluster
from bnnmcu.cluster.settings import ClusterSettings
from bnnmcu.data import Dataset
from bnnmcu.errors import ClusterError
from bnnmcu.graph import Graph
from bnnmcu.passes import lower
from bnnmcu.store import Store
from bnnmcu.store.compare import content_rows

CONFIG = CampaignConfig(
    (
        FgsmConfig(epsilon=0.1, eot_draws=2),
        PgdConfig(epsilon=0.2, eot_draws=2, steps=4),
        # Seeds of its own for each image, and a target.
        PgdConfig(epsilon=0.2, eot_draws=1, steps=3, adversary="seed-known", name="known"),
        CwConfig(iterations=5, targets="pairs"),
        # Asks, so that it runs where the reference does.
        SquareConfig(epsilon=0.3, budget=20),
    ),
    draws=3,
    chunk=4,
)


class Stopped(BaseException):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def graph() -> Graph:
    return lower(small_network(drawn=True)).graph


@pytest.fixture(scope="module")
def data() -> Dataset:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (24, 8, 8, 1), dtype=np.uint8)
    return Dataset("noise", images, (np.arange(24) % 4).astype(np.int64))


def run(path: Path, graph: Graph, data: Dataset, engine: Engine | None, each: Any = None) -> None:
    oracle = ReferenceOracle(graph)
    crafter = None
    if engine is not None:
        crafter = ClusterCrafter(engine, CONFIG, graph, data, oracle, {}, device="cpu")
    with Store.open(path, campaign_identity(CONFIG, graph, data, oracle)) as store:
        Campaign(CONFIG, graph, data, oracle, store, crafter=crafter).run(each)


@pytest.fixture(scope="module")
def alone(graph: Graph, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Content of a run without any cluster."""
    path = tmp_path_factory.mktemp("alone") / "run.sqlite"
    run(path, graph, data, None)
    rows = list(content_rows(path))
    assert len({row.attack for row in rows}) == 6
    return rows


def workers_of(engine: Engine) -> dict[str, int]:
    """Process numbers of the workers."""
    found: dict[str, int] = engine._client.run(os.getpid)
    return found


def killer(engine: Engine, at: list[int]) -> Any:
    """Kills a worker when so many chunks are made."""
    made = 0

    def each(progress: Progress) -> None:
        nonlocal made
        made += progress.stage == "craft"
        if at and made >= at[0]:
            at.pop(0)
            os.kill(next(iter(workers_of(engine).values())), signal.SIGKILL)

    return each


@pytest.fixture(params=[1, 2, 4])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with open_cluster(ClusterSettings(workers=request.param)) as opened:
        assert len(opened.crafters()) == request.param
        yield opened


def test_any_number_of_workers_and_workers_that_are_killed(
    engine: Engine, graph: Graph, data: Dataset, alone: list[Any], tmp_path: Path
) -> None:
    """Undisturbed; with a worker killed twice; and begun elsewhere."""
    run(tmp_path / "whole.sqlite", graph, data, engine)
    assert list(content_rows(tmp_path / "whole.sqlite")) == alone

    kills = [4, 15]
    run(tmp_path / "killed.sqlite", graph, data, engine, killer(engine, kills))
    assert not kills, "two were killed"
    assert list(content_rows(tmp_path / "killed.sqlite")) == alone

    def stop(progress: Progress) -> None:
        if progress.attack == "pgd" and progress.stage == "ask" and progress.done == 5:
            raise Stopped

    path = tmp_path / "resumed.sqlite"
    with pytest.raises(Stopped):
        run(path, graph, data, None, stop)
    run(path, graph, data, engine)
    assert list(content_rows(path)) == alone
    with Store.read(path) as store:
        assert len(store.sessions()) == 2
    facts = engine.described()
    assert facts["workers"] == len(engine.crafters())
    assert set(facts["alike"]) == {"bnnmcu", "torch", "numpy", "machine", "vectors"}


def test_workers_of_two_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cluster(ClusterSettings(workers=2)) as engine:
        addresses = [one.address for one in engine.crafters()]
        real = engine._client.run

        def run(function: Any, **how: Any) -> Any:
            told = real(function, **how)
            told[addresses[0]] |= {"vectors": "AVX9"}
            return told

        monkeypatch.setattr(engine._client, "run", run)
        with pytest.raises(ClusterError, match="workers differ") as error:
            engine.check_alike()
        assert "AVX9" in str(error.value)
        assert addresses[0] in str(error.value)


def test_nothing_is_listened_on_but_loopback_and_all_is_encrypted() -> None:
    import psutil

    with ExitStack() as stack:
        engine = stack.enter_context(open_cluster(ClusterSettings(workers=1)))
        assert all(one.address.startswith("tls://127.0.0.1:") for one in engine.workers())
        me = psutil.Process()
        listening = [
            place.laddr.ip
            for process in (me, *me.children(recursive=True))
            for place in process.net_connections("inet")
            if place.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) == {"127.0.0.1"}
