"""Campaigns: reproducible, resumable after anything, judged on draws nobody crafted on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu import reference
from bnnmcu.attack.campaign import Campaign, Progress, campaign_identity
from bnnmcu.attack.config import CampaignConfig, FgsmConfig, PgdConfig
from bnnmcu.attack.crafting import Crafter
from bnnmcu.attack.metrics import summarize
from bnnmcu.attack.oracle import Answer, DeviceOracle, Oracle, ReferenceOracle
from bnnmcu.attack.seeds import crafting_seed, evaluation_seeds
from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, LinkError, StoreError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import save_graph_bytes
from bnnmcu.link.stats import LinkStats
from bnnmcu.store import Store

CONFIG = CampaignConfig(
    (FgsmConfig(epsilon=0.1, eot_draws=3), PgdConfig(epsilon=0.2, eot_draws=2, steps=3)),
    draws=4,
    chunk=8,
)
# Everything that must not depend on how often a run was interrupted.
CONTENT = (
    "SELECT attack, levels, image, true_label, hex(pixels), sha256, linf, l2, zero_gradients, "
    "crafted_by, draw, seed, hex(logits), label FROM example JOIN query "
    "ON query.example = example.id ORDER BY attack, levels, image, draw"
)


class CountingOracle(ReferenceOracle):
    """Counts what it is asked, and fails after ``limit`` answers."""

    def __init__(self, graph: Graph, limit: int = 10**9) -> None:
        super().__init__(graph)
        self.left = limit
        self.asked: list[tuple[bytes, int]] = []

    def logits(self, images: np.ndarray, seeds: np.ndarray) -> Iterator[Answer]:
        for image, row in zip(images, seeds, strict=True):
            if self.left == 0:
                raise LinkError("the cable was pulled")
            self.left -= 1
            self.asked += [(image.tobytes(), int(seed)) for seed in row]
            yield from super().logits(image[np.newaxis], row[np.newaxis])


def run(
    path: Path, graph: Graph, data: Dataset, oracle: Oracle, config: CampaignConfig = CONFIG
) -> list[Progress]:
    """One session of a run."""
    seen: list[Progress] = []
    with Store.open(path, campaign_identity(config, graph, data, oracle)) as store:
        Campaign(config, graph, data, oracle, store).run(seen.append)
    return seen


def content(path: Path) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(path)
    rows = database.execute(CONTENT).fetchall()
    database.close()
    return rows


@pytest.fixture(scope="module")
def data(blob_data: Dataset) -> Dataset:
    return Dataset(blob_data.name, blob_data.images[:20], blob_data.labels[:20])


@pytest.fixture(scope="module")
def whole(
    trained: dict[str, Graph], data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An uninterrupted run on S."""
    path = tmp_path_factory.mktemp("whole") / "run.db"
    run(path, trained["S"], data, CountingOracle(trained["S"]))
    return path


def test_every_case_image_and_draw_is_there_once(whole: Path) -> None:
    rows = content(whole)
    keys = {(row[0], row[1], row[2], row[10]) for row in rows}
    assert len(rows) == len(keys) == 3 * 20 * 4
    assert {(row[0], row[1]) for row in rows} == {("clean", 0), ("fgsm", 25), ("pgd", 51)}


def test_images_say_which_estimator_made_them(whole: Path) -> None:
    kept: dict[str, set[str | None]] = {}
    for row in content(whole):
        made = json.loads(row[9])
        kept.setdefault(row[0], set()).add(made.get("estimator_kept"))
    assert kept["clean"] == {None}
    assert kept["fgsm"] <= {"identity", "clipped", "tanh"}
    assert len(kept["fgsm"]) > 1
    assert kept["pgd"] == {"tanh"}


def test_answers_are_the_references(whole: Path, trained: dict[str, Graph]) -> None:
    for row in content(whole)[::17]:
        image = np.frombuffer(bytes.fromhex(row[4]), np.uint8).reshape(1, 28, 28, 1)
        seeds = np.array([[int(row[11], 16)]], dtype=np.uint64)
        logits = reference.run(trained["S"], image, seeds)[0, 0]
        assert np.frombuffer(bytes.fromhex(row[12]), "<i8").tolist() == logits.tolist()
        assert row[13] == int(logits.argmax())


