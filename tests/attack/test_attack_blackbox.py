"""Black-box attacks: how strong they are, that they repeat themselves, and what they refuse."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from blackbox_rig import (
    IMAGE,
    TAKES_ART,
    Counting,
    Scripted,
    asked,
    attacked,
    constant,
    distance,
    oracle_of,
    right,
    some,
)

from bnnmcu import reference
from bnnmcu.attack.blackbox import craft_queries
from bnnmcu.attack.config import (
    HopSkipJumpConfig,
    PgdConfig,
    SquareConfig,
    SubstituteConfig,
)
from bnnmcu.attack.square import square_side
from bnnmcu.data import Dataset
from bnnmcu.errors import MissingDependencyError, UsageError
from bnnmcu.graph import Graph

pytest.importorskip("torch", reason="the networks are trained")


# Square


def test_the_published_schedule_of_squares() -> None:
    steps = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 8001, 9999]
    sides = [square_side(0.8, step, 10_000, (28, 28)) for step in steps]
    shares = [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 512, 512]
    assert sides == [round((0.8 * 784 / share) ** 0.5) for share in shares]
    assert square_side(1.0, 0, 10, (8, 5)) == 4
    assert square_side(1e-6, 0, 10, (8, 5)) == 1


SQUARES = [
    ("B", SquareConfig(epsilon=0.2, budget=60)),
    ("S", SquareConfig(epsilon=0.4, budget=100)),
    ("S", SquareConfig(epsilon=0.4, budget=101, votes=3, confirm=2, recheck=2)),
]


@pytest.mark.parametrize(("kind", "attack"), SQUARES)
def test_square_keeps_its_budgets_repeats_itself_and_beats_noise(
    trained: dict[str, Graph], blob_data: Dataset, kind: str, attack: SquareConfig
) -> None:
    graph, oracle = trained[kind], Counting(trained[kind])
    crafted = attacked(graph, blob_data, attack, oracle=oracle)
    change = crafted.images.astype(np.int16) - blob_data.images
    assert np.abs(change).max() <= attack.levels
    queries = np.array([one["queries"] for one in crafted.details])
    assert queries.max() <= attack.budget
    assert queries.sum() == oracle.draws
    # All images of the chunk are in one question.
    assert oracle.calls < oracle.draws / 10
    assert np.array_equal(crafted.images, attacked(graph, blob_data, attack).images)
    assert not np.array_equal(crafted.images, attacked(graph, blob_data, attack, seed=2).images)
    rng = np.random.default_rng(1)
    signs = attack.levels * rng.choice([-1, 1], blob_data.images.shape)
    noise = np.clip(blob_data.images + signs, 0, 255).astype(np.uint8)
    before = right(graph, noise, blob_data.labels).mean()
    after = right(graph, crafted.images, blob_data.labels)
    assert after.mean() < before - 0.3
    found = np.array([one["found"] for one in crafted.details])
    assert after[found].mean() < 0.4
    assert after[~found].mean() > after[found].mean()


def test_square_on_draws_is_stronger_than_as_published(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    ours = SquareConfig(epsilon=0.4, budget=150)
    published = replace(ours, recheck=0, confirm=0)
    left = {}
    for attack in (ours, published):
        crafted = attacked(trained["S"], blob_data, attack)
        left[attack.confirm] = right(trained["S"], crafted.images, blob_data.labels).mean()
        if attack is published:
            # It stops at one lucky draw, and calls that success.
            assert np.mean([one["found"] for one in crafted.details]) > 0.9
    assert left[10] < left[0] - 0.1


def test_square_reaches_targets(trained: dict[str, Graph], blob_data: Dataset) -> None:
    attack = SquareConfig(epsilon=0.5, budget=150)
    targets = (blob_data.labels + 3) % 10
    crafted = attacked(trained["B"], blob_data, attack, targets=targets)
    hits = right(trained["B"], crafted.images, targets)
    found = np.array([one["found"] for one in crafted.details])
    assert np.array_equal(hits == 1, found)
    assert found.mean() > 0.3


def test_square_without_a_budget_in_pixels_changes_and_asks_nothing(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    oracle = Counting(trained["B"])
    crafted = attacked(trained["B"], blob_data, SquareConfig(epsilon=0.0), oracle=oracle)
    assert np.array_equal(crafted.images, blob_data.images)
    assert oracle.draws == 0


@TAKES_ART
@pytest.mark.parametrize("steps", [10, 40])
def test_square_is_as_strong_as_arts(
    trained: dict[str, Graph], blob_data: Dataset, steps: int
) -> None:
    """ART asks three times a step; steps are compared, on a network without draws."""
    from art.attacks.evasion import SquareAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    graph, oracle = trained["B"], oracle_of(trained["B"])
    images = np.concatenate([blob_data.images, 255 - blob_data.images])
    labels = reference.argmax(reference.run(graph, images))[:, 0]
    data = Dataset("blobs and negatives", images, labels)

    def predict(x: np.ndarray) -> np.ndarray:
        pixels = np.rint(255 * x).astype(np.uint8)
        seeds = np.zeros((len(pixels), 1), dtype=np.uint64)
        return np.concatenate([one.logits for one in oracle.logits(pixels, seeds)]).astype(float)

    classifier = BlackBoxClassifierNeuralNetwork(
        predict, (28, 28, 1), 10, channels_first=False, clip_values=(0.0, 1.0)
    )
    np.random.seed(1)
    theirs = SquareAttack(classifier, eps=51 / 255, max_iter=steps, p_init=0.8, verbose=False)
    x = theirs.generate((images / 255.0).astype(np.float32), labels)
    ours = attacked(graph, data, SquareConfig(epsilon=0.2, budget=steps))
    accuracy = [
        right(graph, pixels, labels).mean()
        for pixels in (ours.images, np.rint(255 * x).astype(np.uint8))
    ]
    # Three standard errors of the difference of two shares of 80 images.
    assert abs(accuracy[0] - accuracy[1]) < 0.2
    assert accuracy[0] < accuracy[1] + 0.05


# HopSkipJump


@TAKES_ART
def test_hopskipjump_shrinks_the_distortion_within_its_budget(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    graph, data = trained["B"], some(blob_data, 6)
    oracle = Counting(graph)
    np.random.seed(3)
    before = np.random.get_state()[1]
    lengths = {}
    for budget in (60, 400):
        attack = HopSkipJumpConfig(budget=budget, first_batch=30)
        crafted = attacked(graph, data, attack, oracle=oracle)
        lengths[budget] = distance(crafted, data).mean()
        assert not right(graph, crafted.images, data.labels).any()
        assert all(one["found"] and one["queries"] <= budget for one in crafted.details)
        again = attacked(graph, data, attack)
        assert np.array_equal(crafted.images, again.images)
    assert lengths[400] < 0.8 * lengths[60]
    assert np.array_equal(before, np.random.get_state()[1])
    # Single questions of all images go together.
    assert oracle.calls < oracle.draws / 25


@TAKES_ART
def test_votes_and_confirmation_help_hopskipjump(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    graph, data = trained["S"], some(blob_data, 8)
    plain = HopSkipJumpConfig(budget=500)
    votes = HopSkipJumpConfig(budget=500, votes=3, first_batch=20, confirm=4, overshoot=2.0)
    left = {}
    for attack in (plain, votes):
        crafted = attacked(graph, data, attack)
        assert all(one["queries"] <= 500 for one in crafted.details)
        left[attack.votes] = right(graph, crafted.images, data.labels).mean()
    assert left[1] > 0.5
    assert left[3] < left[1] - 0.3


@TAKES_ART
def test_hopskipjump_reaches_targets(trained: dict[str, Graph], blob_data: Dataset) -> None:
    graph, data = trained["B"], some(blob_data, 4)
    targets = (data.labels + 1) % 4
    attack = HopSkipJumpConfig(budget=300, first_batch=30)
    crafted = attacked(graph, data, attack, targets=targets)
    assert (right(graph, crafted.images, targets) == 1).all()
    other = data.images[[int(np.flatnonzero(data.labels == t)[0]) for t in targets]]
    start = np.sqrt(((other - data.images.astype(np.float64)) ** 2).sum((1, 2, 3))) / 255
    assert (distance(crafted, data) < start).all()


@TAKES_ART
def test_hopskipjump_gives_the_image_back_where_nothing_fools_the_network(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    data = Dataset("two", blob_data.images[:2], np.array([1, 1]))
    answers = Scripted(lambda _, seeds: np.eye(10, dtype=np.int64)[np.ones(len(seeds), int)])
    crafted = attacked(trained["B"], data, HopSkipJumpConfig(), oracle=answers)
    assert np.array_equal(crafted.images, data.images)
    assert not any(one["found"] for one in crafted.details)


@TAKES_ART
def test_hopskipjump_never_takes_the_clean_image_for_a_success(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    """A network that is wrong about everything lets the search run into the clean image."""
    data = Dataset("two", blob_data.images[:2], np.array([1, 1]))
    wrong = Scripted(lambda _, seeds: np.eye(10, dtype=np.int64)[np.zeros(len(seeds), int)])
    crafted = attacked(trained["S"], data, HopSkipJumpConfig(budget=300), oracle=wrong)
    assert all(one["found"] for one in crafted.details)
    assert (distance(crafted, data) > 0).all()


def test_without_art_the_message_says_what_to_install(
    trained: dict[str, Graph], blob_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "art"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "art", None)
    oracle = Counting(trained["B"])
    with pytest.raises(MissingDependencyError, match="Toolbox") as error:
        attacked(trained["B"], some(blob_data, 2), HopSkipJumpConfig(), oracle=oracle)
    assert "bnnmcu[blackbox]" in str(error.value)
    assert oracle.draws == 0


# Substitute


@pytest.mark.parametrize("kind", ["B", "S"])
@pytest.mark.parametrize("variant", ["corrected", "as-published"])
def test_a_substitute_agrees_and_transfers(
    trained: dict[str, Graph], blob_data: Dataset, kind: str, variant: Any
) -> None:
    graph, oracle = trained[kind], Counting(trained[kind])
    attack = SubstituteConfig(epsilon=0.4, held_out=30, rounds=3, variant=variant)
    training = Dataset("held out", blob_data.images[10:], blob_data.labels[10:])
    data = some(blob_data, 10)
    crafted = attacked(
        graph, data, attack, oracle=oracle, training=(training.images, training.labels)
    )
    told = crafted.details[0]
    assert told["queries"] == attack.inferences == oracle.draws
    assert told["agreement"] > 0.8
    assert np.abs(crafted.images.astype(np.int16) - data.images).max() <= attack.levels
    rng = np.random.default_rng(1)
    signs = attack.levels * rng.choice([-1, 1], data.images.shape)
    noise = np.clip(data.images + signs, 0, 255).astype(np.uint8)
    assert (
        right(graph, crafted.images, data.labels).mean()
        < right(graph, noise, data.labels).mean() - 0.25
    )
    again = attacked(graph, data, attack, training=(training.images, training.labels))
    assert np.array_equal(crafted.images, again.images)
    assert told["agreement"] == again.details[0]["agreement"]


def test_both_augmentations_do_what_they_say(blob_data: Dataset) -> None:
    import torch

    from bnnmcu.attack.substitute import Substitute, _augmented, _augmented_as_published

    model = Substitute((28, 28, 1), 10, torch.Generator().manual_seed(1))
    images, labels = blob_data.images[:4], blob_data.labels[:4]
    # By finite differences of the label's probability, where they are clear.
    x = (images / 255.0).astype(np.float32)
    moved = _augmented(model, images, labels, 0.1)
    assert np.array_equal(moved[:4], images)
    probability = [
        torch.softmax(model(torch.from_numpy(given))[0], -1)[torch.arange(4), labels]
        for given in (x, (moved[4:] / 255.0).astype(np.float32))
    ]
    assert bool((probability[1] > probability[0]).all())
    change = np.abs(moved[4:].astype(np.int16) - images)
    assert set(np.unique(change[(images > 26) & (images < 229)])) <= {25, 26}

    published = _augmented_as_published(model, images, labels, 0.1)
    # Images 1 and 3 of both copies are left; images 0 and 2 of the first are not.
    for place, original in ((1, 1), (3, 3), (5, 1), (7, 3)):
        assert np.array_equal(published[place], images[original])
    assert np.array_equal(published[0], moved[4])
    assert np.array_equal(published[2], moved[5])
    # Place 2 held the moved image 1 already when it was moved along the gradient of image 2.
    far = np.abs(published[4].astype(np.int16) - images[2]).max()
    assert far > 26


def test_pgd_on_the_substitute_and_votes(trained: dict[str, Graph], blob_data: Dataset) -> None:
    training = (blob_data.images[20:], blob_data.labels[20:])
    attack = SubstituteConfig(epsilon=0.4, held_out=20, rounds=2, votes=3, gradient="pgd")
    crafted = attacked(trained["S"], some(blob_data, 20), attack, training=training)
    assert crafted.details[0]["queries"] == 20 * 2 * 3
    assert all(one["substitute_fooled"] for one in crafted.details)


# What is refused

REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: SquareConfig(epsilon=1.5), "between 0 and 1"),
    (lambda: SquareConfig(epsilon=0.1, answers="label"), "works on answers"),
    (lambda: SquareConfig(epsilon=0.1, budget=4, votes=5), "exceeds the budget"),
    (lambda: SquareConfig(epsilon=0.1, adversary="seed-chosen"), "seed-known"),
    (lambda: SquareConfig(epsilon=0.1, adversary="seed-known", votes=2), "seed is known"),
    (lambda: HopSkipJumpConfig(adversary="seed-known", votes=3), "seed is known"),
    (lambda: SquareConfig(epsilon=0.1, model="other"), "'model'"),
    (lambda: HopSkipJumpConfig(overshoot=2.0), "'confirm'"),
    (lambda: HopSkipJumpConfig(probe=0.0), "probe"),
    (lambda: SubstituteConfig(epsilon=0.3, budget=4799), "4800 inferences"),
    (lambda: SubstituteConfig(epsilon=0.3, adversary="seed-known"), "its own seed"),
    (lambda: SubstituteConfig(epsilon=0.3, variant="new"), "variant"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "word"), REFUSED)
def test_settings_that_cannot_be(make: Callable[[], object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        make()


def test_a_substitutes_cost_is_known_before() -> None:
    assert SubstituteConfig(epsilon=0.3, votes=2).inferences == 9600
    assert SubstituteConfig(epsilon=0.3, variant="as-published").inferences == 4650


@pytest.mark.parametrize(
    ("attack", "more", "word"),
    [
        (PgdConfig(epsilon=0.1), {}, "no oracle"),
        (SubstituteConfig(epsilon=0.1), {}, "training"),
        (SubstituteConfig(epsilon=0.1), {"training": (IMAGE, np.zeros(1, int))}, "not 150"),
        (SquareConfig(epsilon=0.1), {"images": IMAGE.astype(float)}, "uint8"),
        (SquareConfig(epsilon=0.1), {"labels": np.array([3])}, "labels"),
        (SquareConfig(epsilon=0.1), {"targets": np.array([0])}, "own label"),
        (SquareConfig(epsilon=0.1), {"seed": -1}, "seed"),
        (SquareConfig(epsilon=0.1), {"query": {"budget": None}}, "budget"),
        pytest.param(
            HopSkipJumpConfig(budget=50, confirm=10, overshoot=2.0), {}, "60", marks=TAKES_ART
        ),
    ],
)
def test_what_crafting_refuses(attack: Any, more: dict[str, Any], word: str) -> None:
    settings = {
        "budget": getattr(attack, "budget", 1),
        "answers": getattr(attack, "answers", "label"),
    }
    query = asked(Scripted(constant(0)), images=1, **(settings | more.pop("query", {})))
    given: dict[str, Any] = {
        "images": IMAGE,
        "labels": np.array([0]),
        "targets": None,
        "seed": 1,
    }
    with pytest.raises(UsageError, match=word):
        craft_queries(query, attack, **(given | more))
    assert not query.queries.any()
