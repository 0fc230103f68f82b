"""The way that inferences take on an emulated board: every instruction, every data address.

Many networks in one firmware, each on many images, under QEMU with the plugin
``tests/c/trace_plugin.c``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pytest
from many_models import Choices, each, write_models
from qemu_rig import MACHINES, build_image

from bnnmcu.backend.emit import template_bytes
from bnnmcu.backend.plan import DEFAULT_CHOICE, KernelChoice, make_plan
from bnnmcu.graph import Graph

__all__ = ["Ways", "need_tracing", "traces"]

_C = Path(__file__).resolve().parent.parent / "c"
_BUILD_TIMEOUT_S = 60
_RUN_TIMEOUT_S = 300
#: A file's name and contents to other contents.
Edit = Callable[[str, str], str]


@dataclass(frozen=True)
class Ways:
    """What the inferences of one network had in common.

    Attributes:
        name: of the network.
        counts: the instructions of each.
        accesses: the reads and writes of each.
        parts: where the way of one first left that of the first, or None.
    """

    name: str
    counts: tuple[int, ...]
    accesses: tuple[int, ...]
    parts: str | None

    @property
    def same_count(self) -> bool:
        """Whether all took as many instructions."""
        return len(set(self.counts)) == 1

    @property
    def same_way(self) -> bool:
        """Whether all executed and accessed the same addresses in the same order."""
        return self.parts is None


def _version() -> tuple[int, int]:
    done = subprocess.run(
        ["qemu-system-arm", "--version"], capture_output=True, text=True, check=True
    )
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    assert found, done.stdout
    return int(found[1]), int(found[2])


def need_tracing() -> None:
    """Skip, with the reason, where a tool is missing."""
    for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    done = subprocess.run(["qemu-system-arm", "--help"], capture_output=True, text=True, check=True)
    if "-plugin" not in done.stdout:
        pytest.skip("this qemu-system-arm was built without plugins")


def _plugin(folder: Path) -> Path:
    """The plugin, for the interface of the QEMU here: it refuses what is older or newer."""
    path = folder / "trace_plugin.so"
    version = 1 if _version() < (9, 0) else 2
    done = subprocess.run(
        [
            *("cc", "-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"),
            *(f"-DTRACE_API={version}", "-o", str(path), str(_C / "trace_plugin.c")),
        ],
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return path


def _write(
    graphs: Sequence[Graph], folder: Path, choices: Sequence[KernelChoice], images: int
) -> list[Path]:
    files = write_models(graphs, folder, native=False, choice=choices)
    names = [f"bnn_model_{i}" for i in range(len(graphs))]
    models = ['#include "core_trace.h"', '#include "bnn.h"']
    models += [f"extern const bnn_model_t {name};" for name in names]
    models.append("extern const bnn_model_t *const core_models[CORE_MODELS];")
    rows = ", ".join(f"&{name}" for name in names)
    models.append(f"const bnn_model_t *const core_models[CORE_MODELS] = {{{rows}}};\n")
    plans = [make_plan(g, c) for g, c in zip(graphs, choices, strict=True)]
    header = (
        f"#define CORE_MODELS {len(graphs)}u\n"
        f"#define CORE_IMAGES {images}u\n"
        f"#define CORE_ARENA_WORDS {max(plan.arena_words for plan in plans)}u\n"
        f"#define CORE_IMAGE_BYTES {max(prod(graph.input_shape) for graph in graphs)}u\n"
    )
    texts = {
        "core_trace.h": header.encode(),
        "core_models.c": "\n".join(models).encode(),
        "core_trace.c": (_C / "core_trace.c").read_bytes(),
        "bnn_memory.c": template_bytes("port/bnn_memory.c"),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    return files + [folder / name for name in texts if name.endswith(".c")]


def _where(elf: Path, address: str) -> str:
    """The function of an instruction."""
    done = subprocess.run(
        ["arm-none-eabi-nm", "-S", str(elf)], capture_output=True, text=True, check=True
    )
    at = int(address, 16)
    for start, size, name in re.findall(r"^(\w+) (\w+) [tT] (\w+)", done.stdout, re.MULTILINE):
        if int(start, 16) & ~1 <= at < (int(start, 16) & ~1) + int(size, 16):
            return f"{name}, instruction at {address}"
    return f"instruction at {address}"


def traces(
    graphs: Sequence[Graph],
    folder: Path,
    *,
    core: str = "cortex-m4f",
    toolchain: str = "gcc",
    choice: Choices = DEFAULT_CHOICE,
    images: int = 20,
    edit: Edit | None = None,
) -> list[Ways]:
    """How the inferences of each network went, on images and seeds that the firmware makes.

    Args:
        graphs: as many as fit 4 MB.
        folder: for all files; must not exist.
        core: a key of :data:`qemu_rig.MACHINES`.
        toolchain: gcc or zig.
        choice: of the kernels; one for all, or one for each.
        edit: what becomes of each file of the runtime; for firmware that breaks a promise.
    """
    folder.mkdir(parents=True)
    files = _write(graphs, folder, each(graphs, choice), images)
    for path in folder.glob("bnn_*.[ch]") if edit is not None else ():
        path.write_text(edit(path.name, path.read_text()))
    machine = MACHINES[core]
    elf = build_image(folder, files, machine, toolchain)
    log = folder / "trace.txt"
    done = subprocess.run(
        [
            *("qemu-system-arm", "-M", machine.qemu, "-kernel", str(elf)),
            *("-display", "none", "-monitor", "none", "-serial", "none"),
            *("-semihosting-config", "enable=on,target=native"),
            *("-plugin", f"{_plugin(folder)},out={log}"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len(lines) == len(graphs) * images, f"{len(lines)} inferences"
    found = []
    for i, graph in enumerate(graphs):
        rows = [row for row in lines if int(row[0]) == i + 1]
        other = next((row for row in rows if row[3] != "-1"), None)
        parts = f"{_where(elf, other[4])}, event {other[3]}: {other[5]}" if other else None
        counts, accesses = (tuple(int(row[n]) for row in rows) for n in (1, 2))
        found.append(Ways(graph.name, counts, accesses, parts))
    shutil.rmtree(folder, ignore_errors=True)
    return found
