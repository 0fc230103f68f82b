"""Models that make attacks fail without being robust: each must raise its flag.

All of them agree with the network that answers, and all are driven through a
campaign; the same model without the trap raises nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="crafting needs torch")

import trap_rig as rig  # noqa: E402
from torch import Tensor  # noqa: E402

from bnnmcu.attack.audit import audit_run  # noqa: E402
from bnnmcu.attack.campaign import Campaign, campaign_identity  # noqa: E402
from bnnmcu.attack.config import (  # noqa: E402
    AttackConfig,
    CampaignConfig,
    CwConfig,
    FgsmConfig,
    PgdConfig,
    PgdL2Config,
)
from bnnmcu.attack.metrics import Summary, summarize  # noqa: E402
from bnnmcu.attack.oracle import Answer, ReferenceOracle  # noqa: E402
from bnnmcu.store import Store  # noqa: E402

IMAGES = 24


class ScaledLogits(rig.LinearModel):
    """The same labels, but a softmax without a gradient."""

    def logits(self, x: Tensor) -> Tensor:
        return 1e4 * super().logits(x)


class RandomInputs(rig.LinearModel):
    """Sees every image under noise of its own, which no draws account for."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x + 0.5 * torch.randn_like(x))


class Rounds(rig.LinearModel):
    """Rounds its input to pixels, as it should, and lets no gradient through."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(torch.round(255 * x) / 255)


class BetweenPixels(rig.LinearModel):
    """Equal on all pixels; between them it is easily fooled."""

    def logits(self, x: Tensor) -> Tensor:
        wave = torch.sin(2 * torch.pi * 255 * x)
        return super().logits(x) + super().logits(wave).roll(1, -1)


class NanNowAndThen(rig.LinearModel):
    """No number for every other image in one call of three."""

    calls = 0

    def logits(self, x: Tensor) -> Tensor:
        found = super().logits(x)
        self.calls += 1
        if self.calls % 3 == 1:
            found = torch.where(torch.arange(len(x)).view(-1, 1) % 2 == 0, torch.nan, found)
        return found


# Just enough for the linear model, if no step is lost.
PGD = PgdConfig(epsilon=0.16, steps=10, eot_draws=1, model="attacked")
FGSM = FgsmConfig(epsilon=0.16, estimator="identity", eot_draws=1, model="attacked")
# Too little for the linear model, whether rounded or not.
L2 = PgdL2Config(epsilon=0.1, steps=10, eot_draws=1, model="attacked")


@dataclass(frozen=True)
class Trap:
    """What is set, and what must be seen.

    Attributes:
        model: that gradients are taken of.
        attack: on it.
        flag: must be raised as a warning.
        right: least accuracy, by which the model seems to be robust.
        sound: the attack without the trap; the model then is the plain one.
    """

    model: type[rig.LinearModel]
    attack: AttackConfig
    flag: str
    right: float
    sound: AttackConfig


CW = CwConfig(targets="none", iterations=60, model="attacked", eot_draws=1)
TRAPS = {
    "scaled logits": Trap(ScaledLogits, PGD, "saturated", 0.7, PGD),
    "random inputs": Trap(RandomInputs, PGD, "randomised", 0.0, PGD),
    "rounds": Trap(Rounds, PGD, "zero-gradients", 0.7, PGD),
    "between pixels": Trap(BetweenPixels, L2, "rounding", 0.9, L2),
    "NaN now and then": Trap(NanNowAndThen, FGSM, "non-finite", 0.3, FGSM),
    "kappa out of reach": Trap(
        rig.LinearModel,
        CwConfig(targets="none", iterations=60, model="attacked", eot_draws=1, confidence=1e4),
        "unreachable-kappa", 1.0, CW,
    ),
}  # fmt: skip


def attacked(path: Path, model: rig.LinearModel, attack: AttackConfig) -> Summary:
    """A campaign of one attack, with its successes looked at again."""
    graph, data = rig.linear_graph(), rig.patterns(IMAGES)
    oracle, config = ReferenceOracle(graph), CampaignConfig((attack,), chunk=IMAGES)
    models = {"attacked": model}
    with Store.open(path, campaign_identity(config, graph, data, oracle, models)) as store:
        Campaign(config, graph, data, oracle, store, models=models, workers=1).run()
        return summarize(store, audit_run(store, graph, data, answers=ReferenceOracle(graph)))


@pytest.mark.parametrize("name", TRAPS)
def test_every_trap_raises_its_flag(name: str, tmp_path: Path) -> None:
    trap = TRAPS[name]
    model = trap.model()
    x = torch.from_numpy(rig.patterns(IMAGES).images).float() / 255.0
    if trap.flag not in ("randomised", "non-finite"):
        assert torch.equal(model(x)[0].argmax(-1), rig.LinearModel()(x)[0].argmax(-1))
    caught = attacked(tmp_path / "trap.db", model, trap.attack)
    assert caught.cases[0].mean.value == 1.0
    assert caught.cases[1].mean.value >= trap.right
    raised = {(flag.code, flag.severity) for flag in caught.flags}
    assert (trap.flag, "warning") in raised
    sound = attacked(tmp_path / "sound.db", rig.LinearModel(), trap.sound)
    assert trap.flag not in {flag.code for flag in sound.flags}
    if name != "between pixels":
        assert sound.cases[1].mean.value <= 0.1
        assert [flag.code for flag in sound.flags] == []


def test_kappa_out_of_reach_scores_a_hundred_and_says_why(tmp_path: Path) -> None:
    summary = attacked(tmp_path / "run.db", rig.LinearModel(), TRAPS["kappa out of reach"].attack)
    case = summary.cases[1]
    assert (case.mean.value, case.unchanged, case.found) == (1.0, 1.0, 0.0)
    assert case.attack_success is not None
    assert case.attack_success.value == 0.0
    codes = [flag.code for flag in summary.flags]
    assert codes == ["unchanged", "unreachable-kappa", "attack-failed"]


class NoisyOracle:
    """Answers about another image than the one it was sent."""

    label = "emulated"
    name = "noisy"
    stats = None
    seeded = True

    def __init__(self) -> None:
        self._inner = ReferenceOracle(rig.linear_graph())
        self._noise = np.random.default_rng(3)

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        noise = self._noise.integers(-60, 61, images.shape)
        return self._inner.logits(np.clip(images + noise, 0, 255).astype(np.uint8), seeds)


def test_a_board_that_answers_at_random_is_caught_by_the_audit(tmp_path: Path) -> None:
    graph, data, oracle = rig.linear_graph(), rig.patterns(IMAGES), NoisyOracle()
    config = CampaignConfig((PgdConfig(epsilon=0.3, steps=5),))
    with Store.open(tmp_path / "run.db", campaign_identity(config, graph, data, oracle)) as store:
        Campaign(config, graph, data, oracle, store, workers=1).run()
        audit = audit_run(store, graph, data, answers=ReferenceOracle(graph))
        codes = [flag.code for flag in summarize(store, audit).flags]
    assert audit.wrong == 2 * IMAGES > audit.successes > IMAGES / 2
    assert "audit" in codes
