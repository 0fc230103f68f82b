"""Carlini & Wagner's attack: distances, who judges, what stops it, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.attack.config import PRESETS, Crafted, CwConfig
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph

torch = pytest.importorskip("torch", reason="crafting needs torch")
from torch import Tensor  # noqa: E402

from bnnmcu.attack.cw import cw  # noqa: E402
from bnnmcu.attack.float import load_float_model  # noqa: E402
from bnnmcu.attack.model import Draws  # noqa: E402
from bnnmcu.attack.twin import IntegerTwin  # noqa: E402

SIDE = 4


@dataclass
class Plane:
    """Two classes: label 1 where ``lead(x, noise)``, (D, N), is above 0; a draw is one number.

    Without a lead of its own: a . x - 8, with a = 1 everywhere, so that the distance
    of an image to the other side is known.
    """

    lead: Callable[[Tensor, Tensor], Tensor] | None = None
    stochastic: bool = False
    scale: float = 1.0
    name: str = "plane"
    classes: int = 2
    input_shape: tuple[int, int, int] = (SIDE, SIDE, 1)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sampled: int = 0
    calls: int = 0

    def require_gradients(self) -> None:
        pass

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        self.sampled += count
        return Draws({"noise": torch.rand(count, generator=generator)}, count)

    def draws_of_seeds(self, seeds: Any) -> Draws:
        raise AssertionError("who attacks this model knows no seeds")

    def __call__(self, x: Tensor, draws: Draws | None = None, estimator: Any = None) -> Tensor:
        self.calls += 1
        noise = draws.weights["noise"] if draws else torch.zeros(1)
        if self.lead is None:
            lead = (x.flatten(1).sum(1) - 8.0).expand(len(noise), -1)
        else:
            lead = self.lead(x, noise[:, None])
        return torch.stack([torch.zeros_like(lead), self.scale * lead], -1)


IMAGES = np.random.default_rng(1).integers(40, 90, (6, SIDE, SIDE, 1), dtype=np.uint8)
LABELS = np.zeros(6, dtype=np.int64)


def craft(model: Any, attack: CwConfig, **more: Any) -> Crafted:
    return cw(model, IMAGES, LABELS, attack=attack, **{"seed": 1} | more)


def l2(images: np.ndarray, clean: np.ndarray = IMAGES) -> np.ndarray:
    difference = (images.astype(np.float64) - clean) / 255.0
    return np.sqrt((difference**2).sum((1, 2, 3)))


def each(crafted: Crafted, key: str) -> list[Any]:
    return [one.get(key) for one in crafted.details]


@pytest.mark.parametrize("judge", ["step", "fresh"])
@pytest.mark.parametrize("targets", [None, LABELS + 1])
def test_the_distance_to_a_plane(judge: Any, targets: Any) -> None:
    attack = CwConfig(
        search_steps=5, iterations=120, learning_rate=0.03, early_abort=False, judge=judge
    )
    crafted = craft(Plane(), attack, targets=targets)
    wanted = (8.0 - IMAGES.reshape(6, -1).sum(1) / 255.0) / SIDE
    before = np.array(each(crafted, "l2_before"))
    assert all(each(crafted, "found"))
    # Nobody crosses the plane by less: each judge looks at its own image.
    assert np.all((before if judge == "step" else l2(crafted.images)) >= wanted - 1e-4)
    np.testing.assert_allclose(before, wanted, rtol=0.04)
    np.testing.assert_allclose(l2(crafted.images), wanted, rtol=0.05)


def test_a_small_gradient_needs_a_large_constant() -> None:
    """Logits a thousand times smaller: c = 10 leaves the image where it is."""
    model = Plane(scale=1e-3)
    one = craft(model, CwConfig.adaptive(search_steps=1))
    more = craft(model, CwConfig.adaptive(search_steps=4))
    assert not any(each(one, "found"))
    np.testing.assert_array_equal(one.images, IMAGES)
    assert all(each(more, "found"))
    assert min(each(more, "constant")) > 100


def test_early_abort_looks_every_tenth() -> None:
    flat = Plane(lambda x, noise: -1.0 + 0.0 * x.flatten(1).sum(1) + 0.0 * noise)
    crafted = craft(flat, CwConfig.paper())
    assert each(crafted, "iterations") == [11] * 6
    np.testing.assert_array_equal(crafted.zero_gradients, np.ones(6))
    np.testing.assert_array_equal(crafted.images, IMAGES)
    assert not any(each(crafted, "found"))
    # Nothing is left out by the others: three estimators, three constants each.
    others = craft(flat, CwConfig.adaptive(iterations=20))
    assert each(others, "iterations") == [180] * 6
    assert not any(each(others, "found"))


def test_one_lucky_draw_convinces_only_the_published_judge() -> None:
    """A network that is wrong in one of eight draws, whatever the image."""
    lucky = Plane(
        lambda x, noise: 0.01 * x.flatten(1).sum(1) + torch.where(noise < 0.125, 1.0, -1.0),
        stochastic=True,
    )
    paper = craft(lucky, CwConfig.paper(early_abort=False, confidence=0.0))
    assert all(each(paper, "found"))
    assert max(each(paper, "success_after")) < 0.5
    adaptive = craft(lucky, CwConfig.adaptive(search_steps=1, estimator="tanh"))
    assert not any(each(adaptive, "found"))


def test_what_rounding_undoes() -> None:
    """A network that sees whether pixels lie on the grid: nothing survives rounding."""

    def between(x: Tensor, noise: Tensor) -> Tensor:
        levels = 255.0 * x
        return (levels - torch.round(levels)).abs().flatten(1).sum(1) - 0.05 + 0.0 * noise

    paper = craft(Plane(between), CwConfig.paper(early_abort=False))
    assert all(each(paper, "found"))
    assert each(paper, "success_before") == [1.0] * 6
    assert each(paper, "success_after") == [0.0] * 6
    adaptive = craft(Plane(between), CwConfig.adaptive(iterations=30))
    assert not any(each(adaptive, "found"))
    np.testing.assert_array_equal(adaptive.images, IMAGES)


def test_a_confidence_out_of_reach() -> None:
    """Published code then calls nothing fooled; the fresh judge does not ask for kappa."""
    paper = craft(Plane(), CwConfig.paper(confidence=100.0))
    assert each(paper, "kappa_reachable") == [False] * 6
    assert not any(each(paper, "found"))
    np.testing.assert_array_equal(paper.images, IMAGES)
    adaptive = craft(Plane(), CwConfig.adaptive(confidence=100.0))
    assert all(each(adaptive, "found"))
    assert all(each(adaptive, "kappa_reachable"))
    assert each(craft(Plane(), CwConfig.paper(confidence=2.0)), "kappa_reachable") == [True] * 6


def test_nan_now_and_then_does_not_spread() -> None:
    calls = [0]

    def broken(x: Tensor, noise: Tensor) -> Tensor:
        calls[0] += 1
        lead = x.flatten(1).sum(1) - 8.0 + 0.0 * noise
        return torch.where(torch.tensor(calls[0] % 4 == 0), torch.nan, lead)

    crafted = craft(Plane(broken), CwConfig(early_abort=False))
    assert all(0.2 < share < 0.3 for share in each(crafted, "non_finite"))
    assert all(each(crafted, "found"))
    assert l2(crafted.images).max() < 4.0


def test_a_stuck_image_begins_again() -> None:
    """Around every image lies a plain without gradients."""
    clean = torch.from_numpy(IMAGES).flatten(1).float() / 255.0

    def plain(x: Tensor, noise: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        near = (x.flatten(1)[:, None] - clean).abs().amax(-1).amin(1) < 0.05
        return torch.where(near, -1.0 + 0.0 * total, total - 8.0) + 0.0 * noise

    setting: dict[str, Any] = {"early_abort": False, "judge": "fresh"}
    still = craft(Plane(plain), CwConfig(restart_stuck=False, **setting))
    assert not any(each(still, "found"))
    np.testing.assert_array_equal(still.zero_gradients, np.ones(6))
    again = craft(Plane(plain), CwConfig(restart_stuck=True, **setting))
    assert all(each(again, "found"))
    assert again.zero_gradients.max() < 0.1


def test_known_draws_are_used_throughout() -> None:
    noisy = Plane(lambda x, noise: x.flatten(1).sum(1) - 8.0 - 8.0 * noise, stochastic=True)
    known = Draws({"noise": torch.tensor([0.25])}, 1)
    crafted = craft(noisy, CwConfig.adaptive(), draws=known)
    assert noisy.sampled == 0
    assert all(each(crafted, "found"))
    # On the far side of the plane of these draws, and not of most others.
    total = crafted.images.reshape(6, -1).sum(1) / 255.0
    assert np.all((total > 10.0) & (total < 11.0))


@pytest.fixture(scope="module")
def pairs(blob_data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, labels = blob_data.images[:20], blob_data.labels[:20]
    return images, labels, (labels + 1 + np.arange(20) % 9) % 10


def accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
    x = torch.from_numpy(images).float() / 255.0
    draws = None
    if model.stochastic:
        draws = model.sample(40, torch.Generator().manual_seed(77))
    with torch.no_grad():
        answers = model(x, draws).argmax(-1)
    return float((answers == torch.from_numpy(labels)).double().mean())


@pytest.mark.parametrize("kind", ["float", "twin"])
def test_the_adaptive_attack_is_stronger(
    trained_files: dict[str, Path], trained: dict[str, Graph], pairs: Any, kind: str
) -> None:
    images, labels, targets = pairs
    model = load_float_model(trained_files["S"]) if kind == "float" else IntegerTwin(trained["S"])
    given: dict[str, Any] = {"seed": 3, "targets": targets}
    paper = cw(model, images, labels, attack=CwConfig.paper(), **given)
    adaptive = cw(model, images, labels, attack=CwConfig.adaptive(iterations=60), **given)
    assert accuracy(model, images, labels) > 0.8, "the small network has not learned its task"
    assert accuracy(model, adaptive.images, labels) < 0.1
    assert accuracy(model, adaptive.images, targets) > accuracy(model, paper.images, targets) + 0.1
    # What an image claims holds on draws that nobody has seen.
    assert min(each(adaptive, "success_after")) > 0.6


def test_the_seed_alone_decides(trained_files: dict[str, Path], pairs: Any) -> None:
    images, labels, targets = pairs
    model = load_float_model(trained_files["S"])
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed + len(made))
        attack = CwConfig.adaptive(iterations=10, search_steps=2)
        made.append(cw(model, images, labels, attack=attack, seed=seed, targets=targets))
    np.testing.assert_array_equal(made[0].images, made[1].images)
    assert made[0].details == made[1].details
    assert not np.array_equal(made[0].images, made[2].images)


@pytest.mark.parametrize(
    "changed",
    [
        {"confidence": -1.0},
        {"confidence": float("nan")},
        {"initial_constant": 0.0},
        {"search_steps": 0},
        {"learning_rate": 0.0},
        {"iterations": 0},
        {"fresh_draws": 0},
        {"judge": "friend"},
        {"success": "most"},
        {"estimator": "steep"},
    ],
)
def test_settings_out_of_range(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CwConfig(**changed)


def test_the_papers_setting_is_the_papers() -> None:
    paper = PRESETS["cw-paper"]()
    assert isinstance(paper, CwConfig)
    assert (paper.search_steps, paper.initial_constant, paper.learning_rate) == (1, 10.0, 0.1)
    assert (paper.confidence, paper.iterations, paper.early_abort) == (0.0, 100, True)
    assert (paper.step_draws, paper.judge, paper.estimator) == (1, "step", "identity")
    assert not paper.restart_stuck
