"""The random numbers, against a second implementation in plain Python integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnmcu import lfsr
from bnnmcu.errors import UsageError
from bnnmcu.lfsr import GENERATORS, RandomWords, draw_words, level_probability
from bnnmcu.packing import pack_bits, pack_planes, unpack_bits, words_for
from bnnmcu.passes.lower.fold import quantize_probability

MASK = 0xFFFFFFFF


def _fmix(h: int) -> int:
    h ^= h >> 16
    h = h * 0x85EBCA6B & MASK
    h ^= h >> 13
    h = h * 0xC2B2AE35 & MASK
    return h ^ h >> 16


def _state(name: str, seed: int) -> list[int]:
    low, high = seed & MASK, seed >> 32
    mix = (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)
    state = [_fmix(_fmix(low ^ m) + high + i & MASK) for i, m in enumerate(mix)]
    if name == "xorshift128":
        return state if any(state) else [0, 0, 0, 1]
    smallest = {"lfsr113": (2, 8, 16, 128), "taus88": (2, 8, 16, 0)}[name]
    return [s + m if s < m else s for s, m in zip(state, smallest, strict=True)]


def _xorshift128(s: list[int]) -> int:
    """Marsaglia, "Xorshift RNGs", 2003, section 4: the generator of period 2^128 - 1."""
    t = (s[0] ^ s[0] << 11) & MASK
    s[:3] = s[1:]
    s[3] = (s[3] ^ s[3] >> 19) ^ (t ^ t >> 8)
    return s[3]


def _component(z: int, drop: int, q: int, b: int, s: int) -> int:
    """L'Ecuyer: the low ``drop`` bits of a component take no part in its recurrence."""
    fed = ((z << q & MASK) ^ z) >> b
    return (z >> drop << drop) << s & MASK ^ fed


def _lfsr113(s: list[int]) -> int:
    """L'Ecuyer, "Tables of maximally equidistributed combined LFSR generators", 1999."""
    rows = [(1, 6, 13, 18), (3, 2, 27, 2), (4, 13, 21, 7), (7, 3, 12, 13)]
    s[:] = [_component(z, *row) for z, row in zip(s, rows, strict=True)]
    return s[0] ^ s[1] ^ s[2] ^ s[3]


def _taus88(s: list[int]) -> int:
    """L'Ecuyer, "Maximally equidistributed combined Tausworthe generators", 1996."""
    rows = [(1, 13, 19, 12), (3, 2, 25, 4), (4, 3, 11, 17)]
    s[:3] = [_component(z, *row) for z, row in zip(s[:3], rows, strict=True)]
    return s[0] ^ s[1] ^ s[2]


STEP = {"xorshift128": _xorshift128, "lfsr113": _lfsr113, "taus88": _taus88}
ODD_SEEDS = (0, 1, 2, 0xFFFFFFFF, 1 << 32, (1 << 64) - 1, 0x0123456789ABCDEF)


@pytest.mark.parametrize("name", GENERATORS)
def test_words_match_the_second_implementation(name: str) -> None:
    generator = RandomWords(name, ODD_SEEDS)
    states = [_state(name, seed) for seed in ODD_SEEDS]
    for _ in range(200):
        assert generator.next().tolist() == [STEP[name](state) for state in states]


@given(name=st.sampled_from(sorted(GENERATORS)), seed=st.integers(0, (1 << 64) - 1))
def test_any_seed_matches(name: str, seed: int) -> None:
    words = itertools.islice(RandomWords(name, [seed]), 5)
    state = _state(name, seed)
    assert [int(word[0]) for word in words] == [STEP[name](state) for _ in range(5)]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 15, 16, 17, 1000])
@pytest.mark.parametrize("name", GENERATORS)
def test_many_words_are_the_same_words(name: str, count: int) -> None:
    at_once, one_by_one = RandomWords(name, ODD_SEEDS), RandomWords(name, ODD_SEEDS)
    for _ in range(2):  # where the first call ends the second one begins
        words = at_once.words(count)
        assert words.tolist() == [one_by_one.next().tolist() for _ in range(count)]
        assert words.shape == (count, len(ODD_SEEDS))
        assert (at_once.state == one_by_one.state).all()


def test_golden_words() -> None:
    """Frozen: a change here breaks every device in the field and every stored result."""
    golden = {
        name: [_golden(name, 0, 3), _golden(name, 0x0123456789ABCDEF, 3)] for name in GENERATORS
    }
    assert golden == GOLDEN


def _golden(name: str, seed: int, count: int) -> list[str]:
    return [f"{int(w[0]):08x}" for w in itertools.islice(RandomWords(name, [seed]), count)]


GOLDEN = {
    "xorshift128": [
        ["6e89af3c", "e3727647", "25b21662"],
        ["2bc637aa", "7e2cf066", "1c00fae2"],
    ],
    "lfsr113": [
        ["cc1bc01e", "e0d99202", "5f8fcd7e"],
        ["61e68213", "2c616c16", "48231f75"],
    ],
    "taus88": [
        ["a7ae898f", "4c385668", "b48b9493"],
        ["3297c086", "5d0d8d6d", "08796a6c"],
    ],
}


def test_published_example_of_xorshift128() -> None:
    """Marsaglia's own seeds give 3701687786 as the first word (2003, section 4)."""
    generator = RandomWords("xorshift128", [0])
    generator.state[:, 0] = [123456789, 362436069, 521288629, 88675123]
    assert int(generator.next()[0]) == 3701687786


