"""Random words as the device makes them: seeding, generators, and weight draws.

This module is the specification; the C in ``firmware_templates/runtime``
follows it bit for bit.  ``docs/GENERATORS.md`` tells it to people who write
their own, with a program and test vectors, and says how good the words are.

**Seeding.** A draw is named by one 64-bit seed, ``seed = hi << 32 | lo``.
Neighbouring seeds must not give neighbouring states (raw xorshift128 is
linear over GF(2)), so each state word comes from a mixer, with ``fmix32`` the
finaliser of MurmurHash3::

    s[i] = fmix32(fmix32(lo ^ MIX[i]) + hi + i)          (i = 0..3, mod 2^32)

A word below the generator's minimum (see :data:`GENERATORS`) has that minimum
added; an all-zero xorshift128 state becomes (0, 0, 0, 1).

**Generators.** xorshift128 (Marsaglia, 2003), lfsr113 (L'Ecuyer, 1999) and
taus88 (L'Ecuyer, 1996), each giving one 32-bit word a step.

**Draws.** A weight with k-bit level v is 1 with probability
``(v + msb(v)) / 2**k``.  32 weights are drawn at once from their k bit-planes
``p[0]`` (least significant) to ``p[k-1]``::

    x = p[k-1];  for j = 0..k-1:  r = next word;  x = majority(x, r, p[j])

which is the carry chain of "v + msb(v) > uniform k-bit number".  Words are
drawn in the order of the packed weights: filter, kernel row, kernel column,
channel word; stochastic layers in the order of the graph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import UsageError

__all__ = ["GENERATORS", "MIX", "RandomWords", "draw_words", "level_probability"]

Words = npt.NDArray[np.uint32]

# Random words made at a time: bounds the memory of a draw for many seeds.
_WORDS_AT_ONCE = 1 << 22

MIX = (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)


@dataclass(frozen=True)
class _Generator:
    code: int
    words: int
    minimum: tuple[int, int, int, int]


#: Name to code on the wire, state words used and smallest value of each.
GENERATORS = {
    "xorshift128": _Generator(1, 4, (0, 0, 0, 0)),
    "lfsr113": _Generator(2, 4, (2, 8, 16, 128)),
    "taus88": _Generator(3, 3, (2, 8, 16, 0)),
}


def _u32(value: int) -> np.uint32:
    return np.uint32(value & 0xFFFFFFFF)


def _fmix32(h: Words) -> Words:
    h = h ^ (h >> _u32(16))
    h = h * _u32(0x85EBCA6B)
    h = h ^ (h >> _u32(13))
    h = h * _u32(0xC2B2AE35)
    return h ^ (h >> _u32(16))


class RandomWords:
    """One generator per seed, all stepped together.

    Args:
        name: a key of :data:`GENERATORS`.
        seeds: 64-bit seeds, shape ``(S,)``.

    Raises:
        UsageError: unknown generator, or a seed outside 0 .. 2**64 - 1.
    """

    def __init__(self, name: str, seeds: Sequence[int] | npt.NDArray[np.uint64]) -> None:
        if name not in GENERATORS:
            raise UsageError(
                f"unknown generator {name!r}", hint=f"use one of {', '.join(GENERATORS)}"
            )
        if any(not 0 <= int(seed) < 1 << 64 for seed in seeds):
            raise UsageError("a seed must be between 0 and 2**64 - 1")
        wide = np.array([int(seed) for seed in seeds], dtype=np.uint64)
        low = (wide & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        high = (wide >> np.uint64(32)).astype(np.uint32)
        self._generator = GENERATORS[name]
        self._step = {
            "xorshift128": self._xorshift128,
            "lfsr113": self._lfsr113,
            "taus88": self._taus88,
        }[name]
        # state[i, j]: word i of the generator of seed j.
        self.state = np.stack(
            [_fmix32(_fmix32(low ^ _u32(mix)) + high + _u32(i)) for i, mix in enumerate(MIX)]
        )
        for i, minimum in enumerate(self._generator.minimum):
            self.state[i] += np.where(self.state[i] < minimum, minimum, 0).astype(np.uint32)
        if name == "xorshift128":
            self.state[3] |= (self.state.any(axis=0) == False).astype(np.uint32)  # noqa: E712

    def _xorshift128(self) -> Words:
        s = self.state
        t = s[0] ^ (s[0] << _u32(11))
        new: Words = s[3] ^ (s[3] >> _u32(19)) ^ t ^ (t >> _u32(8))
        s[0], s[1], s[2], s[3] = s[1].copy(), s[2].copy(), s[3].copy(), new
        return new

    def _tausworthe(self, i: int, mask: int, a: int, b: int, c: int) -> None:
        z = self.state[i]
        feedback = ((z << _u32(a)) ^ z) >> _u32(b)
        self.state[i] = ((z & _u32(mask)) << _u32(c)) ^ feedback

    def _lfsr113(self) -> Words:
        self._tausworthe(0, 0xFFFFFFFE, 6, 13, 18)
        self._tausworthe(1, 0xFFFFFFF8, 2, 27, 2)
        self._tausworthe(2, 0xFFFFFFF0, 13, 21, 7)
        self._tausworthe(3, 0xFFFFFF80, 3, 12, 13)
        word: Words = self.state[0] ^ self.state[1] ^ self.state[2] ^ self.state[3]
        return word

    def _taus88(self) -> Words:
        self._tausworthe(0, 0xFFFFFFFE, 13, 19, 12)
        self._tausworthe(1, 0xFFFFFFF8, 2, 25, 4)
        self._tausworthe(2, 0xFFFFFFF0, 3, 11, 17)
        word: Words = self.state[0] ^ self.state[1] ^ self.state[2]
        return word

    def next(self) -> Words:
        """The next word of every generator, shape ``(S,)``."""
        return self._step()

    def words(self, count: int) -> Words:
        """The next ``count`` words of every generator, shape ``(count, S)``.

        The same words as ``next`` gives, much faster: a step is a linear map of
        the state's bits over GF(2), so a stream can be cut into lanes that run
        side by side, each starting where a power of the map leads from the last.
        """
        lanes = math.isqrt(count)
        if lanes < 2:
            return self._run(count)
        length = count // lanes
        size, seeds = self.state.shape
        here = self.state
        # Where the map's power leads each single bit of a state.
        bits = np.arange(32 * size)
        self.state = np.zeros((size, bits.size), dtype=np.uint32)
        self.state[bits // 32, bits] = np.left_shift(1, bits % 32).astype(np.uint32)
        self._run(length)
        power = self.state
        starts = np.empty((size, lanes, seeds), dtype=np.uint32)
        for lane in range(lanes):
            starts[:, lane] = here
            on = here[bits // 32] >> (bits % 32).astype(np.uint32)[:, np.newaxis] & _u32(1)
            # Multiplying by 0 or 1 selects a bit's image; adding is exclusive or.
            here = np.stack([np.bitwise_xor.reduce(row[:, np.newaxis] * on) for row in power])
        self.state = starts.reshape(size, lanes * seeds)
        made = self._run(length).reshape(length, lanes, seeds)
        self.state = here
        rest = self._run(count - lanes * length)
        return np.concatenate([made.swapaxes(0, 1).reshape(lanes * length, seeds), rest])

    def _run(self, count: int) -> Words:
        made = np.empty((count, self.state.shape[1]), dtype=np.uint32)
        for row in made:
            row[:] = self.next()
        return made

    def __iter__(self) -> Iterator[Words]:
        while True:
            yield self.next()


def draw_words(generator: RandomWords, planes: Words) -> Words:
    """Draw all weights of a layer, once for every seed.

    Args:
        generator: is advanced by one word per bit-plane word.
        planes: shape ``(W, k)``: for each of W weight words its k bit-planes,
            least significant first.

    Returns:
        uint32, shape ``(S, W)``: the drawn weights, one bit each.
    """
    count, k = planes.shape
    seeds = generator.state.shape[1]
    drawn = np.empty((count, seeds), dtype=np.uint32)
    at_once = max(1, _WORDS_AT_ONCE // max(1, k * seeds))
    for start in range(0, count, at_once):
        part = planes[start : start + at_once, :, np.newaxis]
        random = generator.words(len(part) * k).reshape(len(part), k, seeds)
        x: Words = np.broadcast_to(part[:, k - 1], (len(part), seeds))
        for j in range(k):
            x = x ^ ((x ^ random[:, j]) & (x ^ part[:, j]))
        drawn[start : start + at_once] = x
    return np.ascontiguousarray(drawn.T)


def level_probability(levels: npt.NDArray[np.uint8], planes: int) -> npt.NDArray[np.float64]:
    """P(weight = +1) of k-bit levels: ``(v + msb(v)) / 2**k``, same shape, float64."""
    v = levels.astype(np.float64)
    msb = levels.astype(np.int64) >> (planes - 1)
    return np.asarray((v + msb) / (1 << planes), dtype=np.float64)
