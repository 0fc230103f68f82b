"""JSMA: the paper's formula and algorithm to the pixel, draws, and what it gives up on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnnmcu.attack.config import PRESETS, JsmaConfig
from bnnmcu.errors import UsageError

torch = pytest.importorskip("torch", reason="crafting needs torch")

from bnnmcu.attack.jsma import jsma  # noqa: E402
from bnnmcu.attack.saliency import best_pairs  # noqa: E402
from tests.support.formula_model import (  # noqa: E402
    FormulaModel,
    fooled,
    images_of,
    labels_of,
    smooth,
)

SHAPE = (6, 5, 1)
PAPER = JsmaConfig(output="logits", gamma=0.5)


def scores(target: Any, others: Any, allowed: Any) -> Any:
    """Every pair's score by the paper's formula, (N, P, P); 0 for none."""
    alpha = target[:, :, None] + target[:, None, :]
    beta = others[:, :, None] + others[:, None, :]
    two = allowed[:, :, None] & allowed[:, None, :] & ~torch.eye(len(target[0]), dtype=torch.bool)
    return torch.where(two & (alpha > 0) & (beta < 0), -alpha * beta, 0.0)


@pytest.mark.parametrize("pixels", [2, 3, 7, 40, 784])
@pytest.mark.parametrize("relation", ["none", "opposite", "alike", "ties", "one sign"])
def test_the_best_pair_of_all(pixels: int, relation: str) -> None:
    generator = torch.Generator().manual_seed(pixels)
    count = 4 if pixels == 784 else 100
    target, others = torch.randn(2, count, pixels, generator=generator, dtype=torch.float64)
    if relation == "opposite":
        others = -target
    elif relation == "alike":
        others = target + 0.2 * others
    elif relation == "ties":
        target, others = (2 * target).round(), (2 * others).round()
    elif relation == "one sign":
        target = -target.abs()
    allowed = torch.rand(count, pixels, generator=generator) < 0.7
    every = scores(target, others, allowed)
    wanted = every.flatten(1).amax(1)
    pairs, found = best_pairs(target, others, allowed)
    assert torch.equal(found, wanted > 0)
    if relation == "one sign":
        assert not found.any()
    each = torch.arange(count)[found]
    # Of equal scores either pair will do.
    assert torch.equal(every[each, pairs[each, 0], pairs[each, 1]], wanted[found])


def published(
    model: FormulaModel, image: Any, target: int, attack: JsmaConfig
) -> tuple[Any, bool | None]:
    """Papernot et al.'s algorithm on one image: levels, and success; None: it is silent."""
    now = torch.from_numpy(image.astype(np.float64) / 255.0)
    search = (now < 1.0).flatten()
    for turn in range(int(now.numel() * attack.gamma / 2) + 1):

        def outputs(x: Any) -> Any:
            logits = model(x[None])[0, 0]
            return logits if attack.output == "logits" else logits.softmax(-1)

        if int(outputs(now).argmax()) == target:
            return (255.0 * now).round().to(torch.uint8).numpy(), True
        if turn == int(now.numel() * attack.gamma / 2):
            break
        jacobian = torch.autograd.functional.jacobian(outputs, now).flatten(1)
        alpha = jacobian[target]
        beta = jacobian.sum(0) - alpha
        every = scores(alpha[None], beta[None], search[None])[0]
        if every.max() <= 0:
            return image, None
        one, two = divmod(int(every.argmax()), len(alpha))
        flat = now.flatten().clone()
        flat[[one, two]] = (flat[[one, two]] + attack.step / 255.0).clamp_max(1.0)
        now = flat.view_as(now)
        search[[one, two]] = flat[[one, two]] < 1.0
    return image, False


