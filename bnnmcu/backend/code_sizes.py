"""What the linker makes of a firmware, from sections that were measured once.

``code_sizes.json`` holds, for each compiler and core, every section of the
firmware's fixed sources: size, alignment, what it defines and what it refers
to.  Together with the sections that a plan will generate they are linked here
on paper: unreferenced ones are dropped (``--gc-sections``), the rest laid out
in the linker script's order.  ``benchmarks/code_sizes.py`` writes the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from bnnmcu.boards import Board

__all__ = [
    "MODEL_UNIT",
    "Image",
    "Measured",
    "Section",
    "board_facts",
    "link",
    "measured",
    "read_table",
]

#: The generated source, whose sections a plan decides.
MODEL_UNIT = "bnn_model.c"
ROOT_SECTION = ".vectors"
#: What the linker script keeps whether anything refers to it or not.
_KEPT = (ROOT_SECTION, ".checksum")
_TABLE = "code_sizes.json"
#: What the linker script aligns the end of an output section to; 4 for the others.
_ENDS = {"vectors": 8, "text": 8, "rodata": 8}


@dataclass(frozen=True)
class Section:
    """A section of an object file.

    Attributes:
        name: for instance ``.text.bnn_infer``.
        size, align: in bytes.
        symbols: what it defines; file-scope names as ``"file.c:name"``.
        needs: symbols that it refers to.
    """

    name: str
    size: int
    align: int
    symbols: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def region(self) -> str:
        """The output section: ``vectors``, ``text``, ``rodata``, ``data``, ``bss``
        or ``checksum``."""
        return self.name.split(".")[1]


@dataclass(frozen=True)
class StepSizes:
    """What one step adds to the generated source.

    Attributes:
        code: bytes of its function, on average over the probes: it depends on
            where in the arena its buffers are.
        spread: the largest less the smallest.
        constants: bytes of its descriptions, tables not counted.
        needs: symbols it refers to; ``{generator}`` stands for the generator's name.
    """

    code: float
    spread: int
    constants: int
    needs: tuple[str, ...]


@dataclass(frozen=True)
class ModelSizes:
    """What every generated source has.

    Attributes:
        layer: bytes of a row of the layer table.
        fixed: bytes of the other constants.
        string_align: alignment of each string.
        table_align: alignment of a table by its C type.
        needs: as in :class:`StepSizes`, of networks with drawn weights.
    """

    layer: int
    fixed: int
    string_align: int
    table_align: Mapping[str, int]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """The measurements of one compiler for one core.

    Attributes:
        toolchain: ``"gcc"`` or ``"zig"``.
        version: of the compiler.
        units: sections by source file, for a certain board.
        board: that board, which may be a relative of the one asked for.
        steps: by kernel.
        externals: bytes of what the compiler's own library adds, by symbol.
        grid: by axis and value: for sections (``"file.c:section"``) that differ there,
            how many bytes they have more, and which further symbols they need.
    """

    toolchain: str
    version: str
    units: Mapping[str, tuple[Section, ...]]
    board: str
    model: ModelSizes
    steps: Mapping[str, StepSizes]
    externals: Mapping[str, Mapping[str, int]]
    grid: Mapping[str, Mapping[int, Mapping[str, tuple[int, Sequence[str]]]]]

    def at(self, point: Mapping[str, int]) -> dict[str, list[Section]]:
        """The units of a network with these numbers; the nearest that was measured counts."""
        found = {unit: list(rows) for unit, rows in self.units.items()}
        places = {
            f"{unit}:{row.name}": (unit, i)
            for unit, rows in found.items()
            for i, row in enumerate(rows)
        }
        for axis, value in point.items():
            measured_at = self.grid[axis]
            nearest = min(measured_at, key=lambda there: (abs(there - value), there))
            for name, (more, needs) in measured_at[nearest].items():
                unit, i = places[name]
                old = found[unit][i]
                found[unit][i] = replace(old, size=old.size + more, needs=(*old.needs, *needs))
        return found


@dataclass(frozen=True)
class Image:
    """A firmware as laid out: bytes by output section, the stack not counted.

    Attributes:
        unknown: symbols that nothing defines.
    """

    sizes: Mapping[str, int]
    unknown: tuple[str, ...]

    @property
    def flash(self) -> int:
        """Bytes of flash, the initial values of variables included."""
        return sum(self.sizes[name] for name in ("vectors", "text", "rodata", "data", "checksum"))

    @property
    def ram(self) -> int:
        """Bytes of variables."""
        return self.sizes["data"] + self.sizes["bss"]


@cache
def read_table() -> dict[str, Any]:
    """``code_sizes.json`` as it is."""
    text = files("bnnmcu").joinpath("backend", _TABLE).read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@cache
def measured(board: Board) -> tuple[Measured, ...]:
    """The measurements that hold for a board, one for each compiler."""
    found = []
    for toolchain, entry in read_table()["toolchains"].items():
        core = entry["cores"].get(board.core)
        if core is None:
            continue
        name = _relative(board, core["boards"])
        shared = core["boards"][name]["units"]
        units = {
            unit: tuple(map(_section, rows)) for unit, rows in (core["units"] | shared).items()
        }
        found.append(
            Measured(
                toolchain=toolchain,
                version=entry["version"],
                units={unit: _of_board(rows, board) for unit, rows in units.items()},
                board=name,
                model=ModelSizes(**core["model"]),
                steps={kernel: StepSizes(**sizes) for kernel, sizes in core["steps"].items()},
                externals=core["externals"],
                grid={
                    axis: {int(value): changes for value, changes in rows.items()}
                    for axis, rows in (core["grid"] | core["boards"][name]["grid"]).items()
                },
            )
        )
    return tuple(found)


def _section(row: Sequence[Any]) -> Section:
    name, size, align, symbols, needs = row
    return Section(name, size, align, tuple(symbols), tuple(needs))


def _relative(board: Board, known: Mapping[str, Any]) -> str:
    """The board itself if it was measured, else the one with the most in common."""

    def unlike(name: str) -> tuple[bool, int, str]:
        facts, own = known[name]["facts"], board_facts(board)
        differ = sum(facts.get(key) != own.get(key) for key in facts.keys() | own.keys())
        return facts["family"] != own["family"], differ, name

    return board.name if board.name in known else min(known, key=unlike)


def board_facts(board: Board) -> dict[str, Any]:
    """What decides which code the drivers consist of."""
    return dict(board.facts)


def _of_board(rows: Iterable[Section], board: Board) -> tuple[Section, ...]:
    """The sections whose size follows from the board's description."""
    vectors = 4 * board.vector_words
    name = len(board.name) + 1
    sizes = {ROOT_SECTION: vectors, ".rodata.bnn_port_board": name}
    return tuple(replace(row, size=sizes.get(row.name, row.size)) for row in rows)


