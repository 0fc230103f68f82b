"""Whether the answers are all there, and hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnnmcu.attack.flags.flag import Flag

if TYPE_CHECKING:
    from bnnmcu.attack.metrics.audited import Audit

__all__ = ["flags_of_run"]

#: Examples that may fail to hold when they are looked at again.
MOST_WRONG = 0


def flags_of_run(complete: bool, audit: Audit | None) -> list[Flag]:
    """Of the run as a whole.

    Args:
        complete: every image of every case was answered.
        audit: None if nobody looked.
    """
    flags = []
    if not complete:
        text = "the run is not finished: the figures are of the images answered so far"
        flags.append(Flag("incomplete", "warning", text))
    if audit is not None:
        flags += _audited(audit)
    return flags


def _audited(audit: Audit) -> list[Flag]:
    flags = []
    if audit.wrong > MOST_WRONG:
        first = audit.mismatches[0]
        text = (
            f"{audit.wrong:,} of the examples looked at again do not hold ({MOST_WRONG} may fail), "
            f"first {first.place}: {first.what}: figures of this run prove nothing until that is "
            "explained"
        )
        flags.append(Flag("audit", "warning", text))
    left = audit.successes - audit.recomputed
    if left:
        why = (
            f"of {audit.unseeded:,} only the board knows the seeds (field mode)"
            if audit.unseeded
            else "their answers are not the integer network's"
        )
        text = (
            f"{left:,} of {audit.successes:,} successes were not recomputed: {why}; "
            "their changes were checked all the same"
        )
        flags.append(Flag("audit", "note", text))
    return flags
