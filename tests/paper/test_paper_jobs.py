"""Jobs and protocols, as far as no trained network is needed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.compiler import to_graph
from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, DoesNotFitError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.modelfile import ModelFile
from bnnmcu.paper.jobs import Job, settings_of
from bnnmcu.paper.measure import MEASURES, emulated, job
from bnnmcu.paper.measure.substitute import withheld_last
from bnnmcu.paper.recipes import Trainable

B64 = Trainable("B", 64)
S64 = Trainable("S", 64)


def test_a_job_is_known_by_all_that_decides_its_figures() -> None:
    plain = job(B64, "fgsm")
    assert plain.id("t", "0") == job(B64, "fgsm", temperature=1, eps=[0.1, 0.2, 0.3]).id("t", "0")
    others = [
        job(replace(B64, seed=2), "fgsm"),
        job(replace(B64, recipe="paper"), "fgsm"),
        job(replace(B64, regimen="pgd20"), "fgsm"),
        job(B64, "fgsm", temperature=4),
        job(B64, "fgsm", loss="dlr"),
        job(B64, "fgsm", images=10),
        job(B64, "clean"),
    ]
    numbers = [plain.id("t", "0"), plain.id("u", "0"), plain.id("t", "1")]
    numbers += [one.id("t", "0") for one in others]
    assert len(set(numbers)) == len(numbers)
    assert all(len(number) == 16 and int(number, 16) >= 0 for number in numbers)


def test_the_digest_of_a_job_is_of_canonical_json() -> None:
    one = job(S64, "cw", pairs=None)
    text = json.dumps(
        {**one.what(), "data": {"name": "t", "sha256": "0"}},
        sort_keys=True,
        separators=(",", ":"),
    )
    assert one.id("t", "0") == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert one.what()["settings"]["pairs"] is None
    assert one.what()["model"]["name"] == "S64"
    assert json.loads(json.dumps(one.what())) == one.what()


@pytest.mark.parametrize(
    ("trainable", "measure", "settings", "message"),
    [
        (B64, "fsgm", {}, "unknown measure"),
        (B64, "fgsm", {"epsilon": 0.1}, "no setting 'epsilon'"),
        (B64, "fgsm", {"images": 0}, "'images' cannot be 0"),
        (B64, "fgsm", {"draws": None}, "'draws' cannot be None"),
        (B64, "fgsm", {"draws": True}, "'draws' cannot be True"),
        (B64, "fgsm", {"eps": ()}, "'eps' cannot be"),
        (B64, "fgsm", {"eps": (0.1, "0.2")}, "cannot be '0.2'"),
        (B64, "fgsm", {"eps": (1.5,)}, "1.5"),
        (B64, "fgsm", {"estimator": "exact"}, "exact"),
        (B64, "fgsm", {"temperature": float("nan")}, "JSON"),
        (B64, "cw", {"preset": "weak"}, "unknown preset"),
        (B64, "substitute", {"variant": "mine"}, "unknown variant"),
        (B64, "emulated", {"attack": "jsma"}, "no emulated board"),
        (Trainable("A", 64), "emulated", {}, "not for A64"),
        (B64, "clean", {"planes": 2}, "no bit-planes"),
        (S64, "clean", {"planes": 1}, "2 to 8 are possible"),
    ],
)
def test_no_job_that_could_not_be_done(
    trainable: Trainable, measure: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        job(trainable, measure, **settings)


def test_settings_of_a_job_are_in_order() -> None:
    with pytest.raises(UsageError, match="not in order"):
        Job(B64, "fgsm", (("b", 1), ("a", 2)))
    with pytest.raises(UsageError, match="whole number"):
        Job(B64, "fgsm", settings_of({"a": 1.5})).whole("a")
    with pytest.raises(UsageError, match="no numbers"):
        Job(B64, "fgsm", settings_of({"a": (1, "b")})).numbers("a")
    with pytest.raises(UsageError, match="no setting"):
        Job(B64, "fgsm").setting("a")


# What the protocols say, not what the code happens to do: a default that is changed
# elsewhere must be changed here, and the protocol's number raised.
_PAPER_FGSM = {"estimator": "identity", "adversary": "paper", "label": "prediction", "loss": "ce"}
_PAPER_CW = {
    "confidence": 0.0,
    "initial_constant": 10.0,
    "search_steps": 1,
    "learning_rate": 0.1,
    "iterations": 100,
    "early_abort": True,
    "judge": "step",
    "estimator": "identity",
    "adversary": "paper",
    "step_draws": 1,
    "targets": "pairs",
}
_ADAPTIVE_CW = {
    "confidence": 5.0,
    "search_steps": 3,
    "early_abort": False,
    "restart_stuck": True,
    "judge": "fresh",
    "success": "all",
    "adversary": "eot",
}


@pytest.mark.parametrize(
    ("wanted", "count", "fields"),
    [
        (job(B64, "fgsm"), 3, [_PAPER_FGSM | {"levels": n} for n in (25, 51, 76)]),
        (job(S64, "fgsm", eot_draws=10), 3, [{"adversary": "eot", "step_draws": 10}] * 3),
        (job(S64, "cw"), 1, [_PAPER_CW]),
        (job(B64, "cw", iterations=1000, pairs=None), 1, [{"iterations": 1000, "targets": "all"}]),
        (
            job(S64, "cw", preset="adaptive"),
            1,
            [_ADAPTIVE_CW | {"estimator": "strongest", "step_draws": 10, "fresh_draws": 30}],
        ),
        (job(B64, "cw", preset="adaptive"), 1, [_ADAPTIVE_CW | {"step_draws": 1}]),
        (job(Trainable("A", 64), "cw", preset="adaptive"), 1, [{"estimator": "identity"}]),
        (job(S64, "pgd_adaptive"), 6, [{"estimator": "strongest", "step_draws": 10}] * 6),
        (job(B64, "pgd_adaptive"), 6, [{"losses": ("ce", "dlr"), "step_draws": 1}] * 6),
        (
            job(B64, "substitute"),
            1,
            [
                {
                    "variant": "corrected",
                    "label": "true",
                    "held_out": 150,
                    "rounds": 6,
                    "epochs": 10,
                    "step": 0.1,
                    "levels": 76,
                    "gradient": "fgsm",
                }
            ],
        ),
        (
            job(B64, "substitute", variant="as-published"),
            1,
            [{"variant": "as-published", "label": "prediction"}],
        ),
        (job(B64, "emulated"), 1, [_PAPER_FGSM | {"levels": 25}]),
        (job(S64, "emulated", attack="cw"), 1, [_PAPER_CW]),
    ],
    ids=lambda value: value.measure if isinstance(value, Job) else "",
)
def test_the_protocols(wanted: Job, count: int, fields: list[dict[str, Any]]) -> None:
    found = MEASURES[wanted.measure].attacks(wanted)
    assert len(found) == count
    for attack, expected in zip(found, fields, strict=True):
        assert {name: getattr(attack, name) for name in expected} == expected


def test_the_withheld_images_train_and_are_not_attacked() -> None:
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.arange(100) % 10).astype(np.int64)
    images = rng.integers(0, 256, (100, 2, 2, 1), dtype=np.uint8)
    test_data = Dataset("mixed", images, labels)
    moved = withheld_last(test_data, 30, None)
    assert np.array_equal(moved.images[-30:], test_data.images[:30])
    assert np.array_equal(moved.labels[:70], test_data.labels[30:])
    few = withheld_last(test_data, 30, 20)
    assert len(few) == 50
    assert np.array_equal(np.bincount(few.labels[:20]), np.full(10, 2))
    assert np.array_equal(few.images[-30:], test_data.images[:30])
    order = np.argsort(test_data.labels, kind="stable")
    in_order = Dataset("sorted", test_data.images[order], test_data.labels[order])
    with pytest.raises(DataError, match="3 of its 10"):
        withheld_last(in_order, 30, None)
    with pytest.raises(DataError, match="100 images"):
        withheld_last(test_data, 100, None)


def random_graph_of(filters: int) -> Graph:
    """An untrained B."""
    from bnnmcu.nn.paper import build

    network = Trainable("B", filters).network()
    state = {name: value.numpy() for name, value in build(network, 1).state_dict().items()}
    manifest = {"architecture": "paper", "network": network.to_dict()}
    return to_graph(ModelFile(Path("B.pt"), manifest, state))


def test_the_first_board_that_the_network_fits(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    wide = random_graph_of(64)
    project = emulated.project_of(wide, ("stm32vldiscovery", "nucleo_f446re"), tmp_path)
    assert project.board.name == "nucleo_f446re"
    with pytest.raises(DoesNotFitError):
        emulated.project_of(wide, ("stm32vldiscovery",), tmp_path)


def test_asking_for_jobs_needs_no_torch() -> None:
    program = "import sys, bnnmcu.paper.measure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
