"""The page on generators against all sides, and the quality of what they draw."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from many_models import Library
from random_tests import LIMITS, battery, linear_complexity, marginals, to_bits, worst

from bnnmcu import reference
from bnnmcu.backend.plan import make_plan
from bnnmcu.compiler import to_graph
from bnnmcu.errors import MissingDependencyError
from bnnmcu.graph import GE, Dense, Graph, IntegerConv, StochasticConv, Threshold
from bnnmcu.lfsr import GENERATORS, RandomWords, draw_words
from bnnmcu.modelfile import read_model
from bnnmcu.packing import pack_planes
from bnnmcu.toolchain.native import NativeTwin, host_compiler

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "GENERATORS.md").read_text()
#: Words of each stream that is tested.
STREAM = 1 << 16
SEEDS = (1, (1 << 40) + 7)
DRAWS = 2000
#: Filters and draws of the tests that must fail; enough, as the honest one shows.
FEW_FILTERS, FEW_DRAWS = 16, 400

Words = npt.NDArray[np.uint32]


def _table(heading: str) -> list[list[str]]:
    """The rows of the page's table whose heading begins so, their cells without back ticks."""
    lines = PAGE[PAGE.index(f"| {heading}") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


@functools.cache
def _program() -> dict[str, Any]:
    """What the page's program defines."""
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(text, "GENERATORS.md", "exec"), names)
    return names


def _stream(name: str, seed: int, count: int) -> list[int]:
    words: Iterator[int] = _program()["stream"](name, seed)
    return list(itertools.islice(words, count))


def _layers() -> list[list[Any]]:
    """The two layers of the page's test vectors, by their formulas."""
    first = [[[[(5 * o + 3 * x + c) % 8 for c in range(40)] for x in range(2)]] for o in range(2)]
    second = [[[[(3 * o + 4 * c) % 8 for c in range(2)]]] for o in range(3)]
    return [first, second]


def _two_drawn_layers(generator: str) -> Graph:
    """A network that draws those layers."""
    rng = np.random.default_rng(4)
    drawn = [np.array(layer, dtype=np.uint8) for layer in _layers()]

    def sign(name: str, source: str, channels: int) -> Threshold:
        kind = np.full(channels, GE, dtype=np.uint8)
        return Threshold(name, source, np.zeros(channels, dtype=np.int32), kind)

    return Graph(
        "vectors",
        (1, 2, 1),
        (
            IntegerConv("first", "input", rng.integers(-9, 9, (40, 1, 1, 1), dtype=np.int16)),
            sign("sign1", "first", 40),
            StochasticConv("drawn1", "sign1", drawn[0], planes=3),
            sign("sign2", "drawn1", 2),
            StochasticConv("drawn2", "sign2", drawn[1], planes=3),
            sign("sign3", "drawn2", 3),
            Dense("dense", "sign3", rng.integers(-9, 9, (4, 3), dtype=np.int16)),
        ),
        generator=generator,
    )


def test_the_page_names_every_generator() -> None:
    rows = _table("generator | code")
    assert {name: int(code) for name, code, *_ in rows} == {
        name: generator.code for name, generator in GENERATORS.items()
    }
    taps: dict[str, list[tuple[int, ...]]] = {}
    for name, _, mask, *shifts in _table("generator | component"):
        taps.setdefault(name, []).append((int(mask, 16), *map(int, shifts)))
    smallest = {row[0]: [int(n) for n in re.findall(r"\d+", row[3])] for row in rows}
    for name, components in _program()["COMPONENTS"].items():
        assert [row[1:] for row in components] == taps[name]
        assert [row[0] for row in components] == smallest[name]
        assert smallest[name] == [n for n in GENERATORS[name].minimum if n]


def test_first_words_of_the_page() -> None:
    rows = _table("generator | seed | first four words")
    assert {row[0] for row in rows} == set(GENERATORS)
    assert len({row[1] for row in rows}) >= 5
    for name, seed, words in rows:
        expected = [int(word, 16) for word in words.split()]
        assert _stream(name, int(seed, 0), 4) == expected
        generator = RandomWords(name, [int(seed, 0)])
        assert generator.words(4)[:, 0].tolist() == expected


def test_drawn_words_of_the_page() -> None:
    rows = _table("generator | seed | words of the first layer")
    assert {row[0] for row in rows} == set(GENERATORS)
    for name, seed, *cells in rows:
        expected = [[int(word, 16) for word in cell.split()] for cell in cells]
        stream = _program()["stream"](name, int(seed, 0))
        assert _program()["draw"](stream, _layers(), 3) == expected
        words = reference.sampled_words(
            _two_drawn_layers(name), np.array([int(seed, 0)], dtype=np.uint64)
        )
        assert [words["drawn1"][0].tolist(), words["drawn2"][0].tolist()] == expected


