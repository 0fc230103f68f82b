"""The cycle model as a program of this machine, and Thumb code to feed it with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.toolchain.native import host_compiler

__all__ = ["Instruction", "assemble", "build_model", "disassemble", "drive"]

_ROOT = Path(__file__).resolve().parents[2]
_HOST = _ROOT / "firmware_templates" / "host"
_WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_CHECKS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_TIMEOUT_S = 120
_LINE = re.compile(r"^ *([0-9a-f]+):\t([0-9a-f]{4})(?: ([0-9a-f]{4}))? *\t(\S+)(?:\t([^@;]*))?")


@dataclass(frozen=True)
class Instruction:
    """One instruction: where, its one or two halfwords, and what the disassembler calls it."""

    address: int
    code: tuple[int, ...]
    name: str
    operands: str

    def command(self, letter: str) -> str:
        """For the program: ``x`` executes it, ``d`` decodes it."""
        first, second = (*self.code, 0)[:2]
        return f"{letter} {self.address:x} {len(self.code)} {first:x} {second:x}"


def build_model(folder: Path) -> Path:
    """The program tests/c/tool_cycles.c with the model, all checks on."""
    output = folder / "cycles"
    sources = [
        _ROOT / "tests" / "c" / "tool_cycles.c",
        _HOST / "bnn_cycles.c",
        _HOST / "bnn_decode.c",
    ]
    command = [*host_compiler(), *_WARNINGS, *_CHECKS, f"-I{_HOST}", "-o", output, *sources]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    return output


def drive(program: Path, commands: Sequence[str]) -> list[list[int]]:
    """What the program prints, line by line, as numbers."""
    done = subprocess.run(
        [program],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [[int(number) for number in line.split()] for line in done.stdout.splitlines()]


def assemble(code: str, folder: Path) -> list[Instruction]:
    """Assembled for a Cortex-M4 with its FPU."""
    source, target = folder / "code.s", folder / "code.o"
    source.write_text(f".syntax unified\n.thumb\n.text\n{code}\n")
    machine = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
    done = subprocess.run(
        ["arm-none-eabi-gcc", *machine, "-c", source, "-o", target],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return disassemble(target)


def disassemble(path: Path) -> list[Instruction]:
    """All instructions of an object or ELF file, literals left out."""
    done = subprocess.run(
        ["arm-none-eabi-objdump", "-d", path],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    found = []
    for line in done.stdout.splitlines():
        match = _LINE.match(line)
        if match and not match[4].startswith("."):
            code = tuple(int(half, 16) for half in match.groups()[1:3] if half)
            found.append(Instruction(int(match[1], 16), code, match[4], match[5] or ""))
    return found
