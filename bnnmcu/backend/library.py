"""The library: a network as C for any firmware, in a folder of its own.

``src/`` holds everything that is compiled, headers included, because that is
the one layout that CMake, PlatformIO and the Arduino IDE share.  The graph and
the prefix decide every byte.

A prefix makes all generated names its own (``bnn_digits_predict``), so that
several networks can live in one firmware.  The runtime keeps its names: it is
the same for all of them, and need not be in flash twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu import __version__
from bnnmcu.backend.emit import model_sources, render, template_bytes
from bnnmcu.backend.folder import (
    MANIFEST,
    Product,
    digests,
    manifest_bytes,
    model_entry,
    runtime_files,
)
from bnnmcu.backend.plan import DEFAULT_CHOICE, KernelChoice, Plan, make_plan
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256, save_graph_bytes
from bnnmcu.reference import argmax, run

__all__ = ["LIBRARY", "SelfTest", "library_files", "self_test", "write_library"]

LIBRARY = Product(
    "bnnmcu-library", 1, "a bnnmcu library", "bnnmcu export MODEL --format library -o DIR"
)
#: Draws that the self-test compares; the second one is answered by ``predict_again``.
_SEEDS = (1, 2)
#: Generated file to its template; STEM stands for ``bnn`` and the prefix.
_TEMPLATES = {
    "src/STEM_predict.h": "predict.h.j2",
    "src/STEM_predict.c": "predict.c.j2",
    "src/STEM_selftest.h": "selftest.h.j2",
    "src/STEM_selftest.c": "selftest.c.j2",
    "examples/minimal/main.c": "minimal.c.j2",
    "examples/minimal_arduino/minimal_arduino.ino": "minimal_arduino.ino.j2",
    "CMakeLists.txt": "CMakeLists.txt.j2",
    "library.json": "library.json.j2",
    "library.properties": "library.properties.j2",
    "README.md": "README.md.j2",
}
# No two underscores in a row, which C++ keeps for itself; no capitals, since
# macros and file systems do not tell them apart.
_PREFIX = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MAX_PREFIX = 31
# bnn_model with all that starts with it, but not the runtime's type bnn_model_t;
# strings are matched first, so that the text in them stays as it is.
_MODEL_NAME = re.compile(r'#include "bnn_model\.h"|"[^"\n]*"|\bbnn_model(?!_t\b)|\bBNN_MODEL')


@dataclass(frozen=True, eq=False)
class SelfTest:
    """One image with what the reference makes of it.

    Attributes:
        image: uint8 (H, W, C).
        seeds: one for each draw; a deterministic network has one.
        logits: int64 (seeds, classes).
    """

    image: npt.NDArray[np.uint8]
    seeds: tuple[int, ...]
    logits: npt.NDArray[np.int64]

    @property
    def labels(self) -> list[int]:
        """The label of each draw."""
        return [int(label) for label in argmax(self.logits)]


def self_test(graph: Graph, *, drawn: bool) -> SelfTest:
    """Noise that the network's fingerprint decides, and the reference's answers.

    Args:
        drawn: whether weights are drawn, so that a second draw is worth comparing.
    """
    size = int(np.prod(graph.input_shape))
    key = graph_sha256(graph)
    blocks = (hashlib.sha256(key + i.to_bytes(8, "little")).digest() for i in count())
    noise = b"".join(islice(blocks, -(-size // 32)))[:size]
    image = np.frombuffer(noise, dtype=np.uint8).reshape(graph.input_shape)
    seeds = _SEEDS if drawn else _SEEDS[:1]
    logits = run(graph, image[np.newaxis], np.array([seeds], dtype=np.uint64))
    return SelfTest(image, seeds, logits[0])


def _checked_prefix(prefix: str | None, sources: Mapping[str, bytes]) -> str:
    """What stands before every generated name: ``bnn`` or ``bnn_PREFIX``."""
    if prefix is None:
        return "bnn"
    hint = "choose another, for instance --prefix digits"
    if not _PREFIX.fullmatch(prefix) or len(prefix) > _MAX_PREFIX:
        raise UsageError(
            f"{prefix!r:.60} cannot be part of a C name: it takes lower-case letters, digits and "
            f"single underscores, a letter first, at most {_MAX_PREFIX} characters",
            where="--prefix",
            hint=hint,
        )
    stem = f"bnn_{prefix}"
    for text in sources.values():
        taken = re.search(rf"\b{stem}_\w+", text.decode(), flags=re.IGNORECASE)
        if taken:
            raise UsageError(
                f"{prefix!r} makes names like {taken[0]}, which bnnmcu uses already",
                where="--prefix",
                hint=hint,
            )
    return stem


def _renamed(text: bytes, stem: str) -> bytes:
    """The generated model with its public names under another stem."""

    def replace(found: re.Match[str]) -> str:
        word = found[0]
        if word.startswith('"'):
            return word
        return _own(word, stem).replace("BNN_", f"{stem.upper()}_", 1)

    return _MODEL_NAME.sub(replace, text.decode()).encode()


def library_files(
    plan: Plan,
    test: SelfTest,
    *,
    prefix: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Every file of a library by its relative path, the manifest included and last.

    Raises:
        UsageError: the prefix is no part of a C name, or makes names that are taken.
    """
    graph = plan.graph
    runtime = {f"src/{name}": text for name, text in runtime_files().items()}
    model = model_sources(plan)
    variables: dict[str, Any] = {
        "plan": plan,
        "graph": graph,
        "test": test,
        "sha256": graph_sha256(graph).hex(),
        "version": __version__,
        # Registries want three numbers; a development version has more to it.
        "semver": ".".join(re.findall(r"\d+", __version__)[:3]),
        "runtime": [name for name in runtime_files() if name.endswith(".c")],
        "runtime_sha256": hashlib.sha256("".join(digests(runtime).values()).encode()).hexdigest(),
        "generated": [name for name in model if name.endswith(".c")],
    }
    plain = {path: text for path, text in _rendered("bnn", variables).items() if "src/" in path}
    stem = _checked_prefix(prefix, runtime | model | plain)
    files = dict(runtime)
    for name, text in model.items():
        files[f"src/{_own(name, stem)}"] = _renamed(text, stem)
    files |= _rendered(stem, variables)
    files["LICENSE"] = template_bytes("library/LICENSE")
    files["graph.safetensors"] = save_graph_bytes(graph)
    manifest = {
        "format": LIBRARY.format,
        "version": LIBRARY.version,
        "bnnmcu": __version__,
        "prefix": prefix,
        "model": model_entry(plan, training),
        "kernels": plan.report(),
        "memory": {"tables": plan.flash_bytes, "arena": 4 * plan.arena_words},
        "files": digests(files),
    }
    files[MANIFEST] = manifest_bytes(manifest)
    return files


