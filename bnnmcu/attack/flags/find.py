"""All flags of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnnmcu.attack.flags.budgets import flags_of_budgets
from bnnmcu.attack.flags.failures import flags_of_failures
from bnnmcu.attack.flags.flag import Flag
from bnnmcu.attack.flags.gradients import flags_of_gradients
from bnnmcu.attack.flags.randomness import flags_of_randomness
from bnnmcu.attack.flags.run import flags_of_run
from bnnmcu.attack.flags.settings import flags_of_settings
from bnnmcu.attack.flags.strength import flags_of_strength

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.audited import Audit
    from bnnmcu.attack.metrics.case import Case

__all__ = ["find_flags"]


def find_flags(
    cases: Sequence[Case],
    *,
    stochastic: bool,
    draws: int,
    complete: bool,
    audit: Audit | None = None,
) -> tuple[Flag, ...]:
    """All flags that a run's cases raise, the general ones first.

    Args:
        cases: clean ones and attacks, in any order.
        stochastic: the network draws weights.
        draws: with which an image is judged.
        complete: everything was answered.
        audit: of the same answers, if there was one.
    """
    attacks = [case for case in cases if not case.clean]
    flags = flags_of_run(complete, audit)
    flags += flags_of_randomness(cases, stochastic, draws)
    for case in attacks:
        flags += flags_of_gradients(case)
        flags += flags_of_failures(case)
    flags += flags_of_budgets(attacks)
    flags += flags_of_strength(attacks)
    return tuple(flags + flags_of_settings(attacks))