def link(
    units: Mapping[str, Sequence[Section]], externals: Mapping[str, Mapping[str, int]]
) -> Image:
    """Drop what nothing refers to, and lay out the rest.

    Args:
        units: sections by source file; linked in the order of their names.
        externals: pieces of the compiler's library, by the symbol that brings them in.
    """
    owner = {symbol: s for rows in units.values() for s in rows for symbol in s.symbols}
    todo = [s for rows in units.values() for s in rows if s.name in _KEPT]
    live = set(map(id, todo))
    pieces: dict[str, int] = {}
    unknown: set[str] = set()
    while todo:
        for symbol in todo.pop().needs:
            section = owner.get(symbol)
            if section is None:
                pieces |= externals.get(symbol, {})
                if symbol not in externals:
                    unknown.add(symbol)
            elif id(section) not in live:
                live.add(id(section))
                todo.append(section)
    ends = dict.fromkeys(("vectors", "text", "rodata", "data", "bss", "checksum"), 0)
    for unit in sorted(units):
        for section in units[unit]:
            if id(section) in live:
                ends[section.region] = _up(ends[section.region], section.align) + section.size
    ends["text"] = _up(ends["text"], 4) + sum(_up(size, 4) for size in pieces.values())
    sizes = {name: _up(end, _ENDS.get(name, 4)) for name, end in ends.items()}
    return Image(sizes, tuple(sorted(unknown)))


def _up(size: int, align: int) -> int:
    return -(-size // align) * align
