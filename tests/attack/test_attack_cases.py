"""Cases of a campaign: names, targets, adversaries, other models, boards that keep their seeds."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.attack.campaign import Campaign, campaign_identity
from bnnmcu.attack.config import (
    ApgdConfig,
    AttackConfig,
    CampaignConfig,
    Crafted,
    CwConfig,
    FgsmConfig,
    HopSkipJumpConfig,
    JsmaConfig,
    PgdConfig,
    PgdL2Config,
    SquareConfig,
    SubstituteConfig,
)
from bnnmcu.attack.craft import craft
from bnnmcu.attack.oracle import Answer, DeviceOracle, NativeOracle
from bnnmcu.attack.pairs import pair_targets, places_of
from bnnmcu.attack.seeds import candidate_seeds, crafting_seed, evaluation_seeds
from bnnmcu.data import Dataset
from bnnmcu.errors import LinkError, StoreError, UsageError
from bnnmcu.graph import Graph, IntegerConv
from bnnmcu.link.stats import LinkStats
from bnnmcu.store import Store
from bnnmcu.store.rows import Stored

torch = pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.device import choose_device  # noqa: E402
from bnnmcu.attack.twin import IntegerTwin  # noqa: E402

#: Every kind of attack and every adversary, as small as they go.
EVERY: tuple[AttackConfig, ...] = (
    FgsmConfig(epsilon=0.1, adversary="paper", name="one-draw"),
    FgsmConfig(epsilon=0.1, eot_draws=2),
    PgdConfig(epsilon=0.1, steps=3, adversary="seed-known", name="known", images=9),
    PgdConfig(
        epsilon=0.1, steps=2, adversary="seed-chosen", name="chosen", images=5, candidate_seeds=5
    ),
    PgdConfig(epsilon=0.1, steps=2, eot_draws=2, targets="all", images=2, name="all"),
    PgdConfig(epsilon=0.1, steps=2, targets="pairs", adversary="seed-known", name="both", images=5),
    PgdL2Config(epsilon=1.5, steps=2, adversary="seed-known", images=5),
    ApgdConfig(epsilon=0.1, steps=3, adversary="paper", images=9),
    CwConfig(iterations=3, eot_draws=2, images=9),
    JsmaConfig(gamma=0.01, adversary="seed-chosen", candidate_seeds=3, images=5),
    CwConfig(iterations=3, adversary="seed-known", images=3, name="cw-known"),
    SquareConfig(epsilon=0.2, budget=20, images=7, chunk=3),
    SquareConfig(
        epsilon=0.2, budget=20, images=4, chunk=3, adversary="seed-known", name="square-known"
    ),
    SubstituteConfig(epsilon=0.1, held_out=4, rounds=2, epochs=1, images=5),
)
if find_spec("art"):
    EVERY += (HopSkipJumpConfig(budget=60, first_batch=5, images=3, chunk=2),)
DRAWS = 3
CONTENT = (
    "SELECT attack, levels, image, target, true_label, hex(pixels), linf, l2, zero_gradients, "
    "crafted_by, draw, seed, hex(logits) FROM example JOIN query "
    "ON query.example = example.id ORDER BY attack, levels, image, target, draw"
)


class Stopping:
    """The native twin, which fails after so many answers, and counts them."""

    label = "native"
    stats = None
    seeded = True

    def __init__(self, native: NativeOracle, limit: int = 10**9) -> None:
        self._native, self.name, self.left, self.given = native, native.name, limit, 0

    def logits(self, images: np.ndarray, seeds: np.ndarray) -> Iterator[Answer]:
        for answer in self._native.logits(images, seeds):
            if self.given == self.left:
                raise LinkError("the cable was pulled")
            self.given += 1
            yield answer


@pytest.fixture(scope="module")
def native(trained: dict[str, Graph]) -> NativeOracle:
    return NativeOracle(trained["S"])


@pytest.fixture(scope="module")
def data(blob_data: Dataset) -> Dataset:
    return Dataset(blob_data.name, blob_data.images[:20], blob_data.labels[:20])


def config_of(*attacks: AttackConfig) -> CampaignConfig:
    return CampaignConfig(attacks, draws=DRAWS, chunk=4)


def run(
    path: Path, graph: Graph, data: Dataset, oracle: Any, config: CampaignConfig, **more: Any
) -> None:
    """One session of a run."""
    with Store.open(path, campaign_identity(config, graph, data, oracle, **more)) as store:
        Campaign(config, graph, data, oracle, store, **more).run()


def content(path: Path) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(path)
    rows = database.execute(CONTENT).fetchall()
    database.close()
    return rows


def stored(path: Path) -> dict[str, list[Stored]]:
    """By case."""
    found: dict[str, list[Stored]] = {}
    with Store.read(path) as store:
        for one in store.rows():
            found.setdefault(one.attack, []).append(one)
    return found


@pytest.fixture(scope="module")
def whole(
    trained: dict[str, Graph],
    data: Dataset,
    native: NativeOracle,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An uninterrupted run of every kind and adversary."""
    path = tmp_path_factory.mktemp("whole") / "run.db"
    run(path, trained["S"], data, native, config_of(*EVERY))
    return path


