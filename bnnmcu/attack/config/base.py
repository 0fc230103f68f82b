"""What every attack is told, and what every attack gives back; needs no torch.

Budgets in L-infinity are given as epsilon in [0, 1] and used as whole pixel
levels: ``floor(255 * epsilon)``, so 0.1, 0.2 and 0.3 are 25, 51 and 76 levels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError

__all__ = [
    "CLEAN",
    "Adversary",
    "AttackConfig",
    "Crafted",
    "Estimator",
    "EstimatorChoice",
    "LabelRule",
    "LossName",
    "Needs",
    "TargetRule",
    "levels",
    "one_of",
    "within",
]

#: Name of the case without an attack.
CLEAN = "clean"

#: Gradient of a threshold: see :mod:`bnnmcu.attack.twin`.
Estimator = Literal["identity", "clipped", "tanh"]
#: One of them, or ``strongest``: craft with each, keep the best for each image.
EstimatorChoice = Literal["identity", "clipped", "tanh", "strongest"]
#: What an attack maximises: see :mod:`bnnmcu.attack.losses`.
LossName = Literal["ce", "margin", "dlr"]
#: ``prediction``: the network's own label, as in the paper; ``true``: the data's.
LabelRule = Literal["prediction", "true"]
#: ``none``: leave the true label.  ``pairs``: one wrong label for each image, spread
#: evenly (:mod:`bnnmcu.attack.pairs`).  ``all``: every wrong label, one example each.
TargetRule = Literal["none", "pairs", "all"]
#: ``paper``: one draw a step, judged on fresh ones.  ``eot``: averages over draws in
#: every step, does not know the seed.  ``seed-known``: knows the seed that will judge
#: the image.  ``seed-chosen``: picks it.
Adversary = Literal["paper", "eot", "seed-known", "seed-chosen"]
#: Of a model, or of an oracle.
Needs = Literal["gradients", "queries"]

_MAX_DRAWS = 1000
# Of a case: it stands in results files, and may become a part of a file's name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


def levels(epsilon: float) -> int:
    """Pixel levels of a budget: ``floor(255 * epsilon)``.

    Raises:
        UsageError: epsilon is not within [0, 1].
    """
    if not 0.0 <= epsilon <= 1.0:
        raise UsageError(f"epsilon {epsilon} is not between 0 and 1", where="--eps")
    # k / 255 must give k, whatever the last bit of the quotient.
    return math.floor(255.0 * epsilon + 1e-9)


def within(name: str, value: float, low: float, high: float) -> None:
    """Raise a UsageError unless ``low <= value <= high``; no NaN passes."""
    if not low <= value <= high:
        raise UsageError(f"{name} is {value}; {low} to {high} are possible")


def one_of(name: str, value: str, names: tuple[str, ...]) -> None:
    """Raise a UsageError unless ``value`` is one of ``names``."""
    if value not in names:
        raise UsageError(f"{name} {value!r} is unknown; use {', '.join(names)}")


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """What all attacks have in common.

    Attributes:
        name: of the case; empty for the kind's.  Cases of one kind need names
            of their own where their budgets are equal.
        images: the first so many of the run's; None for all.
        targets: which labels are to be reached, if any.
        adversary: what the attacker knows of the draws.
        model: whose gradients are taken, by its name in the campaign; empty for
            the integer twin of the network that answers.
        eot_draws: draws of the weights that every step averages over.
        candidate_seeds: among which the adversary ``seed-chosen`` picks.
    """

    kind: ClassVar[str] = ""
    needs: ClassVar[Needs] = "gradients"

    name: str = ""
    images: int | None = None
    targets: TargetRule = "none"
    adversary: Adversary = "eot"
    model: str = ""
    eot_draws: int = 10
    candidate_seeds: int = 64

    def __post_init__(self) -> None:
        if self.name == CLEAN or (self.name and not _NAME.fullmatch(self.name)):
            raise UsageError(
                f"{self.name!r} cannot be the name of a case",
                hint=f"use up to 64 letters, digits and . _ + -, but not {CLEAN!r}",
            )
        if self.images is not None:
            within("images", self.images, 1, 2**31 - 1)
        one_of("targets", self.targets, get_args(TargetRule))
        one_of("adversary", self.adversary, get_args(Adversary))
        within("EOT draws", self.eot_draws, 1, _MAX_DRAWS)
        within("candidate seeds", self.candidate_seeds, 1, _MAX_DRAWS)

    @property
    def case(self) -> str:
        """Name of the case in tables and files."""
        return self.name or self.kind

    @property
    def levels(self) -> int:
        """The budget in pixel levels; 0 for an attack without one."""
        return 0

    @property
    def step_draws(self) -> int:
        """Draws that a step really averages over: one for the paper's adversary."""
        return 1 if self.adversary == "paper" else self.eot_draws

    @property
    def knows_seed(self) -> bool:
        """The image is crafted against the very draw that judges it."""
        return self.adversary in ("seed-known", "seed-chosen")


@dataclass(frozen=True, eq=False)
class Crafted:
    """What an attack made of N images.

    Attributes:
        images: uint8, shape (N, H, W, C).
        zero_gradients: float64, shape (N,): share of the steps in which the
            whole gradient of an image was zero, of the start that was kept.
        estimators: which one made each image, length N; empty when none did.
        details: of each image, plain JSON values, length N; empty when there are
            none.  docs/ATTACKS.md lists the keys.
    """

    images: npt.NDArray[np.uint8]
    zero_gradients: npt.NDArray[np.float64]
    estimators: tuple[Estimator, ...] = ()
    details: tuple[Mapping[str, Any], ...] = ()
