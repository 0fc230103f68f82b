"""Builds a network's C with one rig for all, counts it on an emulated board, runs it here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from elftools.elf.elffile import ELFFile

__all__ = [
    "FLAGS",
    "HOST_FLAGS",
    "MACHINES",
    "Built",
    "Counted",
    "PeerError",
    "Source",
    "build",
    "count",
    "on_host",
]

HERE = Path(__file__).resolve().parent
CLASSES = 10
#: The same for every network on the table.
FLAGS = (
    *("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    *("-std=gnu11", "-O3", "-ffunction-sections", "-fdata-sections", "-fno-common"),
)
HOST_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-ffp-contract=off", "-fno-common")
#: Machine to the bytes of stack it is given; the first one that a network fits is taken.
MACHINES = {"netduinoplus2": 16 * 1024, "mps2-an386": 1024 * 1024}
_TIMEOUT_S = 900
_LINK = ("-nostdlib", "-nostartfiles", "-static", "-Wl,--gc-sections")


class PeerError(Exception):
    """A peer that cannot be built or run here, with the reason."""


@dataclass(frozen=True)
class Source:
    """A network as C.

    Attributes:
        folder: where its files are; the rig's are added to it.
        adapter: file of this folder that implements ``peer.h``.
        sources: C files, and folders to be searched for headers.
        flags: on top of :data:`FLAGS`, as its makers tell users to compile it.
        libraries: to link with, on the board.
        kind: of a logit's bits: int64, or float32 in the low half.
        on_host: whether the C compiles for this machine.
    """

    folder: Path
    adapter: str
    sources: tuple[Path, ...]
    includes: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("-lm", "-lc", "-lgcc")
    kind: str = "int64"
    on_host: bool = True

    def logits(self, words: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
        """What the adapter's words mean."""
        if self.kind == "int64":
            return words.view(np.int64).astype(np.float64)
        return words.astype(np.uint32).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class Built:
    """An ELF and what the network takes in it.

    Attributes:
        flash: bytes of code, tables and initial data, the C library's functions included.
        ram: bytes of static data: arena, input, output, states; no stack.
    """

    elf: Path
    machine: str
    flash: int
    ram: int


@dataclass(frozen=True)
class Counted:
    """Of each digit: instructions, and logits; ``stack`` is the most bytes of any."""

    instructions: list[int]
    stack: int
    logits: npt.NDArray[np.float64] = field(repr=False)


def _run(command: list[str], folder: Path, data: bytes | None = None) -> bytes:
    try:
        done = subprocess.run(
            command, cwd=folder, input=data, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerError(str(error)) from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").splitlines()
        known = ("error:", "undefined", "overflow")
        own = [line for line in lines if not line.startswith("collect2")]
        told = [line for line in own if any(word in line for word in known)] or lines
        said = " / ".join(line.strip() for line in told[:2])
        raise PeerError(f"{Path(command[0]).name} ended with {done.returncode}: {said}")
    # Semihosting writes to the standard error; what is told of a success is nothing else.
    return done.stdout or done.stderr


def _digits_header(digits: npt.NDArray[np.uint8]) -> str:
    rows = ",\n".join("{" + ",".join(map(str, d.reshape(-1).tolist())) + "}" for d in digits)
    return (
        f"#include <stdint.h>\n#define RIG_DIGITS {len(digits)}u\n"
        f"static const uint8_t rig_digits[RIG_DIGITS][{digits[0].size}] = {{\n{rows}}};\n"
    )


def _sizes(elf: Path) -> Mapping[str, int]:
    with elf.open("rb") as stream:
        return {s.name: s["sh_size"] for s in ELFFile(stream).iter_sections()}


def build(source: Source, digits: npt.NDArray[np.uint8]) -> Built:
    """The rig with a network, for the first machine that it fits.

    Raises:
        PeerError: it does not compile, or fits no machine; says what the compiler said.
    """
    folder = source.folder
    (folder / "digits.h").write_text(_digits_header(digits))
    for name in ("peer.h", "rig.c", source.adapter):
        shutil.copy(HERE / name, folder)
    gcc = "arm-none-eabi-gcc"
    include = [f"-I{path}" for path in (folder, *source.includes)]
    objects = []
    for i, path in enumerate((*source.sources, folder / source.adapter)):
        objects.append(f"part{i}.o")
        _run([gcc, *FLAGS, *source.flags, *include, "-c", str(path), "-o", objects[-1]], folder)
    reason = ""
    for machine, stack in MACHINES.items():
        macro = f"-DRIG_{machine.upper().replace('-', '_')}"
        _run([gcc, *FLAGS, "-ffreestanding", macro, "-I.", "-c", "rig.c", "-o", "rig.o"], folder)
        elf = folder / f"{machine}.elf"
        script = [f"-L{HERE}", f"-T{machine}.ld", f"-Wl,--defsym=RIG_STACK={stack}"]
        libraries = ["-Wl,--start-group", *source.libraries, "-Wl,--end-group"]
        try:
            _run(
                [gcc, *FLAGS, *_LINK, *script, "rig.o", *objects, *libraries, "-o", elf.name],
                folder,
            )
        except PeerError as failure:
            reason = str(failure)
            if "overflow" not in reason:
                raise
            continue
        size = _sizes(elf)
        flash = sum(size.get(name, 0) for name in (".text", ".rodata", ".data"))
        return Built(elf, machine, flash, size.get(".data", 0) + size.get(".bss", 0))
    raise PeerError(reason)


def count(source: Source, built: Built) -> Counted:
    """Runs the rig's digits under QEMU, counting instructions."""
    said = _run(
        [
            *("qemu-system-arm", "-M", built.machine, "-kernel", str(built.elf)),
            *("-display", "none", "-monitor", "none", "-serial", "none"),
            *("-semihosting-config", "enable=on,target=native", "-icount", "shift=0"),
        ],
        source.folder,
    )
    rows = [[int(word, 16) for word in line.split()] for line in said.decode().splitlines()]
    if not rows or any(len(row) != 2 + CLASSES for row in rows):
        raise PeerError("the rig printed something else than counts")
    words = np.array([row[2:] for row in rows], dtype=np.uint64)
    stack = max(row[1] for row in rows)
    return Counted([row[0] for row in rows], stack, source.logits(words))


def on_host(source: Source, digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Logits (N, 10) of the same C, compiled for this machine; digit i is drawn with seed i."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise PeerError("no C compiler for this machine")
    shutil.copy(HERE / "host.c", source.folder)
    include = [f"-I{path}" for path in (source.folder, *source.includes)]
    sources = [str(path) for path in (*source.sources, source.folder / source.adapter)]
    program = source.folder / "host"
    _run(
        [compiler, *HOST_FLAGS, *include, "host.c", *sources, "-lm", "-o", str(program)],
        source.folder,
    )
    said = _run([str(program)], source.folder, np.ascontiguousarray(digits).tobytes())
    return source.logits(np.frombuffer(said, dtype=np.uint64).reshape(len(digits), CLASSES))
