"""Black-box attack by a substitute model: tables 4 and 5.

Papernot et al. (2017) as Galloway et al. (2018, tables 4 and 5) ran it: the first
150 test images are withheld and train a 784-200-200-10 network on the labels that
the attacked network gives (six rounds of ten epochs, five Jacobian augmentations,
lambda 0.1); FGSM with epsilon 0.3 from it is shown to the attacked network, on the
other 9,850 images.

``corrected`` is the method of Papernot's paper, which leaves the true label.
``as-published`` is the authors' code: the augmentation overwrites half of the
originals, training starts from true labels, and FGSM leaves the substitute's
prediction (:mod:`bnnmcu.attack.substitute`).

A campaign holds out the last images of its data, so the withheld ones are put
behind the others.  A set sorted by class would withhold one class: it is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnnmcu.attack.config import AttackConfig, SubstituteConfig
from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, UsageError
from bnnmcu.paper.jobs import JSON, Job, Value
from bnnmcu.paper.measure.figures import accuracy_values, clean_values
from bnnmcu.paper.measure.setup import Setup, answered

__all__ = ["DEFAULTS", "attacks", "run", "withheld_last"]

DEFAULTS: dict[str, JSON] = {
    "variant": "corrected",
    "images": None,
    "withheld": 150,
    "eps": 0.3,
    "rounds": 6,
    "epochs": 10,
    "draws": 1,
}
_LABELS = {"corrected": "true", "as-published": "prediction"}


def attacks(job: Job) -> tuple[AttackConfig, ...]:
    """The one attack.

    Raises:
        UsageError: another variant.
    """
    variant = job.setting("variant")
    if variant not in _LABELS:
        raise UsageError(f"unknown variant {variant!r}", hint=f"use {' or '.join(_LABELS)}")
    (epsilon,) = job.numbers("eps")
    settings: dict[str, Any] = {
        "epsilon": epsilon,
        "held_out": job.setting("withheld"),
        "rounds": job.setting("rounds"),
        "epochs": job.setting("epochs"),
        "variant": variant,
        "label": _LABELS[str(variant)],
        "step": 0.1,
        # An S that is asked draws once, as it would answer anybody.
        "adversary": "paper",
        "name": f"substitute-{variant}",
    }
    return (SubstituteConfig(**settings),)


def withheld_last(test: Dataset, withheld: int, images: int | None) -> Dataset:
    """The data with its first images at the end.

    Args:
        withheld: images that train the substitute.
        images: how many of the others are attacked, class by class in turn; None for all.

    Raises:
        DataError: too few images, or the withheld ones lack a class.
    """
    if len(test) <= withheld:
        raise DataError(f"{test.name} has {len(test)} images, and {withheld} are to be withheld")
    kept, classes = np.unique(test.labels[:withheld]), np.unique(test.labels)
    if len(kept) < len(classes):
        raise DataError(
            f"the first {withheld} images of {test.name} show {len(kept)} of its {len(classes)} "
            "classes",
            hint="a set sorted by class must be mixed first; withhold more images of a mixed one",
        )
    rest = Dataset(test.name, test.images[withheld:], test.labels[withheld:])
    if images is not None:
        rest = rest.stratified(images)
    return Dataset(
        test.name,
        np.concatenate([rest.images, test.images[:withheld]]),
        np.concatenate([rest.labels, test.labels[:withheld]]),
    )


def run(setup: Setup) -> dict[str, Value]:
    """Accuracies against the true label.

    Values: ``accuracy`` of the transferred images with ``low``, ``high``, ...;
    ``clean_accuracy`` over all test images, those withheld included; ``queries``
    (inferences that training asked for), ``agreement`` (share of the last new
    training images whose label the substitute gave as the network did),
    ``substitute_fooled`` (share of images that fool the substitute itself),
    ``attacked`` (images), ``images``, ``draws``, ``flags``.
    """
    images = setup.setting("images")
    assert images is None or type(images) is int
    data = withheld_last(setup.test, setup.job.whole("withheld"), images)
    (attack,) = attacks(setup.job)
    answers = answered(setup, (attack,), data, draws=setup.job.whole("draws"), chunk=100)
    case = answers.case(attack)
    told = [one.details for one in answers.judged[attack.case, attack.levels]]
    return (
        clean_values(answers)
        | accuracy_values(case)
        | {
            "queries": int(told[0]["queries"]),
            "agreement": float(told[0]["agreement"]),
            "substitute_fooled": float(np.mean([bool(one["substitute_fooled"]) for one in told])),
            "attacked": case.examples,
        }
    )