@pytest.mark.parametrize("answers_a_session", [9, 20, 33])
def test_a_resumed_run_is_the_uninterrupted_one(
    whole: Path,
    trained: dict[str, Graph],
    data: Dataset,
    tmp_path: Path,
    answers_a_session: int,
) -> None:
    path, asked = tmp_path / "run.db", []
    for _ in range(200):
        oracle = CountingOracle(trained["S"], answers_a_session)
        try:
            run(path, trained["S"], data, oracle)
            break
        except LinkError:
            continue
        finally:
            asked += oracle.asked
    assert content(path) == content(whole)
    # Nothing was asked twice.
    assert len(asked) == len(set(asked)) == 3 * 20 * 4


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(
    whole: Path, trained: dict[str, Graph], data: Dataset, tmp_path: Path, workers: int
) -> None:
    graph, path = trained["S"], tmp_path / "run.db"
    oracle = ReferenceOracle(graph)
    with Store.open(path, campaign_identity(CONFIG, graph, data, oracle)) as store:
        Campaign(CONFIG, graph, data, oracle, store, workers=workers).run()
        with pytest.raises(UsageError, match="0 workers"):
            Campaign(CONFIG, graph, data, oracle, store, workers=0)
    assert content(path) == content(whole)


def test_a_finished_run_asks_and_crafts_nothing(
    whole: Path, trained: dict[str, Graph], data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: Any) -> Any:
        raise AssertionError("crafted again")

    monkeypatch.setattr(Crafter, "_by_gradients", forbidden)
    oracle = CountingOracle(trained["S"], 0)
    seen = run(whole, trained["S"], data, oracle)
    assert oracle.asked == []
    assert {(one.done, one.total) for one in seen if one.stage == "ask"} == {(20, 20)}


def test_a_run_that_dies_while_crafting(
    whole: Path,
    trained: dict[str, Graph],
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "run.db"
    original, crafted = Crafter._by_gradients, []

    def dies(self: Crafter, *arguments: Any) -> Any:
        if len(crafted) == 4:
            raise KeyboardInterrupt
        crafted.append(arguments[-1])
        return original(self, *arguments)

    monkeypatch.setattr(Crafter, "_by_gradients", dies)
    with pytest.raises(KeyboardInterrupt):
        run(path, trained["S"], data, ReferenceOracle(trained["S"]))
    monkeypatch.undo()
    with Store.read(path) as store:
        summary = summarize(store)
        assert not summary.complete
        assert "incomplete" in {flag.code for flag in summary.flags}
    run(path, trained["S"], data, ReferenceOracle(trained["S"]))
    assert content(path) == content(whole)


@pytest.mark.parametrize("stored", [False, True])
def test_an_interrupted_run_knows_what_it_has_stored(
    trained: dict[str, Graph],
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: bool,
) -> None:
    """Whether Ctrl-C comes just before an answer is in the file, or just after."""
    original, calls = Store.add_answer, []

    def interrupted(self: Store, *arguments: Any, **named: Any) -> None:
        calls.append(arguments)
        if len(calls) < 6 or stored:
            original(self, *arguments, **named)
        if len(calls) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "add_answer", interrupted)
    config, oracle = CampaignConfig((), draws=4), ReferenceOracle(trained["S"])
    seen: list[Progress] = []
    path = tmp_path / "run.db"
    with Store.open(path, campaign_identity(config, trained["S"], data, oracle)) as store:
        campaign = Campaign(config, trained["S"], data, oracle, store)
        with pytest.raises(KeyboardInterrupt):
            campaign.run(seen.append)
    assert len(content(path)) == seen[-1].done * 4 == (5 + stored) * 4


