"""The cores: what the compilers call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["COMPILE_FLAGS", "CORES", "Core"]

COMPILE_FLAGS = (
    "-std=c99",
    "-O3",
    "-g",
    "-ffreestanding",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-common",
    "-Wall",
    "-Wextra",
    "-Wconversion",
)
"""What every toolchain is given, so that all build the same firmware."""


@dataclass(frozen=True)
class Core:
    """A processor core.

    Attributes:
        machine: flags that select it and its FPU; gcc takes these.
        compile: further flags for its compilations, of any toolchain.
        zig: what zig needs instead of ``machine``.
        exceptions: words of the vector table before the first interrupt.
    """

    machine: tuple[str, ...]
    zig: tuple[str, ...]
    compile: tuple[str, ...] = ()
    exceptions: int = 16

    @property
    def hard_float(self) -> bool:
        """Whether there are FPU registers, which an exception makes room for."""
        return "-mfloat-abi=hard" in self.machine


_SP = ("-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
# Nothing here computes with doubles, so that the single-precision subset serves every FPU.
_SP5 = ("-mfpu=fpv5-sp-d16", "-mfloat-abi=hard")
_ZIG = ("-target", "thumb-freestanding-eabi")
_ZIG_HARD = ("-target", "thumb-freestanding-eabihf")

CORES: Mapping[str, Core] = {
    "cortex-m0": Core(("-mcpu=cortex-m0", "-mthumb"), zig=(*_ZIG, "-mcpu=cortex_m0")),
    "cortex-m3": Core(("-mcpu=cortex-m3", "-mthumb"), zig=(*_ZIG, "-mcpu=cortex_m3")),
    "cortex-m4f": Core(
        ("-mcpu=cortex-m4", "-mthumb", *_SP), zig=(*_ZIG_HARD, "-mcpu=cortex_m4", *_SP)
    ),
    "cortex-m7": Core(
        ("-mcpu=cortex-m7", "-mthumb", *_SP5), zig=(*_ZIG_HARD, "-mcpu=cortex_m7", *_SP5)
    ),
    "cortex-m33": Core(
        ("-mcpu=cortex-m33", "-mthumb", *_SP5), zig=(*_ZIG_HARD, "-mcpu=cortex_m33", *_SP5)
    ),
    # The vector extension comes with the core's name.  GCC 12's own vectorisation breaks the
    # protocol's frames at -O3; kernels that want vectors say so themselves, by intrinsics.
    "cortex-m55": Core(
        ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
        compile=("-fno-tree-vectorize",),
        zig=(*_ZIG_HARD, "-mcpu=cortex_m55"),
    ),
}
"""By name, as board files and files of costs use it; ``cortex-m0`` also stands for the M0+."""
