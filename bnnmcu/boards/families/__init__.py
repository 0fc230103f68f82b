"""The families of chips, one file each."""

from __future__ import annotations

from collections.abc import Mapping

from bnnmcu.boards.families import (
    cmsdk,
    imxrt,
    nrf51,
    nrf52,
    rp2040,
    stellaris,
    stm32f1,
    stm32f4,
    stm32v2,
)
from bnnmcu.boards.family import Family

__all__ = ["FAMILIES"]

_ALL = (
    *cmsdk.FAMILIES,
    imxrt.FAMILY,
    nrf51.FAMILY,
    nrf52.FAMILY,
    rp2040.FAMILY,
    stellaris.FAMILY,
    stm32f1.FAMILY,
    stm32f4.FAMILY,
    *stm32v2.FAMILIES,
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}
"""By name."""
