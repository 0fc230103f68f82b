"""Logits of one image as it is pushed along an FGSM direction: figure 5.

Paper, appendix C, after Goodfellow et al. (2015): the direction is the sign of
the gradient of the cross-entropy at the clean image, with the logits divided by
a softmax temperature; the image moves along it by a multiple epsilon, which may
be negative, and the ten logits are drawn.  The label is the network's own, as
in all FGSM attacks of the paper, and the image is the test set's first of a
class (the paper shows a "1").

Images are clipped and are whole pixel levels, as in the attacks of tables 1 and
2 and as a board sees them; the paper does not say whether those of its figure
are.  The gradient is taken on the integer twin of B and C, and their native
twin answers; A gives both itself.
"""

from __future__ import annotations

from typing import cast, get_args

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import AttackConfig
from bnnmcu.attack.config.base import Estimator
from bnnmcu.errors import DataError, MissingDependencyError, UsageError
from bnnmcu.paper.jobs import JSON, Job, Value
from bnnmcu.paper.measure.setup import Setup

__all__ = ["DEFAULTS", "attacks", "run"]

DEFAULTS: dict[str, JSON] = {
    "label": 1,
    "levels": 76,
    "step": 4,
    "temperatures": (0.1, 0.6, 0.7, 1.0),
    "estimator": "identity",
}

_DIGITS = 5


def attacks(job: Job) -> tuple[AttackConfig, ...]:
    """None: nothing is judged; checks the settings.

    Raises:
        UsageError: a setting out of range.
    """
    levels, step = job.whole("levels"), job.whole("step")
    if not (1 <= levels <= 255 and 1 <= step <= levels and levels % step == 0):
        raise UsageError(f"{levels} levels in steps of {step}: a divisor of 1 to 255 is needed")
    if job.whole("label") < 0:
        raise UsageError("a label is 0 or more")
    if job.setting("estimator") not in get_args(Estimator):
        raise UsageError(
            f"unknown estimator {job.setting('estimator')!r}",
            hint=f"use {', '.join(get_args(Estimator))}",
        )
    if not all(1e-6 <= one <= 1e6 for one in job.numbers("temperatures")):
        raise UsageError("a temperature is 1e-6 to 1e6")
    return ()


def run(setup: Setup) -> dict[str, Value]:
    """Curves in the logits' real units.

    Returns:
        ``epsilon``: the places, in [-1, 1]; ``logits@T/C``: at temperature T, of
        class C, as many numbers; ``zero@T``: the share of pixels without a
        direction; ``as_at_1@T``: of the others, the share that has the sign it
        has at a temperature of 1; ``label``, ``prediction``, ``image``: the true
        one, the network's own, and the image's number in the test set.

    Raises:
        DataError: the test set has no image of the class.
        MissingDependencyError: torch is missing.
    """
    job, subject = setup.job, setup.subject
    label = job.whole("label")
    found = np.flatnonzero(setup.test.labels == label)
    if not found.size:
        raise DataError(
            f"{setup.test.name} has no image of class {label}", hint="choose another label"
        )
    index = int(found[0])
    image = setup.test.images[index]
    most, step = job.whole("levels"), job.whole("step")
    levels = np.arange(-most, most + 1, step)
    values: dict[str, Value] = {
        "epsilon": [round(float(one) / 255, 6) for one in levels],
        "label": label,
        "image": index,
    }
    temperatures = job.numbers("temperatures")
    directions, own = _directions(setup, image, (*temperatures, 1.0))
    values["prediction"] = own
    plain = directions[-1]
    for number, temperature in enumerate(temperatures):
        setup.report(f"logits at temperature {temperature:g}", number, len(temperatures))
        direction = directions[number]
        moved = image.astype(np.int64) + levels[:, None, None, None] * direction
        pixels = np.clip(moved, 0, 255).astype(np.uint8)
        seeds = np.zeros((len(pixels), 1), dtype=np.uint64)
        answers = [one.logits[0] for one in subject.oracle.logits(pixels, seeds)]
        logits = np.array(answers, dtype=np.float64) * subject.logit_unit
        name = f"{temperature:g}"
        for klass in range(subject.classes):
            curve = logits[:, klass]
            values[f"logits@{name}/{klass}"] = [round(float(one), _DIGITS) for one in curve]
        there = direction != 0
        values[f"zero@{name}"] = float(1 - there.mean())
        same = (direction == plain)[there]
        values[f"as_at_1@{name}"] = float(same.mean()) if same.size else None
    return values


def _directions(
    setup: Setup, image: npt.NDArray[np.uint8], temperatures: tuple[float, ...]
) -> tuple[list[npt.NDArray[np.int64]], int]:
    """Of an image (H, W, C): the gradient's sign at each temperature, and the own label."""
    try:
        import torch

        from bnnmcu.attack.losses import attack_loss
        from bnnmcu.attack.twin import IntegerTwin
    except ImportError as error:
        raise MissingDependencyError(
            "the gradient's direction needs torch", hint="pip install 'bnnmcu[attack]'"
        ) from error
    subject = setup.subject
    estimator = cast(Estimator, setup.setting("estimator"))
    model = subject.model if subject.graph is None else IntegerTwin(subject.graph, estimator)
    assert model is not None
    signs = []
    x = (
        (torch.from_numpy(image[np.newaxis].copy()).float() / 255.0)
        .to(model.device)
        .requires_grad_()
    )
    logits = model(x)
    own = logits.detach()[0].argmax(-1)
    for temperature in temperatures:
        loss = attack_loss("ce", logits, own, temperature=temperature, targeted=False).sum()
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        signs.append(gradient[0].sign().cpu().numpy().astype(np.int64))
    return signs, int(own[0])
