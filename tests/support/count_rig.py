"""Exact instruction counts of a model's inferences on an emulated board."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.emit import model_sources, template_bytes
from bnnmcu.backend.folder import runtime_files
from bnnmcu.backend.plan import KernelChoice, make_plan
from bnnmcu.boards import COMPILE_FLAGS
from bnnmcu.graph import Graph
from bnnmcu.toolchain.compiler import LINK_FLAGS

__all__ = ["MACHINES", "build_counter", "count_instructions"]

_C = Path(__file__).resolve().parent.parent / "c"
#: What gcc builds for; the board's Cortex-M4 runs all of it.
MACHINES = {
    "cortex-m0": ("-mcpu=cortex-m0", "-mthumb"),
    "cortex-m3": ("-mcpu=cortex-m3", "-mthumb"),
    "cortex-m4f": ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
}
_TIMEOUT_S = 300
_LINKER = """
ENTRY(bnn_reset)
MEMORY
{
  FLASH (rx) : ORIGIN = 0x08000000, LENGTH = 1M
  RAM (rw) : ORIGIN = 0x20000000, LENGTH = 128K
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


def build_counter(
    graph: Graph,
    choice: KernelChoice,
    images: npt.NDArray[np.uint8],
    folder: Path,
    core: str = "cortex-m4f",
) -> Path:
    """A firmware for netduinoplus2 that infers every image and prints what each took.

    Args:
        core: a key of :data:`MACHINES`; it is compiled for that.
    """
    folder.mkdir(parents=True)
    rows = ",\n".join(f"{{{', '.join(map(str, i.reshape(-1).tolist()))}}}" for i in images)
    header = (
        f"#define CORE_IMAGES {len(images)}u\n"
        f"static const uint8_t core_images[CORE_IMAGES][{images[0].size}] = {{\n{rows}}};\n"
    )
    files = runtime_files() | model_sources(make_plan(graph, choice))
    files |= {
        "core_count.h": header.encode(),
        "core_count.c": (_C / "core_count.c").read_bytes(),
        "bnn_memory.c": template_bytes("port/bnn_memory.c"),
        "linker.ld": _LINKER.encode(),
    }
    for name, text in files.items():
        (folder / name).write_bytes(text)
    sources = sorted(name for name in files if name.endswith(".c"))
    command = ["arm-none-eabi-gcc", *MACHINES[core], *COMPILE_FLAGS, "-I.", *sources, *LINK_FLAGS]
    done = subprocess.run(
        [*command, "-lgcc", "-o", "count.elf"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "count.elf"


def _run(elf: Path) -> str:
    done = subprocess.run(
        [
            *("qemu-system-arm", "-M", "netduinoplus2", "-kernel", str(elf)),
            *("-display", "none", "-monitor", "none", "-serial", "none"),
            *("-semihosting-config", "enable=on,target=native", "-icount", "shift=0"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"
    return done.stdout + done.stderr


def count_instructions(elf: Path) -> list[int]:
    """Instructions of each inference."""
    return [int(line) for line in _run(elf).split()]
