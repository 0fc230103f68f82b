"""The figures of one case: an attack in one setting, or the clean images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from bnnmcu.attack.config.base import Estimator
from bnnmcu.attack.metrics.intervals import Accuracy

__all__ = ["Accuracies", "Case", "Distortion", "Pair", "Rounding", "Spread"]

_CLEAN = "clean"


@dataclass(frozen=True)
class Accuracies:
    """The three figures of this package's text."""

    mean: Accuracy
    majority: Accuracy
    worst: Accuracy


@dataclass(frozen=True)
class Spread:
    """Of one number an image."""

    mean: float
    median: float
    largest: float


@dataclass(frozen=True)
class Distortion:
    """Changes of some examples.

    Attributes:
        examples: how many.
        linf_mean, linf_median: of the largest change, in pixel levels.
        l2_mean, l2_median: of the Euclidean norm, in units of [0, 1].
    """

    examples: int
    linf_mean: float
    linf_median: float
    l2_mean: float
    l2_median: float


@dataclass(frozen=True)
class Rounding:
    """What rounding to pixels cost, on the model that the images were crafted on.

    Attributes:
        examples: of which the attack told both.
        before, after: share of fresh draws fooled, mean over these.
        l2_before, l2_after: Euclidean norm, likewise; None where it was not told.
    """

    examples: int
    before: float
    after: float
    l2_before: float | None
    l2_after: float | None


@dataclass(frozen=True)
class Pair:
    """One cell of the table of true labels and targets.

    Attributes:
        source, target: true label, and the label that was to be reached.
        examples: how many.
        mean: share of draws that are right.
        target_hit: share of draws that give the target.
    """

    source: int
    target: int
    examples: int
    mean: float
    target_hit: float


@dataclass(frozen=True)
class Case:
    """One attack in one setting, or the clean images.

    All shares are within [0, 1]; None stands for what is not known.

    Attributes:
        attack: name of the case; ``clean``, or what the attack was called.
        kind: of attack, such as ``pgd``; ``clean`` for the clean images.
        adversary: what the attacker knew of the draws; empty when clean.
        levels: the budget in pixel levels; 0 without one.
        epsilon: the budget that these levels really are, levels / 255.
        norm: of the budget, ``linf`` or ``l2``; empty without one.
        targeted: examples were to reach a certain label.
        images, examples, draws: how many were answered; draws of each.
        mean, majority, worst: accuracies against the true label over examples.
        per_image: the same over images, each under the worst of its targets.
        target_hit: share of draws that give the target, mean over examples.
        target_majority: share of examples of which no label has more draws than
            the target; the tie is the attacker's.
        attack_success: of the examples right by majority when clean, the share
            that is not any more; None also if there are none.
        unchanged: share of examples that the attack left as they were.
        gave_up: of examples right by majority when clean, those left as they were that still are.
        linf, linf_median: largest change, in pixel levels, over all examples.
        l2, l2_median: Euclidean norm of the change, in units of [0, 1].
        successes: changes of those examples that make up ``attack_success``.
        rounding: what it cost; None where the attack works on pixels.
        queries: inferences that the attacker asked for, an image.
        queries_shared: all images share these, since they trained one substitute.
        seconds: that crafting took, all examples together, on one core each.
        ticks: median over draws of the device's counter; None without clean counts.
        zero_gradients: share of examples that lacked any gradient in some step.
        non_finite: share of examples with a loss or gradient that was not finite.
        saturated: share of images whose softmax hardly has a gradient when clean.
        unrepeatable: share of examples to which the model that was attacked gave
            two answers under the same draws.
        kappa_unreachable: share of examples that no image could fool by that much.
        found: share of examples that the attack itself took for fooled.
        iterations: that the attack made, mean.
        disagreeing: share of examples whose draws do not all have one label.
        seeded: the seeds of all draws are known.
        settings: of the attack, plain values.
        pairs: true labels by targets; empty without targets.
    """

    attack: str
    kind: str
    adversary: str
    levels: int
    epsilon: float
    norm: str
    targeted: bool
    images: int
    examples: int
    draws: int
    mean: Accuracy
    majority: Accuracy
    worst: Accuracy
    per_image: Accuracies
    target_hit: Accuracy | None
    target_majority: Accuracy | None
    attack_success: Accuracy | None
    unchanged: float
    gave_up: float | None
    linf: float
    linf_median: float
    l2: float
    l2_median: float
    successes: Distortion | None
    rounding: Rounding | None
    queries: Spread | None
    queries_shared: bool
    seconds: float | None
    ticks: int | None
    zero_gradients: float
    non_finite: float
    saturated: float | None
    unrepeatable: float | None
    kappa_unreachable: float | None
    found: float | None
    iterations: float | None
    disagreeing: float
    seeded: bool
    settings: Mapping[str, Any]
    pairs: tuple[Pair, ...]

    @property
    def clean(self) -> bool:
        """No attack."""
        return self.kind == _CLEAN

    @property
    def name(self) -> str:
        """For sentences: the case with its budget."""
        if not self.norm:
            return self.attack
        return f"{self.attack} at {'L2 ' if self.norm == 'l2' else ''}epsilon {self.epsilon:.3f}"

    @property
    def step_draws(self) -> int:
        """Draws that every step of the attack averaged over."""
        return 1 if self.adversary == "paper" else int(self.settings.get("eot_draws", 1))

    @property
    def planned_iterations(self) -> int | None:
        """As many as the attack makes if nothing stops it; None if its settings do not say."""
        wanted, runs = self.settings.get("iterations"), self.settings.get("search_steps", 1)
        if type(wanted) is not int or type(runs) is not int:
            return None
        strongest = self.settings.get("estimator") == "strongest"
        return wanted * runs * (len(get_args(Estimator)) if strongest else 1)

    @property
    def stopped_early(self) -> bool:
        """It made fewer iterations than it might have, and was told to."""
        planned = self.planned_iterations
        few = None not in (planned, self.iterations) and (self.iterations or 0) < (planned or 0)
        return few and bool(self.settings.get("early_abort"))

    @property
    def by_queries(self) -> bool:
        """The attacker saw nothing but answers."""
        return "budget" in self.settings

    @property
    def transferred(self) -> bool:
        """The gradients were another model's than that of the network which answers."""
        return bool(self.settings.get("model"))

    @property
    def knows_seed(self) -> bool:
        """The attacker knew which draw would judge."""
        return self.adversary in ("seed-known", "seed-chosen")
