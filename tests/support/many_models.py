"""Compiles many networks at once: one library, or one program with sanitizers.

Each network keeps its own file-scope names; only ``bnn_model`` and the two
functions of the native twin get a number.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.folder import runtime_files
from bnnmcu.backend.plan import DEFAULT_CHOICE, KernelChoice, make_plan
from bnnmcu.graph import Graph, TensorSpec, infer
from bnnmcu.packing import pack_bits, unpack_bits
from bnnmcu.toolchain.native import HOST_FLAGS, host_compiler, native_sources

__all__ = ["Choices", "Library", "Program", "each", "write_models"]

#: Of the kernels: one choice for all networks, or one for each.
Choices: TypeAlias = KernelChoice | Sequence[KernelChoice]

_GENERATED = ("bnn_model.h", "bnn_model.c", "bnn_native.c")
_C = Path(__file__).resolve().parent.parent / "c"
_RENAMED = ("bnn_model", "bnn_native_run", "bnn_native_sample", "bnn_native_trace")


def each(graphs: Sequence[Graph], choice: Choices) -> list[KernelChoice]:
    """A choice for each network."""
    return [choice] * len(graphs) if isinstance(choice, KernelChoice) else list(choice)


def write_models(
    graphs: Sequence[Graph],
    folder: Path,
    *,
    native: bool,
    choice: Choices = DEFAULT_CHOICE,
) -> list[Path]:
    """Write runtime and models below ``folder``; returns the C files to compile."""
    units = []
    for i, (graph, own_choice) in enumerate(zip(graphs, each(graphs, choice), strict=True)):
        own = folder / f"m{i}"
        own.mkdir(parents=True)
        plain = own_choice == DEFAULT_CHOICE
        sources = native_sources(graph) if plain else native_sources(graph, own_choice)
        for name, text in sources.items():
            (own / name if name in _GENERATED else folder / name).write_bytes(text)
        lines = [f"#define {name} {name}_{i}" for name in _RENAMED]
        lines.append(f'#include "m{i}/bnn_model.c"')
        if native:
            lines.append(f'#include "m{i}/bnn_native.c"')
        unit = folder / f"unit{i}.c"
        unit.write_text("\n".join(lines) + "\n")
        units.append(unit)
    return [*units, *(folder / name for name in runtime_files() if name.endswith(".c"))]


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


class Library:
    """Many native twins in one shared library."""

    def __init__(
        self, graphs: Sequence[Graph], folder: Path, choice: Choices = DEFAULT_CHOICE
    ) -> None:
        self.graphs = list(graphs)
        self.choices = each(graphs, choice)
        files = write_models(graphs, folder, native=True, choice=choice)
        output = folder / "twins.so"
        _compile(
            [
                *host_compiler(),
                *HOST_FLAGS,
                "-Werror",
                "-shared",
                "-o",
                str(output),
                f"-I{folder}",
                *map(str, files),
            ]
        )
        self._library = ctypes.CDLL(str(output))

    def run(
        self, index: int, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> npt.NDArray[np.int64]:
        """Logits (N, D, classes) of one network."""
        logits = np.empty((*seeds.shape, self.graphs[index].classes), dtype=np.int64)
        pixels, wide = np.ascontiguousarray(images), np.ascontiguousarray(seeds)
        error = getattr(self._library, f"bnn_native_run_{index}")(
            ctypes.c_void_p(pixels.ctypes.data),
            ctypes.c_size_t(seeds.shape[0]),
            ctypes.c_void_p(wide.ctypes.data),
            ctypes.c_size_t(seeds.shape[1]),
            ctypes.c_void_p(logits.ctypes.data),
        )
        assert error == 0
        return logits

    def sample(self, index: int, layer: int, seed: int, count: int) -> npt.NDArray[np.uint32]:
        """Drawn words of one layer."""
        words = np.empty(count, dtype=np.uint32)
        error = getattr(self._library, f"bnn_native_sample_{index}")(
            ctypes.c_uint(layer),
            ctypes.c_uint64(seed),
            ctypes.c_uint32(count),
            ctypes.c_void_p(words.ctypes.data),
        )
        assert error == 0
        return words

    def values(
        self, index: int, image: npt.NDArray[np.uint8], seed: int
    ) -> dict[str, npt.NDArray[Any]]:
        """Every value that a step computes, flat, for one image: bits as {0, 1}, else integers."""
        graph = self.graphs[index]
        plan, specs = make_plan(graph, self.choices[index]), infer(graph)
        results = [(step.result.offset, step.result.words) for step in plan.steps]
        spans = np.array(results, dtype=np.uint32)
        words = np.empty(int(spans[:, 1].sum()), dtype=np.uint32)
        logits = np.empty(graph.classes, dtype=np.int64)
        pixels = np.ascontiguousarray(image)
        error = getattr(self._library, f"bnn_native_trace_{index}")(
            ctypes.c_void_p(pixels.ctypes.data),
            ctypes.c_uint64(seed),
            ctypes.c_void_p(spans.ctypes.data),
            ctypes.c_uint(len(spans)),
            ctypes.c_uint32(plan.arena_words),
            ctypes.c_void_p(words.ctypes.data),
            ctypes.c_void_p(logits.ctypes.data),
        )
        assert error == 0
        pieces = np.split(words, np.cumsum(spans[:, 1])[:-1])
        values = {
            step.nodes[-1]: _value(piece, specs[step.nodes[-1]])
            for step, piece in zip(plan.steps, pieces, strict=True)
            if not step.logits
        }
        return values | {graph.nodes[-1].name: logits}


def _value(words: npt.NDArray[np.uint32], spec: TensorSpec) -> npt.NDArray[Any]:
    """Words of the arena as the flat value that they hold."""
    if spec.kind == "bit":
        rows = words.reshape(spec.shape[0] * spec.shape[1], -1)
        bits = unpack_bits(rows, spec.shape[2])
        assert np.array_equal(pack_bits(bits), rows), "lanes beyond the last channel are not zero"
        return bits.reshape(-1)
    return words.view(np.uint8)[: spec.size] if spec.kind == "u8" else words.view(np.int32)


class Program:
    """Many networks in one program that is fed through pipes: ``tests/c/core_main.c``."""

    def __init__(
        self,
        graphs: Sequence[Graph],
        folder: Path,
        compiler: str,
        flags: Sequence[str],
        choice: Choices = DEFAULT_CHOICE,
    ) -> None:
        self.graphs = list(graphs)
        files = write_models(graphs, folder, native=False, choice=choice)
        table = ['#include "bnn.h"', "extern const bnn_model_t *const core_models[];"]
        table.append(
            f"extern const unsigned core_count; const unsigned core_count = {len(graphs)};"
        )
        table += [f"extern const bnn_model_t bnn_model_{i};" for i in range(len(graphs))]
        rows = ", ".join(f"&bnn_model_{i}" for i in range(len(graphs)))
        table.append(f"const bnn_model_t *const core_models[] = {{{rows}}};")
        (folder / "core_models.c").write_text("\n".join(table) + "\n")
        (folder / "core_main.c").write_bytes((_C / "core_main.c").read_bytes())
        self.path = folder / "core_main"
        files += [folder / "core_models.c", folder / "core_main.c"]
        _compile(
            [
                compiler,
                "-std=c99",
                "-Wall",
                "-Wextra",
                "-Wconversion",
                "-Werror",
                *flags,
                "-o",
                str(self.path),
                f"-I{folder}",
                *map(str, files),
            ]
        )

    def infer(
        self, index: int, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> bytes:
        """The request for logits: one seed for each image."""
        data = struct.pack("=4I", 0, index, len(images), 0)
        for image, seed in zip(images, seeds, strict=True):
            data += image.tobytes() + struct.pack("=Q", int(seed))
        return data

    def sample(self, index: int, layer: int, seed: int, first: int, count: int) -> bytes:
        """The request for drawn words."""
        return struct.pack("=4I", 1, index, layer, count) + struct.pack("=QI", seed, first)

    def run(self, requests: bytes) -> bytes:
        """All replies: int64 logits and uint32 words, in the order of the requests."""
        done = subprocess.run(
            [str(self.path)], input=requests, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        assert not done.stderr, done.stderr.decode(errors="replace")
        return done.stdout
