"""What a kernel costs: a linear model over units of work, fitted to measurements.

``costs.json`` holds, for each core and family of kernels, the bytes of code and
for each unit of work its instructions and modelled cycles, the wait for flash
included.  An option says how often it does each unit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bnnmcu.backend.kernels.base import Option

__all__ = ["Estimate", "Reserve", "estimate", "reserve"]

_TABLE = "costs.json"
#: For cores that were not measured.
_CORE = "cortex-m4f"


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
def _core(core: str) -> dict[str, Any]:
    text = files("bnnmcu").joinpath("backend", _TABLE).read_text(encoding="utf-8")
    cores: dict[str, Any] = json.loads(text)["cores"]
    found: dict[str, Any] = cores.get(core, cores[_CORE])
    return found


def reserve(core: str) -> Reserve:
    """What the rest of a firmware takes."""
    return Reserve(**_core(core)["reserve"])


def estimate(option: Option, core: str) -> Estimate:
    """The cost of an option on a core.

    Raises:
        KeyError: ``costs.json`` does not have its family or a unit of its work.
    """
    family = _core(core)["families"][option.family]
    units = family["work"]
    kernel = option.kernel
    return Estimate(
        instructions=round(sum(units[unit][0] * n for unit, n in option.work.items())),
        cycles=round(sum(units[unit][1] * n for unit, n in option.work.items())),
        tables=sum(constant.flash_bytes for constant in kernel.constants),
        code=family["code"],
        words=kernel.result_words + kernel.scratch_words,
    )
