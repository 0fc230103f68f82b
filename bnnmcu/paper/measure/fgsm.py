"""FGSM as in tables 1 and 2, and what hides in its gradients.

The paper's protocol (section 4.1 and tables 1, 2; Goodfellow et al., 2015): one
step of the whole budget, label = the network's own prediction, straight-through
gradients, one draw of S's weights for the step and another one to judge by, all
test images, clipped to [0, 1].  Budgets are whole pixel levels: 25, 51 and 76
for 0.1, 0.2 and 0.3.  Images are crafted on the integer twin of what answers
(A: on itself), so that no rounding of weights passes for robustness.

A softmax of large logits is saturated, and its cross-entropy has no gradient
left: a temperature above 1, or the scale-invariant DLR loss, finds it again
(Carlini & Wagner, 2017; Croce & Hein, 2020).  Each is a job of its own; the
figures of the logits say how saturated a network is.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from bnnmcu.attack.config import AttackConfig, EstimatorChoice, FgsmConfig, LossName
from bnnmcu.data import Dataset
from bnnmcu.evaluate import draw_seeds
from bnnmcu.paper.jobs import JSON, Job, Value
from bnnmcu.paper.measure.figures import accuracy_values, clean_values
from bnnmcu.paper.measure.setup import Setup, answered, selected

__all__ = ["DEFAULTS", "attacks", "logit_values", "run"]

DEFAULTS: dict[str, JSON] = {
    "images": None,
    "draws": 1,
    "eps": (0.1, 0.2, 0.3),
    "estimator": "identity",
    "loss": "ce",
    "temperature": 1.0,
    "eot_draws": 1,
    "chunk": 100,
}


def attacks(job: Job) -> tuple[AttackConfig, ...]:
    """One for each budget."""
    draws = job.whole("eot_draws")
    (temperature,) = job.numbers("temperature")
    return tuple(
        FgsmConfig(
            epsilon=epsilon,
            adversary="paper" if draws == 1 else "eot",
            eot_draws=draws,
            estimator=cast(EstimatorChoice, job.setting("estimator")),
            loss=cast(LossName, job.setting("loss")),
            temperature=temperature,
            label="prediction",
        )
        for epsilon in job.numbers("eps")
    )


def logit_values(setup: Setup, data: Dataset) -> dict[str, Value]:
    """How far apart clean logits are, in the units of the trained network.

    Returns:
        ``logit_spread``: the largest minus the smallest of an image, mean over
        images, one draw each; ``logit_sd``: their standard deviation, likewise.
    """
    seeds = draw_seeds(setup.job.whole("seed"), 0, len(data), 1)
    spread, deviation = [], []
    for answer in setup.subject.oracle.logits(data.images, seeds):
        logits = answer.logits[0] * setup.subject.logit_unit
        spread.append(float(np.ptp(logits)))
        deviation.append(float(logits.std()))
    return {"logit_spread": float(np.mean(spread)), "logit_sd": float(np.mean(deviation))}


def run(setup: Setup) -> dict[str, Value]:
    """Accuracies against the true label.

    Values: for each budget ``accuracy@0.1`` (mean over images and draws) with
    ``low@``, ``high@``, ``majority@``, ``worst@``, ``unchanged@`` and
    ``no_gradient@``; ``clean_accuracy``, ``logit_spread``, ``logit_sd``,
    ``images``, ``draws``, ``flags``.
    """
    data = selected(setup.test, setup.setting("images"))
    wanted = attacks(setup.job)
    answers = answered(
        setup, wanted, data, draws=setup.job.whole("draws"), chunk=setup.job.whole("chunk")
    )
    values = clean_values(answers)
    for attack, epsilon in zip(wanted, setup.job.numbers("eps"), strict=True):
        values |= accuracy_values(answers.case(attack), f"@{epsilon:g}")
    return values | logit_values(setup, data)
