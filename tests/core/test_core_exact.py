"""Reference and generated C must agree bit for bit, on every network there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from many_models import Library, Program
from random_graphs import random_graph, random_images

from bnnmcu import reference
from bnnmcu.backend.emit import model_sources
from bnnmcu.backend.plan import make_plan
from bnnmcu.errors import MissingDependencyError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.lfsr import GENERATORS, MIX
from bnnmcu.toolchain.native import NativeTwin, host_compiler, native_sources

COUNT = int(os.environ.get("BNNMCU_RANDOM_GRAPHS", "40"))
_IMAGES, _DRAWS = 6, 3
SEEDS = np.random.default_rng(5).integers(0, 1 << 64, (_IMAGES, _DRAWS), dtype=np.uint64)
SEEDS[0] = [0, 1, (1 << 64) - 1]


def _need_compiler() -> None:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def _corpus() -> list[Graph]:
    """Every generator with every k, networks without hidden layers, then random ones."""
    chosen = [
        random_graph(1000 + 10 * k + code, hidden=1, stochastic=True, planes=k, generator=name)
        for k in (2, 5, 8)
        for code, name in enumerate(GENERATORS)
    ]
    chosen += [random_graph(2000 + i, hidden=0) for i in range(3)]
    return (chosen + [random_graph(i) for i in range(max(0, COUNT - len(chosen)))])[:COUNT]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    _need_compiler()
    return Library(_corpus(), tmp_path_factory.mktemp("twins"))


def test_the_corpus_covers_what_it_should() -> None:
    graphs = [random_graph(2000 + i, hidden=0) for i in range(3)] + [
        random_graph(i) for i in range(28)
    ]
    plans = [make_plan(graph) for graph in graphs]
    kernels = {step.kernel for plan in plans for step in plan.steps}
    assert kernels == {
        "bnn_conv_pixels",
        "bnn_conv_bits",
        "bnn_conv_drawn",
        "bnn_dense_i32",
        "bnn_dense_i64",
    }
    shapes = [step.shape for plan in plans for step in plan.steps if step.shape]
    assert any(shape["in_c"] % 32 and shape["in_c"] > 32 for shape in shapes)
    assert any(shape["pad_y"] != shape["pad_x"] for shape in shapes)
    assert any(shape["stride_y"] != shape["stride_x"] for shape in shapes)
    assert any(len(graph.stochastic) > 1 for graph in graphs)


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


def _sanitized(compiler: str, graphs: list[Graph], folder: Path) -> Program:
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    done = subprocess.run(
        [compiler, *flags, "-o", str(folder / "probe"), str(probe)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"{compiler} has no sanitizer libraries here")
    return Program(graphs, folder, compiler, flags)


def _exercise(program: Program) -> None:
    requests, expected = b"", b""
    for index, graph in enumerate(program.graphs):
        images = random_images(graph, _IMAGES, index)
        requests += program.infer(index, images, SEEDS[:, 0])
        expected += reference.run(graph, images, SEEDS[:, :1]).tobytes()
        words = reference.sampled_words(graph, SEEDS[2, :1])
        for layer, step in enumerate(make_plan(graph).steps):
            if step.planes:
                whole, first = step.sampled_words, step.sampled_words // 3
                seed = int(SEEDS[2, 0])
                requests += program.sample(index, layer, seed, 0, whole)
                requests += program.sample(index, layer, seed, first, whole - first)
                requests += program.sample(index, layer, seed, whole, 0)
                expected += words[step.name][0].tobytes() + words[step.name][0, first:].tobytes()
    assert program.run(requests) == expected


def _some_graphs() -> list[Graph]:
    graphs = [random_graph(500 + i) for i in range(4)]
    graphs.append(random_graph(510, hidden=0))
    graphs += [
        random_graph(520 + i, hidden=2, stochastic=True, planes=2 + 3 * i, generator=name)
        for i, name in enumerate(GENERATORS)
    ]
    return graphs


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizers_find_nothing(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    _exercise(_sanitized(compiler, _some_graphs(), tmp_path))


def test_nothing_is_written_outside_the_arena(tmp_path: Path) -> None:
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    _exercise(Program(_some_graphs(), tmp_path, compiler, ["-O2", "-DCORE_CANARIES"]))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_sanitizer_run_would_notice(tmp_path: Path) -> None:
    """An arena one word too small must be caught, or the tests above prove nothing."""
    graph = random_graph(77, hidden=2, stochastic=True)
    program = _sanitized("gcc", [graph], tmp_path)
    plan = make_plan(graph)
    header = tmp_path / "m0" / "bnn_model.h"
    text = header.read_text()
    true = f"BNN_MODEL_ARENA_WORDS {plan.arena_words}"
    assert true in text
    header.write_text(text.replace(true, f"BNN_MODEL_ARENA_WORDS {plan.arena_words - 1}"))
    broken = [
        "gcc", "-std=c99", "-O1", "-g", "-fsanitize=address,undefined", f"-I{tmp_path}",
        "-o", str(tmp_path / "broken"), *map(str, sorted(tmp_path.glob("unit*.c"))),
        *(str(tmp_path / name) for name in
          ("bnn.c", "bnn_kernels.c", "core_models.c", "core_main.c")),
    ]  # fmt: skip
    subprocess.run(broken, check=True, capture_output=True)
    request = program.infer(0, random_images(graph, 1, 0), SEEDS[:1, 0])
    done = subprocess.run(
        [str(tmp_path / "broken")], input=request, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"heap-buffer-overflow" in done.stderr


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


_STRICT = ("-std=c99", "-ffreestanding", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-c")


def _compilers() -> list[tuple[str, list[str], tuple[str, ...]]]:
    zig = [sys.executable, "-m", "ziglang", "cc"]
    arm = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
    return [
        ("gcc", ["gcc"], ()),
        ("gcc -pedantic -Wshadow", ["gcc"], ("-pedantic", "-Wshadow", "-Wstrict-prototypes")),
        ("clang", ["clang"], ()),
        ("arm-none-eabi-gcc", ["arm-none-eabi-gcc"], arm),
        ("zig", zig, ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4")),
    ]


@pytest.mark.parametrize("compiler", _compilers(), ids=lambda case: case[0])
def test_no_compiler_warns(
    compiler: tuple[str, list[str], tuple[str, ...]], tmp_path: Path
) -> None:
    name, command, flags = compiler
    if name == "zig":
        pytest.importorskip("ziglang", reason="ziglang is not installed")
    elif shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    # One model with drawn layers and one with 64-bit logits.
    for number, graph in enumerate((random_graph(77, hidden=2), random_graph(2000, hidden=0))):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file, text in native_sources(graph).items():
            if file != "bnn_native.c":
                (folder / file).write_bytes(text)
        files = ["bnn_model.c"] + ["bnn.c", "bnn_kernels.c"] * (number == 0)
        for file in files:
            done = subprocess.run(
                [
                    *command,
                    *_STRICT,
                    *flags,
                    "-O2",
                    f"-I{folder}",
                    str(folder / file),
                    "-o",
                    str(folder / "out.o"),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert not done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_headers_can_be_used_from_cpp(tmp_path: Path) -> None:
    for file, text in native_sources(random_graph(77, hidden=1)).items():
        (tmp_path / file).write_bytes(text)
    (tmp_path / "use.cpp").write_text(
        '#include "bnn_model.h"\n#include "bnn_kernels.h"\n'
        "static uint32_t arena[BNN_MODEL_ARENA_WORDS];\n"
        "static uint8_t image[BNN_MODEL_INPUT_BYTES];\n"
        "int main() {\n"
        "    bnn_ctx_t net;\n"
        "    bnn_init(&net, &bnn_model, arena, BNN_MODEL_ARENA_WORDS);\n"
        "    bnn_infer(&net, image, sizeof image, 1);\n"
        "    return bnn_argmax(&net) < BNN_MODEL_CLASSES ? 0 : 1;\n"
        "}\n"
    )
    objects = []
    for file in ("bnn.c", "bnn_kernels.c", "bnn_model.c"):
        objects.append(str(tmp_path / f"{file}.o"))
        command = ["gcc", "-std=c99", "-c", f"-I{tmp_path}", str(tmp_path / file)]
        subprocess.run([*command, "-o", objects[-1]], check=True)
    # Linking proves that the C names are not mangled.
    done = subprocess.run(
        [
            "g++",
            "-std=c++11",
            "-Wall",
            "-Wextra",
            "-Werror",
            f"-I{tmp_path}",
            str(tmp_path / "use.cpp"),
            *objects,
            "-o",
            str(tmp_path / "use"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(tmp_path / "use")], check=False).returncode == 0