@pytest.mark.parametrize(
    "attack",
    [
        PAPER,
        replace(PAPER, output="probabilities"),
        replace(PAPER, theta=0.2, gamma=0.9),
        replace(PAPER, gamma=0.14),
    ],
    ids=["logits", "probabilities", "theta", "gamma"],
)
def test_as_published_to_the_pixel(attack: JsmaConfig) -> None:
    """Against the paper's loop, image by image, with the whole Jacobian and every pair."""
    model = smooth(SHAPE, 5)
    images = images_of(12, SHAPE)
    labels = labels_of(model, images)
    targets = (labels + 1 + np.arange(12) % 4) % 5
    crafted = jsma(model, images, labels, attack=attack, seed=1, targets=targets)
    found = []
    for i in range(12):
        wanted, success = published(model, images[i], int(targets[i]), attack)
        found.append(success)
        if success is None:
            continue
        np.testing.assert_array_equal(crafted.images[i], wanted)
        assert crafted.details[i]["found"] is success
        assert crafted.details[i]["success_after"] == float(success)
    assert found.count(True) >= 3
    assert found.count(None) <= 2


def test_only_upwards_and_within_the_budget_of_pixels() -> None:
    model = smooth(SHAPE, 5)
    images = images_of(30, SHAPE)
    labels = labels_of(model, images)
    attack = JsmaConfig(theta=0.3, gamma=0.5)
    assert (attack.step, attack.iterations(30)) == (76, 7)
    # The paper's: 14.5 % of 784 pixels, 112 of them, in 56 pairs.
    assert JsmaConfig().iterations(784) == 56
    crafted = jsma(model, images, labels, attack=attack, seed=1)
    change = crafted.images.astype(int) - images
    assert change.min() == 0
    assert ((change % 76 == 0) | (crafted.images == 255)).all()
    done = np.array([one["iterations"] for one in crafted.details])
    assert done.max() <= 7
    assert ((change > 0).sum((1, 2, 3)) <= 2 * done).all()
    # Towards the runner-up, which is the easiest label for most.
    assert fooled(model, crafted.images, labels) > 0.7
    assert fooled(model, images, labels) == 0.0


def test_what_was_not_fooled_comes_back_unchanged() -> None:
    """One pair cannot do it: the clean image, and no claim of success."""
    model = smooth(SHAPE, 5)
    images = images_of(20, SHAPE)
    labels = labels_of(model, images)
    crafted = jsma(model, images, labels, attack=JsmaConfig(theta=0.004, gamma=0.1), seed=1)
    assert [one["found"] for one in crafted.details] == [False] * 20
    np.testing.assert_array_equal(crafted.images, images)


def test_without_any_gradient_it_wanders_and_says_so() -> None:
    """A model that counts bright pixels by steps: no derivative, but raising them helps."""

    def logits(x: Any, draw: Any) -> Any:
        bright = (x.flatten(1) > 0.9).double().mean(1, keepdim=True)
        return torch.cat([0.3 - bright, bright - 0.3], 1) + 0.0 * x.flatten(1).sum(1, keepdim=True)

    model = FormulaModel(SHAPE, logits, classes=2)
    images = np.full((4, *SHAPE), 100, dtype=np.uint8)
    crafted = jsma(model, images, np.zeros(4, dtype=np.int64), attack=JsmaConfig(gamma=0.9), seed=1)
    assert crafted.zero_gradients.tolist() == [1.0] * 4
    assert [one["found"] for one in crafted.details] == [True] * 4
    assert (crafted.images == 255).sum((1, 2, 3)).tolist() == [10] * 4


def test_a_saturated_softmax_still_ranks_pixels() -> None:
    """Logits times a hundred: probabilities of 1e-150, and their products, are no zeros."""
    plain = smooth(SHAPE, 5)
    images = images_of(20, SHAPE)
    labels = labels_of(plain, images)
    scaled = FormulaModel(SHAPE, lambda x, draw: 100.0 * plain.logits(x, draw), classes=5)
    with torch.no_grad():
        p = scaled(torch.from_numpy(images).float() / 255.0)[0].softmax(-1)
    assert (p.sort(-1).values[:, -2] < 1e-100).any()
    crafted = jsma(scaled, images, labels, attack=JsmaConfig(gamma=0.5), seed=1)
    assert crafted.zero_gradients.max() == 0.0
    assert fooled(scaled, crafted.images, labels) > 0.7
    # With the temperature that undoes the scale nothing is left of it.
    undone = jsma(scaled, images, labels, attack=JsmaConfig(gamma=0.5, temperature=100.0), seed=1)
    same = jsma(plain, images, labels, attack=JsmaConfig(gamma=0.5), seed=1)
    np.testing.assert_array_equal(undone.images, same.images)


