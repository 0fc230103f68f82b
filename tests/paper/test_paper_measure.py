"""Measures, held against what can be computed in another way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need_emulator, need_toolchain

from bnnmcu import reference
from bnnmcu.attack.config import FgsmConfig
from bnnmcu.attack.oracle import Answer, NativeOracle
from bnnmcu.compiler import compile_file
from bnnmcu.data import Dataset
from bnnmcu.errors import (
    MismatchFoundError,
    ModelFileError,
    StoreError,
    UsageError,
)
from bnnmcu.evaluate import draw_seeds, evaluation_of
from bnnmcu.modelfile import read_model, write_model
from bnnmcu.network import Conv
from bnnmcu.paper.jobs import Job
from bnnmcu.paper.measure import emulated, job, run, subject
from bnnmcu.paper.measure.floats import FloatRun
from bnnmcu.paper.measure.setup import Setup, answered
from bnnmcu.paper.measure.subject import load_subject, without_chance
from bnnmcu.paper.recipes import Trainable
from bnnmcu.passes import lower
from bnnmcu.reference import argmax
from bnnmcu.store import Store

_FILTERS = 4


def job_of(kind: str, measure: str, **settings: Any) -> Job:
    return job(Trainable(kind, _FILTERS), measure, **settings)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Blocks at ten places, one a class, dim and noisy: what four filters can learn."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(1280) % 10).astype(np.int64)
    images = rng.integers(0, 90, (1280, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 2 + 13 * (label % 2), 1 + 5 * (label // 2)
        image[row : row + 12, column : column + 5] += 100
    return Dataset("blocks", images, labels)


@pytest.fixture(scope="module")
def test_data(data: Dataset) -> Dataset:
    return Dataset("blocks, last", data.images[-100:], data.labels[-100:])


@pytest.fixture(scope="module")
def models(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small A, B and S, trained for a moment."""
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    from bnnmcu.nn.training import save_net, train

    folder = tmp_path_factory.mktemp("models")
    found = {}
    for kind in "ABS":
        trainable = Trainable(kind, _FILTERS)
        training = replace(trainable.training(), epochs=2, learning_rate=0.01, batch_size=32)
        found[kind] = folder / f"{kind}.pt"
        save_net(found[kind], train(trainable.network(), training, data))
    return found


def measured(
    wanted: Job, models: dict[str, Path], test: Dataset, work: Path, **more: Any
) -> dict[str, Any]:
    result = run(wanted, model=models[wanted.trainable.kind], test=test, work=work, **more)
    assert result.seconds > 0
    assert (result.graph_sha256 is None) == (wanted.trainable.kind == "A")
    return dict(result.values)


