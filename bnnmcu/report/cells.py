"""Figures as cells of tables."""

from __future__ import annotations

from bnnmcu.attack.metrics import Accuracy, Case

__all__ = ["NONE", "accuracy", "budget_asked", "budget_used", "number", "percent", "seconds"]

#: Where there is no figure.
NONE = "-"


def percent(share: float | None) -> str:
    """A share of 1 in percent, with one decimal."""
    return NONE if share is None else f"{100 * share:.1f} %"


def accuracy(found: Accuracy | None) -> str:
    """A share with its interval, in percent."""
    if found is None:
        return NONE
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def number(value: float | None, decimals: int = 2) -> str:
    """With thousands apart."""
    return NONE if value is None else f"{value:,.{decimals}f}"


def budget_asked(case: Case) -> str:
    """Epsilon as it was written."""
    asked = case.settings.get("epsilon")
    return NONE if not isinstance(asked, int | float) else f"{asked:g}"


def budget_used(case: Case) -> str:
    """The budget that the pixel levels really are, or the L2 budget."""
    if case.norm == "l2":
        return f"{case.epsilon:g} (L2)"
    return f"{case.epsilon:.3f} ({case.levels}/255)" if case.norm else NONE


def seconds(value: float | None) -> str:
    """A time, as 0.05 s, 12 s, 3:05 min or 1:02:03 h."""
    if value is None:
        return NONE
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"