def test_every_case_is_judged_as_its_configuration_says(whole: Path, data: Dataset) -> None:
    cases = stored(whole)
    assert list(cases) == ["clean", *(attack.case for attack in EVERY)]
    for attack in EVERY:
        found = cases[attack.case]
        wanted = [(one.image, one.target) for one in places_of(attack, data, 10)]
        assert [(one.image, one.target) for one in found] == wanted
        assert {len(one.draws) for one in found} == {1 if attack.knows_seed else DRAWS}
        made = [json.loads(one.crafted_by) for one in found]
        assert {one["attack"] for one in made} == {attack.kind}
        assert {"saturated" in one for one in made} == {attack.needs == "gradients"}
        if attack.needs == "queries":
            assert all(1 <= one["queries"] <= attack.budget for one in made)  # type: ignore[attr-defined]
        for one in found:
            pixels = np.frombuffer(one.pixels, np.uint8).astype(int)
            change = pixels - data.images[one.image].ravel()
            assert one.linf == np.abs(change).max()
            assert one.l2 == pytest.approx(np.linalg.norm(change) / 255)
    assert len(cases["all"]) == 2 * 9


def test_who_knows_or_chooses_a_seed_is_judged_with_it(whole: Path) -> None:
    cases = stored(whole)
    for attack in EVERY:
        for one in cases[attack.case]:
            made = json.loads(one.crafted_by)
            seeds = [draw.seed for draw in one.draws]
            place = (1, attack.case, attack.levels, one.image)
            fresh = [f"{s:016x}" for s in evaluation_seeds(*place, DRAWS, target=one.target)]
            if not attack.knows_seed:
                assert (seeds, "seeds" in made) == (fresh, False)
            elif attack.adversary == "seed-known":
                assert seeds == made["seeds"] == fresh[:1]
            else:
                offered = candidate_seeds(*place, attack.candidate_seeds, target=one.target)
                assert seeds == made["seeds"]
                assert int(seeds[0], 16) in offered.tolist()


