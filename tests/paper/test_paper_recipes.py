"""What a recipe decides, and that its digest knows all of it; no torch is needed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bnnmcu.errors import UsageError
from bnnmcu.nn.config import PaperConfig
from bnnmcu.nn.training_config import AdversarialConfig, TrainingConfig
from bnnmcu.paper import recipes
from bnnmcu.paper.recipes import Trainable

_PGD = AdversarialConfig("pgd", 10, "paper", 0.3, 0.01, 20)


@pytest.mark.parametrize(
    ("trainable", "name", "key"),
    [
        (Trainable("B", 64), "B64", "B64-clean-best-1"),
        (Trainable("B", 64, "fgsm", "paper"), "B64+", "B64-fgsm-paper-1"),
        (Trainable("A", 256, "pgd20", seed=4), "A256+", "A256-pgd20-best-4"),
        (Trainable("A", 64, "pgd40"), "A64+*", "A64-pgd40-best-1"),
        (Trainable("S", 64, "pgd20-long"), "S64+*", "S64-pgd20-long-best-1"),
        (Trainable("C", 64, dataset="cifar10"), "C64", "C64-cifar10-clean-best-1"),
        (Trainable("S", 32, form="frozen"), "S32 (frozen)", "S32-frozen-clean-best-1"),
    ],
)
def test_names(trainable: Trainable, name: str, key: str) -> None:
    assert (trainable.name, trainable.key) == (name, key)


# Written out, so that no recipe changes unnoticed.
_EXPECTED: list[tuple[Trainable, PaperConfig, TrainingConfig]] = [
    (
        Trainable("B", 64, "clean", "best", 3),
        PaperConfig("B", 64, "mnist", "clipped", 0.01),
        TrainingConfig(10, 3e-3, 128, 3, 0, 1),
    ),
    (
        Trainable("A", 64, "clean", "best"),
        PaperConfig("A", 64, "mnist", "clipped", 0.01),
        TrainingConfig(10, 1e-3, 128, 1, 0, 1),
    ),
    (
        Trainable("S", 64, "clean", "best"),
        PaperConfig("S", 64, "mnist", "clipped", 0.01),
        TrainingConfig(15, 2e-3, 128, 1, 0, 1),
    ),
    (
        Trainable("S", 64, "clean", "paper"),
        PaperConfig("S", 64, "mnist", "identity", 0.001),
        TrainingConfig(45, 1e-3, 128, 1, 0, 1, schedule="constant", statistics="recomputed"),
    ),
    (
        Trainable("C", 64, "fgsm", "best"),
        PaperConfig("C", 64, "mnist", "clipped", 0.01),
        TrainingConfig(15, 2e-3, 128, 1, 0, 1, AdversarialConfig("fgsm", 10)),
    ),
    (
        Trainable("S", 64, "pgd20", "best"),
        PaperConfig("S", 64, "mnist", "clipped", 0.01),
        TrainingConfig(15, 2e-3, 128, 1, 0, 1, _PGD),
    ),
    (
        Trainable("A", 64, "pgd40", "paper"),
        PaperConfig("A", 64, "mnist", "identity", 0.001),
        TrainingConfig(
            15, 1e-3, 128, 1, 0, 1, dataclasses.replace(_PGD, iterations=40), schedule="constant"
        ),
    ),
    (
        Trainable("S", 64, "pgd20-long", "paper"),
        PaperConfig("S", 64, "mnist", "identity", 0.001),
        TrainingConfig(
            40,
            1e-3,
            128,
            1,
            0,
            1,
            dataclasses.replace(_PGD, after=0),
            schedule="constant",
            statistics="recomputed",
        ),
    ),
    (
        Trainable("C", 64, "fgsm", "paper", 1, "cifar10"),
        PaperConfig("C", 64, "cifar10", "identity", 0.001),
        TrainingConfig(
            20,
            1e-3,
            128,
            1,
            0,
            1,
            AdversarialConfig("fgsm", 10),
            schedule="constant",
            label_smoothing=0.1,
            statistics="recomputed",
        ),
    ),
]


@pytest.mark.parametrize(
    ("trainable", "network", "training"), _EXPECTED, ids=[case[0].key for case in _EXPECTED]
)
def test_recipes(trainable: Trainable, network: PaperConfig, training: TrainingConfig) -> None:
    assert trainable.network() == network
    assert trainable.training() == training


def test_every_field_changes_key_and_digest() -> None:
    base = Trainable("S", 64)
    changes: dict[str, Any] = {
        "kind": "B",
        "filters": 65,
        "regimen": "fgsm",
        "recipe": "paper",
        "seed": 2,
        "dataset": "cifar10",
        "form": "frozen",
    }
    assert changes.keys() == {field.name for field in dataclasses.fields(Trainable)}
    others = [base, *(dataclasses.replace(base, **{name: v}) for name, v in changes.items())]
    assert len({t.key for t in others}) == len(others)
    assert len({t.digest("00") for t in others}) == len(others)
    assert base.digest("00") == Trainable("S", 64).digest("00") != base.digest("01")


@pytest.mark.parametrize(
    ("constant", "value"),
    [
        ("_EPOCHS", {"mnist": 16}),
        ("_PAPER_RATE", 2e-3),
        ("_PAPER_MOMENTUM", 0.01),
        ("_PAPER_SMOOTHING", {"mnist": 0.1}),
    ],
)
def test_a_changed_recipe_is_another_training(
    constant: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainable = Trainable("B", 64, recipe="paper")
    before = trainable.digest("00")
    monkeypatch.setattr(recipes, constant, value)
    assert trainable.digest("00") != before


def test_what_is_at_its_default_is_left_out() -> None:
    """So that manifests, checkpoints and digests of before these settings stay what they were."""
    assert TrainingConfig().to_dict() == {
        "epochs": 15,
        "learning_rate": 1e-3,
        "batch_size": 128,
        "seed": 1234,
        "first_image": 0,
        "threads": 1,
    }
    assert PaperConfig("S").to_dict() == {
        "kind": "S",
        "filters": 64,
        "dataset": "mnist",
        "ste": "clipped",
        "bn_momentum": 0.01,
    }
    unusual = TrainingConfig(schedule="constant", label_smoothing=0.1).to_dict()
    assert (unusual["schedule"], unusual["label_smoothing"]) == ("constant", 0.1)
    assert PaperConfig("S", form="frozen").to_dict()["form"] == "frozen"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "D"}, "unknown network 'D'"),
        ({"regimen": "pgd30"}, "unknown regimen"),
        ({"recipe": "ours"}, "unknown recipe"),
        ({"dataset": "svhn"}, "unknown data set"),
        ({"form": "soft"}, "unknown form"),
        ({"form": "frozen"}, "is one of S, not of B"),
        ({"filters": 0}, "filters must be 1 to 4096"),
        ({"filters": True}, "filters must be 1 to 4096"),
        ({"filters": 4097}, "filters must be 1 to 4096"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"seed": 2**31}, "seed must be 0 to"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Trainable(**{"kind": "B", "filters": 64, **change})
