"""What a results file says, finished or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bnnmcu.attack.flags import Flag, find_flags
from bnnmcu.attack.metrics.audited import Audit
from bnnmcu.attack.metrics.case import Case
from bnnmcu.attack.metrics.measure import measure
from bnnmcu.attack.metrics.planned import Plan, read_plan
from bnnmcu.attack.metrics.votes import right_images
from bnnmcu.store import Judged, Store

__all__ = ["Summary", "summarize"]

_CLEAN = ("clean", 0)


@dataclass(frozen=True)
class Summary:
    """What a results file says.

    Attributes:
        identity: of the run: configuration, model, data, oracle.
        complete: every example of every case was answered.
        planned: examples of all cases; an attack on all targets counts once an image
            until an answer tells how many classes there are.
        cases: clean first, then the attacks in the order of the run.
        flags: warnings; read them before the figures.
        audit: how many successes were recomputed, and with what; None if nobody did.
    """

    identity: dict[str, Any]
    complete: bool
    planned: int
    cases: tuple[Case, ...]
    flags: tuple[Flag, ...]
    audit: Audit | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


def summarize(store: Store, audit: Audit | None = None) -> Summary:
    """Figures and flags of what a store holds, finished or not.

    Args:
        store: open.
        audit: of this store, by :func:`bnnmcu.attack.audit.audit_run`.

    Raises:
        StoreError: it holds what no campaign writes.
    """
    plan = read_plan(store.path, store.identity)
    groups: dict[tuple[str, int], list[Judged]] = {}
    for one in store.judged():
        groups.setdefault((one.attack, one.levels), []).append(one)
    right = right_images(groups[_CLEAN]) if _CLEAN in groups else None
    cases = tuple(measure(group, right, plan.find(case)) for case, group in groups.items())
    complete = _complete(plan, groups)
    flags = find_flags(
        cases, stochastic=plan.stochastic, draws=plan.draws, complete=complete, audit=audit
    )
    classes = next((group[0].classes for group in groups.values()), 2)
    planned = sum(one.examples(classes) for one in plan.cases)
    return Summary(store.identity, complete, planned, cases, flags, audit)


def _complete(plan: Plan, groups: dict[tuple[str, int], list[Judged]]) -> bool:
    """Every planned case is there with all of its examples."""
    for planned in plan.cases:
        found = next((group for case, group in groups.items() if planned.is_of(case)), [])
        if not found or len(found) != planned.examples(found[0].classes):
            return False
    return True
