"""How long a job may take, from what jobs like it took; an estimate, and called one."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

from bnnmcu.paper.jobs import Job
from bnnmcu.paper.recipes import Trainable
from bnnmcu.paper.record import Record

__all__ = ["Costs"]

# Seconds of a clean epoch of 60,000 MNIST images on one core at K = 64, as ``bnnmcu train`` says
# them; other epochs in clean ones, by ``benchmarks/adversarial_training.py``.
_EPOCH = 54.0
_ADVERSARIAL = {"fgsm": 2.5, "pgd20": 13.5, "pgd40": 24.5, "pgd20-long": 13.5}
# 32 x 32 x 3 images: the layers behind the first have 1.6 to 4 times as many places.
_CIFAR = 2.5
_BASE = 64


class Costs:
    """Core-seconds by measure.

    Args:
        records: that tell what jobs took.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._measured: dict[tuple[object, ...], list[float]] = defaultdict(list)
        for record in records:
            model, settings = record.what["model"], record.what["settings"]
            count = record.number("pairs") or record.number("images")
            if count:
                key = _key(record.measure, str(model["kind"]), settings)
                self._measured[key].append(
                    record.measuring_seconds / count / _size(int(model["filters"]))
                )

    def training(self, trainable: Trainable) -> float:
        """Of one network."""
        training = trainable.training()
        epochs = float(training.epochs)
        if training.adversarial is not None:
            dear = max(0, training.epochs - training.adversarial.after)
            epochs += dear * (_ADVERSARIAL[trainable.regimen] - 1)
        scale = _CIFAR if trainable.dataset == "cifar10" else 1.0
        return epochs * _EPOCH * scale * _size(trainable.filters)

    def measuring(self, job: Job) -> float | None:
        """Of one job; None where none like it was done."""
        settings = dict(job.settings)
        known = self._measured.get(_key(job.measure, job.trainable.kind, settings))
        if not known:
            return None
        count = settings.get("pairs") or settings.get("images") or 10_000
        assert isinstance(count, int)
        return statistics.median(known) * count * _size(job.trainable.filters)


def _size(filters: int) -> float:
    """Work against that of K = 64: most of it grows with the square."""
    return (filters / _BASE) ** 2


def _key(measure: str, kind: str, settings: Mapping[str, object]) -> tuple[object, ...]:
    names = ("preset", "iterations", "attack", "variant")
    return (measure, kind, *(settings.get(name) for name in names))