def _need_compiler() -> None:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def test_the_c_draws_the_words_of_the_page(tmp_path: Path) -> None:
    _need_compiler()
    names = list(GENERATORS)
    library = Library([_two_drawn_layers(name) for name in names], tmp_path / "twins")
    steps = [step.name for step in make_plan(library.graphs[0]).steps]
    drawn = [next(i for i, name in enumerate(steps) if name == d) for d in ("drawn1", "drawn2")]
    for generator, seed, *cells in _table("generator | seed | words of the first layer"):
        for layer, cell in zip(drawn, cells, strict=True):
            expected = [int(word, 16) for word in cell.split()]
            index = names.index(generator)
            words = library.sample(index, layer, int(seed, 0), len(expected))
            assert words.tolist() == expected


@pytest.mark.parametrize("name", GENERATORS)
def test_longer_streams_of_odd_seeds(name: str) -> None:
    for seed in (3, 1 << 31, 0xFFFFFFFF, 1 << 63, 0xFEDCBA9876543210):
        words = RandomWords(name, [seed]).words(300)[:, 0]
        assert words.tolist() == _stream(name, seed, 300)


def _held(found: dict[str, float]) -> dict[str, float]:
    """The tests that do not hold."""
    return {name: score for name, score in found.items() if not score <= LIMITS[name]}


@functools.cache
def _told() -> dict[str, float]:
    """The largest score that the page tells of each test, and a little for rounding."""
    return {row[0]: float(row[-1]) + 0.02 for row in _table("test | figures")}


def _above_the_page(found: dict[str, float]) -> dict[str, float]:
    """The scores that the page does not tell; with fixed seeds they never change."""
    return _held(found) | {name: z for name, z in found.items() if z > _told()[name]}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", GENERATORS)
def test_streams_look_random(name: str, seed: int) -> None:
    assert _above_the_page(battery(RandomWords(name, [seed]).words(STREAM)[:, 0])) == {}


@pytest.mark.parametrize("first", [0, 1 << 32, 12345 << 32])
@pytest.mark.parametrize("name", GENERATORS)
def test_first_words_of_neighbouring_seeds_look_random(name: str, first: int) -> None:
    """The stream made of one word of each seed, the seeds counting up."""
    words = RandomWords(name, range(first, first + STREAM)).next()
    assert _above_the_page(battery(words)) == {}


@pytest.mark.parametrize("name", GENERATORS)
def test_each_bit_of_the_seed_changes_half_of_the_bits(name: str) -> None:
    assert _above_the_page(_avalanche(lambda seeds: RandomWords(name, seeds).words(4))) == {}


def _avalanche(words: Callable[[npt.NDArray[np.uint64]], Words]) -> dict[str, float]:
    seeds = np.random.default_rng(8).integers(0, 1 << 64, 1000, dtype=np.uint64)
    plain = to_bits(words(seeds))
    pooled, single = [], []
    for bit in range(64):
        changed = to_bits(words(seeds ^ np.uint64(1 << bit))) != plain
        pooled.append((2.0 * changed.sum() - changed.size) / np.sqrt(changed.size))
        each = changed.sum(axis=1, dtype=np.int64)
        single.append((2.0 * each - len(seeds)) / np.sqrt(len(seeds)))
    return {
        "a bit of the seed": worst(np.array(pooled)),
        "a bit of the seed with a bit of the words": worst(np.array(single)),
    }


def _lcg(seed: int) -> Words:
    """Low bits of short period: the sort of generator that must not pass."""
    words = np.empty(STREAM, dtype=np.uint32)
    for i in range(STREAM):
        seed = seed * 1664525 + 1013904223 & 0xFFFFFFFF
        words[i] = seed
    return words


