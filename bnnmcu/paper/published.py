"""The numbers that the paper prints, as data; needs nothing but the file beside this one.

Source: Galloway, Taylor, Moussa: Attacking Binarized Neural Networks (ICLR 2018), tables 1 to
6, and for S's errors the text of section 4.  The paper never defines its "±".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["SOURCE", "Published", "all_published", "published"]

SOURCE = "Galloway, Taylor, Moussa: Attacking Binarized Neural Networks, ICLR 2018"


@dataclass(frozen=True)
class Published:
    """One number of a table.

    Attributes:
        table: ``table1`` to ``table6``.
        row: the network as the paper writes it, such as ``B64+``.
        column: such as ``0.1`` (epsilon), ``accuracy``, ``error``, ``mean_l2``.
        value: percent; of ``mean_l2`` in units of a pixel's range of 1.
        plus_minus: in the same unit, as printed.
    """

    table: str
    row: str
    column: str
    value: float
    plus_minus: float


@cache
def all_published() -> dict[tuple[str, str, str], Published]:
    """Every number by table, row and column, in the order of the paper."""
    text = files("bnnmcu.paper").joinpath("published.json").read_text(encoding="utf-8")
    rows = (Published(*entry) for entry in json.loads(text)["values"])
    return {(one.table, one.row, one.column): one for one in rows}


def published(table: str, row: str, column: str) -> Published | None:
    """What the paper prints there; None where it prints nothing."""
    return all_published().get((table, row, column))
