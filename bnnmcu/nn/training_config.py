"""How a network is trained, as data: needs no torch, so that naming a training does not either."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from bnnmcu.errors import UsageError

__all__ = [
    "AdversarialConfig",
    "EpochReport",
    "FgsmScale",
    "Method",
    "Schedule",
    "Statistics",
    "TrainingConfig",
]

Method = Literal["fgsm", "pgd"]
FgsmScale = Literal["paper", "published"]
Schedule = Literal["cosine", "constant"]
Statistics = Literal["running", "recomputed"]

# Left out of ``to_dict`` while they have these values: a training made before they
# existed is the same training.
_SINCE_THE_FIRST = {"schedule": "cosine", "label_smoothing": 0.0, "statistics": "running"}


@dataclass(frozen=True)
class AdversarialConfig:
    """How adversarial examples take part in training.

    Attributes:
        method: ``fgsm`` or ``pgd``.
        after: clean epochs before the first one with adversarial examples.
        fgsm_scale: ``paper`` draws epsilon from |N(0, 39/255)| cut at two sigma;
            ``published`` forgets the division, as the authors' code does, so
            that nearly every pixel becomes black or white.
        epsilon: radius of PGD's ball, of pixels in [0, 1].
        step: of one iteration of PGD.
        iterations: of PGD.
    """

    method: Method
    after: int = 10
    fgsm_scale: FgsmScale = "paper"
    epsilon: float = 0.3
    step: float = 0.01
    iterations: int = 20

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UsageError(f"adversarial training by {self.method!r}; use fgsm or pgd")
        if self.fgsm_scale not in get_args(FgsmScale):
            raise UsageError(f"FGSM scale {self.fgsm_scale!r}; use paper or published")
        if self.after < 0 or self.iterations < 1:
            raise UsageError("clean epochs must be at least 0, iterations at least 1")
        if not 0 < self.epsilon <= 1 or not 0 < self.step <= 1:
            raise UsageError(
                f"epsilon {self.epsilon} and step {self.step} must be above 0 and at most 1"
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Attributes:
        epochs: passes over the data.
        learning_rate: Adam's, at the start.
        batch_size: images per step.
        seed: of initial weights, order and draws.
        first_image: images below this index are left out.
        threads: of torch; part of what makes a result reproducible.
        adversarial: examples that join in after some epochs; None for none.
        first_bits: width of the integers that the first layer's weights are
            rounded to in every pass, as an export with so many bits rounds them;
            None for real weights.
        schedule: ``cosine`` lets the learning rate fall to zero along a half
            cosine, ``constant`` keeps it (the authors' choice).
        label_smoothing: share of the target that the true class gives to the
            others, in equal parts, as CleverHans's black-box tutorial does it
            (0.9 and nine times 0.0111 for 0.1).
        statistics: of batch normalisation: ``running`` as they are after the last
            step, or ``recomputed`` from training images with the final weights.
            Running ones lag behind weights that still move at a constant rate.
    """

    epochs: int = 15
    learning_rate: float = 1e-3
    batch_size: int = 128
    seed: int = 1234
    first_image: int = 0
    threads: int = 1
    adversarial: AdversarialConfig | None = None
    first_bits: int | None = None
    schedule: Schedule = "cosine"
    label_smoothing: float = 0.0
    statistics: Statistics = "running"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.threads < 1:
            raise UsageError("epochs and threads must be at least 1, batch size at least 2")
        if not 0 < self.learning_rate < 1:
            raise UsageError(f"learning rate {self.learning_rate} is not between 0 and 1")
        if self.adversarial is not None and self.adversarial.after >= self.epochs:
            raise UsageError(
                f"adversarial examples after {self.adversarial.after} epochs, but there are only "
                f"{self.epochs}",
                hint="train for more epochs, or begin earlier",
            )
        if self.first_bits is not None and not 8 <= self.first_bits <= 14:
            raise UsageError(f"first layer of {self.first_bits} bits; 8 to 14 are possible")
        if self.schedule not in get_args(Schedule):
            raise UsageError(f"schedule {self.schedule!r}; use cosine or constant")
        if self.statistics not in get_args(Statistics):
            raise UsageError(f"statistics {self.statistics!r}; use running or recomputed")
        if not 0 <= self.label_smoothing < 0.5:
            raise UsageError(f"label smoothing {self.label_smoothing} is not within [0, 0.5)")

    def to_dict(self) -> dict[str, Any]:
        """As in a manifest; what a training does without is left out."""
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None
            and not (name in _SINCE_THE_FIRST and value == _SINCE_THE_FIRST[name])
        }


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did so far; ``step`` and ``steps`` let a progress bar move within it.

    Attributes:
        epoch: 1 for the first.
        epochs: of the whole training.
        step: steps done of this epoch.
        steps: of an epoch.
        loss: mean over the steps done.
        train_error: share of clean images whose label was wrong.
        seconds: since the epoch began, by the clock.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    train_error: float
    seconds: float
