"""Writes into a linked firmware the CRC-32 of everything else in its flash.

The firmware compares itself with it when it starts and when it is asked, so that
damaged flash is found before an answer is believed.  Needs pyelftools alone: every
project has a copy of this file as ``bnn_checksum.py``, which PlatformIO runs.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

__all__ = ["image_crc", "stamp"]

_START, _END, _WORD = "bnn_image_start", "bnn_image_end", "bnn_image_crc"
#: What an unstamped firmware holds.  One whose CRC is this would count as unstamped.
NONE = 0xFFFFFFFF


def stamp(path: Path) -> int:
    """Compute the CRC-32 of a firmware's flash and write it into the ELF, in place.

    Returns:
        The CRC-32: zlib's, from the first byte of flash to the checksum.

    Raises:
        ValueError: the ELF has no place for it, or its flash has holes.
    """
    data = bytearray(path.read_bytes())
    crc, at = _crc(path)
    data[at : at + 4] = struct.pack("<I", crc)
    path.write_bytes(data)
    return crc


def image_crc(path: Path) -> tuple[int, int]:
    """The checksum that a firmware holds, and the one that it should hold.

    Raises:
        ValueError: see :func:`stamp`.
    """
    crc, at = _crc(path)
    (held,) = struct.unpack_from("<I", path.read_bytes(), at)
    return held, crc


def _crc(path: Path) -> tuple[int, int]:
    """The CRC-32 of the image, and where in the file the checksum stands."""
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            raise ValueError("it has no symbols")
        wanted = {
            symbol.name: int(symbol["st_value"])
            for symbol in table.iter_symbols()
            if symbol.name in (_START, _END, _WORD)
        }
        if len(wanted) != 3:
            raise ValueError(f"it lacks one of {_START}, {_END}, {_WORD}")
        start, end, word = (wanted[name] for name in (_START, _END, _WORD))
        loaded = [
            (int(segment["p_paddr"]), segment.data(), int(segment["p_offset"]))
            for segment in elf.iter_segments("PT_LOAD")
            if segment["p_filesz"]
        ]
    image = bytearray()
    for address, content, _ in sorted(loaded):
        if start <= address < end:
            if address != start + len(image):
                raise ValueError(f"its flash has a hole before 0x{address:08x}")
            image += content[: end - address]
    if len(image) != end - start:
        raise ValueError(f"its flash ends at 0x{start + len(image):08x}, not at 0x{end:08x}")
    at = [p + word - a for a, content, p in loaded if a <= word <= a + len(content) - 4]
    if not at:
        raise ValueError("its checksum is not in flash")
    return zlib.crc32(bytes(image)), at[0]


if __name__ == "__main__":
    import sys

    for name in sys.argv[1:]:
        print(f"{name}: {stamp(Path(name)):08x}")
