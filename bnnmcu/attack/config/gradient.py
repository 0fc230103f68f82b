"""Attacks that follow a gradient within a budget.

No estimator of the thresholds' gradients wins everywhere, hence the defaults.
Accuracy in % at epsilon 0.1 / 0.2 / 0.3 on the example networks, measured by
``python benchmarks/attack_settings.py --model examples/models/s64.pt`` (and
``b64.pt``) ``-n 200 --attack fgsm --attack pgd --loss ce --temperature 1 --draws 20``:
200 digits, seed 1.

========== ================== ================== ============= ==============
estimator  FGSM on S64        FGSM on B64        PGD on S64    PGD on B64
========== ================== ================== ============= ==============
identity   47.1 / 15.0 / 8.1  80.5 / 29.5 / 8.0  16.2 at 0.1   19.5 at 0.1
clipped    61.7 / 24.4 / 14.3 66.0 / 27.5 / 8.0  7.0 at 0.1    6.5 at 0.1
tanh       55.8 / 20.6 / 10.2 58.0 / 19.5 / 6.0  4.4 at 0.1    2.0 at 0.1
strongest  43.4 / 13.2 / 6.1  54.0 / 14.0 / 2.5  3.9 at 0.1    1.5 at 0.1
========== ================== ================== ============= ==============

FGSM's default is therefore ``strongest``, which costs three gradients.  PGD's
is ``tanh``: with ``--restarts 2`` it reaches 3.5 (S64) and 1.0 (B64) at 0.1,
below ``strongest`` at two thirds of its steps.  The identity is the paper's.

The others, 40 steps, EOT over 10 draws; a preset as it stands.  By the same with
``-n 100 --attack pgd --attack apgd --attack pgd-l2 --attack apgd-l2 --attack
autoattack-rand --estimator tanh --loss ce --loss dlr --temperature 1 --eps 0.1
--l2 1 --l2 1.5``: 100 digits, 21 fresh draws, clean 96.0 (S64) and 98.0 (B64).

=================== ======== =========== =========== =========== ===========
attack              epsilon  CE on S64   DLR on S64  CE on B64   DLR on B64
=================== ======== =========== =========== =========== ===========
PGD                 0.1      4.5         5.0         2.0         13.0
AutoPGD             0.1      3.8         5.3         1.0         4.0
``autoattack-rand`` 0.1      1.5 by both             0.0 by both
PGD, L2             1 / 1.5  8.1 / 1.0   10.7 / 2.5  8.0 / 0.0   25.0 / 8.0
AutoPGD, L2         1 / 1.5  8.6 / 1.7   12.0 / 3.3  10.0 / 1.0  20.0 / 4.0
=================== ======== =========== =========== =========== ===========

PGD in L2 by the usual step of 2.5 / steps left 16.0 / 3.7 and 20.0 / 3.0 by
cross-entropy, so its steps are a quarter of epsilon at least.  Temperatures of
4, 10 and 30 win nothing here (AutoPGD: 4.9, 5.7, 7.0 on S64; 1.0, 5.0, 5.0 on
B64): these logits are not saturated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

from bnnmcu.attack.config.base import (
    AttackConfig,
    Estimator,
    EstimatorChoice,
    LabelRule,
    LossName,
    levels,
    one_of,
    within,
)
from bnnmcu.errors import UsageError

__all__ = ["ApgdConfig", "FgsmConfig", "GradientConfig", "PgdConfig", "PgdL2Config", "Setting"]

_MAX_STEPS = 100_000
_MAX_RESTARTS = 1000
# No two images of 28 x 28 pixels are further apart than 28; larger ones may be.
_MAX_L2 = 1000.0
# Of an L2 budget: see the table above.
_LEAST_SHARE = 0.25


class Setting(NamedTuple):
    """What one start of an attack follows."""

    estimator: Estimator
    loss: LossName
    temperature: float


@dataclass(frozen=True, kw_only=True)
class GradientConfig(AttackConfig):
    """What gradient attacks with a budget share.

    Attributes:
        epsilon: the budget: L-infinity in [0, 1], or L2 in units of the pixels'
            range where the attack says so.
        loss, temperature: see :mod:`bnnmcu.attack.losses`.
        losses, temperatures: several to try instead, each with each; what does
            best on fresh draws is kept, for each image.
        estimator: of the thresholds' gradients; ``strongest`` tries each and
            keeps, for each image, what does best on fresh draws.
    """

    epsilon: float
    loss: LossName = "ce"
    temperature: float = 1.0
    losses: tuple[LossName, ...] = ()
    temperatures: tuple[float, ...] = ()
    estimator: EstimatorChoice = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_epsilon()
        for temperature in (self.temperature, *self.temperatures):
            within("temperature", temperature, 1e-6, 1e6)
        for loss in (self.loss, *self.losses):
            one_of("loss", loss, get_args(LossName))
        one_of("estimator", self.estimator, get_args(EstimatorChoice))
        for one, several, plain in (("loss", "losses", "ce"), ("temperature", "temperatures", 1.0)):
            if getattr(self, several) and getattr(self, one) != plain:
                raise UsageError(
                    f"{one!r} and {several!r} exclude each other", hint="leave one out"
                )

    def _check_epsilon(self) -> None:
        levels(self.epsilon)

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """Those to craft with, all of them for ``strongest``."""
        return get_args(Estimator) if self.estimator == "strongest" else (self.estimator,)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All to craft with, in this order; only cross-entropy knows temperatures."""
        return tuple(
            Setting(estimator, loss, temperature)
            for estimator in self.estimators
            for loss in self.losses or (self.loss,)
            for temperature in (
                (self.temperatures or (self.temperature,)) if loss == "ce" else (1.0,)
            )
        )

    @property
    def levels(self) -> int:
        """The budget in pixel levels; of an L2 budget, epsilon in units of one level."""
        return levels(self.epsilon)


