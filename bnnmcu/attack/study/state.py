"""The generator's state from drawn weights, by linear algebra over GF(2).

A weight with k-bit level v is +1 where ``c + u >= 2**k``, with ``c = v + msb(v)``
and u the k bits that its lane has in k words of the generator (docs/GENERATORS.md).
That is a comparison, not a bit; but some bits of u follow from it for certain.
With c = 5 of 16 a weight of +1 needs u >= 11 = 1011b, so that the first bit of u is
1.  In general

* +1 says u >= 2**k - c: as many leading ones as that number has,
* -1 says u < 2**k - c: as many leading zeros as 2**k - c - 1 has,

and nothing else that is linear: behind those bits the interval that u lies in
holds a whole half of the values and one more, which no linear equation has as
its solutions.  Every bit of u is a sum over GF(2) of bits of the state, so each of
these bits is a linear equation; a few hundred weights give as many independent
ones as the state has bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.study.gf2 import solve
from bnnmcu.errors import UsageError
from bnnmcu.lfsr import RandomWords, draw_words
from bnnmcu.packing import LANES, unpack_bits

__all__ = ["Recovery", "observable", "recover_state", "redraw"]

Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Recovery:
    """A generator's state before the first weight of a layer's draw.

    Attributes:
        state: uint32, shape (4,); bits that never show in any word are 0.
        bits: size of the state, as far as it ever shows.
        equations: linear equations that the weights gave.
        lanes: of the words, from the first on, whose weights settle the state;
            a lane beyond the last channel counts, and says nothing.
        entropy: bits of information in those weights, at most.  No method at all
            settles the state from weights that have fewer than ``bits``.
    """

    state: Words
    bits: int
    equations: int
    lanes: int
    entropy: float


def _begun(generator: str, state: Words) -> RandomWords:
    """Generators that go on from given states, (4, S)."""
    random = RandomWords(generator, [0])
    random.state = state.copy()
    return random


def _unit_words(generator: str, count: int) -> Words:
    """Words (count, 128) of generators begun in the states that have a single 1."""
    size = len(RandomWords(generator, [0]).state)
    bits = np.arange(LANES * size)
    state = np.zeros((size, bits.size), dtype=np.uint32)
    state[bits // LANES, bits] = np.left_shift(1, bits % LANES).astype(np.uint32)
    return _begun(generator, state).words(count)


def observable(generator: str) -> Words:
    """The bits of a state that show in its words: masks, uint32, shape (4,).

    Tausworthe components leave out their lowest bits, and ``taus88`` a whole word.
    """
    return _packed(np.bitwise_or.reduce(_unit_words(generator, 8), axis=0) != 0)


def _packed(bits: npt.NDArray[Any]) -> Words:
    """Bits (128,) as state words (4,)."""
    octets = np.packbits(bits.astype(np.uint8), bitorder="little")
    return octets.view("<u4").astype(np.uint32)


def _weights(planes: Words) -> npt.NDArray[np.int64]:
    """c = v + msb(v) of all weights: planes (W, k) to (W, 32)."""
    k = planes.shape[1]
    bits = unpack_bits(planes[:, :, np.newaxis], LANES).astype(np.int64)
    levels = (bits << np.arange(k)[:, np.newaxis]).sum(axis=1)
    return np.asarray(levels + (levels >> (k - 1)), dtype=np.int64)


def _leading(values: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.int64]:
    """Leading zeros of k-bit numbers."""
    zeros = (values[..., np.newaxis] < (1 << np.arange(k))).sum(axis=-1)
    return np.asarray(zeros, dtype=np.int64)


def _entropy(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inside = np.clip(share, 1e-300, 1.0)
    other = np.clip(1.0 - share, 1e-300, 1.0)
    return np.asarray(-(inside * np.log2(inside) + other * np.log2(other)), dtype=np.float64)


def recover_state(generator: str, planes: Words, words: Words, *, skip: int = 0) -> Recovery:
    """The state from which a generator drew these weights.

    Args:
        generator: a key of :data:`bnnmcu.lfsr.GENERATORS`.
        planes: the layer's levels, shape (W, k), as
            :func:`bnnmcu.packing.pack_planes` gives them.
        words: the first drawn words of the layer, uint32, shape (N,), N <= W.
        skip: words of the generator that were used before the layer.

    Raises:
        UsageError: too few weights to settle the state, or weights that this
            generator cannot have drawn with these levels.
    """
    k = planes.shape[1]
    if not 0 < len(words) <= len(planes):
        raise UsageError(f"{len(words)} words of weights, but the layer has {len(planes)}")
    c = _weights(planes[: len(words)])
    drawn = unpack_bits(words[:, np.newaxis], LANES).astype(np.int64)
    wrong = UsageError(
        f"{generator} cannot have drawn these weights with these levels",
        hint="use the network, the generator and the layer that they are of",
    )
    if np.any(np.where(drawn == 1, c == 0, c == 1 << k)):
        raise wrong
    # Leading ones of 2**k - c are leading zeros of its complement c - 1.
    lead = _leading(np.where(drawn == 1, np.maximum(c, 1) - 1, (1 << k) - c - 1), k)
    # An equation for each (word, lane, plane) whose bit is certain, by weights in order.
    plane = np.arange(k)
    word, lane, j = np.nonzero(plane >= k - lead[..., np.newaxis])
    units = _unit_words(generator, skip + len(words) * k)[skip:]
    coefficients = units[word * k + j] >> lane[:, np.newaxis].astype(np.uint32) & np.uint32(1)
    solution = solve(coefficients, drawn[word, lane])
    if solution.contradiction is not None:
        raise wrong
    shows = observable(generator)
    bits = int(np.bitwise_count(shows).sum())
    if solution.rank < bits:
        raise UsageError(
            f"{len(words)} words of weights settle {solution.rank} of the state's {bits} bits",
            hint="dump more words",
        )
    last = solution.needed - 1
    lanes = int(word[last]) * LANES + int(lane[last]) + 1
    entropy = float(_entropy(c.reshape(-1)[:lanes] / (1 << k)).sum())
    return Recovery(_packed(solution.values), bits, len(word), lanes, entropy)


def redraw(generator: str, state: Words, planes: Words, *, skip: int = 0) -> Words:
    """What a state draws with these levels (W, k), uint32, shape (W,)."""
    random = _begun(generator, state[:, np.newaxis])
    if skip:
        random.words(skip)
    return np.asarray(draw_words(random, planes)[0], dtype=np.uint32)
