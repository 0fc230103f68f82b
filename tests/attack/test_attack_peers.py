"""Ours against Foolbox and ART: the same attack on the same deterministic network.

A float network, and the integer twin of a binarized one with its rounding and
thresholds. Both sides attack the same images; everything is put on the pixel
grid before it is judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from bnnmcu.attack.config import (
    ApgdConfig,
    AttackConfig,
    CwConfig,
    FgsmConfig,
    JsmaConfig,
    PgdConfig,
    PgdL2Config,
)
from bnnmcu.data import Dataset, load_dataset
from bnnmcu.graph import Graph
from tests.support.needs import need_digits

torch = pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.craft import craft, make_twin  # noqa: E402
from bnnmcu.attack.model import GradientModel  # noqa: E402
from tests.support.attack_peers import (  # noqa: E402
    ForPeers,
    SmallNet,
    answers,
    art_classifier,
    as_x,
    foolbox_model,
    rounded,
)

# Where accuracy is far from both 0 and 100, so that a weaker attack shows.
BUDGETS = {"float": {"linf": 0.1, "l2": 1.2}, "twin": {"linf": 0.05, "l2": 0.8}}


@dataclass(frozen=True)
class Case:
    """A network with images it knows."""

    name: str
    model: GradientModel
    images: np.ndarray
    labels: np.ndarray

    @property
    def targets(self) -> np.ndarray:
        """A wrong label for each image, all distances alike."""
        return (self.labels + 1 + np.arange(len(self.labels)) % 9) % 10

    def make(self, attack: AttackConfig, **more: Any) -> np.ndarray:
        """Images by our attack."""
        return craft(self.model, attack, self.images, self.labels, seed=1, **more).images

    def module(self, **more: Any) -> ForPeers:
        """The same network for a peer."""
        return ForPeers(self.model, "tanh", **more)

    def first(self, count: int) -> Case:
        """The same with fewer images."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def accuracy(self, images: np.ndarray) -> float:
        """Share of right answers."""
        return float((answers(self.model, images) == self.labels).mean())

    def length(self, images: np.ndarray) -> float:
        """Mean L2 distance from the clean images, in levels."""
        change = images.astype(float) - self.images
        return float(np.sqrt(np.square(change).sum((1, 2, 3))).mean())


@pytest.fixture(scope="module", params=["float", "twin"])
def case(request: pytest.FixtureRequest, trained: dict[str, Graph], blob_data: Dataset) -> Case:
    """Images that the network was not trained on, and answers right."""
    if request.param == "float":
        need_digits()
        data = load_dataset("digits")
        order = np.random.default_rng(0).permutation(len(data))
        model: GradientModel = SmallNet(data.images[order[:2500]], data.labels[order[:2500]])
        images, labels = data.images[order[2500:2650]], data.labels[order[2500:2650]]
    else:
        model = make_twin(trained["B"])
        noise = np.random.default_rng(0).normal(0, 20, (2, *blob_data.images.shape))
        images = np.clip(blob_data.images + noise, 0, 255).astype(np.uint8).reshape(-1, 28, 28, 1)
        labels = np.tile(blob_data.labels, 2)
    right = answers(model, images) == labels
    return Case(request.param, model, images[right], labels[right])


