"""What a campaign may be told, with its bounds; needs no torch.

Budgets are given as epsilon in [0, 1] and used as whole pixel levels:
``floor(255 * epsilon)``, so 0.1, 0.2 and 0.3 are 25, 51 and 76 levels.

No estimator of the thresholds' gradients wins everywhere, hence the defaults.
Accuracy in % at epsilon 0.1 / 0.2 / 0.3 on the example networks, measured by
``python benchmarks/attack_settings.py --model examples/models/s64.pt`` (and
``b64.pt``) ``--loss ce --temperature 1``: 200 digits, seed 1, 20 fresh draws.

========== ================== ================== ============= ==============
estimator  FGSM on S64        FGSM on B64        PGD on S64    PGD on B64
========== ================== ================== ============= ==============
identity   48.1 / 14.7 / 7.2  80.5 / 29.5 / 8.0  16.2 at 0.1   19.5 at 0.1
clipped    61.6 / 26.0 / 12.8 66.0 / 27.5 / 8.0  7.0 at 0.1    6.5 at 0.1
tanh       58.1 / 19.8 / 9.2  58.0 / 19.5 / 6.0  4.4 at 0.1    2.0 at 0.1
strongest  43.6 / 13.3 / 5.6  54.0 / 14.0 / 2.5  3.9 at 0.1    1.5 at 0.1
========== ================== ================== ============= ==============

FGSM's default is therefore ``strongest``, which costs three gradients.  PGD's
is ``tanh``: with ``--restarts 2`` it reaches 3.5 (S64) and 1.0 (B64) at 0.1,
below ``strongest`` at two thirds of its steps.  The identity is the paper's.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError

__all__ = [
    "AttackConfig",
    "CampaignConfig",
    "Crafted",
    "Estimator",
    "EstimatorChoice",
    "FgsmConfig",
    "LabelRule",
    "LossName",
    "PgdConfig",
    "levels",
]

#: Gradient of a threshold: see :mod:`bnnmcu.attack.twin`.
Estimator = Literal["identity", "clipped", "tanh"]
#: One of them, or ``strongest``: craft with each, keep the best for each image.
EstimatorChoice = Literal["identity", "clipped", "tanh", "strongest"]
#: What an attack maximises: see :mod:`bnnmcu.attack.losses`.
LossName = Literal["ce", "margin", "dlr"]
#: ``prediction``: the network's own label, as in the paper; ``true``: the data's.
LabelRule = Literal["prediction", "true"]

_MAX_DRAWS = 1000
_MAX_STEPS = 100_000


def levels(epsilon: float) -> int:
    """Pixel levels of a budget: ``floor(255 * epsilon)``.

    Raises:
        UsageError: epsilon is not within [0, 1].
    """
    if not 0.0 <= epsilon <= 1.0:
        raise UsageError(f"epsilon {epsilon} is not between 0 and 1", where="--eps")
    # k / 255 must give k, whatever the last bit of the quotient.
    return math.floor(255.0 * epsilon + 1e-9)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}; {low} to {high} are possible")


def _one_of(name: str, value: str, names: tuple[str, ...]) -> None:
    if value not in names:
        raise UsageError(f"{name} {value!r} is unknown; use {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class _GradientAttack:
    epsilon: float
    eot_draws: int = 10
    loss: LossName = "ce"
    temperature: float = 1.0
    estimator: EstimatorChoice = "tanh"

    def __post_init__(self) -> None:
        levels(self.epsilon)
        _within("EOT draws", self.eot_draws, 1, _MAX_DRAWS)
        _within("temperature", self.temperature, 1e-6, 1e6)
        _one_of("loss", self.loss, get_args(LossName))
        _one_of("estimator", self.estimator, get_args(EstimatorChoice))

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """Those to craft with, all of them for ``strongest``."""
        return get_args(Estimator) if self.estimator == "strongest" else (self.estimator,)

    @property
    def levels(self) -> int:
        """The budget in pixel levels."""
        return levels(self.epsilon)


@dataclass(frozen=True, kw_only=True)
class FgsmConfig(_GradientAttack):
    """One step of the whole budget along the gradient's sign (Goodfellow et al., 2015).

    Attributes:
        epsilon: the L-infinity budget.
        eot_draws: draws the loss is averaged over; 1 for deterministic networks.
        loss, temperature: see :mod:`bnnmcu.attack.losses`.
        estimator: of the thresholds' gradients; ``strongest`` takes the step with
            each and keeps, for each image, the one that does best on fresh draws.
        label: whose loss is raised; the paper takes the network's own label.
    """

    estimator: EstimatorChoice = "strongest"
    label: LabelRule = "prediction"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("label", self.label, get_args(LabelRule))

    @property
    def kind(self) -> str:
        """Name of the attack."""
        return "fgsm"


@dataclass(frozen=True, kw_only=True)
class PgdConfig(_GradientAttack):
    """Projected gradient descent in the L-infinity ball (Madry et al., 2018).

    Attributes:
        epsilon, eot_draws, loss, temperature, estimator: as for FGSM; every
            step has fresh draws.  ``strongest`` makes all starts with each
            estimator, so it costs three times as much.
        steps: iterations of each start.
        step_levels: pixel levels of a step; None for 2.5 * budget / steps,
            rounded up.
        restarts: independent starts with each estimator; what does best on
            fresh draws is kept, for each image.
        random_start: uniform in the ball; otherwise at the image (one restart).
    """

    steps: int = 40
    step_levels: int | None = None
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("steps", self.steps, 1, _MAX_STEPS)
        _within("restarts", self.restarts, 1, 1000)
        if self.step_levels is not None:
            _within("step levels", self.step_levels, 1, 255)
        if self.restarts > 1 and not self.random_start:
            raise UsageError("restarts without a random start would repeat the same attack")

    @property
    def kind(self) -> str:
        """Name of the attack."""
        return "pgd"

    @property
    def step(self) -> int:
        """Pixel levels of a step."""
        return self.step_levels or max(1, math.ceil(2.5 * self.levels / self.steps))


AttackConfig = FgsmConfig | PgdConfig


@dataclass(frozen=True)
class CampaignConfig:
    """A clean evaluation and a list of attacks.

    Attributes:
        attacks: crafted and evaluated in this order.
        draws: with which every image is evaluated, each with a seed of its own.
        seed: everything random derives from it.
        chunk: images crafted together; part of what makes a result reproducible.
    """

    attacks: tuple[AttackConfig, ...]
    draws: int = 20
    seed: int = 1
    chunk: int = 25

    def __post_init__(self) -> None:
        _within("draws", self.draws, 1, _MAX_DRAWS)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("chunk", self.chunk, 1, 10_000)
        cases = [(attack.kind, attack.levels) for attack in self.attacks]
        if len(set(cases)) != len(cases):
            raise UsageError("an attack is listed twice with the same budget in pixel levels")

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what must agree when a run is resumed."""
        attacks = [{"attack": attack.kind, **asdict(attack)} for attack in self.attacks]
        return {**asdict(self), "attacks": attacks}


@dataclass(frozen=True, eq=False)
class Crafted:
    """What an attack made of N images.

    Attributes:
        images: uint8, shape (N, H, W, C).
        zero_gradients: float64, shape (N,): share of the steps in which the
            whole gradient of an image was zero, of the start that was kept.
        estimators: which one made each image, length N; empty when none did.
    """

    images: npt.NDArray[np.uint8]
    zero_gradients: npt.NDArray[np.float64]
    estimators: tuple[Estimator, ...] = ()