def test_clean_error_of_integers_is_the_references(
    models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    graph, few = compile_file(models["S"]).graph, test_data.stratified(10)
    answers = reference.run(graph, few.images, draw_seeds(1, 0, 10, 3))
    wanted = evaluation_of(graph, few, argmax(answers), 1)
    # The twin by another way: weights of +-1 have probabilities of exactly 0 and 1.
    model = read_model(models["S"])
    tensors = dict(model.tensors)
    tensors["conv3.weight"] = np.where(tensors["conv3.weight"] >= 0, 1.0, -1.0).astype(np.float32)
    write_model(tmp_path / "sign.pt", model.manifest, tensors)
    certain = compile_file(tmp_path / "sign.pt").graph
    labels = argmax(reference.run(certain, few.images, draw_seeds(9, 0, 10, 1)))[:, 0]

    values = measured(job_of("S", "clean", draws=3, images=10), models, test_data, tmp_path)

    assert 0 < wanted.error < 1
    assert values == {
        "error": wanted.error,
        "error_sd_draws": wanted.spread,
        "majority_error": wanted.majority_error,
        "worst_error": wanted.worst_error,
        "twin_error": float((labels != few.labels).mean()),
        "images": 10,
        "draws": 3,
    }


def test_without_chance_nothing_is_drawn(models: dict[str, Path]) -> None:
    network = load_subject(models["S"], Trainable("S", _FILTERS)).network
    assert lower(network).graph.stochastic
    twin = without_chance(network)
    assert not lower(twin).graph.stochastic
    weights = read_model(models["S"]).tensors["conv3.weight"]
    (drawn,) = [op.weights for op in twin.ops if op.name == "conv3" and isinstance(op, Conv)]
    assert np.array_equal(drawn, np.where(weights >= 0, 1.0, -1.0))


def test_fgsm_on_the_full_precision_network(
    models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    import torch

    from bnnmcu.nn.training import load_net

    net = load_net(read_model(models["A"])).eval()
    clean = torch.from_numpy(test_data.images).permute(0, 3, 1, 2).float()
    x = (clean / 255).requires_grad_()
    logits = net(x)
    torch.nn.functional.cross_entropy(logits, logits.argmax(-1)).backward()
    assert x.grad is not None
    attacked = (clean + 25 * x.grad.sign()).clip(0, 255) / 255
    labels = torch.from_numpy(test_data.labels)
    logits = logits.detach()
    spread = (logits.amax(-1) - logits.amin(-1)).mean()

    values = measured(job_of("A", "fgsm", eps=[0.1]), models, test_data, tmp_path)

    assert values["clean_accuracy"] == float((logits.argmax(-1) == labels).double().mean())
    assert values["accuracy@0.1"] == float((net(attacked).argmax(-1) == labels).double().mean())
    assert values["accuracy@0.1"] < values["clean_accuracy"]
    clean_error = measured(job_of("A", "clean"), models, test_data, tmp_path)["error"]
    assert clean_error == pytest.approx(1 - values["clean_accuracy"])
    assert values["logit_spread"] == pytest.approx(float(spread), abs=1e-3)
    assert values["logit_sd"] == pytest.approx(
        float(logits.std(-1, unbiased=False).mean()), abs=1e-3
    )


def test_figures_of_integers_are_of_stored_pixels(
    models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    wanted = job_of("B", "fgsm", eps=[0.1, 0.3], images=10, seed=5)
    values = measured(wanted, models, test_data, tmp_path, keep=True)
    graph = compile_file(models["B"]).graph
    (path,) = tmp_path.glob(f"{wanted.id_on(test_data)}*.sqlite")
    with Store.read(path) as store:
        rows = list(store.rows())
        assert store.identity["config"]["seed"] == 5
    for name, levels in (("clean_accuracy", 0), ("accuracy@0.1", 25), ("accuracy@0.3", 76)):
        pixels = [row.example(graph.input_shape).pixels for row in rows if row.levels == levels]
        labels = [row.true_label for row in rows if row.levels == levels]
        answers = reference.run(graph, np.stack(pixels), draw_seeds(0, 0, 10, 1))
        assert values[name] == (argmax(answers)[:, 0] == labels).mean()
        assert max(row.linf for row in rows if row.levels == levels) == levels
    assert values["images"] == 10
    # As the measure has it, nothing large stays.
    measured(wanted, models, test_data, tmp_path)
    assert not list(tmp_path.glob(f"{wanted.id_on(test_data)}*"))


@pytest.mark.parametrize("kind", ["A", "S"])
def test_cw_counts_what_it_did_not_change(
    kind: str, models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    settings = {"iterations": 20, "pairs": 40, "draws": 5}
    values = measured(job_of(kind, "cw", **settings), models, test_data, tmp_path)
    assert 0 < values["found"] <= 1
    # A failure gives the image back: nothing but what was found is at a distance.
    assert values["mean_l2"] * values["found"] == pytest.approx(values["mean_l2_all"])
    assert values["unchanged"] >= 1 - values["found"] - 1e-9
    assert values["low"] <= values["accuracy"] <= values["high"]
    assert values["target_hit"] + values["accuracy"] <= 1
    assert (values["pairs"], values["draws"]) == (40, 5 if kind == "S" else 1)


@pytest.mark.parametrize("kind", ["A", "B"])
def test_the_stronger_attack_is_told(
    kind: str, models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    settings = {"images": 20, "steps": 3, "eps": [0.1], "pgd_temperatures": [1.0]}
    values = measured(job_of(kind, "pgd_adaptive", **settings), models, test_data, tmp_path)
    both = values["fgsm_accuracy@0.1"], values["pgd_accuracy@0.1"]
    assert values["accuracy@0.1"] == min(both) < values["clean_accuracy"]


def test_random_starts_are_repeated(
    models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    settings = {"images": 10, "steps": 1, "eps": [0.1], "pgd_temperatures": [1.0]}
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        wanted = job_of("A", "pgd_adaptive", **settings, seed=seed)
        measured(wanted, models, test_data, tmp_path / name)
        (path,) = (tmp_path / name).glob("*/pgd-25-*.npz")
        with np.load(path) as archive:
            found.append(archive["images"])
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_bit_planes_make_another_network(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiling what nobody asks takes seconds.
    monkeypatch.setattr(subject, "NativeOracle", lambda graph: None)
    trainable = Trainable("S", _FILTERS)
    usual, two, four = (
        load_subject(models["S"], trainable, planes=planes).sha256 for planes in (None, 2, 4)
    )
    assert usual == four != two


class _Stop(Exception):
    pass


@pytest.mark.parametrize("kind", ["A", "S"])
def test_a_killed_run_ends_as_one_that_was_not(
    kind: str, models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    wanted = job_of(kind, "fgsm", images=60, chunk=20, eps=[0.1, 0.2])
    whole = measured(wanted, models, test_data, tmp_path / "whole")
    seen = []

    def stop(text: str, done: int, total: int) -> None:
        seen.append(text)
        if text == "crafting fgsm 51/255" and done >= 40:
            raise _Stop

    with pytest.raises(_Stop):
        measured(wanted, models, test_data, tmp_path, progress=stop)
    made: list[str] = []
    again = measured(
        wanted, models, test_data, tmp_path, progress=lambda text, *_: made.append(text)
    )
    assert again == whole
    assert "crafting fgsm 25/255" in seen


def test_chunks_are_not_made_twice_and_damage_is_told(
    models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    wanted = job_of("A", "fgsm", images=40, chunk=20, eps=[0.1])
    whole = measured(wanted, models, test_data, tmp_path, keep=True)
    chunks = sorted(tmp_path.glob("*/fgsm-25-*.npz"))
    assert len(chunks) == 2
    before = [path.stat().st_mtime_ns for path in chunks]
    assert measured(wanted, models, test_data, tmp_path, keep=True) == whole
    assert [path.stat().st_mtime_ns for path in chunks] == before
    # What an earlier sitting took counts.
    with np.load(chunks[1]) as archive:
        slow = dict(archive) | {"seconds": np.array(1e6)}
    np.savez(chunks[1], **slow)
    again = run(wanted, model=models["A"], test=test_data, work=tmp_path, keep=True)
    assert (again.values, again.seconds > 1e6) == (whole, True)
    chunks[0].write_bytes(chunks[0].read_bytes()[:100])
    with pytest.raises(StoreError, match="damaged") as caught:
        measured(wanted, models, test_data, tmp_path)
    assert caught.value.where == str(chunks[0])


def test_a_float_run_is_for_float_networks_only(
    models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    from bnnmcu.attack.config import CampaignConfig

    whole = load_subject(models["B"], Trainable("B", _FILTERS))
    with pytest.raises(UsageError, match="run a campaign"):
        FloatRun(whole, CampaignConfig(attacks=()), test_data, tmp_path)
    knowing = FgsmConfig(epsilon=0.1, adversary="seed-known")
    real = load_subject(models["A"], Trainable("A", _FILTERS))
    with pytest.raises(UsageError, match="knows seeds"):
        FloatRun(real, CampaignConfig(attacks=(knowing,)), test_data, tmp_path)


def test_another_network_is_refused(
    models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    wanted = job(Trainable("S", 8, recipe="paper"), "clean")
    with pytest.raises(ModelFileError, match="filters 4 instead of 8, ste 'clipped' instead of"):
        run(wanted, model=models["S"], test=test_data, work=tmp_path)


@pytest.mark.parametrize("kind", ["A", "S"])
@pytest.mark.parametrize(("variant", "queries"), [("corrected", 60), ("as-published", 30)])
def test_substitute(
    kind: str,
    variant: str,
    queries: int,
    models: dict[str, Path],
    test_data: Dataset,
    tmp_path: Path,
) -> None:
    settings = {"withheld": 30, "rounds": 2, "epochs": 2, "images": 40, "variant": variant}
    wanted = job_of(kind, "substitute", **settings)
    values = measured(wanted, models, test_data, tmp_path)
    assert values["queries"] == queries
    assert (values["attacked"], values["images"]) == (40, 70)
    assert 0 <= values["accuracy"] <= 1
    assert values["unchanged"] == 0


class _Wrong:
    """An oracle of which one logit of one image is one too large."""

    label = "emulated"
    stats = None
    seeded = True
    name = "a board with a flaw"

    def __init__(self, inner: NativeOracle) -> None:
        self._inner = inner
        self._left = 5

    def logits(self, images: Any, seeds: Any) -> Iterator[Answer]:
        for answer in self._inner.logits(images, seeds):
            self._left -= 1
            if self._left == 0:
                logits = answer.logits.copy()
                logits[0, 3] += 1
                answer = replace(answer, logits=logits)
            yield answer


@pytest.mark.parametrize(("flawed", "differing"), [(False, 0), (True, 1)])
def test_every_logit_of_a_board_is_compared(
    flawed: bool, differing: int, models: dict[str, Path], test_data: Dataset, tmp_path: Path
) -> None:
    wanted = job_of("S", "emulated", images=10, draws=3)
    network = load_subject(models["S"], wanted.trainable)
    assert network.graph is not None
    inner = NativeOracle(network.graph)
    oracle: Any = _Wrong(inner) if flawed else inner
    setup = Setup(wanted, network, test_data, tmp_path / "it", "cpu", 1, lambda *_: None)
    answers = answered(
        setup, emulated.attacks(wanted), test_data.stratified(10), draws=3, oracle=oracle
    )
    assert answers.store is not None
    assert setup.earlier == []
    answered(setup, emulated.attacks(wanted), test_data.stratified(10), draws=3, oracle=oracle)
    assert len(setup.earlier) == 1
    assert setup.earlier[0] > 0
    assert emulated.compare_stored(answers.store, network.graph) == (600, differing)


def test_a_sample_on_an_emulated_board(
    models: dict[str, Path],
    test_data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_toolchain("gcc")
    need_emulator("qemu")
    tight = {"images": 3, "draws": 2, "boards": ["mps2_an386"]}
    values = measured(job_of("S", "emulated", **tight), models, test_data, tmp_path)
    assert (values["logits"], values["differing_logits"]) == (3 * 2 * 2 * 10, 0)
    assert values["board"] == "mps2_an386"
    assert "(emulated)" in values["emulator"]
    assert values["compiler"].startswith("gcc ")
    # A difference is no figure: it stops everything. Everything is stored by now.
    monkeypatch.setattr(emulated, "compare_stored", lambda *_: (120, 2))
    with pytest.raises(MismatchFoundError, match="2 of 120 logits"):
        measured(job_of("S", "emulated", **tight), models, test_data, tmp_path)