def test_one_lucky_draw_is_not_success() -> None:
    """The published attack stops at the first draw that is fooled; more draws do not believe it."""
    model = smooth(SHAPE, 4, drawn=8, seed=3)
    images = images_of(40, SHAPE)
    labels = labels_of(model, images)
    shares, lengths = [], []
    for attack in (JsmaConfig(adversary="paper", gamma=1.0), JsmaConfig(gamma=1.0)):
        crafted = jsma(model, images, labels, attack=attack, seed=1)
        shares.append(fooled(model, crafted.images, labels))
        lengths.append(np.mean([one["iterations"] for one in crafted.details]))
        told = np.mean([one["success_after"] for one in crafted.details])
        # What it says of itself holds on draws it never saw: 40 images, a few draws each.
        assert abs(told - shares[-1]) < 0.15
    assert shares[1] > shares[0] + 0.1
    assert lengths[1] > lengths[0]


def test_known_draws_are_the_only_ones() -> None:
    model = smooth(SHAPE, 4, drawn=8, seed=3)
    images = images_of(40, SHAPE)
    labels = labels_of(model, images)
    known = model.draws_of_seeds(np.array([7], dtype=np.uint64))
    model.sampled.clear()
    crafted = jsma(model, images, labels, attack=JsmaConfig(gamma=1.0), seed=1, draws=known)
    assert not model.sampled
    against = fooled(model, crafted.images, labels, known)
    assert against > fooled(model, crafted.images, labels) + 0.1
    assert against == np.mean([one["success_after"] for one in crafted.details])


def test_the_seed_alone_decides() -> None:
    model = smooth(SHAPE, 4, drawn=8, seed=3)
    images = images_of(20, SHAPE)
    labels = labels_of(model, images)
    made = [jsma(model, images, labels, attack=JsmaConfig(), seed=s).images for s in (1, 1, 2)]
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_nothing_that_is_not_finite_spreads() -> None:
    """Some images' logits are NaN every third time."""
    plain = smooth(SHAPE, 5)
    model = FormulaModel(SHAPE, plain.logits, classes=5)

    def logits(x: Any, draw: Any) -> Any:
        values = plain.logits(x, draw)
        bad = (x[:, 0, 0, 0] < 0.5) & (model.calls % 3 == 0)
        return values.masked_fill(bad[:, None], torch.nan)

    model.logits = logits
    images = images_of(30, SHAPE)
    labels = labels_of(plain, images)
    crafted = jsma(model, images, labels, attack=JsmaConfig(gamma=1.0), seed=1)
    shares = np.array([one.get("non_finite", 0.0) for one in crafted.details])
    dark = images[:, 0, 0, 0] < 128
    assert (shares[~dark] == 0).all()
    assert 0 < shares[dark].max() < 1
    assert fooled(plain, crafted.images, labels) > 0.7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"theta": 0.0}, "theta"),
        ({"theta": -1.0}, "theta"),
        ({"gamma": 0.0}, "gamma"),
        ({"gamma": 1.5}, "gamma"),
        ({"output": "softmax"}, "output"),
        ({"temperature": 0.0}, "temperature"),
        ({"output": "logits", "temperature": 10.0}, "temperature"),
        ({"estimator": "strongest"}, "estimator"),
    ],
)
def test_configurations_out_of_range(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        JsmaConfig(**changed)


def test_the_preset_is_the_papers() -> None:
    attack = PRESETS["jsma-paper"]()
    assert isinstance(attack, JsmaConfig)
    assert (attack.theta, attack.gamma, attack.output, attack.step_draws) == (1, 0.145, "logits", 1)