@pytest.mark.parametrize("name", GENERATORS)
def test_neighbouring_seeds_are_unrelated(name: str) -> None:
    base = np.random.default_rng(1).integers(0, 1 << 62, 40, dtype=np.uint64)
    for bit in (0, 1, 7, 31, 32, 45, 63):
        pair = [RandomWords(name, seeds) for seeds in (base, base ^ np.uint64(1 << bit))]
        words = [np.stack([g.next() for _ in range(8)]) for g in pair]
        share = np.bitwise_count(words[0] ^ words[1]).mean() / 32
        # 40 * 8 * 32 bits: a standard deviation of 0.005.
        assert abs(share - 0.5) < 0.025, f"bit {bit}: {share}"


@pytest.mark.parametrize("name", GENERATORS)
def test_states_are_above_the_minimum(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = np.random.default_rng(2).integers(0, 1 << 64, 4000, dtype=np.uint64)
    minimum = np.array(GENERATORS[name].minimum, dtype=np.uint64)[:, np.newaxis]
    assert (RandomWords(name, seeds).state >= minimum).all()
    # No known seed mixes to a small word, so the mixer is made to.
    for small in (0, 1):
        monkeypatch.setattr(lfsr, "_fmix32", lambda h, small=small: h * 0 + np.uint32(small))
        generator = RandomWords(name, [0, 5])
        assert (generator.state >= minimum).all()
        assert generator.state.any(axis=0).all()
        words = [generator.next().tolist() for _ in range(64)]
        assert len({tuple(pair) for pair in words}) > 30, "the generator is stuck"


def test_refusals() -> None:
    for name, seeds in [("mt19937", [0]), ("taus88", [-1]), ("taus88", [1 << 64])]:
        with pytest.raises(UsageError):
            RandomWords(name, seeds)


@pytest.mark.parametrize("planes", range(2, 9))
def test_draw_is_the_comparison_it_claims_to_be(planes: int) -> None:
    """Bit = (v + msb(v) + u >= 2^k) with u made of the k words drawn, lane by lane."""
    rng = np.random.default_rng(planes)
    levels = rng.integers(0, 1 << planes, (3, 2, 2, 45), dtype=np.uint8)
    packed = pack_planes(levels, planes)
    assert packed.shape == (3 * 2 * 2 * 2, planes)
    seed = 99 + planes
    drawn = draw_words(RandomWords("xorshift128", [seed]), packed)[0]
    state = _state("xorshift128", seed)
    flat = levels.reshape(-1, 45)
    for position in range(len(flat)):
        for word in range(2):
            u = [STEP["xorshift128"](state) for _ in range(planes)]
            for lane in range(32):
                channel = 32 * word + lane
                bit = int(drawn[2 * position + word]) >> lane & 1
                v = int(flat[position, channel]) if channel < 45 else 0
                uniform = sum((u[j] >> lane & 1) << j for j in range(planes))
                assert bit == (v + (v >> planes - 1) + uniform >= 1 << planes)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("planes", [2, 4, 8])
def test_levels_come_up_as_often_as_they_should(name: str, planes: int) -> None:
    levels = np.arange(1 << planes, dtype=np.uint8)
    seeds = 4000 if planes < 8 else 2000
    copies = np.tile(levels, 64 // len(levels)) if len(levels) < 64 else levels
    packed = pack_planes(copies.reshape(1, 1, 1, -1), planes)
    bits = unpack_bits(draw_words(RandomWords(name, range(seeds)), packed), copies.size)
    p = level_probability(copies, planes)
    mean = bits.mean(axis=0)
    sigma = np.sqrt(p * (1 - p) / seeds)
    assert (mean[p == 0] == 0).all()
    assert (mean[p == 1] == 1).all()
    assert {0.0, 1.0} <= set(p.tolist())
    # Five sigma over at most 256 lanes; the seeds are fixed, so this cannot flake.
    assert (np.abs(mean - p) <= 5 * sigma).all()
    # Lanes must not move together.
    inner = (p > 0.2) & (p < 0.8)
    pair = np.corrcoef(bits[:, inner].T)
    assert np.abs(pair[~np.eye(len(pair), dtype=bool)]).max() < 6 / np.sqrt(seeds)


@pytest.mark.parametrize("planes", range(2, 9))
def test_level_probability(planes: int) -> None:
    levels = np.arange(1 << planes, dtype=np.uint8)
    p = level_probability(levels, planes)
    assert p[0] == 0
    assert p[-1] == 1
    assert (np.diff(p) > 0).all()
    assert 0.5 not in p
    assert np.allclose(p, 1 - p[::-1])
    assert np.array_equal(quantize_probability(p, planes), levels)


@given(
    channels=st.integers(1, 100),
    rows=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_packing_is_reversible(channels: int, rows: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, (rows, 3, channels), dtype=np.uint8)
    words = pack_bits(bits)
    assert words.dtype == np.uint32
    assert words.shape == (rows, 3, words_for(channels))
    assert np.array_equal(unpack_bits(words, channels), bits)
    # Lanes beyond the last channel are zero; channel c is bit c % 32 of word c // 32.
    last = channels % 32
    assert last == 0 or not (words[..., -1] >> np.uint32(last)).any()
    c = channels - 1
    assert np.array_equal(words[..., c // 32] >> np.uint32(c % 32) & 1, bits[..., c])
