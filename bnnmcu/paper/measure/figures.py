"""From the figures of a case to the values of a record."""

from __future__ import annotations

from bnnmcu.attack.metrics import Case
from bnnmcu.paper.jobs import Value
from bnnmcu.paper.measure.setup import Answers

__all__ = ["accuracy_values", "clean_values"]


def clean_values(answers: Answers) -> dict[str, Value]:
    """Of the clean images that an attack starts from, and what warnings there are."""
    clean = answers.case(None)
    return {
        "clean_accuracy": clean.mean.value,
        "images": clean.images,
        "draws": clean.draws,
        "flags": answers.flags(),
    }


def accuracy_values(case: Case, suffix: str = "") -> dict[str, Value]:
    """An attack's figures; accuracies are against the true label, shares within [0, 1].

    Args:
        suffix: of every name, where a record holds several cases.
    """
    values: dict[str, Value] = {
        "accuracy": case.mean.value,
        "low": case.mean.low,
        "high": case.mean.high,
        "majority": case.majority.value,
        "worst": case.worst.value,
        "unchanged": case.unchanged,
        "no_gradient": case.zero_gradients,
    }
    return {f"{name}{suffix}": value for name, value in values.items()}
