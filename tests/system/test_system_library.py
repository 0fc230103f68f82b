"""Exported libraries: they compile anywhere, compute what the reference does, and can be two."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from needs import need_toolchain
from random_dags import random_dag
from random_graphs import random_graph, random_images

from bnnmcu import reference
from bnnmcu.backend.library import write_library
from bnnmcu.backend.plan import Plan, make_plan
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import load_board
from bnnmcu.errors import BnnmcuError, ModelFileError, UsageError
from bnnmcu.graph import Dense, Graph
from bnnmcu.graphfile import graph_sha256, load_graph
from bnnmcu.toolchain.pio_offline import missing, seed_core

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "examples" / "models"
STRICT = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
COMPILERS = ("gcc", "clang", "zig")


def _first(
    wanted: Callable[[Plan], bool], make: Callable[[int], Graph] = random_graph
) -> Callable[[], Graph]:
    """The first random network of some kind."""

    @functools.cache
    def graph() -> Graph:
        return next(graph for graph in map(make, range(1000)) if wanted(make_plan(graph)))

    return graph


#: Deterministic and drawn networks, 32-bit and 64-bit logits, a chain and many branches.
GRAPHS = {
    "fixed": _first(lambda plan: not plan.planes and plan.logit_bytes == 4 and len(plan.steps) > 2),
    "drawn": _first(lambda plan: plan.planes > 0 and plan.logit_bytes == 4),
    "wide": _first(lambda plan: plan.logit_bytes == 8),
    "branched": _first(lambda plan: plan.planes > 0 and len(plan.steps) > 9, random_dag),
}


def _command(compiler: str, language: str = "c") -> list[str]:
    """A compiler for this machine; skips where it is missing."""
    if compiler == "zig":
        need_toolchain("zig")
        return [sys.executable, "-m", "ziglang", "cc" if language == "c" else "c++"]
    name = compiler if language == "c" else {"gcc": "g++", "clang": "clang++"}[compiler]
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    return [name]


def _run(*command: str | Path, cwd: Path | None = None, text: str | None = None) -> str:
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd, input=text, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _sources(*libraries: Path) -> list[Path]:
    """All that is compiled of some libraries: the runtime of the first, the networks of all."""
    found = sorted(libraries[0].glob("src/*.c"))
    shared = {path.name for path in found}
    for library in libraries[1:]:
        found += [path for path in sorted(library.glob("src/*.c")) if path.name not in shared]
    return found


def _build(
    compiler: Sequence[str], main: Path, output: Path, *libraries: Path, flags: Sequence[str] = ()
) -> Path:
    include = [f"-I{library / 'src'}" for library in libraries]
    _run(
        *compiler, "-std=c99", "-O1", *STRICT, *flags, *include, main, *_sources(*libraries),
        "-o", output,
    )  # fmt: skip
    return output


def _array(text: str, name: str) -> list[int]:
    """The numbers of an array in C."""
    body = re.search(rf"{name}(?:\[\w+\])+ = \{{(.*?)\n\}};", text, flags=re.DOTALL)
    assert body is not None, name
    return [int(number) for number in re.findall(r"-?\d+", body[1])]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The library of a graph of ``GRAPHS``, written once; only to be read."""
    folder = tmp_path_factory.mktemp("libraries")

    def make(name: str, prefix: str | None = None) -> Path:
        target = folder / f"{name}-{prefix}"
        if not target.exists():
            write_library(GRAPHS[name](), target, prefix=prefix)
        return target

    return make


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# What is written ---------------------------------------------------------------------------------