KILLED = """
import sys
import time
from pathlib import Path
import numpy as np
from bnnmcu.attack.campaign import Campaign, campaign_identity
from bnnmcu.attack.config import CampaignConfig, FgsmConfig, PgdConfig
from bnnmcu.attack.oracle import ReferenceOracle
from bnnmcu.store import Store
from bnnmcu.data import Dataset
from bnnmcu.graphfile import load_graph

class Slow(ReferenceOracle):
    def logits(self, images, seeds):
        for image, row in zip(images, seeds):
            time.sleep(0.02)
            yield from super().logits(image[None], row[None])

folder = Path(sys.argv[1])
graph = load_graph(folder / "graph.safetensors")
with np.load(folder / "data.npz") as archive:
    data = Dataset("blobs", archive["images"], archive["labels"])
config = {config}
oracle = Slow(graph)
with Store.open(folder / "run.db", campaign_identity(config, graph, data, oracle)) as store:
    Campaign(config, graph, data, oracle, store).run(
        lambda p: print(p.attack, p.stage, p.done, flush=True)
    )
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_kill_9_loses_and_repeats_nothing(
    whole: Path, trained: dict[str, Graph], data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "graph.safetensors").write_bytes(save_graph_bytes(trained["S"]))
    np.savez(tmp_path / "data.npz", images=data.images, labels=data.labels)
    command = [sys.executable, "-c", KILLED.replace("{config}", repr(CONFIG)), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # Killed among the clean answers, then among the adversarial ones.
    for stop in ("clean ask 7", "fgsm ask 12"):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        last = ""
        for last in process.stdout:
            if last.strip() == stop:
                break
        assert last.strip() == stop, "the run ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        process.stdout.close()
        answered = int(stop.split()[-1])
        with Store.read(tmp_path / "run.db") as store:
            case = [one for one in store.judged() if one.attack == stop.split()[0]]
        assert len(case) >= answered
        # The last one too is there with all its draws.
        assert all(len(one.labels) == 4 for one in case)
    oracle = CountingOracle(trained["S"])
    run(tmp_path / "run.db", trained["S"], data, oracle)
    # The clean ones were not asked again, nor those of FGSM answered before.
    assert len(oracle.asked) <= (20 - 12 + 20) * 4
    assert content(tmp_path / "run.db") == content(whole)


def test_seeds_depend_on_their_place_alone() -> None:
    places = [
        (seed, attack, level, image)
        for seed in (1, 2)
        for attack in ("clean", "pgd")
        for level in (0, 25)
        for image in (0, 1)
    ]
    seeds = [int(s) for place in places for s in evaluation_seeds(*place, 20)]
    crafting = [crafting_seed(*place) for place in places]
    assert len(set(seeds + crafting)) == len(places) * 21
    np.testing.assert_array_equal(
        evaluation_seeds(1, "pgd", 25, 3, 20)[:5], evaluation_seeds(1, "pgd", 25, 3, 5)
    )
    assert all(0 <= seed < 2**63 for seed in crafting)


def test_another_configuration_is_refused(
    whole: Path, trained: dict[str, Graph], data: Dataset
) -> None:
    other = CampaignConfig(CONFIG.attacks, draws=5, chunk=8)
    with pytest.raises(StoreError, match=r"config\.draws"):
        run(whole, trained["S"], data, ReferenceOracle(trained["S"]), other)
    wrong = Dataset(data.name, data.images, (data.labels + 1) % 10)
    with pytest.raises(StoreError, match=r"data\.sha256"):
        run(whole, trained["S"], wrong, ReferenceOracle(trained["S"]))
    with pytest.raises(StoreError, match=r"model\.sha256"):
        run(whole, trained["B"], data, ReferenceOracle(trained["B"]))


def test_unfit_data_is_refused(trained: dict[str, Graph], data: Dataset, tmp_path: Path) -> None:
    graph = trained["B"]
    cases = [
        ("shape", data.images[:, :-1], data.labels),
        ("has label .* classes", data.images, data.labels + 5),
        ("no images", data.images[:0], data.labels[:0]),
    ]
    for number, (message, images, labels) in enumerate(cases):
        with pytest.raises(DataError, match=message):
            run(
                tmp_path / f"{number}.db",
                graph,
                Dataset("odd", images, labels),
                ReferenceOracle(graph),
            )


class FakeDevice:
    """Answers as the reference does; may cut logits or stop early."""

    class info:
        board = "toy"

    def __init__(self, graph: Graph, *, stop_after: int = 10**9, classes: int = 10) -> None:
        self.graph, self.stop_after, self.classes = graph, stop_after, classes
        self.closed = False
        self.stats = LinkStats()

    def infer_many(self, requests: Any) -> Iterator[Any]:
        try:
            for number, (image, seeds) in enumerate(requests):
                if number == self.stop_after:
                    return
                wide = np.array([seeds], dtype=np.uint64)
                logits = reference.run(self.graph, image[np.newaxis], wide)[0]
                ticks = np.arange(len(seeds), dtype=np.uint32) + 100
                self.stats.requests += 1
                cut = logits[:, : self.classes]
                yield Answer(cut, ticks, number == 0, seconds=number / 8, attempts=number + 1)
        finally:
            self.closed = True


def test_a_device_is_asked_and_its_counts_kept(
    trained: dict[str, Graph], data: Dataset, tmp_path: Path, whole: Path
) -> None:
    oracle = DeviceOracle(FakeDevice(trained["S"]), label="emulated")
    seen = run(tmp_path / "run.db", trained["S"], data, oracle)
    with Store.read(tmp_path / "run.db") as store:
        summary = summarize(store)
        judged = store.judged()
        rows = list(store.rows())
    # Each case is a stream of its own, which begins to count anew.
    for number, one in enumerate(rows):
        assert {(d.board, d.latency_s, d.attempts) for d in one.draws} == {
            ("toy", number % 20 / 8, number % 20 + 1)
        }
        assert (one.crafting_s is None) == (one.attack == "clean")
    assert {one.board for one in seen} == {"toy"}
    # A report is a copy: the link goes on counting.
    counts = [one.link.requests for one in seen if one.link is not None]
    assert len(counts) == len(seen)
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 60)
    assert summary.identity["oracle"] == {"name": "toy", "label": "emulated"}
    assert [case.ticks for case in summary.cases] == [101, 101, 101]
    # A polluted count is no count.
    assert judged[0].ticks == ()
    assert judged[1].ticks == (100, 101, 102, 103)
    assert content(tmp_path / "run.db") == content(whole)
    with pytest.raises(UsageError, match="hardware"):
        DeviceOracle(FakeDevice(trained["S"]), label="native")


@pytest.mark.parametrize(
    ("options", "message"), [({"stop_after": 5}, "5 answers"), ({"classes": 9}, "shape")]
)
def test_a_device_that_answers_nonsense(
    trained: dict[str, Graph],
    data: Dataset,
    tmp_path: Path,
    options: dict[str, int],
    message: str,
) -> None:
    device = FakeDevice(trained["S"], **options)
    with pytest.raises(LinkError, match=message):
        run(tmp_path / "run.db", trained["S"], data, DeviceOracle(device, label="emulated"))
    assert device.closed


def test_deterministic_networks_are_asked_once(
    trained: dict[str, Graph], data: Dataset, tmp_path: Path
) -> None:
    config = CampaignConfig((), draws=20)
    oracle = CountingOracle(trained["B"])
    run(tmp_path / "run.db", trained["B"], data, oracle, config)
    assert len(oracle.asked) == len(data)


def test_resuming_and_reporting_need_no_torch(whole: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import bnnmcu.attack.campaign\n"
        "from bnnmcu.attack.metrics import summarize; from bnnmcu.store import Store\n"
        "with Store.read(Path(sys.argv[1])) as store: print(summarize(store).complete)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(whole)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.split() == ["True", "False"]


def test_the_summary_is_plain_json(whole: Path) -> None:
    with Store.read(whole) as store:
        summary = summarize(store)
    again = json.loads(json.dumps(summary.to_dict()))
    assert again["complete"] is True
    assert [case["attack"] for case in again["cases"]] == ["clean", "fgsm", "pgd"]
    assert again["cases"][1]["epsilon"] == pytest.approx(25 / 255)
    assert again["cases"][1]["linf"] == 25
    assert again["cases"][0]["mean"]["value"] > 0.8
    assert "randomised" in {flag["code"] for flag in again["flags"]}
