"""A farm's rules, on boards that are functions: who is asked, checked, believed and put out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_network import small_network

pytest.importorskip("distributed", reason="Dask distributed is not installed")

from bnnmcu import reference
from bnnmcu.attack.oracle import Answer, TakenBack
from bnnmcu.cluster import boards as farm
from bnnmcu.cluster import round as round_
from bnnmcu.cluster.boards import FarmOracle
from bnnmcu.cluster.feeder import Batch, Replies
from bnnmcu.cluster.shelf import Failed, Opened
from bnnmcu.errors import BnnmcuError, ClusterError, LinkError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.link.stats import LinkStats
from bnnmcu.passes import lower


@dataclass
class Fake:
    """A board: seconds for an image, and what is wrong with it."""

    seconds: float = 0.0
    emulated: bool = True
    opens: bool = True
    #: Answers before it fails, or before it lies.
    fails_after: int | None = None
    lies_after: int | None = None
    #: The worker that has it dies at its next batch.
    dies: bool = False
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Engine:
    """As much of an engine as a farm needs; each board has a thread of its own."""

    def __init__(self, graph: Graph, fakes: dict[str, Fake]) -> None:
        self.graph, self.fakes = graph, fakes
        self.pools = {name: ThreadPoolExecutor(1) for name in fakes}
        self.cancelled = 0
        self.gone: set[str] = set()

    def boards(self) -> list[str]:
        return sorted(set(self.fakes) - self.gone)

    def share(self, value: Any) -> Any:
        return value

    def submit(self, function: Any, *arguments: Any, name: str, board: str) -> Future[Any]:
        run = self.open if function is farm._open else self.ask
        if board in self.gone:
            return Future()  # nobody takes it
        made = self.pools[board].submit(run, *arguments[1:])
        made.release = lambda: None  # type: ignore[attr-defined]
        return made

    def as_completed(self, futures: list[Future[Any]]) -> Iterator[Future[Any]]:
        return as_completed(futures)

    def result(self, future: Future[Any], what: str) -> Any:
        return future.result()

    def cancel(self, futures: list[Future[Any]]) -> None:
        for one in futures:
            one.cancel()
        self.cancelled += len(futures)

    def open(self, name: str) -> Opened | Failed:
        fake = self.fakes[name]
        return Opened("fake", fake.emulated, True) if fake.opens else Failed("no such port")

    def ask(self, name: str, batch: Batch) -> Replies:
        fake = self.fakes[name]
        if fake.dies:
            raise ClusterError(f"asking {name} ended 3 workers that had it")
        answers, begun = [], time.monotonic()
        for image, seeds in zip(batch.images, batch.seeds, strict=True):
            if fake.fails_after is not None and fake.asked >= fake.fails_after:
                return Replies(tuple(answers), 0.1, LinkStats(requests=fake.asked), "unplugged")
            time.sleep(fake.seconds)
            logits = reference.run(self.graph, image[np.newaxis], seeds[np.newaxis])[0]
            if fake.lies_after is not None and fake.asked >= fake.lies_after:
                logits = logits + 1
            fake.asked += 1
            answers.append(Answer(logits))
        took = time.monotonic() - begun
        return Replies(tuple(answers), took, LinkStats(requests=fake.asked))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return lower(small_network(drawn=True)).graph


Made = Callable[..., tuple[FarmOracle, Engine, list[str]]]


@pytest.fixture
def make(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(farm, "pack", lambda project: "packed")

    def made(**fakes: Fake) -> tuple[FarmOracle, Engine, list[str]]:
        engine, told = Engine(graph, fakes), []
        board = SimpleNamespace(name="nucleo_x", title="Nucleo X")
        project: Any = SimpleNamespace(graph=graph, board=board)
        return FarmOracle(engine, project, announce=told.append), engine, told  # type: ignore[arg-type]

    return made


def questions(count: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return images, np.arange(2 * count, dtype=np.uint64).reshape(count, 2)


def believed(oracle: FarmOracle, count: int) -> tuple[dict[int, Answer], list[TakenBack]]:
    """What a campaign would have stored at the end."""
    stored: dict[int, Answer] = {}
    taken = []
    for one in oracle.arrivals(*questions(count)):
        if isinstance(one, TakenBack):
            taken.append(one)
            assert {index for index, got in stored.items() if got.board == one.board} == one.images
            for index in one.images:
                del stored[index]
        else:
            assert one[0] not in stored
            stored[one[0]] = one[1]
    return stored, taken


def check(graph: Graph, stored: dict[int, Answer], count: int) -> None:
    images, seeds = questions(count)
    truth = reference.run(graph, images, seeds)
    assert sorted(stored) == list(range(count))
    assert all(np.array_equal(stored[index].logits, truth[index]) for index in stored)


def test_every_image_is_answered_once_and_rightly(graph: Graph, make: Made) -> None:
    oracle, engine, told = make(a=Fake(0.001), b=Fake(0.001), c=Fake(0.001))
    assert (oracle.name, oracle.label, oracle.seeded) == ("nucleo_x", "emulated", True)
    stored, taken = believed(oracle, 100)
    check(graph, stored, 100)
    assert not taken
    assert not told
    assert {one.board for one in stored.values()} == {"a", "b", "c"}
    asked = sum(one.asked for one in engine.fakes.values())
    assert asked > 100, "a sample is asked twice"
    assert oracle.stats.requests == asked


def test_in_order_where_order_is_asked_for(graph: Graph, make: Made) -> None:
    oracle, _, _ = make(slow=Fake(0.02), fast=Fake())
    check(graph, dict(enumerate(oracle.logits(*questions(40)))), 40)


def test_a_fast_board_has_more_to_do(make: Made) -> None:
    oracle, engine, _ = make(slow=Fake(0.02), fast=Fake(0.002))
    believed(oracle, 200)
    assert engine.fakes["fast"].asked > 3 * engine.fakes["slow"].asked
    assert oracle.rates["fast"] > 3 * oracle.rates["slow"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Fake(fails_after=0), "unplugged"),
        (Fake(fails_after=7), "unplugged"),
        (Fake(opens=False), "no such port"),
        (Fake(dies=True), "ended 3 workers"),
    ],
)
def test_a_board_that_fails_is_out_and_its_work_done(
    graph: Graph, make: Made, bad: Fake, reason: str
) -> None:
    oracle, _, told = make(bad=bad, good=Fake(0.001), other=Fake(0.001))
    stored, taken = believed(oracle, 60)
    check(graph, stored, 60)
    assert not taken
    assert reason in oracle.quarantined["bad"]
    assert [line for line in told if "bad" in line and reason in line]
    before = bad.asked
    check(graph, believed(oracle, 10)[0], 10)
    assert bad.asked == before, "it stays out"


@pytest.mark.parametrize("after", [0, 10])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_a_board_that_lies_is_caught_and_not_believed(
    graph: Graph, make: Made, after: int, others: int
) -> None:
    fakes = {f"good{i}": Fake(0.001) for i in range(others)}
    oracle, _, _ = make(liar=Fake(0.001, lies_after=after), **fakes)
    if not others:
        with pytest.raises(LinkError, match="no board is left: liar: its logits"):
            believed(oracle, 300)
        return
    stored, taken = believed(oracle, 300)
    check(graph, stored, 300)
    assert [one.board for one in taken] == ["liar"]
    assert "its logits for an image are" in oracle.quarantined["liar"]


def test_an_attack_that_may_have_used_a_lie_stops(make: Made) -> None:
    oracle, _, _ = make(liar=Fake(0.001, lies_after=5), good=Fake(0.001))
    with pytest.raises(LinkError, match="liar gave a wrong answer"):
        list(oracle.logits(*questions(200)))


def test_a_worker_that_does_not_come_back(
    graph: Graph, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(round_, "WORKER_GONE", 0.3)
    monkeypatch.setattr(round_, "_LOOK", 0.05)
    oracle, engine, _ = make(lost=Fake(), there=Fake(0.001))
    engine.gone.add("lost")
    check(graph, believed(oracle, 20)[0], 20)
    assert "gone for 0.3 s" in oracle.quarantined["lost"]


def test_nobody_is_left(make: Made) -> None:
    oracle, _, _ = make(a=Fake(fails_after=3), b=Fake(fails_after=4))
    with pytest.raises(LinkError, match="no board is left: a: unplugged; b: unplugged"):
        believed(oracle, 50)


def test_what_is_no_farm(make: Made) -> None:
    with pytest.raises(UsageError, match="all real or all emulated"):
        make(a=Fake(), b=Fake(emulated=False))
    with pytest.raises(LinkError, match="no such port"):
        make(a=Fake(opens=False))
    with pytest.raises(ClusterError, match="no boards"):
        make()


def test_who_stops_listening_leaves_nothing_under_way(make: Made) -> None:
    oracle, engine, _ = make(a=Fake(0.05), b=Fake(0.05))
    arriving = oracle.arrivals(*questions(50))
    next(arriving)
    arriving.close()
    assert engine.cancelled > 0
    with pytest.raises(BnnmcuError, match="seeds of shape"):
        next(oracle.arrivals(questions(3)[0], questions(2)[1]))
