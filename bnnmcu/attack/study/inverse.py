"""The 64-bit seed behind a generator's state, by search of one of its halves.

The mixer (docs/GENERATORS.md, section 1) is a chain of bijections, so that two
state words and the low half of the seed fix the high half twice.  Where the two
agree is found by trying all 2**32 low halves, from 0 on; the other words confirm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.study.state import observable
from bnnmcu.errors import UsageError
from bnnmcu.lfsr import GENERATORS, MIX, RandomWords

__all__ = ["find_seeds"]

Words = npt.NDArray[np.uint32]

_M = 0xFFFFFFFF
_LOW_BITS = 32
# Low halves tried at a time: few enough to stay in a core's cache.
_AT_ONCE = 1 << 16
# And between two reports.
_REPORT = 1 << 29


def _fmix(h: Words, spare: Words) -> None:
    """The finaliser of MurmurHash3 (Appleby, 2011), in place."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        np.right_shift(h, np.uint32(shift), out=spare)
        np.bitwise_xor(h, spare, out=h)
        if factor is not None:
            np.multiply(h, np.uint32(factor), out=h)


def _unmix(h: int) -> int:
    """Its inverse."""
    h ^= h >> 16
    h = h * pow(0xC2B2AE35, -1, 1 << 32) & _M
    h ^= h >> 13 ^ h >> 26
    h = h * pow(0x85EBCA6B, -1, 1 << 32) & _M
    return h ^ h >> 16


def _mixed(word: int, mask: int, minimum: int) -> set[int]:
    """What the mixer may have given where these bits of a state word are seen."""
    seen = [word | low for low in range((~mask & _M) + 1)]
    kept = {value for value in seen if value >= minimum}
    # A word below the smallest value has had it added.
    return kept | {value - minimum for value in seen if 0 <= value - minimum < minimum}


def find_seeds(
    generator: str,
    state: Words,
    *,
    low_bits: int = _LOW_BITS,
    first_only: bool = True,
    progress: Callable[[int], object] | None = None,
) -> list[int]:
    """Seeds that begin in a state.

    Args:
        generator: a key of :data:`bnnmcu.lfsr.GENERATORS`.
        state: uint32, shape (4,), as :func:`bnnmcu.attack.study.state.recover_state`
            gives it.
        low_bits: the low half of the seed is below ``2**low_bits``.
        first_only: stop at the smallest low half that fits.
        progress: is told how many low halves were tried.

    Returns:
        the seeds, none if no such seed begins there.  A state has 88 bits or
        more and a seed 64, so that two of them are very unlikely.

    Raises:
        UsageError: ``low_bits`` is not 1 to 32.
    """
    if not 1 <= low_bits <= _LOW_BITS:
        raise UsageError(f"the low half of a seed has 32 bits, not {low_bits}")
    masks, minimum = observable(generator), GENERATORS[generator].minimum
    wanted = state & masks
    first, second = (
        [_unmix(r) for r in _mixed(int(wanted[i]), int(masks[i]), minimum[i])] for i in range(2)
    )
    # fmix(low ^ MIX[1]) - fmix(low ^ MIX[0]), for each pair that may stand behind the two words.
    gaps = [(np.uint32((b - 1 - a) & _M), a) for a in first for b in second]
    total = 1 << low_bits
    size = min(_AT_ONCE, total)
    offsets = np.arange(size, dtype=np.uint32)
    spare = np.empty(size, dtype=np.uint32)
    found: list[int] = []
    for start in range(0, total, size):
        zero, one = (offsets + np.uint32(start) ^ np.uint32(mix) for mix in MIX[:2])
        _fmix(zero, spare)
        _fmix(one, spare)
        np.subtract(one, zero, out=one)
        for gap, a in gaps:
            for at in np.flatnonzero(one == gap).tolist():
                high = (a - int(zero[at])) & _M
                seed = high << 32 | start + at
                begun = RandomWords(generator, [seed]).state[:, 0]
                if np.array_equal(begun & masks, wanted) and seed not in found:
                    found.append(seed)
        if found and first_only:
            return found
        if progress and (start + size) % _REPORT == 0:
            progress(start + size)
    return found
