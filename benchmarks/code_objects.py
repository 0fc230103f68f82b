"""Compiles the sources of a project one by one and reads the objects, for code_sizes.py."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from bnnmcu.backend.emit import render
from bnnmcu.backend.project import fixed_files
from bnnmcu.boards import Board
from bnnmcu.toolchain import compiler

#: Bytes of the receive ring where it is not varied.
RING = 2048
_LINKED = (".vectors", ".text", ".rodata", ".data", ".bss", ".checksum")


@dataclass(frozen=True)
class Row:
    """A section of an object: a row of the table."""

    name: str
    size: int
    align: int
    symbols: tuple[str, ...]
    needs: tuple[str, ...]

    def to_list(self) -> list[Any]:
        return [self.name, self.size, self.align, list(self.symbols), list(self.needs)]


def read_object(path: Path, unit: str) -> list[Row]:
    """The sections of an object that a linker script places."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        table = elf.get_section_by_name(".symtab")
        sections = list(elf.iter_sections())

        def label(symbol: Any) -> str | None:
            if symbol["st_shndx"] == "SHN_UNDEF":
                return str(symbol.name)
            if symbol["st_info"]["type"] == "STT_SECTION":
                return f"{unit}:{sections[symbol['st_shndx']].name}"
            if symbol.name.startswith("$") or not isinstance(symbol["st_shndx"], int):
                return None
            local = symbol["st_info"]["bind"] == "STB_LOCAL"
            return f"{unit}:{symbol.name}" if local else str(symbol.name)

        defined: dict[int, set[str]] = defaultdict(set)
        for symbol in table.iter_symbols():
            name = label(symbol)
            if name and isinstance(symbol["st_shndx"], int):
                defined[symbol["st_shndx"]].add(name)
        needs: dict[int, set[str]] = defaultdict(set)
        for section in sections:
            if section["sh_type"] in ("SHT_REL", "SHT_RELA"):
                for entry in section.iter_relocations():
                    name = label(table.get_symbol(entry["r_info_sym"]))
                    if name:
                        needs[section["sh_info"]].add(name)
        return [
            Row(
                section.name,
                section["sh_size"],
                section["sh_addralign"],
                tuple(sorted(defined[i])),
                tuple(sorted(needs[i] - defined[i])),
            )
            for i, section in enumerate(sections)
            if section["sh_size"] and section.name.startswith(_LINKED)
        ]


class Bench:
    """Compiles for one compiler and board in a folder of its own."""

    def __init__(self, toolchain: str, board: Board, folder: Path) -> None:
        self.board = board
        self.tool = compiler._gcc(board) if toolchain == "gcc" else compiler._zig(board)
        self.folder = folder
        flags = [flag for flag in board.compile_flags if flag not in board.machine_flags]
        # Without debug information, which changes no code and takes half the time.
        flags = [flag for flag in flags if flag != "-g"]
        self.command = [*self.tool.command, *self.tool.machine, *self.tool.compile_only, *flags]
        for path, data in fixed_files(board).items():
            self.write(path, data)
        # Apart from the other headers: a quoted include looks beside its file first,
        # which would hide the variants.
        self.write("board/bnn_board.h", board_header(board, RING))
        self.write("linker.ld", linker_script(board))

    def write(self, path: str, data: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def compile(
        self, unit: str, *, model: str = "model", board: str = "board", source: str = "src"
    ) -> list[Row]:
        """The sections of one source, with the headers in these folders."""
        target = self.folder / f"{model}-{board}-{unit}.o"
        headers = [f"-I{model}", f"-I{board}", "-Iinclude"]
        self.call([*self.command, *headers, "-c", f"{source}/{unit}", "-o", str(target)])
        return read_object(target, unit)

    def call(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def board_header(board: Board, ring: int) -> bytes:
    return render("project/bnn_board.h.j2", board=board, rx_bytes=ring, version="")


def linker_script(board: Board) -> bytes:
    return render("project/linker.ld.j2", board=board, stack_bytes=2048, version="")