def test_the_same_model_gives_the_same_bytes(cli, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    trees = []
    for seed in ("1", "7"):
        done = cli(
            "export", MODELS / "s64.pt", "--format", "library", "--prefix", "digits", "-o", seed,
            cwd=tmp_path, env={"PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        trees.append(_tree(tmp_path / seed))
    assert trees[0] == trees[1]
    assert "Tables and arena are exact" in done.stdout
    manifest = json.loads(trees[0].pop("manifest.json"))
    assert manifest["format"] == "bnnmcu-library"
    assert manifest["prefix"] == "digits"
    assert manifest["model"]["training"]["data_name"] == "MNIST train"
    assert manifest["files"] == {
        name: hashlib.sha256(data).hexdigest() for name, data in trees[0].items()
    }


def test_json_and_the_default_folder(cli, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    done = cli("export", MODELS / "b64.pt", "--format", "library", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["folder"] == "b64-library"
    manifest = json.loads((tmp_path / "b64-library" / "manifest.json").read_text())
    assert {key: result["total"][key] for key in ("tables", "arena")} == manifest["memory"]
    graph = load_graph(tmp_path / "b64-library" / "graph.safetensors")
    assert graph_sha256(graph).hex() == result["sha256"] == manifest["model"]["sha256"]


def test_the_runtime_has_its_licence(library: Callable[..., Path]) -> None:
    assert (library("fixed") / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_nothing_is_named_after_this_machine(library: Callable[..., Path]) -> None:
    for name, data in _tree(library("drawn", "two")).items():
        assert str(Path.home()).encode() not in data or str(Path.home()) == "/", name
        assert b"{{" not in data or name.endswith((".c", ".h", ".safetensors")), name
        assert b"STEM" not in data, name


# C ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_example_gives_the_references_answer(
    library: Callable[..., Path], compiler: str, name: str, tmp_path: Path
) -> None:
    folder = library(name, "mine")
    main = folder / "examples" / "minimal" / "main.c"
    output = _run(_build(_command(compiler), main, tmp_path / "minimal", folder))
    graph = load_graph(folder / "graph.safetensors")
    source = (folder / "src" / "bnn_mine_selftest.c").read_text()
    pixels = np.array(_array(source, "bnn_mine_selftest_image"), dtype=np.uint8)
    image = pixels.reshape(1, *graph.input_shape)
    logits = reference.run(graph, image, np.array([[1]], dtype=np.uint64))[0, 0]
    label = int(reference.argmax(logits))
    assert output.splitlines() == [
        "self-test: passed",
        f"label: {label}, expected {label}",
        *(f"logit {i}: {logit}" for i, logit in enumerate(logits.tolist())),
    ]


DRIVER = """\
#include <inttypes.h>
#include <stdio.h>

#include "bnn_predict.h"
#include "bnn_selftest.h"

static void answer(int label)
{
    printf("%d", label);
    for (unsigned i = 0; i < BNN_MODEL_CLASSES; i++) {
        printf(" %" PRId64, bnn_predict_logit(i));
    }
    printf("\\n");
}

int main(void)
{
    static uint8_t image[BNN_MODEL_INPUT_BYTES];
    uint64_t seed = 0;

    printf("%d %d\\n", bnn_predict_again(1), bnn_predict_logit(0) == INT64_MIN);
    printf("%d %d\\n", bnn_predict(NULL, 1), bnn_predict_again(1));
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        seed += 0x100000001u;
        answer(bnn_predict(image, seed));
        answer(bnn_predict_again(~seed));
    }
    printf("%d %d\\n", bnn_predict_logit(BNN_MODEL_CLASSES) == INT64_MIN, bnn_selftest());
    return 0;
}
"""


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_predictions_under_sanitizers(
    library: Callable[..., Path], compiler: str, name: str, tmp_path: Path
) -> None:
    folder = library(name)
    main = tmp_path / "driver.c"
    main.write_text(DRIVER)
    flags = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    command = _command(compiler)
    probe = subprocess.run(
        [*command, *flags, "-x", "c", "-", "-o", str(tmp_path / "probe")],
        input="int main(void) { return 0; }", text=True, capture_output=True, check=False,
    )  # fmt: skip
    if probe.returncode != 0:
        pytest.skip(f"{compiler} has no sanitizers here")
    program = _build(command, main, tmp_path / "driver", folder, flags=flags)
    graph = load_graph(folder / "graph.safetensors")
    images = random_images(graph, 6, seed=2)
    done = subprocess.run(
        [str(program)], input=images.tobytes(), capture_output=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert lines[:2] == ["-1 1", "-1 -1"]  # nothing to draw again, no image
    assert lines[-1] == "1 0"
    seeds = np.arange(1, len(images) + 1, dtype=np.uint64) * np.uint64(0x100000001)
    logits = reference.run(graph, images, np.stack([seeds, ~seeds], axis=1))
    expected = [
        " ".join(map(str, [int(reference.argmax(row)), *row.tolist()]))
        for row in logits.reshape(-1, graph.classes)
    ]
    assert lines[2:-1] == expected


def test_the_self_test_notices_a_wrong_table(library: Callable[..., Path], tmp_path: Path) -> None:
    folder = library("fixed")
    graph = load_graph(folder / "graph.safetensors")
    dense = graph.nodes[-1]
    assert isinstance(dense, Dense)
    wrong = dataclasses.replace(dense, weights=-dense.weights)
    write_library(dataclasses.replace(graph, nodes=(*graph.nodes[:-1], wrong)), tmp_path / "l")
    shutil.copy(folder / "src" / "bnn_selftest.c", tmp_path / "l" / "src")
    main = tmp_path / "main.c"
    main.write_text(
        '#include <stdio.h>\n#include "bnn_selftest.h"\n'
        'int main(void) { printf("%d", bnn_selftest()); return 0; }\n'
    )
    program = _build(_command("gcc"), main, tmp_path / "wrong", tmp_path / "l")
    assert int(_run(program)) > 0


@pytest.mark.parametrize("cpu", ["cortex-m0", "cortex-m4"])
def test_it_compiles_for_arm_and_needs_no_library(
    library: Callable[..., Path], cpu: str, tmp_path: Path
) -> None:
    need_toolchain("gcc")
    folder = library("drawn")
    objects = tmp_path / "all.o"
    _run(
        "arm-none-eabi-gcc", "-std=c99", f"-mcpu={cpu}", "-mthumb", "-O2", "-ffreestanding",
        "-nostdlib", "-r", *STRICT, f"-I{folder / 'src'}", *_sources(folder), "-o", objects,
    )  # fmt: skip
    undefined = set(_run("arm-none-eabi-nm", "-u", objects).split()) - {"U"}
    undefined = {name for name in undefined if not name.startswith(("__aeabi_", "__gnu_thumb1"))}
    # What a compiler may call even without a C library.
    assert undefined <= {"memcpy", "memset", "memmove", "memcmp"}


@pytest.mark.parametrize("name", GRAPHS)
def test_memory_figures_are_exact(library: Callable[..., Path], name: str, tmp_path: Path) -> None:
    need_toolchain("gcc")
    folder = library(name)
    memory = json.loads((folder / "manifest.json").read_text())["memory"]
    sizes: dict[str, int] = {}
    for part in ("model", "predict"):
        compiled = tmp_path / f"{part}.o"
        source = folder / "src" / f"bnn_{part}.c"
        _run(
            "arm-none-eabi-gcc", "-std=c99", "-mcpu=cortex-m4", "-O1", "-c", source, "-o", compiled
        )
        for line in _run("arm-none-eabi-nm", "-S", compiled).splitlines():
            fields = line.split()
            if len(fields) == 4:
                sizes[fields[3]] = int(fields[1], 16)
    assert sizes["arena"] == memory["arena"]
    assert sizes["net"] <= 64  # "a few dozen bytes"
    tables = re.findall(
        r"^static const u?int\d+_t (\w+)\[",
        (folder / "src" / "bnn_model.c").read_text(),
        flags=re.MULTILINE,
    )
    assert sum(sizes[table] for table in tables) == memory["tables"]


def test_cppcheck_finds_nothing(library: Callable[..., Path]) -> None:
    if not shutil.which("cppcheck"):
        pytest.skip("cppcheck is not installed")
    folder = library("drawn")
    _run(
        "cppcheck", "--quiet", "--std=c99", "--error-exitcode=1", "--inline-suppr",
        "--enable=warning,performance,portability", "--suppress=missingInclude",
        # It takes variables in named registers for statements.
        "--suppress=constStatement:*bnn_direct.c",
        f"-I{folder / 'src'}", folder / "src", folder / "examples" / "minimal",
    )  # fmt: skip


# C++ and documents ------------------------------------------------------------------------------

ARDUINO_H = """\
#include <stdint.h>
struct Port {
  void begin(unsigned long) {}
  template <class T> void print(T) {}
  template <class T> void println(T) {}
};
extern Port Serial;
unsigned long micros();
void delay(unsigned long);
"""


@pytest.mark.parametrize("compiler", COMPILERS)
def test_it_can_be_used_from_cpp(
    library: Callable[..., Path], compiler: str, tmp_path: Path
) -> None:
    command = _command(compiler, "c++")
    (tmp_path / "Arduino.h").write_text(ARDUINO_H)
    for folder in (library("fixed"), library("drawn", "two")):
        include = [f"-I{folder / 'src'}", f"-I{tmp_path}"]
        sketch = folder / "examples" / "minimal_arduino" / "minimal_arduino.ino"
        main = folder / "examples" / "minimal" / "main.c"
        for source, more in ((main, ()), (sketch, ("-include", "Arduino.h"))):
            _run(
                *command, "-std=c++11", *STRICT, *include, *more, "-x", "c++", "-c", source,
                "-o", tmp_path / "out.o",
            )  # fmt: skip


def test_every_header_stands_alone(library: Callable[..., Path], tmp_path: Path) -> None:
    folder = library("fixed", "mine")
    for header in sorted(folder.glob("src/*.h")):
        for language, standard in (("c", "c99"), ("c++", "c++98")):
            source = tmp_path / f"alone.{language}"
            # Headers for other cores are empty here, which no translation unit may be.
            source.write_text(f'#include "{header.name}"\n' * 2 + "typedef int bnn_unit;\n")
            # C++98 knows neither fixed-width types nor a comma after the last enumerator.
            strict = [flag for flag in STRICT if language == "c" or flag != "-pedantic"]
            _run(
                *_command("gcc", language), f"-std={standard}", *strict, f"-I{folder / 'src'}",
                "-fsyntax-only", "-x", language, source,
            )  # fmt: skip


@pytest.mark.parametrize("prefix", [None, "mine"])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_documented_code_compiles(
    library: Callable[..., Path], name: str, prefix: str | None, tmp_path: Path
) -> None:
    folder = library(name, prefix)
    text = (folder / "README.md").read_text()
    snippets = re.findall(r"```c\n(.*?)```", text, flags=re.DOTALL)
    assert len(snippets) == 2
    comment = (folder / "src" / f"bnn_{prefix}_predict.h".replace("None_", "")).read_text()
    assert "predict(image, seed);" in comment
    for language, standard in (("c", "c99"), ("c++", "c++11")):
        for i, snippet in enumerate(snippets):
            source = tmp_path / f"{i}.{language}"
            declared = re.findall(r"^int recognise\w*\(.*\)$", snippet, flags=re.MULTILINE)
            source.write_text(snippet.replace(declared[0], f"{declared[0]};\n{declared[0]}", 1))
            _run(
                *_command("gcc", language), f"-std={standard}", *STRICT, f"-I{folder / 'src'}",
                "-c", source, "-o", tmp_path / "out.o",
            )  # fmt: skip


# Build systems ----------------------------------------------------------------------------------


def _cmake() -> Path:
    """CMake of the system or of PyPI; skips where there is none."""
    beside = Path(sys.executable).parent
    found = shutil.which("cmake") or shutil.which("cmake", path=str(beside))
    if found is None:
        pytest.skip("cmake is not installed")
    if not shutil.which("make") and not shutil.which("ninja"):
        pytest.skip("neither make nor ninja is installed")
    return Path(found)


def _configure(cmake: Path, source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    generator = ["-G", "Unix Makefiles"] if shutil.which("make") else ["-G", "Ninja"]
    return subprocess.run(
        [str(cmake), *generator, "-S", str(source), "-B", str(build)],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_cmake_builds_and_tests_it_alone(library: Callable[..., Path], tmp_path: Path) -> None:
    cmake = _cmake()
    done = _configure(cmake, library("drawn"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    _run(cmake, "--build", tmp_path)
    assert "100% tests passed" in _run(cmake.with_name("ctest"), "--test-dir", tmp_path)


TWO_MAIN = """\
#include <stdio.h>

#include "bnn_one_predict.h"
#include "bnn_one_selftest.h"
#include "bnn_two_predict.h"
#include "bnn_two_selftest.h"

int main(void)
{
    printf("%d %d\\n", bnn_one_selftest(), bnn_two_selftest());
    return bnn_one_predict(bnn_one_selftest_image, 0) < 0
        || bnn_two_predict(bnn_two_selftest_image, 0) < 0;
}
"""


def _firmware_of_two(folder: Path, one: Path, two: Path) -> Path:
    folder.mkdir()
    (folder / "main.c").write_text(TWO_MAIN)
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(both LANGUAGES C)\n"
        f'add_subdirectory("{one}" one)\nadd_subdirectory("{two}" two)\n'
        "add_executable(both main.c)\n"
        "target_link_libraries(both PRIVATE bnn_one_model bnn_two_model)\n"
    )
    return folder


def test_cmake_links_two_networks_to_one_runtime(
    library: Callable[..., Path], tmp_path: Path
) -> None:
    cmake = _cmake()
    one, two = library("fixed", "one"), library("drawn", "two")
    source = _firmware_of_two(tmp_path / "source", one, two)
    done = _configure(cmake, source, tmp_path / "build")
    assert done.returncode == 0, done.stderr
    _run(cmake, "--build", tmp_path / "build")
    assert _run(tmp_path / "build" / "both") == "0 0\n"
    assert len(list((tmp_path / "build").rglob("bnn_kernels.c.*"))) > 0
    assert not list((tmp_path / "build" / "two").rglob("bnn_kernels.c.o*"))


def test_cmake_refuses_runtimes_that_differ(library: Callable[..., Path], tmp_path: Path) -> None:
    cmake = _cmake()
    other = tmp_path / "other"
    shutil.copytree(library("drawn", "two"), other)
    lists = other / "CMakeLists.txt"
    lists.write_text(re.sub(r"(runtime_sha256) [0-9a-f]{64}", rf"\1 {'0' * 64}", lists.read_text()))
    source = _firmware_of_two(tmp_path / "source", library("fixed", "one"), other)
    done = _configure(cmake, source, tmp_path / "build")
    assert done.returncode != 0
    assert "different versions of bnnmcu" in " ".join(done.stderr.split())


def test_two_archives_link_as_they_are(library: Callable[..., Path], tmp_path: Path) -> None:
    # As PlatformIO and Arduino do it: an archive for each library, the runtime in both.
    compiler = _command("gcc")
    if not shutil.which("ar"):
        pytest.skip("ar is not installed")
    archives = []
    for name, prefix in (("fixed", "one"), ("drawn", "two")):
        folder = library(name, prefix)
        work = tmp_path / prefix
        work.mkdir()
        _run(*compiler, "-std=c99", f"-I{folder / 'src'}", "-c", *_sources(folder), cwd=work)
        archives.append(tmp_path / f"lib{prefix}.a")
        _run("ar", "rcs", archives[-1], *sorted(work.glob("*.o")))
        public = {
            line.split()[2]
            for line in _run("nm", "-g", "--defined-only", archives[-1]).splitlines()
            if len(line.split()) == 3
        }
        runtime = {line for line in public if not line.startswith(f"bnn_{prefix}_")}
        # Nothing but the runtime is shared, and everything is called bnn_.
        assert all(line.startswith("bnn_") for line in runtime)
        assert "bnn_init" in runtime
        assert "bnn_model" not in runtime
        assert {f"bnn_{prefix}_{what}" for what in ("model", "predict", "selftest")} <= public
    main = tmp_path / "main.c"
    main.write_text(TWO_MAIN)
    include = [f"-I{library('fixed', 'one') / 'src'}", f"-I{library('drawn', 'two') / 'src'}"]
    _run(*compiler, "-std=c99", *include, main, *archives, "-o", tmp_path / "both")
    assert _run(tmp_path / "both") == "0 0\n"


@pytest.mark.parametrize("prefix", [None, "a_long_name_of_thirty_one_chars"])
def test_platformio_accepts_it(
    library: Callable[..., Path], prefix: str | None, tmp_path: Path
) -> None:
    pytest.importorskip("platformio", reason="platformio is not installed")
    from platformio.package.manifest.parser import ManifestParserFactory
    from platformio.package.manifest.schema import ManifestSchema

    folder = library("fixed", prefix)
    for name in ("library.json", "library.properties"):
        parsed = ManifestParserFactory.new_from_file(str(folder / name)).as_dict()
        manifest = ManifestSchema().load_manifest(parsed)
        assert manifest["name"] == ("bnn-model" if prefix is None else f"bnn-{prefix}").replace(
            "_", "-"
        )
    described = json.loads((folder / "library.json").read_text())
    assert all((folder / "src" / name).is_file() for name in described["headers"])
    for example in described["examples"]:
        assert all((folder / example["base"] / name).is_file() for name in example["files"])
    _run(sys.executable, "-m", "platformio", "pkg", "pack", folder, "-o", tmp_path)
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1


# The networks are C: they link where a compiler has newlib and no C++ library beside it.
PIO_INI = """\
[env:f446]
platform = platformio/ststm32@19.5.0
platform_packages = platformio/toolchain-gccarmnoneeabi@~1.120301.0
board = nucleo_f446re
build_unflags = -lstdc++
"""

PIO_MAIN = """\
#include "bnn_one_predict.h"
#include "bnn_two_predict.h"

static uint8_t one[BNN_ONE_MODEL_INPUT_BYTES], two[BNN_TWO_MODEL_INPUT_BYTES];

void _exit(int status);
void _exit(int status)
{
    for (;;) {
        one[0] = (uint8_t)status;
    }
}

int main(void)
{
    return bnn_one_predict(one, 1) + bnn_two_predict(two, 1);
}
"""


def test_platformio_finds_and_links_two_networks(
    library: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = missing()
    if absent:
        pytest.skip(absent.what)
    found = _run("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-print-file-name=crt0.o")
    if not Path(found.strip()).is_absolute():
        # A plain PlatformIO program wants the C library that PlatformIO's own compiler brings.
        pytest.skip("arm-none-eabi-gcc has no newlib here (apt install libnewlib-arm-none-eabi)")
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "platformio.ini").write_text(PIO_INI)
    (project / "src" / "main.c").write_text(PIO_MAIN)
    for name, prefix in (("fixed", "one"), ("drawn", "two")):
        shutil.copytree(library(name, prefix), project / "lib" / prefix)
    seed = seed_core(tmp_path / "core", project, load_board("nucleo_f446re"))
    for key, value in seed.environment.items():
        monkeypatch.setenv(key, value)
    output = _run(sys.executable, "-m", "platformio", "run", cwd=project)
    assert "bnn-one @" in output
    assert "bnn-two @" in output
    elf = project / ".pio" / "build" / "f446" / "firmware.elf"
    symbols = [line.split()[-1] for line in _run("arm-none-eabi-nm", elf).splitlines()]
    for once in ("bnn_init", "bnn_one_predict", "bnn_two_predict"):
        assert symbols.count(once) == 1
    # What is not called is not linked.
    assert "bnn_one_selftest_image" not in symbols


#: https://docs.arduino.cc/arduino-cli/library-specification: fields without which it is no library.
ARDUINO_FIELDS = (
    "name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url",
    "architectures",
)  # fmt: skip


@pytest.mark.parametrize("prefix", [None, "mine"])
def test_the_arduino_ide_accepts_it(library: Callable[..., Path], prefix: str | None) -> None:
    folder = library("fixed", prefix)
    text = (folder / "library.properties").read_text()
    fields = dict(line.split("=", 1) for line in text.splitlines())
    assert all(fields.get(name) for name in ARDUINO_FIELDS)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9 _.-]{0,62}", fields["name"])
    assert "arduino" not in fields["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"])
    assert fields["category"] == "Data Processing"
    assert fields["dot_a_linkage"] == "true"
    assert (folder / "src" / fields["includes"]).is_file()
    sketches = list(folder.rglob("*.ino"))
    assert sketches
    assert all(path.stem == path.parent.name for path in sketches)


# Prefixes and folders ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "", "Digits", "9lives", "a-b", "a b", "a__b", "_a", "a_", "é", "x" * 32, "a\n", "*/",
        # Names of the runtime and of the library itself.
        "model", "conv", "dense", "draw", "err", "generator", "predict",
    ],
)  # fmt: skip
def test_bad_prefixes_are_refused(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        write_library(GRAPHS["fixed"](), tmp_path / "l", prefix=prefix)
    assert caught.value.where == "--prefix"
    assert caught.value.hint
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize(
    ("options", "where", "says"),
    [
        ([], "--board", "--format library"),
        (["--format", "library", "--board", "nucleo_f446"], "--board", "no board in particular"),
        (["--board", "nucleo_f446", "--prefix", "a"], "--prefix", "--format library"),
    ],
)
def test_options_that_contradict_each_other(
    cli, tmp_path: Path, options: list[str], where: str, says: str
) -> None:
    done = cli("export", "gone.pt", *options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {where}: ")
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


def test_names_in_strings_stay(tmp_path: Path) -> None:
    graph = dataclasses.replace(GRAPHS["fixed"](), name="bnn_model")
    write_library(graph, tmp_path / "l", prefix="mine")
    assert '.name = "bnn_model"' in (tmp_path / "l" / "src" / "bnn_mine_model.c").read_text()


def test_a_new_prefix_takes_the_old_files_away(tmp_path: Path) -> None:
    graph = GRAPHS["fixed"]()
    write_library(graph, tmp_path / "l", prefix="old")
    (tmp_path / "l" / "notes.txt").write_text("mine")
    write_library(graph, tmp_path / "l", prefix="new")
    write_library(graph, tmp_path / "fresh", prefix="new")
    tree = _tree(tmp_path / "l")
    assert tree.pop("notes.txt") == b"mine"
    assert tree == _tree(tmp_path / "fresh")


def test_other_folders_and_edited_files_are_left_alone(tmp_path: Path) -> None:
    graph = GRAPHS["fixed"]()
    write_library(graph, tmp_path / "l")
    edited = tmp_path / "l" / "src" / "bnn_predict.c"
    edited.write_text("/* mine */\n")
    with pytest.raises(UsageError, match=r"edited: src/bnn_predict\.c"):
        write_library(graph, tmp_path / "l")
    write_library(graph, tmp_path / "l", force=True)
    assert edited.read_text() != "/* mine */\n"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="not a bnnmcu library"):
        write_library(graph, tmp_path / "home")
    # Neither product replaces the other, nor is taken for it.
    board = load_board("nucleo_f446re")
    write_project(graph, board, tmp_path / "p")
    before = _tree(tmp_path / "p")
    for attempt in (
        lambda: write_library(graph, tmp_path / "p", force=True),
        lambda: write_project(graph, board, tmp_path / "l", force=True),
        lambda: load_project(tmp_path / "l"),
    ):
        with pytest.raises(ModelFileError, match="its manifest is of the format"):
            attempt()
    assert _tree(tmp_path / "p") == before


def test_a_network_that_no_kernel_computes_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnnmcu.backend import library as module

    def refuse(_: Graph, *more: object) -> None:
        raise BnnmcuError("no")

    monkeypatch.setattr(module, "make_plan", refuse)
    with pytest.raises(BnnmcuError):
        write_library(GRAPHS["fixed"](), tmp_path / "l")
    assert not (tmp_path / "l").exists()
