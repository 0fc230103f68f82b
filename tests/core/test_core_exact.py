"""Reference and generated C must agree bit for bit, on every network there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import many_models
import numpy as np
import pytest
from many_models import Library
from random_dags import random_dag
from random_graphs import random_graph, random_images
from twin_check import AT_ONCE, differences

from bnnmcu import reference
from bnnmcu.backend.choice import Goal
from bnnmcu.backend.emit import model_sources, template_bytes
from bnnmcu.backend.plan import KernelChoice, make_plan
from bnnmcu.errors import MissingDependencyError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.lfsr import GENERATORS, MIX
from bnnmcu.toolchain.native import NativeTwin, host_compiler, native_sources

#: Random networks in all; they are compiled in parts.
COUNT = int(os.environ.get("BNNMCU_RANDOM_GRAPHS", "300"))
_IMAGES, _DRAWS = 6, 3
SEEDS = np.random.default_rng(5).integers(0, 1 << 64, (_IMAGES, _DRAWS), dtype=np.uint64)
SEEDS[0] = [0, 1, (1 << 64) - 1]


def _need_compiler() -> None:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("first", range(0, COUNT, AT_ONCE))
def test_random_graphs(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By turns as the twin is compiled, and without what is only for hosts."""
    _need_compiler()
    if first // AT_ONCE % 2:
        flags = (*many_models.HOST_FLAGS, "-DBNN_PORTABLE")
        monkeypatch.setattr(many_models, "HOST_FLAGS", flags)
    graphs = [random_dag(seed) for seed in range(first, min(COUNT, first + AT_ONCE))]
    wrong = differences(graphs, tmp_path / "twins")
    # The seed of a network is the number in its name.
    assert wrong == [], f"{len(wrong)} differences"
    shutil.rmtree(tmp_path / "twins", ignore_errors=True)


@pytest.mark.parametrize(("goal", "first"), [("speed", 20_000), ("balanced", 20_075)])
def test_random_graphs_with_chosen_kernels(goal: Goal, first: int, tmp_path: Path) -> None:
    _need_compiler()
    graphs = [random_dag(seed) for seed in range(first, first + AT_ONCE)]
    assert differences(graphs, tmp_path / "twins", KernelChoice(goal)) == []
    shutil.rmtree(tmp_path / "twins", ignore_errors=True)


def test_random_graphs_call_every_kernel() -> None:
    header = template_bytes("runtime/bnn_kernels.h").decode()
    declared = set(re.findall(r"^void (bnn_\w+)\(", header, re.MULTILINE))
    called: Counter[str] = Counter()
    for seed in range(300):
        called.update(step.kernel for step in make_plan(random_dag(seed)).steps)
    assert declared - called.keys() == set()
    assert min(called.values()) >= 5


#: Small faults of the C: the kernel it is noticed in, file, text, other text.
_FAULTS = {
    "ties": (
        "conv_pixels", "bnn_internal.h", "(1u ^ bnn_less(sum, output->threshold[channel]))",
        "bnn_less(output->threshold[channel], sum)"),
    "dilation": (
        "conv_ints", "bnn_internal.h", "(span.last + dilation - 1) / dilation",
        "span.last / dilation"),
    "padding": ("conv_bits", "bnn_kernels.c", "if (taps != all)", "if (taps < 0)"),
    "groups": ("conv_bits", "bnn_kernels.c", "group * inputs, inputs", "0, inputs"),
    "fill": ("conv_pixels", "bnn_integer.c", "conv->fill + first : NULL", "NULL : NULL"),
    "groups of signs": ("conv_signs", "bnn_integer.c", "in + from, first + c)", "in + from, c)"),
    "wide bias": (
        "dense_i64", "bnn_integer.c", "dense->bias[output] :", "(int32_t)dense->bias[output] :"),
    "slope": (
        "affine_ints", "bnn_values.c", "(bnn_negative(x), below", "(bnn_negative(-x), below"),
    "wide product": (
        "affine_ints", "bnn_values.c", "bnn_product(m, x) +",
        "(int32_t)((uint32_t)m * (uint32_t)x) +"
    ),
    "smallest bit": ("max_pool_bits", "bnn_values.c", "(all & least)", "(any & least)"),
    "lower bound": ("clamp", "bnn_values.c", "[i], clamp->low)", "[i], 0)"),
}  # fmt: skip


