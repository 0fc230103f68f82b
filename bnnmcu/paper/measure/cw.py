"""Carlini & Wagner's L2 attack, targeted: table 3 and figure 2.

``paper``: the setting of table 3 (its text, and the authors' published code):
one value of c (10), Adam at 0.1, kappa 0, early abort, one draw a step, judged
by that draw before rounding.  A failed attack gives the clean image back, which
counts as robust, with a distance of 0.  The accuracy is that of fresh draws.

``adaptive``: against what makes that attack fail.  Averages over 10 draws, kappa
5, a search over c, no early abort, restarts where there is no gradient, all
estimators, and it believes nothing but 30 fresh draws of the rounded image
(Athalye et al., 2018; Tramer et al., 2020; ``cw-adaptive`` of docs/ATTACKS.md).
Networks that draw nothing have it with one draw.

The paper aims every image at all nine wrong classes.  ``pairs`` instead takes so
many distinct images, class by class in turn, each aimed at one wrong class so
that the 90 pairs of classes fill evenly: 990 are 11 of each.  None stands for
all images at all classes.  Images are crafted on the integer twin of what
answers (A: on itself).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnnmcu.attack.config import AttackConfig, CwConfig
from bnnmcu.errors import UsageError
from bnnmcu.paper.jobs import JSON, Job, Value
from bnnmcu.paper.measure.figures import accuracy_values, clean_values
from bnnmcu.paper.measure.setup import Setup, answered, selected
from bnnmcu.store import Judged

__all__ = ["DEFAULTS", "attack_of", "attacks", "run"]

DEFAULTS: dict[str, JSON] = {
    "preset": "paper",
    "iterations": 100,
    "pairs": 990,
    "draws": 21,
    "eot_draws": 10,
}

# The paper's early abort looks at all images of a batch together, so the batch is large;
# without it the size only decides how much of a killed run is lost.
_CHUNKS = {"paper": 100, "adaptive": 33}
_FRESH = 30


def attack_of(job: Job, preset: JSON, iterations: int, *, every: bool) -> CwConfig:
    """One of the two settings.

    Args:
        every: aim at all wrong classes, not at one for each image.

    Raises:
        UsageError: another preset.
    """
    common: dict[str, Any] = {
        "iterations": iterations,
        "targets": "all" if every else "pairs",
        "name": f"cw-{preset}",
    }
    # A has no thresholds, whatever their estimator.
    if job.trainable.kind == "A":
        common["estimator"] = "identity"
    if preset == "paper":
        return CwConfig.paper(**common)
    if preset != "adaptive":
        raise UsageError(f"unknown preset {preset!r} of cw", hint="use paper or adaptive")
    drawn = job.trainable.kind == "S"
    draws = job.setting("eot_draws") if drawn else 1
    return CwConfig.adaptive(eot_draws=draws, fresh_draws=_FRESH if drawn else 1, **common)


def attacks(job: Job) -> tuple[AttackConfig, ...]:
    """The one attack."""
    iterations = job.whole("iterations")
    every = job.setting("pairs") is None
    return (attack_of(job, job.setting("preset"), iterations, every=every),)


def run(setup: Setup) -> dict[str, Value]:
    """Accuracies against the true label, and what the attack did for them.

    Values: ``accuracy`` (mean over pairs and fresh draws) with ``low``, ``high``,
    ``majority``, ``worst``; ``target_hit`` (share of draws that give the target);
    ``found`` (share of pairs that the attack itself took for fooled), ``unchanged``
    (share given back as they were), ``iterations_made``; ``mean_l2`` over the
    pairs found, ``mean_l2_fooled`` over those not right by majority of fresh draws,
    ``mean_l2_all``; ``clean_accuracy``, ``pairs``, ``images``, ``draws``, ``flags``.
    """
    data = selected(setup.test, setup.setting("pairs"))
    (attack,) = attacks(setup.job)
    preset = setup.setting("preset")
    answers = answered(
        setup, (attack,), data, draws=setup.job.whole("draws"), chunk=_CHUNKS[str(preset)]
    )
    case = answers.case(attack)
    found = [one.l2 for one in answers.judged[attack.case, attack.levels] if _found(one)]
    assert case.target_hit is not None
    values: dict[str, Value] = {
        "target_hit": case.target_hit.value,
        "found": case.found,
        "iterations_made": case.iterations,
        "mean_l2": float(np.mean(found)) if found else None,
        "mean_l2_fooled": case.successes.l2_mean if case.successes else None,
        "mean_l2_all": case.l2,
        "pairs": case.examples,
    }
    return clean_values(answers) | accuracy_values(case) | values


def _found(one: Judged) -> bool:
    return one.details.get("found") is True