def agree(case: Case, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Accuracies differ by no more than sampling allows, and neither is at its end.

    Peers give back the last iterate, we the best. Where thresholds make the loss
    jump from step to step that is better, and ours may only not be weaker.
    """
    one, two = case.accuracy(ours), case.accuracy(theirs)
    assert 0.02 < two < 0.98, "these budgets tell nothing apart"
    error = 2.0 * np.sqrt(two * (1.0 - two) / len(case.labels))
    assert one <= two + error
    if case.name == "float":
        assert one >= two - error


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradient_attacks_against_foolbox(case: Case, norm: str) -> None:
    foolbox = pytest.importorskip("foolbox", reason="compares with Foolbox")
    model, x, y = foolbox_model(case.module()), as_x(case.images), torch.from_numpy(case.labels)
    epsilon = BUDGETS[case.name][norm]
    torch.manual_seed(0)
    common: dict[str, Any] = {"epsilon": epsilon, "steps": 20, "estimator": "tanh"}
    if norm == "linf":
        one = FgsmConfig(epsilon=epsilon, estimator="tanh", label="true")
        budget = one.levels / 255.0
        their = foolbox.attacks.LinfFastGradientAttack()(model, x, y, epsilons=budget)[1]
        # One step from the same point by the same signs.
        np.testing.assert_array_equal(case.make(one), rounded(their))
        attack: PgdConfig | PgdL2Config = PgdConfig(**common)
        peer = foolbox.attacks.LinfPGD(steps=20, abs_stepsize=attack.step / 255.0)
    else:
        attack = PgdL2Config(**common, step=0.125)
        budget = attack.levels / 255.0
        peer = foolbox.attacks.L2PGD(steps=20, rel_stepsize=0.125)
    ours, theirs = case.make(attack), rounded(peer(model, x, y, epsilons=budget)[1])
    agree(case, ours, theirs)
    assert case.length(ours) == pytest.approx(case.length(theirs), rel=0.05)


@pytest.mark.parametrize(("norm", "loss"), [("linf", "ce"), ("linf", "dlr"), ("l2", "ce")])
def test_autopgd_against_art(case: Case, norm: Any, loss: Any) -> None:
    evasion = pytest.importorskip("art.attacks.evasion", reason="compares with ART")
    attack = ApgdConfig(
        epsilon=BUDGETS[case.name][norm], norm=norm, loss=loss, steps=20, estimator="tanh"
    )
    budget = attack.levels / 255.0
    # What ART draws its starts from.
    np.random.seed(0)
    peer = evasion.AutoProjectedGradientDescent(
        art_classifier(case.module(), case.model.input_shape, 10),
        norm=np.inf if norm == "linf" else 2,
        eps=budget,
        eps_step=2.0 * budget,
        max_iter=20,
        nb_random_init=1,
        batch_size=len(case.labels),
        loss_type={"ce": "cross_entropy", "dlr": "difference_logits_ratio"}[loss],
        verbose=False,
    )
    ours, theirs = case.make(attack), rounded(peer.generate(as_x(case.images).numpy(), case.labels))
    agree(case, ours, theirs)
    # ART gives back the clean image where it failed, we the best point: those it fooled.
    there = answers(case.model, theirs) != case.labels
    part = replace(case, images=case.images[there], labels=case.labels[there])
    assert part.length(ours[there]) == pytest.approx(part.length(theirs[there]), rel=0.05)


def test_jsma_against_art(case: Case) -> None:
    """On probabilities the paper's formula picks the two largest derivatives, as ART does."""
    evasion = pytest.importorskip("art.attacks.evasion", reason="compares with ART")
    some = case.first(30)
    attack = JsmaConfig(output="probabilities", estimator="tanh")
    # ART counts the pixels it has changed, and does not stop before it has one too many.
    peer = evasion.SaliencyMapMethod(
        art_classifier(some.module(softmax=True), some.model.input_shape, 10),
        theta=1.0,
        gamma=2 * attack.iterations(784) / 784 - 1e-3,
        batch_size=30,
        verbose=False,
    )
    theirs = rounded(peer.generate(as_x(some.images).numpy(), some.targets))
    ours = some.make(attack, targets=some.targets)
    hits = [answers(some.model, images) == some.targets for images in (ours, theirs)]
    assert hits[1].mean() > 0.5
    error = 2.0 * np.sqrt(hits[1].mean() * (1.0 - hits[1].mean()) / 30)
    assert hits[0].mean() >= hits[1].mean() - error
    both = hits[0] & hits[1]
    part = replace(some, images=some.images[both], labels=some.labels[both])
    assert part.length(ours[both]) == pytest.approx(part.length(theirs[both]), rel=0.05)
    if case.name == "float":
        # No threshold makes derivatives jump: pixel by pixel the same.
        np.testing.assert_array_equal(ours[both], theirs[both])


def test_carlini_wagner_against_foolbox(case: Case) -> None:
    foolbox = pytest.importorskip("foolbox", reason="compares with Foolbox")
    some = case.first(30)
    attack = CwConfig(
        confidence=0.0,
        initial_constant=10.0,
        search_steps=3,
        learning_rate=0.1,
        iterations=40,
        early_abort=False,
        judge="step",
        estimator="tanh",
    )
    peer = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=3, steps=40, stepsize=0.1, initial_const=10.0, abort_early=False
    )
    goal = foolbox.criteria.TargetedMisclassification(torch.from_numpy(some.targets))
    raw = peer(foolbox_model(some.module()), as_x(some.images), goal, epsilons=None)[0]
    crafted = craft(some.model, attack, some.images, some.labels, seed=1, targets=some.targets)
    # Both before rounding: with kappa 0 that leaves images right behind the border.
    hit = np.array([one["success_before"] for one in crafted.details]) > 0
    ours = np.array([one["l2_before"] for one in crafted.details])
    found = raw.detach().numpy()
    claimed = np.square(found).sum((1, 2, 3)) > 0
    theirs = np.sqrt(np.square(found - some.images / 255.0).sum((1, 2, 3)))
    assert claimed.mean() > 0.5
    assert abs(hit.mean() - claimed.mean()) <= 0.1
    both = hit & claimed
    assert ours[both].mean() == pytest.approx(theirs[both].mean(), rel=0.05)
