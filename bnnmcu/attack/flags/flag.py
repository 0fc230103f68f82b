"""One warning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.case import Case

__all__ = ["Flag", "Severity", "percent", "points", "reaches", "shown"]

Severity = Literal["note", "warning"]


@dataclass(frozen=True)
class Flag:
    """One finding.

    Attributes:
        code: for scripts; does not change.
        severity: ``note`` says how figures came about, ``warning`` that they
            may not mean what they seem to.
        text: one plain sentence.
    """

    code: str
    severity: Severity
    text: str


def reaches(case: Case, epsilon: float) -> bool:
    """Whether a budget is that large; those asked for were rounded down to whole levels."""
    return case.levels >= math.floor(255.0 * epsilon + 1e-9)


def percent(share: float) -> str:
    """A share for sentences."""
    return f"{share:.1%}"


def points(difference: float) -> str:
    """A difference of shares for sentences."""
    return f"{100 * difference:.1f} points"


def shown(value: Any) -> str:
    """A setting for sentences; the file may be anybody's."""
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "unset"}[value]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text[:40] if text.isprintable() else "?"
