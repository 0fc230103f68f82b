"""Attacks that see nothing but answers of an oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from bnnmcu.attack.config.base import AttackConfig, LabelRule, Needs, levels, one_of, within
from bnnmcu.errors import UsageError

__all__ = [
    "Answers",
    "BlackBoxConfig",
    "HopSkipJumpConfig",
    "SeedPolicy",
    "SquareConfig",
    "SubstituteConfig",
]

#: What an oracle lets the attacker see.
Answers = Literal["logits", "label"]
#: Seeds of the queries: one of its own for each, the same for all, or the one
#: that will judge the image.
SeedPolicy = Literal["fresh", "fixed", "known"]

_MAX_CHUNK = 10_000


@dataclass(frozen=True, kw_only=True)
class BlackBoxConfig(AttackConfig):
    """What attacks by queries share.

    Attributes:
        budget: inferences an image may cost.
        answers: what the oracle gives.
        votes: draws of a query; each counts as one inference.
        query_seeds: of the queries, ``fresh`` or ``fixed``; an adversary who knows the
            seed queries with that one.
        chunk: images that are queried together, and repeated when a run is killed.
    """

    needs: ClassVar[Needs] = "queries"

    budget: int = 500
    answers: Answers = "logits"
    votes: int = 1
    query_seeds: Literal["fresh", "fixed"] = "fresh"
    chunk: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        within("budget", self.budget, 1, 10_000_000)
        within("votes", self.votes, 1, 1000)
        within("chunk", self.chunk, 1, _MAX_CHUNK)
        one_of("answers", self.answers, get_args(Answers))
        one_of("query seeds", self.query_seeds, ("fresh", "fixed"))
        if self.votes > self.budget:
            raise UsageError(f"a query of {self.votes} draws exceeds the budget of {self.budget}")
        if self.model:
            raise UsageError(
                f"{self.kind} asks the network that answers, not {self.model!r}",
                hint="leave 'model' out",
            )
        if self.adversary == "seed-chosen":
            raise UsageError(
                f"{self.kind} does not search for a seed", hint="use adversary seed-known"
            )
        if self.votes > 1 and self.knows_seed:
            raise UsageError(
                f"{self.votes} votes would all be the same: the seed is known", hint="use 1 vote"
            )

    @property
    def policy(self) -> SeedPolicy:
        """Seeds of the queries: the judging one for the adversary who knows it."""
        return "known" if self.knows_seed else self.query_seeds

    def _needs_answers(self, wanted: Answers) -> None:
        if self.answers != wanted:
            raise UsageError(f"{self.kind} works on answers {wanted!r}, not {self.answers!r}")


@dataclass(frozen=True, kw_only=True)
class SquareConfig(BlackBoxConfig):
    """The Square attack on scores in L-infinity (Andriushchenko et al., 2020).

    Attributes:
        epsilon: the L-infinity budget.
        p_init: share of the pixels that the first square covers.
        recheck: further queries about an image that seems better, where the
            network draws its weights; 0 as published.
        confirm: queries in a row that must fool a network that draws its weights
            before the search ends; 0 ends it at the first success, as published.
    """

    kind: ClassVar[str] = "square"

    epsilon: float
    p_init: float = 0.8
    recheck: int = 8
    confirm: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        levels(self.epsilon)
        within("p_init", self.p_init, 1e-6, 1.0)
        within("recheck", self.recheck, 0, 1000)
        within("confirm", self.confirm, 0, 1000)
        self._needs_answers("logits")

    @property
    def levels(self) -> int:
        """The budget in pixel levels."""
        return levels(self.epsilon)


@dataclass(frozen=True, kw_only=True)
class HopSkipJumpConfig(BlackBoxConfig):
    """HopSkipJump on labels in L2 (Chen, Jordan & Wainwright, 2020).

    Attributes:
        first_batch: labels of the first estimate of the boundary's direction;
            the k-th one takes sqrt(k) times as many.
        probe: how far the probes of that estimate lie from the boundary, as a
            share of the distance to the clean image.  ART's 0.01 (the authors'
            code has 1 / pixels, less still) moves a pixel of a digit by a
            fraction of a level, which rounding swallows: 0.01, 0.1, 0.3 and 1
            left a mean L2 of 5.7, 3.8, 2.8 and 3.0 by ``python
            benchmarks/black_box_settings.py --model examples/models/b64.pt
            --attack hopskipjump -n 20``, 1,000 inferences a digit.
        confirm: queries that must fool a network that draws its weights before
            an image is given back; 0 takes the nearest image that ever did.
        overshoot: how far past the boundary the image may be pushed until they do;
            1 for not at all.
    """

    kind: ClassVar[str] = "hopskipjump"

    budget: int = 1000
    answers: Answers = "label"
    first_batch: int = 100
    probe: float = 0.3
    confirm: int = 0
    overshoot: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("first batch", self.first_batch, 2, 10_000)
        within("probe", self.probe, 1e-4, 1.0)
        within("confirm", self.confirm, 0, 1000)
        within("overshoot", self.overshoot, 1.0, 10.0)
        if self.overshoot > 1 and not self.confirm:
            raise UsageError("an overshoot needs 'confirm', queries that say when it suffices")


@dataclass(frozen=True, kw_only=True)
class SubstituteConfig(BlackBoxConfig):
    """A substitute model trained on an oracle's labels (Papernot et al., 2017).

    The last ``held_out`` images of the run's data train the substitute and are
    not judged, so that the judged ones are the first of the data, as in every
    other case.  All of them are one chunk: the substitute is trained once.

    Attributes:
        epsilon: of the gradient attack on the substitute, L-infinity.
        budget: inferences that training may cost in all.
        chunk: images crafted from one training; the default takes all.
        held_out: images that train the substitute.
        rounds: of training; one augmentation fewer.
        step: lambda of the Jacobian augmentation, of the pixels' range.
        epochs: of each round.
        variant: ``corrected`` is the method of the paper; ``as-published`` is
            what Galloway et al. (2018) ran, which overwrites half of its images
            and starts from true labels.
        gradient: the attack on the substitute.
        label: whose loss it raises: the true label's, or that of the substitute's
            own prediction, as published.
    """

    kind: ClassVar[str] = "substitute"

    epsilon: float
    budget: int = 100_000
    answers: Answers = "label"
    chunk: int = _MAX_CHUNK
    held_out: int = 150
    rounds: int = 6
    step: float = 0.1
    epochs: int = 10
    variant: Literal["corrected", "as-published"] = "corrected"
    gradient: Literal["fgsm", "pgd"] = "fgsm"
    label: LabelRule = "true"

    def __post_init__(self) -> None:
        super().__post_init__()
        levels(self.epsilon)
        within("held out images", self.held_out, 1, 100_000)
        within("rounds", self.rounds, 1, 20)
        within("step", self.step, 1e-6, 1.0)
        within("epochs", self.epochs, 1, 10_000)
        one_of("variant", self.variant, ("corrected", "as-published"))
        one_of("gradient", self.gradient, ("fgsm", "pgd"))
        one_of("label", self.label, get_args(LabelRule))
        if self.knows_seed:
            raise UsageError("a substitute is one for all images, and each has its own seed")
        if self.inferences > self.budget:
            raise UsageError(
                f"training asks for {self.inferences} inferences, the budget is {self.budget}",
                hint="take fewer rounds, images or votes",
            )

    @property
    def levels(self) -> int:
        """The budget in pixel levels."""
        return levels(self.epsilon)

    @property
    def inferences(self) -> int:
        """What training asks of the oracle, in all."""
        labels: int = self.held_out << (self.rounds - 1)
        if self.variant == "as-published":
            labels -= self.held_out
        return labels * self.votes
