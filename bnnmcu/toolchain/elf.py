"""What an ELF file puts where: segments, sizes, symbols."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bnnmcu.boards import Board, Memory
from bnnmcu.errors import ToolchainError

__all__ = ["Firmware", "Segment", "opened", "read_firmware"]

# Distributions put their own number in brackets.
_GCC = re.compile(r"GCC: \([^)]*\) (\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Segment:
    """A loadable segment.

    Attributes:
        load: the address its bytes are stored at (flash for variables too).
        address: the address it has while running.
        data: the bytes in the file.
        size: bytes it takes while running, at least ``len(data)``.
    """

    load: int
    address: int
    data: bytes
    size: int


@dataclass(frozen=True)
class Firmware:
    """A linked firmware.

    Attributes:
        path: the ELF file.
        segments: its loadable segments, by load address.
        symbols: symbols and their addresses.
        gcc_version: of the gcc that compiled it; None for other compilers.
    """

    path: Path
    segments: tuple[Segment, ...]
    symbols: dict[str, int]
    gcc_version: str | None

    def flash_bytes(self, board: Board) -> int:
        """Bytes of the board's flash that it fills."""
        return sum(len(s.data) for s in self.segments if _within(s.load, board.flash))

    def ram_bytes(self, board: Board) -> int:
        """Bytes of the board's RAM that it takes, the reserved stack included."""
        return sum(s.size for s in self.segments if _within(s.address, board.ram))

    @cached_property
    def vectors(self) -> tuple[int, int]:
        """Initial stack pointer and reset address (bit 0, Thumb, cleared).

        Raises:
            ToolchainError: it does not begin with a vector table.
        """
        first = self.segments[0].data
        if len(first) < 8:
            raise ToolchainError("holds no vector table", where=str(self.path))
        stack, reset = struct.unpack_from("<II", first)
        if reset % 2 == 0:
            raise ToolchainError(
                f"its reset vector {reset:#x} is no Thumb address", where=str(self.path)
            )
        return stack, reset & ~1

    def describe(self, address: int) -> str:
        """The address with the function it lies in, for messages."""
        address &= ~1
        below = [
            (value & ~1, name) for name, value in self.symbols.items() if value & ~1 <= address
        ]
        if not below or not any(_inside(address, segment) for segment in self.segments):
            return f"{address:#010x}"
        start, name = max(below)
        return f"{address:#010x} ({name} + {address - start})"


def read_firmware(path: Path) -> Firmware:
    """Read a 32-bit little-endian Arm ELF.

    Raises:
        ToolchainError: it is missing, damaged, or not such a file.
    """
    with opened(path) as elf:
        if elf["e_machine"] != "EM_ARM" or elf.elfclass != 32 or not elf.little_endian:
            raise ToolchainError("not a firmware for a 32-bit Arm core", where=str(path))
        segments = [
            Segment(s["p_paddr"], s["p_vaddr"], s.data(), s["p_memsz"])
            for s in elf.iter_segments()
            if s["p_type"] == "PT_LOAD" and s["p_memsz"] > 0
        ]
        table = elf.get_section_by_name(".symtab")
        symbols = {
            symbol.name: symbol["st_value"]
            for symbol in (table.iter_symbols() if table is not None else ())
            # Mapping symbols ($t, $d) mark code and data, and are no names.
            if symbol.name and not symbol.name.startswith("$") and symbol["st_shndx"] != "SHN_UNDEF"
        }
        comment = elf.get_section_by_name(".comment")
        gcc = _GCC.search(comment.data().decode(errors="replace") if comment is not None else "")
    if not segments:
        raise ToolchainError("nothing in it is to be loaded", where=str(path))
    segments.sort(key=lambda segment: segment.load)
    return Firmware(path, tuple(segments), symbols, gcc[1] if gcc else None)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """An ELF file to read with pyelftools, whose errors become ours.

    Raises:
        ToolchainError: it is missing or damaged.
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as stream:
            yield ELFFile(stream)
    except OSError as error:
        raise ToolchainError(
            f"cannot be read: {error.strerror}", where=str(path), hint="bnnmcu build DIR"
        ) from error
    # pyelftools checks little: a damaged file also shows as one of the latter.
    except (ELFError, ConstructError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ToolchainError(
            f"damaged, or not an ELF file: {error}", where=str(path), hint="bnnmcu build DIR"
        ) from error


def _within(address: int, memory: Memory) -> bool:
    return memory.origin <= address < memory.end


def _inside(address: int, segment: Segment) -> bool:
    return segment.address <= address < segment.address + segment.size
