"""Attacks that look for the smallest change instead of using up a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from bnnmcu.attack.config.base import (
    AttackConfig,
    Estimator,
    EstimatorChoice,
    TargetRule,
    one_of,
    within,
)
from bnnmcu.errors import UsageError

__all__ = ["CwConfig", "JsmaConfig", "Judge", "SaliencyOutput", "SuccessRule"]

#: By which draws CW is judged: those of the step, or fresh ones.
Judge = Literal["step", "fresh"]
#: How many of the draws that judge must be fooled: one, more than half, or all.
SuccessRule = Literal["any", "majority", "all"]
#: What JSMA differentiates.
SaliencyOutput = Literal["logits", "probabilities"]

_MAX_ITERATIONS = 100_000
_MAX_FRESH_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class CwConfig(AttackConfig):
    """The L2 attack of Carlini & Wagner (2017).

    Attributes:
        confidence: kappa, by how much the target's logit must lead in the loss.
        initial_constant: c, the weight of that lead against the distance.
        search_steps: of the binary search over c, for each estimator; 1 tries the
            initial one only.
        learning_rate, iterations: of Adam, for each c.
        early_abort: every tenth of the iterations, stop if the loss of all images
            together is not below 0.9999 of what it was.
        restart_stuck: an image that has run into a place without any gradient (all
            rectified units at zero, say) begins again, from a random place nearby.
        judge: ``step`` counts as fooled what the very draw of a step says of the
            unrounded image, kappa included, as published code does.  ``fresh``
            rounds every iterate to pixels before it is looked at, and believes
            only draws that took no part in making it.
        fresh_draws: of a judgement by fresh draws.
        success: how many of the draws that judge must be fooled.
        estimator: of the thresholds' gradients; ``strongest`` takes ``tanh``, and
            then the others for the images that it has not fooled.
    """

    kind: ClassVar[str] = "cw"

    targets: TargetRule = "pairs"
    confidence: float = 0.0
    initial_constant: float = 10.0
    search_steps: int = 1
    learning_rate: float = 0.1
    iterations: int = 100
    early_abort: bool = True
    restart_stuck: bool = False
    judge: Judge = "step"
    fresh_draws: int = 20
    success: SuccessRule = "all"
    estimator: EstimatorChoice = "identity"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("confidence", self.confidence, 0.0, 1e9)
        within("the initial constant", self.initial_constant, 1e-9, 1e10)
        within("search steps", self.search_steps, 1, 100)
        within("the learning rate", self.learning_rate, 1e-9, 1e3)
        within("iterations", self.iterations, 1, _MAX_ITERATIONS)
        within("fresh draws", self.fresh_draws, 1, _MAX_FRESH_DRAWS)
        one_of("judge", self.judge, get_args(Judge))
        one_of("success", self.success, get_args(SuccessRule))
        one_of("estimator", self.estimator, get_args(EstimatorChoice))

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """Those to craft with, in this order; each is for what the ones before left."""
        if self.estimator == "strongest":
            return ("tanh", "clipped", "identity")
        return (self.estimator,)

    @classmethod
    def paper(cls, **changed: Any) -> Self:
        """The setting of Galloway et al. (2018): one draw a step, kappa 0, c 10, early abort."""
        return cls(**{"adversary": "paper"} | changed)

    @classmethod
    def adaptive(cls, **changed: Any) -> Self:
        """Against drawn weights: kappa above 0, a search over c, no early abort, EOT."""
        settings: dict[str, Any] = {
            "confidence": 5.0,
            "search_steps": 3,
            "early_abort": False,
            "restart_stuck": True,
            "judge": "fresh",
            "fresh_draws": 30,
            "estimator": "strongest",
        }
        return cls(**settings | changed)


@dataclass(frozen=True, kw_only=True)
class JsmaConfig(AttackConfig):
    """The Jacobian-based saliency map attack (Papernot et al., 2016), which raises pixels.

    Attributes:
        theta: by how much a step raises each of its two pixels, in (0, 1]; used
            as whole pixel levels.
        gamma: largest share of the pixels that may be changed, the paper's
            upsilon; a step of two pixels is counted as two new ones.
        output: whose derivatives make the saliency map.  The paper takes the
            logits, since a softmax saturates; but probabilities weigh the other
            labels by how near they are, and fool more images (below).
        temperature: of that softmax.
        estimator: of the thresholds' gradients.

    Accuracy, and share of draws that give the target, in %, by ``python
    benchmarks/attack_settings.py --model examples/models/s64.pt -n 100 --attack jsma
    --attack jsma-paper --estimator identity --estimator clipped --estimator tanh``
    (and ``b64.pt``): 100 digits with a target each, 21 fresh draws.

    ============== =========== ===========
    setting        S64         B64
    ============== =========== ===========
    identity       6.8 / 78.8  39.0 / 61.0
    clipped        8.0 / 71.8  19.0 / 81.0
    tanh           6.6 / 78.5  16.0 / 84.0
    ``jsma-paper`` 50.9 / 22.4 61.0 / 38.0
    ============== =========== ===========
    """

    kind: ClassVar[str] = "jsma"

    targets: TargetRule = "pairs"
    theta: float = 1.0
    gamma: float = 0.145
    output: SaliencyOutput = "probabilities"
    temperature: float = 1.0
    estimator: Estimator = "tanh"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("theta", self.theta, 1.0 / 255.0, 1.0)
        within("gamma", self.gamma, 1e-6, 1.0)
        within("temperature", self.temperature, 1e-6, 1e6)
        one_of("output", self.output, get_args(SaliencyOutput))
        one_of("estimator", self.estimator, get_args(Estimator))
        if self.output == "logits" and self.temperature != 1.0:
            raise UsageError("logits have no softmax for a temperature: leave it out")

    @property
    def step(self) -> int:
        """Pixel levels of a step."""
        return round(255.0 * self.theta)

    def iterations(self, pixels: int) -> int:
        """How many pairs may be raised in an image of so many pixels (all channels)."""
        return math.floor(pixels * self.gamma / 2.0 + 1e-9)