def _unmixed(seeds: npt.NDArray[np.uint64] | range) -> RandomWords:
    """xorshift128 with the seed as its state."""
    generator = RandomWords("xorshift128", seeds)
    wide = np.array(seeds, dtype=np.uint64)
    generator.state[0] = (wide & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    generator.state[1] = (wide >> np.uint64(32)).astype(np.uint32)
    generator.state[2:] = np.uint32(0x9E3779B9)
    return generator


def test_the_tests_find_what_is_broken() -> None:
    good = RandomWords("xorshift128", [1]).words(STREAM)[:, 0]
    skewed = good.copy()
    skewed[::50] |= np.uint32(0xFF)
    slow = good.copy()
    slow[1::2] = np.where(np.arange(STREAM // 2) % 8 == 0, slow[::2], slow[1::2])
    sticky = good.copy()
    sticky[::4] &= np.uint32(0x0000FFFF)
    sticky[2::4] |= np.uint32(0xFFFF0000)
    for broken, caught in (
        (_lcg(1), {"runs of a lane", "blocks", "word with later word"}),
        (skewed, {"monobit", "lanes"}),
        (good | np.uint32(1 << 7), {"lanes"}),
        ((good & np.uint32(0xFFFF)) * np.uint32(0x10001), {"lane with lane"}),
        (slow, {"word with later word", "runs of a lane"}),
        (sticky, {"runs", "blocks"}),
        (_unmixed(range(STREAM)).next(), {"lanes", "blocks", "word with later word"}),
    ):
        assert caught <= _held(battery(broken)).keys()
    assert len(_held(_avalanche(lambda seeds: _unmixed(seeds).words(4)))) == 2


@functools.cache
def _conv3() -> tuple[Graph, StochasticConv]:
    graph = to_graph(read_model(ROOT / "examples" / "models" / "s64.pt"))
    (conv3,) = graph.stochastic
    return graph, conv3


def test_drawn_weights_of_a_whole_layer() -> None:
    """409,600 weights, 2,000 draws with the seeds 0, 1, 2 ..., by the generated C."""
    _need_compiler()
    graph, conv3 = _conv3()
    twin = NativeTwin(graph)
    found = marginals(
        (twin.sampled_words(seed)[conv3.name] for seed in range(DRAWS)), conv3.weights, conv3.planes
    )
    assert _above_the_page(found) == {}


class _Broken(RandomWords):
    """Its words are changed on their way out; see :func:`test_the_layer_test_finds`."""

    def __init__(self, change: Callable[[Words], Words], seeds: range) -> None:
        super().__init__("xorshift128", seeds)
        self._change = change

    def words(self, count: int) -> Words:
        return self._change(super().words(count))


def _first_of_planes(words: Words) -> Words:
    return np.repeat(words[::4], 4, axis=0)


def _stuck(words: Words) -> Words:
    return words & ~np.uint32(1 << 19)


def _copied(words: Words) -> Words:
    return words & np.uint32(0x7FFFFFFF) | words << np.uint32(16) & np.uint32(0x80000000)


def _again_for_each_filter(words: Words) -> Words:
    per_filter = len(words) // FEW_FILTERS
    return np.tile(words[:per_filter], (FEW_FILTERS, 1))


def _same(words: Words) -> Words:
    return words


@pytest.mark.parametrize(
    ("change", "planes", "caught"),
    [
        (_same, slice(None), set()),
        (_same, slice(None, None, -1), {"levels", "weights", "filters"}),
        (_same, slice(1, None), {"levels", "weights"}),
        (_first_of_planes, slice(None), {"levels", "weights"}),
        (_stuck, slice(None), {"levels", "weights", "lanes of drawn weights"}),
        (_copied, slice(None), {"lane with lane of drawn weights"}),
        (_again_for_each_filter, slice(None), {"ones of a draw"}),
    ],
    ids=["honest", "reversed", "missing", "one word", "stuck", "copied", "repeated"],
)
def test_the_layer_test_finds(
    change: Callable[[Words], Words], planes: slice, caught: set[str]
) -> None:
    _, conv3 = _conv3()
    levels = conv3.weights[:FEW_FILTERS]
    packed = np.ascontiguousarray(pack_planes(levels, conv3.planes)[:, planes])
    drawn = draw_words(_Broken(change, range(FEW_DRAWS)), packed)
    missed = _held(marginals(drawn, levels, conv3.planes)).keys()
    assert caught <= missed if caught else not missed


def test_the_layer_test_finds_an_unmixed_seed() -> None:
    _, conv3 = _conv3()
    levels = conv3.weights[:FEW_FILTERS]
    drawn = draw_words(_unmixed(range(FEW_DRAWS)), pack_planes(levels, conv3.planes))
    assert "draw with next draw" in _held(marginals(drawn, levels, conv3.planes))


def test_known_to_fail_linear_complexity() -> None:
    """The generators' limit, as the page tells it; random bits have half their number."""
    told = {name: int(length) for name, length in _table("generator | linear complexity")}
    assert told.keys() == GENERATORS.keys()
    for name, length in told.items():
        bits = to_bits(RandomWords(name, [1]).words(1000)[:, 0])
        assert {linear_complexity(bits[:, lane]) for lane in (0, 13, 31)} == {length}
    random = np.random.default_rng(1).integers(0, 2, 1000, dtype=np.uint8)
    assert abs(linear_complexity(random) - 500) < 5


def test_the_page_tells_the_limits() -> None:
    rows = {row[0]: row for row in _table("test | figures")}
    assert {name: float(row[-2]) for name, row in rows.items()} == LIMITS
    assert _held(_told()) == {}
