"""Warnings that an evaluation may look better, or other, than the model is.

In the manner of AutoAttack's flags (Croce & Hein, 2020): each has a code for
scripts, and a plain sentence that tells the threshold, the measured value and
what follows.  One file for what each is about.
"""

from bnnmcu.attack.flags.find import find_flags
from bnnmcu.attack.flags.flag import Flag

__all__ = ["Flag", "find_flags"]