@pytest.mark.parametrize(("answers", "chunks"), [(170, 10**9), (230, 6)])
def test_a_killed_run_ends_as_one_that_was_not(
    whole: Path,
    trained: dict[str, Graph],
    data: Dataset,
    native: NativeOracle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: int,
    chunks: int,
) -> None:
    """Killed while it asks (and queries), or as chunks are stored, or both."""
    path, original, left = tmp_path / "run.db", Store.add_examples, [0]

    def add(self: Store, *arguments: Any, **named: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        original(self, *arguments, **named)

    monkeypatch.setattr(Store, "add_examples", add)
    stopped = 0
    while True:
        left[0] = chunks
        try:
            run(path, trained["S"], data, Stopping(native, answers), config_of(*EVERY))
            break
        except (LinkError, KeyboardInterrupt):
            stopped += 1
            assert stopped < 100, "a session gets nowhere"
    assert stopped > 2
    assert content(path) == content(whole)
    # What is stored is not asked again: a session loses the queries of one chunk at most.
    oracle = Stopping(native)
    run(path, trained["S"], data, oracle, config_of(*EVERY))
    assert oracle.given == 0


def test_pairs_fill_every_cell_evenly() -> None:
    labels = np.arange(540, dtype=np.int64) % 10
    targets = pair_targets(labels, 10)
    assert Counter(zip(labels.tolist(), targets.tolist(), strict=True)) == {
        (a, b): 6 for a in range(10) for b in range(10) if a != b
    }
    # More images change nothing of the first ones, and what is uneven is so by one.
    np.testing.assert_array_equal(pair_targets(labels[:77], 10), targets[:77])
    odd = np.array([0, 0, 2, 0, 1, 1, 0, 0], dtype=np.int64)
    assert pair_targets(odd, 3).tolist() == [1, 2, 0, 1, 2, 0, 2, 1]


def test_targets_need_other_labels_and_training_needs_images(data: Dataset) -> None:
    with pytest.raises(UsageError, match="one class only"):
        places_of(CwConfig(), data, 1)
    with pytest.raises(UsageError, match="trains on 20 images, and there are 20"):
        places_of(SubstituteConfig(epsilon=0.1, held_out=20), data, 10)


def test_gradients_of_another_model(
    trained: dict[str, Graph], data: Dataset, native: NativeOracle, tmp_path: Path
) -> None:
    other, graph = IntegerTwin(trained["B"]), trained["S"]
    attack = FgsmConfig(epsilon=0.2, model="other", images=8)
    config = config_of(attack)
    with pytest.raises(UsageError, match="gradients of 'other', and there is no such model"):
        campaign_identity(config, graph, data, native)
    path = tmp_path / "run.db"
    run(path, graph, data, native, config, models={"other": other})
    made = [one.pixels for one in stored(path)["fgsm"]]
    for chunk in range(2):
        part = slice(4 * chunk, 4 * chunk + 4)
        seed = crafting_seed(1, "fgsm", attack.levels, chunk)
        alone = craft(other, attack, data.images[part], data.labels[part], seed)
        assert made[part] == [one.tobytes() for one in alone.images]
    # Whether its numbers are the same is looked at; a model that nobody uses is not.
    run(path, graph, data, native, config, models={"other": other, "unused": other})
    changed = IntegerTwin(trained["B"])
    changed.steps[0].weights[0, 0, 0, 0] += 1  # type: ignore[operator, index, union-attr]
    first, *others = trained["B"].nodes
    assert isinstance(first, IntegerConv)
    moved = replace(trained["B"], nodes=(replace(first, padding=(2, 3, 4, 3)), *others))
    for different in (changed, IntegerTwin(replace(trained["B"], name="b")), IntegerTwin(moved)):
        identity = campaign_identity(config, graph, data, native, {"other": different})
        with pytest.raises(StoreError, match=r"models\.other"):
            Store.open(path, identity)


def test_a_model_for_other_images_is_refused(
    trained: dict[str, Graph],
    data: Dataset,
    native: NativeOracle,
    random_graph: Any,
    tmp_path: Path,
) -> None:
    config = config_of(FgsmConfig(epsilon=0.2, model="odd"))
    with pytest.raises(UsageError, match="odd takes images of"):
        run(
            tmp_path / "run.db",
            trained["S"],
            data,
            native,
            config,
            models={"odd": IntegerTwin(random_graph(1))},
        )


class FieldBoard:
    """Draws for itself: of the seeds it is told, only the number counts."""

    class info:
        board = "sealed"
        field = True

    def __init__(self, native: NativeOracle) -> None:
        self.native, self.stats = native, LinkStats()

    def infer_many(self, requests: Any) -> Iterator[Any]:
        for number, (image, seeds) in enumerate(requests):
            own = np.arange(len(seeds), dtype=np.uint64) + np.uint64(100 * number)
            yield from self.native.logits(image[np.newaxis], own[np.newaxis])


def test_a_board_that_keeps_its_seeds(
    trained: dict[str, Graph], data: Dataset, native: NativeOracle, tmp_path: Path
) -> None:
    oracle = DeviceOracle(FieldBoard(native), label="emulated")
    path = tmp_path / "run.db"
    run(path, trained["S"], data, oracle, config_of(FgsmConfig(epsilon=0.1, images=3)))
    draws = [draw for case in stored(path).values() for one in case for draw in one.draws]
    assert {draw.seed for draw in draws} == {"unknown"}
    assert len(draws) == (20 + 3) * DRAWS
    known = config_of(PgdConfig(epsilon=0.1, steps=1, adversary="seed-known"))
    with pytest.raises(UsageError, match="sealed draws for itself"):
        run(tmp_path / "other.db", trained["S"], data, oracle, known)


def test_without_draws_every_adversary_is_the_same(
    trained: dict[str, Graph], data: Dataset, tmp_path: Path
) -> None:
    names = ("paper", "eot", "seed-known", "seed-chosen")
    attacks = [
        PgdConfig(epsilon=0.1, steps=2, images=3, adversary=name, name=name, random_start=False)
        for name in names
    ]
    path = tmp_path / "run.db"
    run(path, trained["B"], data, NativeOracle(trained["B"]), config_of(*attacks))
    cases = stored(path)
    for name in names:
        assert [one.pixels for one in cases[name]] == [one.pixels for one in cases["paper"]]
        assert {len(one.draws) for one in cases[name]} == {1}


@pytest.mark.parametrize("seeds", [None, [], ["zz"], [5], "00", ["1" * 17], ["1", "2"]])
def test_a_seed_that_was_altered_is_not_judged_with(
    trained: dict[str, Graph], data: Dataset, native: NativeOracle, tmp_path: Path, seeds: Any
) -> None:
    config = config_of(FgsmConfig(epsilon=0.1, adversary="seed-known", images=2))
    path = tmp_path / "run.db"
    with pytest.raises(LinkError):
        run(path, trained["S"], data, Stopping(native, 21), config)
    database = sqlite3.connect(path)
    (text,) = database.execute(
        "SELECT crafted_by FROM example WHERE attack = 'fgsm' AND image = 1"
    ).fetchone()
    changed = json.dumps(json.loads(text) | {"seeds": seeds})
    database.execute(
        "UPDATE example SET crafted_by = ? WHERE attack = 'fgsm' AND image = 1", (changed,)
    )
    database.commit()
    database.close()
    with pytest.raises(StoreError, match=r"image 1 .fgsm. does not say with which seed"):
        run(path, trained["S"], data, native, config)


def test_what_an_attack_tells_is_stored_as_plain_numbers(
    trained: dict[str, Graph],
    data: Dataset,
    native: NativeOracle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"queries": np.int64(3), "constant": float("nan"), "l2_before": np.float64(0.5)}

    def crafted(_: Any, __: Any, images: np.ndarray, *___: Any, **____: Any) -> Crafted:
        return Crafted(images, np.zeros(len(images)), details=(told,) * len(images))

    monkeypatch.setattr("bnnmcu.attack.crafting.craft", crafted)
    path = tmp_path / "run.db"
    run(path, trained["S"], data, native, config_of(FgsmConfig(epsilon=0.1, images=1)))
    made = json.loads(stored(path)["fgsm"][0].crafted_by)
    assert (made["queries"], made["l2_before"], "constant" in made) == (3, 0.5, False)


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="device 'tpu' is unknown"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UsageError, match="no CUDA device"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
    # Or the integer twin would not be exact.
    assert not torch.backends.cudnn.allow_tf32
