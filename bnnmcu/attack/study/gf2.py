"""Linear equations over GF(2), 64 coefficients to a word.

Gauss-Jordan elimination in the order of the equations: what each one adds to
those before it is known when it is reached, so the answer to "how many are
needed?" comes with the solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Solution", "pack_rows", "solve"]

_WORD = 64


@dataclass(frozen=True, eq=False)
class Solution:
    """What equations say of their unknowns.

    Attributes:
        values: uint8, shape (unknowns,); 0 where nothing is known.
        known: bool, shape (unknowns,): the equations fix this unknown.
        rank: independent equations among all.
        needed: equations, from the first on, that have this rank already.
        contradiction: index of the first equation that those before it exclude;
            None if all agree.  The others hold for the equations before it.
    """

    values: npt.NDArray[np.uint8]
    known: npt.NDArray[np.bool_]
    rank: int
    needed: int
    contradiction: int | None


def pack_rows(bits: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """(R, C) of {0, 1} to (R, ceil(C / 64)) words, column 0 in the lowest bit of word 0."""
    padded = np.pad(bits.astype(np.uint8), ((0, 0), (0, -bits.shape[1] % _WORD)))
    octets = np.packbits(padded, axis=1, bitorder="little")
    return np.ascontiguousarray(octets).view("<u8").astype(np.uint64)


def _lowest(row: npt.NDArray[np.uint64]) -> int:
    """Column of the first 1 in a row that has one."""
    word = int(np.flatnonzero(row)[0])
    value = int(row[word])
    return word * _WORD + (value & -value).bit_length() - 1


def solve(coefficients: npt.NDArray[Any], right: npt.NDArray[Any]) -> Solution:
    """Solve ``coefficients @ x = right`` over GF(2), as far as it goes.

    Args:
        coefficients: {0, 1}, shape (R, C): an equation a row.
        right: {0, 1}, shape (R,).
    """
    unknowns = coefficients.shape[1]
    rows, sides = pack_rows(coefficients), right.astype(np.uint8)
    pivots: dict[int, int] = {}
    contradiction = None
    needed = 0
    for i in range(len(rows)):
        if not rows[i].any():
            if sides[i]:
                contradiction = i
                break
            continue
        column = _lowest(rows[i])
        word, bit = divmod(column, _WORD)
        # In all other rows, also in those before: what is left is the solution itself.
        hit = (rows[:, word] >> np.uint64(bit) & np.uint64(1)).astype(np.bool_)
        hit[i] = False
        rows[hit] ^= rows[i]
        sides[hit] ^= sides[i]
        pivots[column] = i
        needed = i + 1
    values = np.zeros(unknowns, dtype=np.uint8)
    known = np.zeros(unknowns, dtype=np.bool_)
    for column, i in pivots.items():
        # A row with a second 1 ties its unknown to one that is free.
        known[column] = int(np.bitwise_count(rows[i]).sum()) == 1
        values[column] = sides[i] if known[column] else 0
    return Solution(values, known, len(pivots), needed, contradiction)
