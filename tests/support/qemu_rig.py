"""Many networks in one firmware, run in one start of QEMU's MPS2 boards."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from many_models import Choices, each, write_models
from twin_check import inputs

from bnnmcu import reference
from bnnmcu.backend.emit import template_bytes
from bnnmcu.backend.plan import DEFAULT_CHOICE, make_plan
from bnnmcu.boards import COMPILE_FLAGS, CORES
from bnnmcu.graph import Graph
from bnnmcu.toolchain.compiler import LINK_FLAGS
from bnnmcu.toolchain.detect import zig_command

__all__ = ["MACHINES", "Machine", "board_differences", "build_image"]

_C = Path(__file__).resolve().parent.parent / "c"
_RUN_TIMEOUT_S = 120
_BUILD_TIMEOUT_S = 300


@dataclass(frozen=True)
class Machine:
    """An MPS2 or MPS3 board, its memories, and what the compilers call its core."""

    qemu: str
    core: str
    memory: str = "4M"

    @property
    def gcc(self) -> tuple[str, ...]:
        """Flags for gcc."""
        core = CORES[self.core]
        return core.machine + core.compile

    @property
    def zig(self) -> tuple[str, ...]:
        """Flags for zig."""
        return CORES[self.core].zig


MACHINES = {
    machine.core: machine
    for machine in (
        # The board has a Cortex-M3, which runs a Cortex-M0's code.
        Machine("mps2-an385", "cortex-m0"),
        Machine("mps2-an385", "cortex-m3"),
        Machine("mps2-an386", "cortex-m4f"),
        Machine("mps2-an500", "cortex-m7"),
        Machine("mps3-an547", "cortex-m55", "512K"),
    )
}

# Arm AN385 and AN386: 4 MB of code memory and as much of data memory; AN547: 512 KB of each.
_LINKER = """
ENTRY(bnn_reset)
MEMORY
{
  FLASH (rx) : ORIGIN = 0x00000000, LENGTH = 4M
  RAM (rw) : ORIGIN = 0x20000000, LENGTH = 4M
}
SECTIONS
{
  .vectors : { KEEP(*(.vectors)) } > FLASH
  .text : { *(.text .text.*) . = ALIGN(4); } > FLASH
  .rodata : { *(.rodata .rodata.*) . = ALIGN(8); } > FLASH
  .stack (NOLOAD) : { . = . + 8192; bnn_stack_top = .; } > RAM
  .data :
  {
    . = ALIGN(4); bnn_data_start = .; *(.data .data.*) . = ALIGN(4); bnn_data_end = .;
  } > RAM AT > FLASH
  bnn_data_load = LOADADDR(.data);
  .bss (NOLOAD) :
  {
    . = ALIGN(4); bnn_bss_start = .; *(.bss .bss.* COMMON) . = ALIGN(4); bnn_bss_end = .;
  } > RAM
  /DISCARD/ : { *(.ARM.exidx*) *(.ARM.attributes) *(.comment) }
}
"""

_HEADER = """#include "bnn.h"

typedef struct core_case {{
    const bnn_model_t *model;
    const uint8_t *images;
    const uint64_t *seeds;
}} core_case_t;

#define CORE_CASES {cases}u
#define CORE_IMAGES {images}u
#define CORE_DRAWS {draws}u
#define CORE_ARENA_WORDS {words}u

extern const core_case_t core_cases[CORE_CASES];
"""


def _table(kind: str, name: str, values: Sequence[int], suffix: str = "") -> str:
    return f"static const {kind} {name}[] = {{{', '.join(f'{v}{suffix}' for v in values)}}};\n"


def _write(graphs: Sequence[Graph], folder: Path, choice: Choices) -> list[Path]:
    """All sources of the firmware; returns the C files."""
    files = write_models(graphs, folder, native=False, choice=choice)
    cases, rows = '#include "core_board.h"\n', []
    shape = inputs(graphs[0])[1].shape
    for i, graph in enumerate(graphs):
        images, seeds = inputs(graph)
        assert seeds.shape == shape
        cases += f"extern const bnn_model_t bnn_model_{i};\n"
        cases += _table("uint8_t", f"images_{i}", images.reshape(-1).tolist())
        cases += _table("uint64_t", f"seeds_{i}", seeds.reshape(-1).tolist(), "u")
        rows.append(f"{{&bnn_model_{i}, images_{i}, seeds_{i}}}")
    cases += f"const core_case_t core_cases[CORE_CASES] = {{{', '.join(rows)}}};\n"
    plans = [make_plan(g, c) for g, c in zip(graphs, each(graphs, choice), strict=True)]
    words = max(plan.arena_words for plan in plans)
    header = _HEADER.format(cases=len(graphs), images=shape[0], draws=shape[1], words=words)
    texts = {
        "core_board.h": header.encode(),
        "core_cases.c": cases.encode(),
        "core_board.c": (_C / "core_board.c").read_bytes(),
        "bnn_memory.c": template_bytes("port/bnn_memory.c"),
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text)
    return files + [folder / name for name in texts if name.endswith(".c")]


def build_image(folder: Path, files: Sequence[Path], machine: Machine, toolchain: str) -> Path:
    """The firmware of these files, which are all in the folder."""
    (folder / "linker.ld").write_text(_LINKER.replace("4M", machine.memory))
    if toolchain == "gcc":
        command = ["arm-none-eabi-gcc", *machine.gcc]
        libraries = ["-lgcc"]
    else:
        zig = zig_command()
        assert zig is not None
        command = [*zig, "cc", *machine.zig, "-fno-sanitize=all"]
        libraries = ["-lcompiler_rt"]  # what Cortex-M0 has no instruction for
    sources = [path.relative_to(folder).as_posix() for path in files]
    command += [*COMPILE_FLAGS, "-I.", *sources, *LINK_FLAGS, *libraries, "-o", "many.elf"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "many.elf"


def _run(elf: Path, machine: Machine) -> bytes:
    """What the firmware writes until it ends itself."""
    done = subprocess.run(
        [
            *("qemu-system-arm", "-M", machine.qemu, "-kernel", str(elf)),
            *("-display", "none", "-monitor", "none", "-serial", "stdio"),
            *("-semihosting-config", "enable=on,target=native"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr.decode()}"
    return done.stdout


def _expected(graph: Graph) -> npt.NDArray[np.int64]:
    images, seeds = inputs(graph)
    return reference.run(graph, images, seeds)


def board_differences(
    graphs: Sequence[Graph],
    folder: Path,
    core: str,
    toolchain: str,
    choice: Choices = DEFAULT_CHOICE,
) -> list[str]:
    """Names of the networks whose logits differ on an emulated board.

    Args:
        graphs: as many as fit 4 MB.
        folder: for all files; must not exist.
        core: a key of :data:`MACHINES`.
        toolchain: gcc or zig.
        choice: of the kernels; one for all, or one for each.
    """
    folder.mkdir(parents=True)
    machine = MACHINES[core]
    output = _run(build_image(folder, _write(graphs, folder, choice), machine, toolchain), machine)
    found, at = [], 0
    for graph in graphs:
        expected = _expected(graph).reshape(-1, graph.classes)
        record = np.dtype([("error", "<i4"), ("logits", "<i8", (graph.classes,))])
        size = len(expected) * record.itemsize
        assert len(output) >= at + size, "the firmware ended early"
        got = np.frombuffer(output[at : at + size], dtype=record)
        at += size
        if got["error"].any() or not np.array_equal(got["logits"], expected):
            found.append(graph.name)
    assert at == len(output), "the firmware wrote more than it should"
    shutil.rmtree(folder, ignore_errors=True)
    return found
