"""Kernels for cores with Helium, the M-profile Vector Extension: a Cortex-M55 has it.

They are C for any core, with intrinsics and assembly beside it; only cores with
Helium have their families in ``costs``.
"""

from __future__ import annotations

from bnnmcu.backend.kernels.base import Offer
from bnnmcu.backend.kernels.helium_classes import classes
from bnnmcu.backend.kernels.helium_drawn import drawn
from bnnmcu.backend.kernels.helium_first import first
from bnnmcu.backend.kernels.helium_single import single
from bnnmcu.graph import BinaryConv, IntegerConv, Node, StochasticConv

__all__ = ["OFFERS"]

OFFERS: dict[type[Node], tuple[Offer, ...]] = {
    BinaryConv: (classes, single),
    IntegerConv: (first,),
    StochasticConv: (drawn,),
}
