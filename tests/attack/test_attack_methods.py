"""FGSM and PGD: budget, grid, reproducibility, strength, and what they refuse."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnnmcu import reference
from bnnmcu.attack.config import (
    CampaignConfig,
    Crafted,
    Estimator,
    FgsmConfig,
    PgdConfig,
    SquareConfig,
    levels,
)
from bnnmcu.attack.interrupts import held_interrupts
from bnnmcu.data import Dataset
from bnnmcu.errors import UnsupportedModelError, UsageError
from bnnmcu.graph import Graph, Threshold

torch = pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.fgsm import fgsm  # noqa: E402
from bnnmcu.attack.losses import attack_loss  # noqa: E402
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


@pytest.mark.parametrize(
    ("epsilon", "wanted"),
    [(0, 0), (0.1, 25), (0.2, 51), (0.3, 76), (1, 255), (8 / 255, 8), (0.5, 127), (1 / 255, 1)],
)
def test_levels(epsilon: float, wanted: int) -> None:
    assert levels(epsilon) == wanted


def test_every_whole_number_of_levels_is_kept() -> None:
    assert [levels(k / 255) for k in range(256)] == list(range(256))


ATTACKS: list[FgsmConfig | PgdConfig] = [
    FgsmConfig(epsilon=0.1),
    FgsmConfig(epsilon=0.3, label="true", loss="margin", estimator="tanh"),
    FgsmConfig(epsilon=0.0),
    FgsmConfig(epsilon=0.2, estimator="identity"),
    PgdConfig(epsilon=0.2, steps=3, eot_draws=2),
    PgdConfig(epsilon=0.1, steps=2, restarts=2, loss="dlr", estimator="clipped", eot_draws=2),
    PgdConfig(epsilon=0.3, steps=2, random_start=False, eot_draws=1, step_levels=255),
    PgdConfig(epsilon=0.0, steps=1, eot_draws=1),
    PgdConfig(epsilon=0.2, steps=2, eot_draws=2, estimator="strongest"),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: f"{a.kind}-{a.epsilon}")
@pytest.mark.parametrize("kind", ["B", "S"])
def test_budget_grid_and_range(
    trained: dict[str, Graph], blob_data: Dataset, kind: str, attack: FgsmConfig | PgdConfig
) -> None:
    crafted = craft(trained[kind], blob_data, attack)
    assert crafted.images.dtype == np.uint8
    assert crafted.images.shape == blob_data.images.shape
    change = np.abs(crafted.images.astype(int) - blob_data.images)
    # Some pixel must use the budget up, or the attack is weaker than it says.
    assert change.max() == attack.levels
    assert crafted.zero_gradients.shape == (len(blob_data),)
    assert 0 <= crafted.zero_gradients.min() <= crafted.zero_gradients.max() <= 1


@pytest.mark.parametrize(
    "attack", [FgsmConfig(epsilon=0.2), PgdConfig(epsilon=0.2, steps=3)], ids=["fgsm", "pgd"]
)
def test_the_seed_alone_decides(
    trained: dict[str, Graph], blob_data: Dataset, attack: FgsmConfig | PgdConfig
) -> None:
    first = craft(trained["S"], blob_data, attack)
    torch.manual_seed(1234)
    torch.rand(100)
    np.random.default_rng().random(3)
    again = craft(trained["S"], blob_data, attack)
    other = craft(trained["S"], blob_data, attack, seed=2)
    np.testing.assert_array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("kind", ["B", "S"])
def test_pgd_is_at_least_as_strong_as_fgsm(
    trained: dict[str, Graph], blob_data: Dataset, kind: str
) -> None:
    graph, labels = trained[kind], blob_data.labels
    clean = accuracy(graph, blob_data.images, labels)
    assert clean > 0.85, "the small network has not learned its task"
    for epsilon in (0.1, 0.2):
        one = accuracy(graph, craft(graph, blob_data, FgsmConfig(epsilon=epsilon)).images, labels)
        attack = PgdConfig(epsilon=epsilon, steps=20)
        many = accuracy(graph, craft(graph, blob_data, attack).images, labels)
        assert many <= one
        assert one < clean
    assert many < 0.2


def test_more_draws_hurt_a_stochastic_network_more(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    """With every weight near one half, one draw says little and ten say more."""
    from bnnmcu.graph import StochasticConv

    graph = trained["S"]
    noisy = tuple(
        # Halfway to level 8 (p = 9/16) and 7 (p = 7/16), the levels next to one half.
        replace(node, weights=np.where(node.weights > 7, 9, 6).astype(np.uint8))
        if isinstance(node, StochasticConv)
        else node
        for node in graph.nodes
    )
    graph = replace(graph, nodes=noisy)
    results = []
    for draws in (1, 20):
        attack = FgsmConfig(epsilon=0.1, eot_draws=draws, label="true")
        images = craft(graph, blob_data, attack).images
        results.append(accuracy(graph, images, blob_data.labels, draws=20))
    assert results[1] < results[0]


def test_targeted_reaches_its_target(trained: dict[str, Graph], blob_data: Dataset) -> None:
    targets = (blob_data.labels + 3) % 10
    attack = PgdConfig(epsilon=0.5, steps=30)
    images = craft(trained["B"], blob_data, attack, targets=targets).images
    untargeted = craft(trained["B"], blob_data, attack).images
    hits = accuracy(trained["B"], images, targets)
    assert hits > 0.7
    assert accuracy(trained["B"], untargeted, targets) < hits


@pytest.mark.parametrize(
    "attack",
    [
        FgsmConfig(epsilon=0.1, label="true"),
        PgdConfig(epsilon=0.1, steps=2, random_start=False, estimator="strongest"),
    ],
    ids=["fgsm", "pgd"],
)
def test_strongest_keeps_the_best_of_each_image(
    trained: dict[str, Graph], blob_data: Dataset, attack: FgsmConfig | PgdConfig
) -> None:
    """Without draws this is exact: no estimator alone fools an image that it does not."""
    graph, labels = trained["B"], blob_data.labels
    names: tuple[Estimator, ...] = ("identity", "clipped", "tanh")
    assert (attack.estimator, attack.estimators) == ("strongest", names)
    best = craft(graph, blob_data, attack)
    alone = {name: craft(graph, blob_data, replace(attack, estimator=name)) for name in names}
    assert len(set(best.estimators)) > 1
    for i, name in enumerate(best.estimators):
        np.testing.assert_array_equal(best.images[i], alone[name].images[i])
        assert best.zero_gradients[i] == alone[name].zero_gradients[i]

    def right(images: np.ndarray) -> np.ndarray:
        seeds = np.zeros((len(images), 1), dtype=np.uint64)
        answers = reference.argmax(reference.run(graph, images, seeds))[:, 0]
        return np.equal(answers, labels)

    every = np.all([right(one.images) for one in alone.values()], axis=0)
    np.testing.assert_array_equal(right(best.images), every)
    for name, one in alone.items():
        assert one.estimators == (name,) * len(labels)


def test_strongest_is_judged_on_draws_of_its_own(
    trained: dict[str, Graph], blob_data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    original = IntegerTwin.sample

    def sample(self: IntegerTwin, *arguments: Any) -> Any:
        draws = original(self, *arguments)
        drawn.append(draws.weights["conv3"])
        return draws

    monkeypatch.setattr(IntegerTwin, "sample", sample)
    craft(trained["S"], blob_data, FgsmConfig(epsilon=0.1, eot_draws=2))
    # One set for each estimator, the first of which gives the labels too, the judge's, and
    # those that say how well the chosen do.
    assert len(drawn) == 5
    for k in (-2, -1):
        assert not any(torch.equal(one, drawn[k]) for one in drawn[:k])


def test_fgsm_is_its_formula(trained: dict[str, Graph], blob_data: Dataset) -> None:
    graph, images = trained["B"], blob_data.images
    x = torch.from_numpy(images.astype(np.float32) / np.float32(255)).requires_grad_()
    logits = IntegerTwin(graph, "identity")(x)[0]
    loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x)
    wanted = np.clip(images.astype(int) + 25 * np.sign(gradient.numpy()).astype(int), 0, 255)
    attack = FgsmConfig(epsilon=0.1, loss="ce", estimator="identity")
    np.testing.assert_array_equal(craft(graph, blob_data, attack).images, wanted)


def test_images_do_not_influence_each_other(trained: dict[str, Graph], blob_data: Dataset) -> None:
    attack = FgsmConfig(epsilon=0.1)
    alone = Dataset("one", blob_data.images[:1], blob_data.labels[:1])
    together = craft(trained["S"], blob_data, attack).images[0]
    changed = (craft(trained["S"], alone, attack).images[0] != together).mean()
    # Sums of floats may be taken in another order: next to no sign may differ.
    assert changed < 0.01


def test_without_gradients_fgsm_leaves_images_and_says_so(
    trained: dict[str, Graph], blob_data: Dataset
) -> None:
    nodes = tuple(
        replace(node, kind=np.full_like(node.kind, 2)) if isinstance(node, Threshold) else node
        for node in trained["B"].nodes
    )
    blind = replace(trained["B"], nodes=nodes)
    crafted = craft(blind, blob_data, FgsmConfig(epsilon=0.1))
    np.testing.assert_array_equal(crafted.images, blob_data.images)
    assert crafted.zero_gradients.tolist() == [1.0] * len(blob_data)
    # PGD wanders instead, and says so too.
    wandered = craft(blind, blob_data, PgdConfig(epsilon=0.1, steps=2))
    assert wandered.zero_gradients.tolist() == [1.0] * len(blob_data)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ["ce", "margin", "dlr"])
def test_losses_rise_as_the_label_is_left_or_reached(name: Any, targeted: bool) -> None:
    logits = torch.tensor([[[3.0, 1.0, 0.5, -1.0, 0.0]]], dtype=torch.float64)
    label = torch.tensor([1 if targeted else 0])
    moved = logits.clone()
    moved[..., label] += 0.7 if targeted else -0.7
    before = attack_loss(name, logits, label, targeted=targeted)
    after = attack_loss(name, moved, label, targeted=targeted)
    assert before.shape == (1, 1)
    assert after.item() > before.item()


@pytest.mark.parametrize("targeted", [False, True])
def test_dlr_does_not_know_the_scale(targeted: bool) -> None:
    logits = torch.randn(3, 4, 10, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.arange(4)
    small = attack_loss("dlr", logits, labels, targeted=targeted)
    large = attack_loss("dlr", logits * 1e4, labels, targeted=targeted)
    assert torch.allclose(small, large)


def test_temperature_undoes_saturation() -> None:
    logits = torch.tensor([[[2000.0, 0.0, 0.0]]]).double().requires_grad_()
    label = torch.tensor([0])
    gradients = [
        torch.autograd.grad(
            attack_loss("ce", logits, label, temperature=t, targeted=False).sum(), logits
        )[0]
        .abs()
        .max()
        .item()
        for t in (1.0, 1000.0)
    ]
    assert gradients[0] == 0.0
    assert gradients[1] > 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FgsmConfig(epsilon=1.5), "epsilon"),
        (lambda: FgsmConfig(epsilon=float("nan")), "epsilon"),
        (lambda: FgsmConfig(epsilon=0.1, eot_draws=0), "EOT draws"),
        (lambda: FgsmConfig(epsilon=0.1, temperature=0.0), "temperature"),
        (lambda: FgsmConfig(epsilon=0.1, loss="cw"), "loss"),  # type: ignore[arg-type]
        (lambda: FgsmConfig(epsilon=0.1, label="mine"), "label"),  # type: ignore[arg-type]
        (lambda: PgdConfig(epsilon=0.1, estimator="x"), "estimator"),  # type: ignore[arg-type]
        (lambda: PgdConfig(epsilon=0.1, steps=0), "steps"),
        (lambda: PgdConfig(epsilon=0.1, step_levels=0), "step levels"),
        (lambda: PgdConfig(epsilon=0.1, restarts=0), "restarts"),
        (lambda: PgdConfig(epsilon=0.1, restarts=2, random_start=False), "random start"),
        (lambda: FgsmConfig(epsilon=0.1, name="clean"), "name of a case"),
        (lambda: FgsmConfig(epsilon=0.1, name="two words"), "name of a case"),
        (lambda: FgsmConfig(epsilon=0.1, name="a" * 65), "name of a case"),
        (lambda: FgsmConfig(epsilon=0.1, images=0), "images"),
        (lambda: FgsmConfig(epsilon=0.1, targets="one"), "targets"),  # type: ignore[arg-type]
        (lambda: FgsmConfig(epsilon=0.1, adversary="me"), "adversary"),  # type: ignore[arg-type]
        (lambda: FgsmConfig(epsilon=0.1, candidate_seeds=0), "candidate seeds"),
        (lambda: SquareConfig(epsilon=0.1, adversary="seed-chosen"), "seed-known"),
        (lambda: CampaignConfig((), draws=0), "draws"),
        (lambda: CampaignConfig((), seed=-1), "seed"),
        (lambda: CampaignConfig((), chunk=0), "chunk"),
        (
            lambda: CampaignConfig((FgsmConfig(epsilon=0.1), FgsmConfig(epsilon=0.0999))),
            "listed twice",
        ),
    ],
)
def test_configurations_out_of_range(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_bad_arguments(trained: dict[str, Graph], blob_data: Dataset) -> None:
    attack = FgsmConfig(epsilon=0.1, estimator="identity")
    twin = IntegerTwin(trained["B"])
    images, labels = blob_data.images[:2], blob_data.labels[:2]
    cases: list[tuple[str, dict[str, Any]]] = [
        ("images are", {"images": images.astype(np.float32)}),
        ("images are", {"images": images[:, :-1]}),
        ("no images", {"images": images[:0], "labels": labels[:0]}),
        ("labels are", {"labels": labels[:1]}),
        ("within 0 .. 9", {"labels": labels + 9}),
        ("own label", {"targets": labels}),
        ("seed", {"seed": 2**63}),
        ("seed", {"seed": -1}),
    ]
    for message, changed in cases:
        given: dict[str, Any] = {
            "model": twin,
            "images": images,
            "labels": labels,
            "seed": 1,
        } | changed
        with pytest.raises(UsageError, match=message):
            fgsm(
                given.pop("model"), given.pop("images"), given.pop("labels"), attack=attack, **given
            )
    bare = replace(
        trained["B"],
        nodes=tuple(
            replace(n, surrogate=None) if isinstance(n, Threshold) else n
            for n in trained["B"].nodes
        ),
    )
    with pytest.raises(UnsupportedModelError, match="surrogate"):
        fgsm(IntegerTwin(bare, "identity"), images, labels, attack=attack, seed=1)


def test_an_interrupt_waits_for_the_end_of_an_import() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), held_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        done.append("imported")
    assert done == ["imported"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with held_interrupts():
        done.append("nothing came")