def _calling(kernel: str) -> list[Graph]:
    """The first random networks in which a kernel is called."""
    graphs: list[Graph] = []
    for seed in range(300):
        graph = random_dag(seed)
        if any(step.kernel == kernel for step in make_plan(graph).steps):
            graphs.append(graph)
        if len(graphs) == 12:
            break
    return graphs


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_would_be_noticed(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random networks that let a wrong kernel pass would prove nothing."""
    _need_compiler()
    kernel, file, right, wrong = _FAULTS[fault]

    def spoiled(graph: Graph) -> dict[str, bytes]:
        sources = native_sources(graph)
        text = sources[file].decode()
        assert right in text, "the C has changed: find another fault"
        return sources | {file: text.replace(right, wrong).encode()}

    monkeypatch.setattr(many_models, "native_sources", spoiled)
    monkeypatch.setattr(many_models, "HOST_FLAGS", ("-std=c99", "-O1", "-fPIC", "-DBNN_PORTABLE"))
    assert differences(_calling(f"bnn_{kernel}"), tmp_path / "twins")


def _corpus() -> list[Graph]:
    """Every generator with every k, and networks without hidden layers."""
    chosen = [
        random_graph(1000 + 10 * k + code, hidden=1, stochastic=True, planes=k, generator=name)
        for k in (2, 5, 8)
        for code, name in enumerate(GENERATORS)
    ]
    return chosen + [random_graph(2000 + i, hidden=0) for i in range(3)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    _need_compiler()
    return Library(_corpus(), tmp_path_factory.mktemp("twins"))


def test_logits_agree(library: Library) -> None:
    wide = 0
    for index, graph in enumerate(library.graphs):
        images = random_images(graph, _IMAGES, index)
        expected = reference.run(graph, images, SEEDS)
        got = library.run(index, images, SEEDS)
        assert np.array_equal(got, expected), f"graph {index} ({graph.name})"
        wide += bool(np.abs(expected).max() > 2**31)
    assert wide, "no logit needed 64 bits: the corpus lost its wide networks"


def test_drawn_weights_agree(library: Library) -> None:
    layers = 0
    for index, graph in enumerate(library.graphs):
        words = reference.sampled_words(graph, SEEDS[1])
        for layer, step in enumerate(make_plan(graph).steps):
            if not step.planes:
                continue
            layers += 1
            assert words[step.name].shape == (_DRAWS, step.sampled_words)
            for row, seed in zip(words[step.name], SEEDS[1], strict=True):
                got = library.sample(index, layer, int(seed), step.sampled_words)
                assert np.array_equal(got, row), f"{graph.name} {step.name} seed {seed}"
    assert layers >= min(len(library.graphs), 9)


def test_draws_differ_between_seeds_and_decide_logits(library: Library) -> None:
    graph = library.graphs[0]
    seeds = np.arange(16, dtype=np.uint64)[np.newaxis]
    logits = library.run(0, random_images(graph, 3, 9)[2:], seeds)
    assert len(np.unique(logits.reshape(16, -1), axis=0)) > 1


def _unmix(h: int) -> int:
    """The inverse of MurmurHash3's finaliser."""
    h ^= h >> 16
    h = h * pow(0xC2B2AE35, -1, 1 << 32) % (1 << 32)
    h ^= h >> 13 ^ h >> 26
    h = h * pow(0x85EBCA6B, -1, 1 << 32) % (1 << 32)
    return h ^ h >> 16


def _mix(h: int) -> int:
    h %= 1 << 32
    h ^= h >> 16
    h = h * 0x85EBCA6B % (1 << 32)
    h ^= h >> 13
    h = h * 0xC2B2AE35 % (1 << 32)
    return h ^ h >> 16


def _seed_with(word: int, value: int, low: int) -> int:
    """A seed whose mixed state has this value in this word."""
    high = (_unmix(value) - _mix(low ^ MIX[word]) - word) % (1 << 32)
    return high << 32 | low


def test_states_below_the_minimum_are_repaired_alike(library: Library) -> None:
    """Seeds that no random search would find, made by running the mixer backwards."""
    seeds = [
        _seed_with(word, value, low)
        for word in range(4)
        for value in (0, 1, 2, 7, 8, 15, 16, 127, 128)
        for low in (0, 0xDEADBEEF)
    ]
    raw = [[_mix(_mix(s % (1 << 32) ^ MIX[i]) + (s >> 32) + i) for i in range(4)] for s in seeds]
    assert all(min(state) <= 128 for state in raw)
    tested = set()
    for index, graph in enumerate(library.graphs[:9]):
        if graph.generator in tested:
            continue
        tested.add(graph.generator)
        layer, step = next((i, s) for i, s in enumerate(make_plan(graph).steps) if s.planes)
        words = reference.sampled_words(graph, np.array(seeds, dtype=np.uint64))[step.name]
        for row, seed in zip(words, seeds, strict=True):
            assert np.array_equal(library.sample(index, layer, seed, step.sampled_words), row)
    assert tested == set(GENERATORS)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> NativeTwin:
    _need_compiler()
    patch = pytest.MonkeyPatch()
    patch.setenv("BNNMCU_CACHE", str(tmp_path_factory.mktemp("cache")))
    graph = random_graph(77, hidden=2, stochastic=True)
    yield NativeTwin(graph)  # type: ignore[misc]
    patch.undo()


def test_native_twin_is_the_reference(twin: NativeTwin) -> None:
    images = random_images(twin.graph, _IMAGES, 0)
    assert np.array_equal(twin.run(images, SEEDS), reference.run(twin.graph, images, SEEDS))
    words = reference.sampled_words(twin.graph, SEEDS[0])
    for row, seed in enumerate(SEEDS[0]):
        mine = twin.sampled_words(int(seed))
        assert mine.keys() == words.keys()
        assert mine
        for name, got in mine.items():
            assert np.array_equal(got, words[name][row])


def test_native_twin_is_compiled_once(twin: NativeTwin) -> None:
    folder = Path(os.environ["BNNMCU_CACHE"]) / "native"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = NativeTwin(twin.graph)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(before) == 1, "the compiler's files were left behind"
    # Two twins share one static arena; both must still be right.
    images = random_images(twin.graph, _IMAGES, 1)
    assert np.array_equal(again.run(images, SEEDS), twin.run(images, SEEDS))


def test_executors_refuse_the_same_requests(twin: NativeTwin) -> None:
    graph = twin.graph
    images = random_images(graph, 2, 0)
    seeds = np.zeros((2, 1), dtype=np.uint64)
    cases = [
        (images, None),
        (images.astype(np.int16), seeds),
        (images[:, :-1], seeds),
        (images, seeds[0]),
        (images, seeds[:1]),
    ]
    for bad_images, bad_seeds in cases:
        with pytest.raises(UsageError):
            reference.run(graph, bad_images, bad_seeds)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            twin.run(bad_images, bad_seeds)  # type: ignore[arg-type]
    for none in (images[:0], images):
        shape = (len(none), 0 if len(none) else 3)
        empty = np.zeros(shape, dtype=np.uint64)
        assert reference.run(graph, none, empty).shape == (*shape, graph.classes)
        assert twin.run(none, empty).shape == (*shape, graph.classes)


def test_reference_gives_the_same_in_chunks_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(78, hidden=2, stochastic=True)
    images = random_images(graph, _IMAGES, 3)
    whole = reference.run(graph, images, SEEDS)
    monkeypatch.setattr(reference, "_SEEDS_AT_ONCE", 4)
    monkeypatch.setattr(reference, "_IMAGES_AT_ONCE", 3)
    assert np.array_equal(reference.run(graph, images, SEEDS), whole)
    alone = [reference.run(graph, images[i : i + 1], SEEDS[i : i + 1]) for i in range(_IMAGES)]
    assert np.array_equal(np.concatenate(alone), whole)


def test_the_same_graph_gives_the_same_bytes() -> None:
    """Also in a process whose hashes of strings differ."""
    program = (
        "import sys, hashlib; sys.path[:0] = sys.argv[1:]\n"
        "from random_graphs import random_graph\n"
        "from bnnmcu.toolchain.native import native_sources\n"
        "from bnnmcu.graphfile import save_graph_bytes, graph_sha256\n"
        "g = random_graph(77, hidden=2, stochastic=True)\n"
        "h = hashlib.sha256(repr(sorted(native_sources(g).items())).encode())\n"
        "h.update(save_graph_bytes(g) + graph_sha256(g)); print(h.hexdigest())\n"
    )
    roots = [str(Path(__file__).resolve().parents[1] / "support"), *sys.path]
    answers = set()
    for hash_seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", program, *roots],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        answers.add(done.stdout)
    assert len(answers) == 1
    assert len(answers.pop().strip()) == 64
    graph = random_graph(77, hidden=2, stochastic=True)
    assert model_sources(make_plan(graph)) == model_sources(make_plan(graph))
