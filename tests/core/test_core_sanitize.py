"""The generated C under sanitizers, several compilers, and from C++."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import many_models
import pytest
from many_models import Program, write_models
from random_dags import random_dag
from random_graphs import random_graph
from twin_check import inputs

from bnnmcu import reference
from bnnmcu.backend.folder import runtime_files
from bnnmcu.backend.plan import make_plan
from bnnmcu.graph import Graph
from bnnmcu.lfsr import GENERATORS
from bnnmcu.toolchain.native import native_sources

#: Random graphs of each program; sanitizers make compilers slow.
COUNT = 30
_RUNTIME = [name for name in runtime_files() if name.endswith(".c")]


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
        images, seeds = inputs(graph)
        requests += program.infer(index, images, seeds[:, 0])
        expected += reference.run(graph, images, seeds[:, :1]).tobytes()
        words = reference.sampled_words(graph, seeds[2, :1])
        for layer, step in enumerate(make_plan(graph).steps):
            if step.planes:
                whole, first = step.sampled_words, step.sampled_words // 3
                seed = int(seeds[2, 0])
                requests += program.sample(index, layer, seed, 0, whole)
                requests += program.sample(index, layer, seed, first, whole - first)
                requests += program.sample(index, layer, seed, whole, 0)
                expected += words[step.name][0].tobytes() + words[step.name][0, first:].tobytes()
    assert program.run(requests) == expected


def _some_graphs(first: int) -> list[Graph]:
    """Random networks, and chains with every generator and the narrowest and widest k."""
    chains = [
        random_graph(520 + i, hidden=2, stochastic=True, planes=2 + 3 * i, generator=name)
        for i, name in enumerate(GENERATORS)
    ]
    return chains + [random_dag(seed) for seed in range(first, first + COUNT)]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitizers_find_nothing(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    # Other networks for each: both run the same C.
    first = 0 if compiler == "gcc" else COUNT
    _exercise(_sanitized(compiler, _some_graphs(first), tmp_path))


def test_nothing_is_written_outside_the_arena(tmp_path: Path) -> None:
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    _exercise(Program(_some_graphs(2 * COUNT), tmp_path, compiler, ["-O2", "-DCORE_CANARIES"]))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_sanitizer_run_would_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arena one word too small must be caught, or the tests above prove nothing."""
    graph = random_graph(77, hidden=2, stochastic=True)
    words = make_plan(graph).arena_words

    def short(graphs: list[Graph], folder: Path, **more: Any) -> list[Path]:
        files = write_models(graphs, folder, **more)
        header = folder / "m0" / "bnn_model.h"
        text, true = header.read_text(), f"BNN_MODEL_ARENA_WORDS {words}"
        assert true in text
        header.write_text(text.replace(true, f"BNN_MODEL_ARENA_WORDS {words - 1}"))
        return files

    monkeypatch.setattr(many_models, "write_models", short)
    program = _sanitized("gcc", [graph], tmp_path)
    images, seeds = inputs(graph)
    done = subprocess.run(
        [str(program.path)],
        input=program.infer(0, images[:1], seeds[:1, 0]),
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b"heap-buffer-overflow" in done.stderr


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
    # Drawn layers, 64-bit logits, and between them every operation.
    graphs = [random_graph(77, hidden=2), random_graph(2000, hidden=0)]
    graphs += [random_dag(seed) for seed in range(12)]
    for number, graph in enumerate(graphs):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file, text in native_sources(graph).items():
            if file != "bnn_native.c":
                (folder / file).write_bytes(text)
        files = ["bnn_model.c"] + _RUNTIME * (number == 0)
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
    for file in (*_RUNTIME, "bnn_model.c"):
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
