"""Exact instruction counts and modelled cycles of each layer, from a plugin of QEMU.

The plugin (``firmware_templates/host``) is compiled with this machine's C
compiler.  It appends a record whenever the firmware calls ``bnn_port_ticks`` or
``bnn_infer``.  One inference is then

    ticks, infer, (ticks, ticks) for each layer, ticks

and nothing else that reads the ticks (a greeting, a further draw) looks like it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bnnmcu.backend.emit import template_bytes
from bnnmcu.boards import Board
from bnnmcu.errors import ToolchainError
from bnnmcu.toolchain.cycle_model import CycleModel, cycle_model
from bnnmcu.toolchain.elf import opened, read_firmware
from bnnmcu.toolchain.native import cache_folder, compiler_version, host_compiler
from bnnmcu.toolchain.process import version_of

__all__ = [
    "CountPlugin",
    "Record",
    "Span",
    "build_plugin",
    "inferences",
    "interface",
    "read_records",
]

SOURCES = ("bnn_count_plugin.c", "bnn_cycles.c", "bnn_cycles.h", "bnn_decode.c")
FLAGS = ("-std=c99", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion")
PROGRAM = "qemu-system-arm"
_COMPILE_TIMEOUT_S = 120.0

TICKS, INFER = 1, 2
"""Kinds of records: AT_TICKS and AT_INFER of bnn_count_plugin.c."""
_MARKS = {"ticks": "bnn_port_ticks", "infer": "bnn_infer"}
_MOST_FUNCTIONS = 4096
_NO_CORE = 255
_HEAD = struct.Struct("=5Q")
_PAIR = struct.Struct("=2Q")


@dataclass(frozen=True)
class Span:
    """What was executed between two places.

    Attributes:
        instructions: exact.
        cycles: modelled, waits for the flash included.
        stalls: the cycles of those waits.
        functions: instructions by function; together they are ``instructions``.
    """

    instructions: int
    cycles: int
    stalls: int
    functions: Mapping[str, int]


@dataclass(frozen=True)
class Record:
    """One record: its kind, the counts so far, and what each function added since the last."""

    kind: int
    instructions: int
    cycles: int
    stalls: int
    functions: Mapping[int, int]


def read_records(data: bytes) -> list[Record]:
    """The records that the plugin wrote.

    Raises:
        ToolchainError: they break off.
    """
    records, at = [], 0
    try:
        while at < len(data):
            kind, instructions, cycles, stalls, count = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            pairs = [_PAIR.unpack_from(data, at + _PAIR.size * i) for i in range(count)]
            at += _PAIR.size * count
            records.append(Record(kind, instructions, cycles, stalls, dict(pairs)))
    except struct.error as error:
        raise ToolchainError(f"the counting plugin's records break off: {error}") from error
    return records


def inferences(
    records: Sequence[Record], layers: int, names: Sequence[str]
) -> list[tuple[Span, ...]]:
    """The spans of each inference: the whole one, then one for each layer.

    Args:
        records: in the order in which they were written.
        layers: steps of the network.
        names: of the functions, by their index; behind the last, ``"(other)"``.
    """
    kinds = [record.kind for record in records]
    after = [TICKS] * (2 * layers + 1)
    found = []
    for at, kind in enumerate(kinds):
        # Exactly these records, and before them the one where the clock was started.
        if (
            kind == INFER
            and at
            and kinds[at - 1] == TICKS
            and kinds[at + 1 :][: len(after)] == after
        ):
            spans = [_span(records, at - 1, at + len(after), names)]
            # A layer's count starts behind the one that stored the last layer's.
            edges = [(at - 1, at + 1), *((at + 2 * i, at + 2 * i + 1) for i in range(1, layers))]
            spans += [_span(records, first, last, names) for first, last in edges]
            found.append(tuple(spans))
    return found


def _span(records: Sequence[Record], first: int, last: int, names: Sequence[str]) -> Span:
    before, behind = records[first], records[last]
    functions: dict[str, int] = {}
    for record in records[first + 1 : last + 1]:
        for index, count in record.functions.items():
            name = names[index] if index < len(names) else "(other)"
            functions[name] = functions.get(name, 0) + count
    return Span(
        behind.instructions - before.instructions,
        behind.cycles + behind.stalls - before.cycles - before.stalls,
        behind.stalls - before.stalls,
        functions,
    )


class CountPlugin:
    """The plugin for one firmware, to be handed to a ``QemuBoard``.

    Args:
        elf: the firmware.
        board: its board.

    Attributes:
        model: what its cycles are modelled by; None if they are not.

    Raises:
        MissingDependencyError: no C compiler for this machine.
        ToolchainError: the plugin does not compile, or the ELF lacks what it looks for.
    """

    def __init__(self, elf: Path, board: Board) -> None:
        symbols = read_firmware(elf).symbols
        missing = [name for name in _MARKS.values() if name not in symbols]
        if missing:
            raise ToolchainError(f"has no function {missing[0]} to count at", where=str(elf))
        self._library = build_plugin(interface(version_of([PROGRAM, "--version"])))
        self.model = cycle_model(board)
        self._names, table = _functions(elf)
        # Open files without names: nothing lies in the file system, nothing is left behind.
        self._records: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._table: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._table.write(table)
        self._table.flush()
        self._options = {mark: symbols[name] & ~1 for mark, name in _MARKS.items()}
        self._options |= {"records": self._records.fileno(), "functions": self._table.fileno()}
        self._options |= _model_options(self.model, board)
        self._read = 0

    @property
    def arguments(self) -> list[str]:
        """Options of QEMU."""
        options = ",".join(f"{name}={value}" for name, value in self._options.items())
        # A comma in the option's text is doubled.
        return ["-plugin", f"{str(self._library).replace(',', ',,')},{options}"]

    @property
    def files(self) -> tuple[int, ...]:
        """Descriptors that QEMU inherits."""
        return (self._records.fileno(), self._table.fileno())

    def inferences(self, layers: int) -> list[tuple[Span, ...]]:
        """The inferences since this was last asked, while none is under way.

        Args:
            layers: steps of the network.

        Raises:
            ToolchainError: the records break off.
        """
        # pread: QEMU shares the file's position.
        size = os.fstat(self._records.fileno()).st_size
        data = os.pread(self._records.fileno(), size - self._read, self._read)
        self._read += len(data)
        return inferences(read_records(data), layers, self._names)

    def close(self) -> None:
        """Give up the files; may be called twice."""
        self._records.close()
        self._table.close()


def interface(version: str | None) -> int:
    """The version of the plugin interface that a QEMU takes, by what it says of itself."""
    found = re.search(r"version (\d+)\.(\d+)", version or "")
    if found is None:
        return 1
    number = (int(found[1]), int(found[2]))
    if number < (9, 0):
        return 1
    return 2 if number == (9, 0) else 3


def build_plugin(api: int = 1) -> Path:
    """The compiled plugin, from the cache or newly made.

    Args:
        api: version of QEMU's plugin interface.

    Raises:
        MissingDependencyError: no C compiler for this machine.
        ToolchainError: it fails.
    """
    compiler = host_compiler()
    # The functions that QEMU brings are only known once it has loaded the plugin.
    loose = ["-Wl,-undefined,dynamic_lookup"] if sys.platform == "darwin" else []
    texts = {name: template_bytes(f"host/{name}") for name in SOURCES}
    flags = (*FLAGS, f"-DBNN_QEMU_API={api}", *loose)
    made_by = (compiler, compiler_version(*compiler), sys.platform, platform.machine(), flags)
    digest = hashlib.sha256(repr(made_by).encode())
    for name, text in texts.items():
        digest.update(f"\0{name}\0{len(text)}\0".encode() + text)
    folder = cache_folder() / "plugins"
    library = folder / f"{digest.hexdigest()[:32]}.so"
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        for file, text in texts.items():
            (work / file).write_bytes(text)
        output = work / "plugin.so"
        files = [str(work / file) for file in SOURCES if file.endswith(".c")]
        command = [*compiler, *flags, "-shared", "-o", str(output), *files]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolchainError(f"{compiler[0]} could not be run: {error}") from error
        if done.returncode != 0:
            raise ToolchainError(
                f"QEMU's counting plugin does not compile:\n{done.stderr.strip()}",
                where=" ".join(compiler),
            )
        # Another process may have been faster; both files are the same.
        output.replace(library)
    return library


def _functions(elf: Path) -> tuple[list[str], bytes]:
    """Names of the functions by address, and the plugin's table of where they lie."""
    with opened(elf) as image:
        table = image.get_section_by_name(".symtab")
        found: dict[int, tuple[int, str]] = {}
        for symbol in table.iter_symbols() if table is not None else ():
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_size"]:
                found.setdefault(symbol["st_value"] & ~1, (symbol["st_size"], symbol.name))
    names, ranges = [], b""
    end = 0
    for start, (size, name) in sorted(found.items())[:_MOST_FUNCTIONS]:
        if start >= end:  # aliases lie on top of each other
            names.append(name)
            end = start + size
            ranges += struct.pack("=2I", start, end)
    return names, ranges


def _model_options(model: CycleModel | None, board: Board) -> dict[str, int]:
    if model is None:
        return {"core": _NO_CORE}
    options = {"core": model.core}
    if model.flash is not None and model.wait_states is not None:
        options |= {
            "origin": board.flash.origin,
            "end": board.flash.end,
            "wait": model.wait_states,
            "line": model.flash.line_shift,
            "code": model.flash.code_lines,
            "data": model.flash.data_lines,
            "prefetch": int(model.flash.prefetch),
        }
    return options