@dataclass(frozen=True, kw_only=True)
class FgsmConfig(GradientConfig):
    """One step of the whole budget along the gradient's sign (Goodfellow et al., 2015).

    Attributes:
        label: whose loss is raised; the paper takes the network's own label.
    """

    kind: ClassVar[str] = "fgsm"

    estimator: EstimatorChoice = "strongest"
    label: LabelRule = "prediction"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("label", self.label, get_args(LabelRule))


@dataclass(frozen=True, kw_only=True)
class PgdConfig(GradientConfig):
    """Projected gradient descent in the L-infinity ball (Madry et al., 2018).

    Attributes:
        steps: iterations of each start; every one has fresh draws.
        step_levels: pixel levels of a step; None for 2.5 * budget / steps,
            rounded up.
        restarts: independent starts with each estimator; what does best on
            fresh draws is kept, for each image.
        random_start: uniform in the ball; otherwise at the image (one restart).
    """

    kind: ClassVar[str] = "pgd"

    steps: int = 40
    step_levels: int | None = None
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        within("steps", self.steps, 1, _MAX_STEPS)
        within("restarts", self.restarts, 1, _MAX_RESTARTS)
        if self.step_levels is not None:
            within("step levels", self.step_levels, 1, 255)
        if self.restarts > 1 and not self.random_start:
            raise UsageError("restarts without a random start would repeat the same attack")

    @property
    def step(self) -> int:
        """Pixel levels of a step."""
        return self.step_levels or max(1, math.ceil(2.5 * self.levels / self.steps))


@dataclass(frozen=True, kw_only=True)
class _L2Ball(GradientConfig):
    def _check_epsilon(self) -> None:
        within("the L2 budget", self.epsilon, 0.0, _MAX_L2)

    @property
    def levels(self) -> int:
        """The L2 budget in units of one pixel level, rounded down."""
        return math.floor(255.0 * self.epsilon + 1e-9)


@dataclass(frozen=True, kw_only=True)
class PgdL2Config(_L2Ball):
    """Projected gradient descent in the L2 ball (Madry et al., 2018).

    Attributes:
        epsilon: the largest L2 norm of the change, pixels in [0, 1].
        steps: iterations of each start; every one has fresh draws.
        step: length of a step in units of epsilon; None for 2.5 / steps, but at
            least 0.25: thresholds answer to long steps, and the best point is kept.
        restarts, random_start: as for :class:`PgdConfig`.
    """

    kind: ClassVar[str] = "pgd-l2"

    steps: int = 40
    step: float | None = None
    restarts: int = 1
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        within("steps", self.steps, 1, _MAX_STEPS)
        within("restarts", self.restarts, 1, _MAX_RESTARTS)
        if self.step is not None:
            within("step", self.step, 1e-6, 2.0)
        if self.restarts > 1 and not self.random_start:
            raise UsageError("restarts without a random start would repeat the same attack")

    @property
    def share(self) -> float:
        """Length of a step in units of epsilon."""
        return self.step or max(2.5 / self.steps, _LEAST_SHARE)


@dataclass(frozen=True, kw_only=True)
class ApgdConfig(_L2Ball):
    """AutoPGD (Croce & Hein, 2020): halves its step where it does not get on.

    Attributes:
        norm: ``linf`` (epsilon in [0, 1], as pixel levels) or ``l2``.
        steps: iterations of each start.
        restarts: independent random starts.
        rho: share of the steps since a checkpoint that must have raised the loss.
        eot_draws: 20, as AutoAttack's ``rand`` version has it.
    """

    kind: ClassVar[str] = "apgd"

    eot_draws: int = 20
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 100
    restarts: int = 1
    rho: float = 0.75

    def __post_init__(self) -> None:
        one_of("norm", self.norm, ("linf", "l2"))
        super().__post_init__()
        within("steps", self.steps, 1, _MAX_STEPS)
        within("restarts", self.restarts, 1, _MAX_RESTARTS)
        within("rho", self.rho, 0.0, 1.0)

    def _check_epsilon(self) -> None:
        if self.norm == "linf":
            levels(self.epsilon)
        else:
            super()._check_epsilon()
