"""What a kernel costs: a linear model over units of work, fitted to measurements.

``costs/CORE.json`` holds, for each family of kernels, the bytes of code and for
each unit of work its instructions and modelled cycles, the wait for flash
included.  An option says how often it does each unit.  A family that a core's
file does not have is not for that core: no plan takes it there unless forced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bnnmcu.backend.kernels.base import Option

__all__ = ["MEASURED", "Estimate", "Reserve", "estimate", "knows", "reserve", "table_of"]

#: The core whose kernels were measured first; it lends its figures to cores without a file.
MEASURED = "cortex-m4f"


@dataclass(frozen=True)
class Estimate:
    """The cost of one call.

    Attributes:
        instructions: executed ones.
        cycles: modelled ones, waiting for flash included.
        tables, code: bytes of flash; code that several steps share counts for each.
        words: 32-bit words of RAM: result and scratch.
    """

    instructions: int
    cycles: int
    tables: int
    code: int
    words: int

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        return self.tables + self.code


@dataclass(frozen=True)
class Reserve:
    """Bytes that a firmware takes besides kernels, tables and arena."""

    flash: int
    ram: int


@cache
def _file(core: str) -> dict[str, Any] | None:
    path = files("bnnmcu").joinpath("backend", "costs", f"{core}.json")
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table_of(core: str) -> str:
    """The core whose figures stand for this one: itself if it was measured."""
    found = _file(core)
    return MEASURED if found is None else str(found.get("like", core))


def _core(core: str) -> dict[str, Any]:
    found = _file(table_of(core))
    if found is None:
        raise KeyError(core)
    return found


def reserve(core: str) -> Reserve:
    """What the rest of a firmware takes."""
    return Reserve(**_core(core)["reserve"])


def knows(family: str, core: str) -> bool:
    """Whether a family of kernels is for a core."""
    return family in _core(core)["families"]


@cache
def _family(family: str, core: str) -> dict[str, Any]:
    others = sorted(e.name[:-5] for e in files("bnnmcu").joinpath("backend/costs").iterdir())
    for name in (core, *others):
        found = _core(name)["families"].get(family)
        if found is not None:
            return dict(found)
    raise KeyError(family)


def estimate(option: Option, core: str) -> Estimate:
    """The cost of an option on a core; of a family not meant for it, what it costs on another.

    Raises:
        KeyError: no file has its family, or a unit of its work.
    """
    family = _family(option.family, core)
    units = family["work"]
    kernel = option.kernel
    return Estimate(
        instructions=round(sum(units[unit][0] * n for unit, n in option.work.items())),
        cycles=round(sum(units[unit][1] * n for unit, n in option.work.items())),
        tables=sum(constant.flash_bytes for constant in kernel.constants),
        code=family["code"],
        words=kernel.result_words + kernel.scratch_words,
    )
