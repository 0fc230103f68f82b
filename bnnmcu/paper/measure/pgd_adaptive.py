"""The strongest gradient attacks within the budgets of tables 1 and 2: their adaptive column.

FGSM with every estimator, both losses and four temperatures, and PGD (Madry et
al., 2018) with every estimator, both losses and two temperatures, the true label
left, and averages over 10 draws of S in every step (Athalye et al., 2018).  Of
each attack what does best on fresh draws is kept for every image; so one
setting that suits a network is enough, and a saturated softmax protects none.
Of A, which has no thresholds, there is one estimator.
"""

from __future__ import annotations

from typing import Any

from bnnmcu.attack.config import AttackConfig, FgsmConfig, PgdConfig
from bnnmcu.paper.jobs import JSON, Job, Value
from bnnmcu.paper.measure.figures import accuracy_values, clean_values
from bnnmcu.paper.measure.setup import Setup, answered, selected

__all__ = ["DEFAULTS", "attacks", "run"]

DEFAULTS: dict[str, JSON] = {
    "images": 1000,
    "draws": 21,
    "eps": (0.1, 0.2, 0.3),
    "steps": 40,
    "eot_draws": 10,
    "fgsm_temperatures": (1.0, 4.0, 10.0, 30.0),
    "pgd_temperatures": (1.0, 10.0),
    "losses": ("ce", "dlr"),
    "chunk": 50,
}


def attacks(job: Job) -> tuple[AttackConfig, ...]:
    """FGSM and PGD, one of each for every budget."""
    common: dict[str, Any] = {
        "estimator": "identity" if job.trainable.kind == "A" else "strongest",
        "losses": job.setting("losses"),
        "eot_draws": job.whole("eot_draws") if job.trainable.kind == "S" else 1,
    }
    fgsm: dict[str, Any] = {"label": "true", "temperatures": job.numbers("fgsm_temperatures")}
    pgd: dict[str, Any] = {
        "steps": job.whole("steps"),
        "temperatures": job.numbers("pgd_temperatures"),
    }
    found: list[AttackConfig] = []
    for epsilon in job.numbers("eps"):
        found.append(FgsmConfig(epsilon=epsilon, **fgsm, **common))
        found.append(PgdConfig(epsilon=epsilon, **pgd, **common))
    return tuple(found)


def run(setup: Setup) -> dict[str, Value]:
    """Accuracies against the true label.

    Values: for each budget those of :func:`bnnmcu.paper.measure.fgsm.run` as
    ``fgsm_accuracy@0.1`` and ``pgd_accuracy@0.1``, ...; ``accuracy@0.1`` is the
    lower of the two; ``clean_accuracy``, ``images``, ``draws``, ``flags``.
    """
    data = selected(setup.test, setup.setting("images"))
    wanted = attacks(setup.job)
    answers = answered(
        setup, wanted, data, draws=setup.job.whole("draws"), chunk=setup.job.whole("chunk")
    )
    values = clean_values(answers)
    for index, epsilon in enumerate(setup.job.numbers("eps")):
        cases = [answers.case(one) for one in wanted[2 * index : 2 * index + 2]]
        for case in cases:
            told = accuracy_values(case, f"@{epsilon:g}")
            values |= {f"{case.kind}_{name}": value for name, value in told.items()}
        values[f"accuracy@{epsilon:g}"] = min(case.mean.value for case in cases)
    return values
