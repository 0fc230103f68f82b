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
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.emit import model_sources, template_bytes
from bnnmcu.backend.plan import make_plan
from bnnmcu.errors import MissingDependencyError, ToolchainError
from bnnmcu.graph import Graph
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

#: No -march=native: a cache may be shared by machines of several kinds.
HOST_FLAGS = ("-std=c99", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion")
_COMPILE_TIMEOUT_S = 300.0
_TEMPLATES = (
    "runtime/bnn.h",
    "runtime/bnn.c",
    "runtime/bnn_kernels.h",
    "runtime/bnn_kernels.c",
    "app/bnn_native.c",
)


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


def native_sources(graph: Graph) -> dict[str, bytes]:
    """All C files of the native twin, by name."""
    sources = model_sources(make_plan(graph))
    return sources | {path.rpartition("/")[2]: template_bytes(path) for path in _TEMPLATES}


def _suffix() -> str:
    return {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


def _compile(sources: dict[str, bytes]) -> Path:
    """The shared library of these sources, from the cache or newly compiled."""
    compiler = host_compiler()
    # A home folder may serve machines of several kinds, and compilers are updated.
    made_by = (compiler, compiler_version(*compiler), sys.platform, platform.machine())
    digest = hashlib.sha256(repr((made_by, HOST_FLAGS)).encode())
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
        command = [*compiler, *HOST_FLAGS, "-shared", "-o", str(output), f"-I{work}", *files]
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

    Raises:
        MissingDependencyError: no compiler.
        ToolchainError: the compiler failed.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # Static memory belongs to a loaded library, so two twins of one graph share it.
        self._lock = _lock_of(_compile(native_sources(graph)))
        self._library = ctypes.CDLL(str(self._lock.path))
        self._words = [
            (index, step.name, step.sampled_words)
            for index, step in enumerate(make_plan(graph).steps)
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


class _LibraryLock:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()


_LOCKS: dict[Path, _LibraryLock] = {}


def _lock_of(path: Path) -> _LibraryLock:
    return _LOCKS.setdefault(path, _LibraryLock(path))
