"""The native twin: the generated C compiled for this machine and called from Python.

It runs the same kernels as the board, at thousands of images a second, and is
what large evaluations use.  Compiled libraries are kept in the user's cache
folder under the hash of their sources and compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.emit import model_sources, template_bytes
from bnnmcu.backend.folder import runtime_files
from bnnmcu.backend.plan import DEFAULT_CHOICE, KernelChoice, make_plan
from bnnmcu.errors import MissingDependencyError, ToolchainError
from bnnmcu.graph import Graph, TensorSpec, infer
from bnnmcu.packing import unpack_bits
from bnnmcu.reference import checked_seeds
from bnnmcu.toolchain.process import version_of

__all__ = [
    "HOST_FLAGS",
    "NativeTwin",
    "cache_folder",
    "compiler_version",
    "host_compiler",
    "native_sources",
]

HOST_FLAGS = ("-std=c99", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion")
#: All that this machine's processor has: sums are integers, the same by any instructions.
_NATIVE = "-march=native"
_COMPILE_TIMEOUT_S = 300.0


def cache_folder() -> Path:
    """Where compiled libraries are kept; ``BNNMCU_CACHE`` overrides it."""
    named = os.environ.get("BNNMCU_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "bnnmcu"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bnnmcu"


def host_compiler() -> list[str]:
    """The command of a C compiler for this machine: ``$CC``, cc, gcc, clang, or zig from PyPI.

    Raises:
        MissingDependencyError: there is none.
    """
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen:
        if shutil.which(chosen[0]):
            return chosen
        raise MissingDependencyError(
            f"the compiler {chosen[0]!r} is not installed",
            where="environment variable CC",
            hint="unset CC, or name a compiler that is installed",
        )
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise MissingDependencyError(
        "no C compiler for this machine was found", hint="pip install 'bnnmcu[sim]' brings one"
    )


@cache
def compiler_version(*command: str) -> str:
    """The first line a compiler prints about itself, asked once; ``"unknown"`` if none."""
    return version_of([*command, "--version"]) or "unknown"


@cache
def _machine(*command: str) -> str:
    """What a compiler knows of this machine's processor, as macros; empty if it cannot tell."""
    try:
        done = subprocess.run(
            [*command, _NATIVE, "-E", "-dM", "-x", "c", "-"],
            input="",
            capture_output=True,
            text=True,
            timeout=_COMPILE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def native_sources(graph: Graph, choice: KernelChoice = DEFAULT_CHOICE) -> dict[str, bytes]:
    """All C files of the native twin, by name."""
    twin = {"bnn_native.c": template_bytes("app/bnn_native.c")}
    return model_sources(make_plan(graph, choice)) | runtime_files() | twin


def _suffix() -> str:
    return {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def _compile(sources: dict[str, bytes]) -> Path:
    """The shared library of these sources, from the cache or newly compiled."""
    compiler = host_compiler()
    # A home folder may serve machines of several kinds, and compilers are updated.
    machine = _machine(*compiler)
    made_by = (compiler, compiler_version(*compiler), sys.platform, platform.machine(), machine)
    flags = (*HOST_FLAGS, _NATIVE) if machine else HOST_FLAGS
    digest = hashlib.sha256(repr((made_by, flags)).encode())
    for name, text in sorted(sources.items()):
        digest.update(f"\0{name}\0{len(text)}\0".encode() + text)
    folder = cache_folder() / "native"
    library = folder / f"{digest.hexdigest()[:32]}{_suffix()}"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        for file, text in sources.items():
            (work / file).write_bytes(text)
        output = work / f"twin{_suffix()}"
        files = sorted(str(work / file) for file in sources if file.endswith(".c"))
        command = [*compiler, *flags, "-shared", "-o", str(output), f"-I{work}", *files]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"{compiler[0]} could not be run: {error}") from error
        if done.returncode != 0:
            raise ToolchainError(
                f"the generated C does not compile for this machine:\n{done.stderr.strip()}",
                where=" ".join(compiler),
                hint="this is a bug in bnnmcu: please report it with the model",
            )
        # Another process may have been faster; both files are the same.
        output.replace(library)
    return library


class NativeTwin:
    """A graph as native code.

    Calls are serialised: the model's arena is static, as on the board.

    Args:
        graph: is planned, emitted and compiled.
        sources: C files to compile instead, by name: those of a project of this graph.
        choice: how kernels are chosen; that of the project.

    Raises:
        MissingDependencyError: no compiler.
        ToolchainError: the compiler failed.
    """

    def __init__(
        self,
        graph: Graph,
        sources: Mapping[str, bytes] | None = None,
        choice: KernelChoice = DEFAULT_CHOICE,
    ) -> None:
        self.graph = graph
        self.plan = make_plan(graph, choice)
        # Static memory belongs to a loaded library, so two twins of one graph share it.
        self._lock = _lock_of(_compile(native_sources(graph, choice) | dict(sources or {})))
        self._library = ctypes.CDLL(str(self._lock.path))
        self._words = [
            (index, step.name, step.sampled_words)
            for index, step in enumerate(self.plan.steps)
            if step.sampled_words
        ]

    def run(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64] | None = None
    ) -> npt.NDArray[np.int64]:
        """Logits, as :func:`bnnmcu.reference.run` gives them.

        Args:
            images: uint8, shape (N, H, W, C).
            seeds: uint64, shape (N, D); may be None for a deterministic graph.

        Returns:
            int64, shape (N, D, classes).

        Raises:
            UsageError: wrong shapes, or seeds missing.
        """
        seeds = checked_seeds(self.graph, images, seeds)
        count, draws = seeds.shape
        pixels = np.ascontiguousarray(images)
        wide = np.ascontiguousarray(seeds, dtype=np.uint64)
        logits = np.empty((count, draws, self.graph.classes), dtype=np.int64)
        with self._lock.lock:
            error = self._library.bnn_native_run(
                ctypes.c_void_p(pixels.ctypes.data),
                ctypes.c_size_t(count),
                ctypes.c_void_p(wide.ctypes.data),
                ctypes.c_size_t(draws),
                ctypes.c_void_p(logits.ctypes.data),
            )
        if error:
            raise ToolchainError(f"the native twin returned error {error}")
        return logits

    def sampled_words(self, seed: int) -> dict[str, npt.NDArray[np.uint32]]:
        """Drawn weights of every stochastic layer for one seed: layer name to uint32 (W,)."""
        drawn = {}
        for index, name, count in self._words:
            words = np.empty(count, dtype=np.uint32)
            error = self._library.bnn_native_sample(
                ctypes.c_uint(index),
                ctypes.c_uint64(seed),
                ctypes.c_uint32(count),
                ctypes.c_void_p(words.ctypes.data),
            )
            if error:
                raise ToolchainError(f"the native twin returned error {error}", where=name)
            drawn[name] = words
        return drawn

    def trace(self, image: npt.NDArray[np.uint8], seed: int = 0) -> dict[str, npt.NDArray[Any]]:
        """What every step gives for one image.

        Args:
            image: uint8, shape (H, W, C).
            seed: of the drawn weights.

        Returns:
            for the last node of each step, in the order in which they run, its value
            (H, W, C): bits as uint8 {0, 1}, pixels as uint8, integers as int64.  Values inside
            a step (sums that a threshold takes at once) are never in memory.

        Raises:
            UsageError: an image of another shape.
            ToolchainError: the C is not that of this graph.
        """
        plan = self.plan
        checked_seeds(self.graph, image[np.newaxis], np.zeros((1, 1), dtype=np.uint64))
        results = [step.result for step in plan.steps]
        ranges = np.array([(r.offset, r.words) for r in results], dtype=np.uint32)
        values = np.empty(sum(r.words for r in results), dtype=np.uint32)
        logits = np.empty(self.graph.classes, dtype=np.int64)
        pixels = np.ascontiguousarray(image)
        with self._lock.lock:
            error = self._library.bnn_native_trace(
                ctypes.c_void_p(pixels.ctypes.data),
                ctypes.c_uint64(seed),
                ctypes.c_void_p(ranges.ctypes.data),
                ctypes.c_uint(len(results)),
                ctypes.c_uint32(plan.arena_words),
                ctypes.c_void_p(values.ctypes.data),
                ctypes.c_void_p(logits.ctypes.data),
            )
        if error:
            raise ToolchainError(
                f"the native twin returned error {error}: its C is not that of {self.graph.name}",
                hint="export the project again",
            )
        specs = infer(self.graph)
        pieces = np.split(values, np.cumsum(ranges[:-1, 1], dtype=np.int64))
        traced = {
            step.nodes[-1]: _value(words, specs[step.nodes[-1]])
            for step, words in zip(plan.steps, pieces, strict=True)
            if step.nodes and not step.logits
        }
        return traced | {self.graph.nodes[-1].name: logits.reshape(1, 1, -1)}


def _value(words: npt.NDArray[np.uint32], spec: TensorSpec) -> npt.NDArray[Any]:
    """Words of the arena as a value (H, W, C)."""
    if spec.kind == "bit":
        return unpack_bits(words.reshape(*spec.shape[:2], -1), spec.shape[2])
    if spec.kind == "u8":
        # Pixels lie byte by byte, whatever the machine's byte order.
        return words.view(np.uint8)[: spec.size].reshape(spec.shape)
    return words.view(np.int32).astype(np.int64).reshape(spec.shape)


class _LibraryLock:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()


_LOCKS: dict[Path, _LibraryLock] = {}


def _lock_of(path: Path) -> _LibraryLock:
    return _LOCKS.setdefault(path, _LibraryLock(path))