def _own(name: str, stem: str) -> str:
    return name.replace("bnn_", f"{stem}_", 1)


def _rendered(stem: str, variables: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that are written for a library, by path."""
    own = [_own(name, stem) for name in variables["generated"]]
    names = {
        "c": f"{stem}_",
        "m": f"{stem.upper()}_",
        "package": stem.replace("_", "-") + ("-model" if stem == "bnn" else ""),
        "model": [*own, f"{stem}_predict.c", f"{stem}_selftest.c"],
    }
    return {
        path.replace("STEM", stem): render(f"library/{template}", **variables, **names)
        for path, template in _TEMPLATES.items()
    }


def write_library(
    graph: Graph,
    folder: Path,
    *,
    prefix: str | None = None,
    force: bool = False,
    training: Mapping[str, Any] | None = None,
    choice: KernelChoice = DEFAULT_CHOICE,
) -> Plan:
    """Write a library, or bring an existing one up to date.

    What is in the folder but was not generated is never touched.

    Args:
        prefix: makes the generated names ``bnn_PREFIX_...``, for a firmware with
            several networks.
        force: replace generated files even if they were edited.
        training: how the network was trained, for the manifest.
        choice: how kernels are chosen.

    Raises:
        UnsupportedModelError: the graph has what no kernel computes.
        UsageError: the prefix cannot be used, the folder is something else, or
            generated files were edited.
        OSError: the folder cannot be written.
    """
    plan = make_plan(graph, choice)
    test = self_test(graph, drawn=plan.planes > 0)
    files = library_files(plan, test, prefix=prefix, training=training)
    LIBRARY.write(folder, files, force=force)
    return plan
