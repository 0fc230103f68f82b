"""What a gradient step stands: no numbers, known draws, saturation, batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnnmcu import reference
from bnnmcu.attack.config import Crafted, FgsmConfig, PgdConfig
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph

torch = pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.adversaries import choose_seed, craft_knowing  # noqa: E402
from bnnmcu.attack.fgsm import fgsm  # noqa: E402
from bnnmcu.attack.gradient import saturated  # noqa: E402
from bnnmcu.attack.oracle import FloatOracle  # noqa: E402
from bnnmcu.attack.pgd import pgd  # noqa: E402
from bnnmcu.attack.twin import IntegerTwin  # noqa: E402


def craft(
    graph: Graph | IntegerTwin,
    data: Dataset,
    attack: FgsmConfig | PgdConfig,
    seed: int = 1,
    **more: Any,
) -> Crafted:
    """Run either attack."""
    twin = graph if isinstance(graph, IntegerTwin) else IntegerTwin(graph)
    if isinstance(attack, FgsmConfig):
        return fgsm(twin, data.images, data.labels, attack=attack, seed=seed, **more)
    return pgd(twin, data.images, data.labels, attack=attack, seed=seed, **more)


def accuracy(graph: Graph, images: np.ndarray, labels: np.ndarray, draws: int = 5) -> float:
    """Share of right answers, by the reference, on draws that crafting never saw."""
    seeds = np.arange(len(images) * draws, dtype=np.uint64).reshape(-1, draws) + np.uint64(10**9)
    answers = reference.argmax(reference.run(graph, images, seeds))
    return float((answers == labels[:, np.newaxis]).mean())


class Broken(IntegerTwin):
    """Spoils image 3: its logits are no numbers, or its gradient is none."""

    spoil = "logits"

    def forward(self, x: Any, draws: Any = None, estimator: Any = None) -> Any:
        logits = super().forward(x, draws, estimator)
        wrong = torch.zeros_like(logits)
        # The root of 0 is 0, and its slope is infinite: times 0 that is no number.
        wrong[:, 3] = torch.nan if self.spoil == "logits" else (0.0 * x[3]).sum().sqrt()
        return logits + wrong


@pytest.mark.parametrize("spoil", ["logits", "gradient"])
@pytest.mark.parametrize(
    "attack",
    [FgsmConfig(epsilon=0.1), PgdConfig(epsilon=0.1, steps=4, random_start=False)],
    ids=["fgsm", "pgd"],
)
def test_what_is_not_finite_is_replaced_counted_and_stays_where_it_was(
    trained: dict[str, Graph], blob_data: Dataset, attack: FgsmConfig | PgdConfig, spoil: str
) -> None:
    model = Broken(trained["B"])
    model.spoil = spoil
    crafted, sound = craft(model, blob_data, attack), craft(trained["B"], blob_data, attack)
    for i, (one, other) in enumerate(zip(crafted.images, sound.images, strict=True)):
        if i != 3:
            np.testing.assert_array_equal(one, other)
    assert [one.get("non_finite", 0) for one in crafted.details] == [0, 0, 0, 1] + [0] * 36
    # It went somewhere all the same, and no further than allowed.
    assert np.abs(crafted.images[3].astype(int) - blob_data.images[3]).max() == attack.levels
    assert crafted.zero_gradients[3] == 0


def test_a_draw_without_numbers_has_no_say_in_a_choice(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    class Hole(IntegerTwin):
        """One draw of those that choose gives no number."""

        def forward(self, x: Any, draws: Any = None, estimator: Any = None) -> Any:
            logits = super().forward(x, draws, estimator)
            return logits if x.requires_grad else logits.index_fill(0, torch.tensor(1), torch.nan)

    attack = FgsmConfig(epsilon=0.1, label="true", eot_draws=3)
    chosen = craft(Hole(trained["S"]), blob_data, attack)
    # The first of equals is the identity: were a hole fatal, all would be equal.
    assert len(set(chosen.estimators)) > 1
    told = [one["success_after"] for one in chosen.details]
    # One of three draws never fools.
    assert 0 < max(told) <= 2 / 3


@pytest.mark.parametrize(
    "attack",
    [FgsmConfig(epsilon=0.1), PgdConfig(epsilon=0.1, steps=10, restarts=2)],
    ids=["fgsm", "pgd"],
)
def test_known_draws_are_the_only_ones(
    trained: dict[str, Graph],
    blob_data: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    attack: FgsmConfig | PgdConfig,
) -> None:
    graph, labels = trained["S"], blob_data.labels
    seeds = np.array([7], dtype=np.uint64)
    fresh = craft(graph, blob_data, attack)
    monkeypatch.setattr(IntegerTwin, "sample", lambda *_: pytest.fail("drew others"))
    known = craft(graph, blob_data, attack, draws=IntegerTwin(graph).draws_of_seeds(seeds))

    def right(crafted: Crafted) -> int:
        wide = np.broadcast_to(seeds, (len(labels), 1))
        answers = reference.argmax(reference.run(graph, crafted.images, wide))[:, 0]
        return int((answers == labels).sum())

    assert right(known) < right(fresh)
    # What was chosen was judged on these draws too, so its success is known exactly.
    told = sum(one["success_after"] for one in known.details)
    if isinstance(attack, PgdConfig):
        assert told == len(labels) - right(known)


def test_several_temperatures_see_through_scaled_logits(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    """Cross-entropy of huge logits has no gradient, until it is taken of smaller ones."""
    masked = replace(trained["B"], logit_scale=1e4 * trained["B"].logit_scale)
    x = blob_data.images
    assert saturated(IntegerTwin(masked), x, None).mean() > 0.9
    assert not saturated(IntegerTwin(trained["B"]), x, None).all()
    attack = FgsmConfig(epsilon=0.1, label="true")
    one = craft(masked, blob_data, attack)
    several = craft(masked, blob_data, replace(attack, temperatures=(1.0, 1e4)))
    assert one.zero_gradients.mean() > 0.5
    assert several.zero_gradients.mean() < 0.1
    assert (
        accuracy(masked, several.images, blob_data.labels)
        < accuracy(masked, one.images, blob_data.labels) - 0.2
    )


def test_images_are_computed_in_batches_that_change_nothing(
    trained: dict[str, Graph], blob_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = FgsmConfig(epsilon=0.1)
    whole = craft(trained["B"], blob_data, attack)
    monkeypatch.setattr("bnnmcu.attack.fgsm._BATCH", 17)
    parts = craft(trained["B"], blob_data, attack)
    np.testing.assert_array_equal(parts.images, whole.images)
    assert (parts.estimators, parts.details) == (whole.estimators, whole.details)


@pytest.mark.parametrize("target", [None, 4])
def test_the_chosen_seed_is_the_one_that_fools_most(
    trained: dict[str, Graph], blob_data: Dataset, target: int | None
) -> None:
    graph, seeds = trained["S"], np.arange(20, dtype=np.uint64)
    image, label = blob_data.images[:1], int(blob_data.labels[0])
    logits = reference.run(graph, image, seeds[np.newaxis])[0]
    reach = np.delete(logits, label, 1).max(1) if target is None else logits[:, target]
    leave = logits[:, label] if target is None else np.delete(logits, target, 1).max(1)
    chosen = choose_seed(IntegerTwin(graph), image, label, target, seeds)
    assert chosen == int((reach - leave).argmax())


def test_who_knows_the_seed_attacks_that_very_draw(
    trained: dict[str, Graph], blob_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(*_: Any) -> Any:
        raise AssertionError("a fresh draw")

    drawn, original = [], IntegerTwin.draws_of_seeds

    def spy(self: IntegerTwin, seeds: Any) -> Any:
        drawn.append(seeds.tolist())
        return original(self, seeds)

    monkeypatch.setattr(IntegerTwin, "sample", fresh)
    monkeypatch.setattr(IntegerTwin, "draws_of_seeds", spy)
    seeds = [np.array([k + 7], dtype=np.uint64) for k in range(3)]
    attack = PgdConfig(epsilon=0.1, steps=2, adversary="seed-known")
    images, labels = blob_data.images[:3], blob_data.labels[:3]
    made = craft_knowing(
        IntegerTwin(trained["S"]), attack, images, labels, None, seeds=seeds, crafting=[1, 2, 3]
    )
    assert drawn == [[7], [8], [9]]
    assert [one["seeds"] for one in made.details] == [[f"{k:016x}"] for k in (7, 8, 9)]


@pytest.mark.parametrize("kind", ["B", "S"])
def test_a_float_oracle_answers_as_its_model_and_always_the_same(
    trained: dict[str, Graph], blob_data: Dataset, kind: str
) -> None:
    oracle = FloatOracle(IntegerTwin(trained[kind]))
    images = blob_data.images[:6]
    seeds = np.arange(18, dtype=np.uint64).reshape(6, 3) * np.uint64(2**60 + 1)
    first = np.stack([one.logits for one in oracle.logits(images, seeds)])
    again = np.stack([one.logits for one in oracle.logits(images[::-1], seeds[::-1])])[::-1]
    np.testing.assert_array_equal(first, again)
    assert first.shape == (6, 3, 10)
    assert first.dtype == np.int64
    assert len({one.tobytes() for one in first[0]}) == (3 if kind == "S" else 1)
    if kind == "B":
        exact = reference.run(trained[kind], images, seeds) * trained[kind].logit_scale
        np.testing.assert_allclose(first / 2**16, exact, atol=2**-17)
    assert (first.argmax(-1) == blob_data.labels[:6, np.newaxis]).mean() > 0.8


def test_a_float_oracle_refuses_what_is_no_number(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    class Spoiled(IntegerTwin):
        def forward(self, x: Any, draws: Any = None, estimator: Any = None) -> Any:
            logits = super().forward(x, draws, estimator)
            return logits * (torch.nan if bool((x == 1.0).any()) else 1.0)

    images = blob_data.images[:3].clip(0, 254)
    images[2, 0, 0, 0] = 255
    answers = FloatOracle(Spoiled(trained["B"])).logits(images, np.zeros((3, 1), np.uint64))
    with pytest.raises(UsageError, match="image 2: a logit is not finite"):
        list(answers)
