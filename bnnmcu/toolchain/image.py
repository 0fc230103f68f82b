"""Looks into a linked firmware: is it one that the chip of its board can start?

What a linker accepts can still be dead on the chip: a vector table that is not
where the core looks, code for another core, variables outside the RAM.  None of
that needs the board to be found.

Sources: ARMv7-M architecture reference manual (DDI 0403E) B1.5 (vector table)
and B3.2.5 (VTOR); ARMv6-M (DDI 0419), ARMv8-M (DDI 0553) alike; ABI for the Arm
Architecture, Addenda (IHI 0045): build attributes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bnnmcu.boards import CORES, Board, Memory
from bnnmcu.errors import ToolchainError
from bnnmcu.toolchain.elf import Firmware, opened, read_firmware

__all__ = ["check_image", "faults"]

#: Words of the table that are not exceptions (B1.5.2): reserved, and 0 here.
_RESERVED = (7, 8, 9, 10, 13)
_SYSTEM_WORDS = 16

#: Tag_CPU_arch of each core: IHI 0045 table of architectures.
_ARCHITECTURES: Mapping[str, tuple[int, str]] = {
    "cortex-m0": (12, "v6S-M"),
    "cortex-m3": (10, "v7"),
    "cortex-m4f": (13, "v7E-M"),
    "cortex-m7": (13, "v7E-M"),
    "cortex-m33": (17, "v8-M.mainline"),
    "cortex-m55": (21, "v8.1-M.mainline"),
}
#: ARMv6-M linked with nothing that needs the difference may also say v6-M.
_ALSO = {"cortex-m0": 11}
_HARD_FLOAT = 1


def check_image(elf: Path, board: Board) -> None:
    """Refuse a firmware that this board's chip could not start.

    Raises:
        ToolchainError: it is damaged, or names what is wrong with it.
    """
    wrong = faults(elf, board)
    if wrong:
        raise ToolchainError(
            f"no image for {board.name}: {'; '.join(wrong)}",
            where=str(elf),
            hint="build it again from a fresh export; if it stays, please report it",
        )


def faults(elf: Path, board: Board) -> list[str]:
    """Everything that is wrong with a firmware; empty if nothing is.

    Raises:
        ToolchainError: it is missing, damaged, or no firmware.
    """
    firmware = read_firmware(elf)
    return [
        *_segments(firmware, board),
        *_vectors(firmware, board),
        *_stack(firmware, board),
        *_attributes(elf, board),
    ]


def _segments(firmware: Firmware, board: Board) -> Iterator[str]:
    end = board.flash.origin
    for segment in firmware.segments:
        place = f"{segment.size} bytes at {segment.address:#x}"
        if not any(
            _holds(memory, segment.address, segment.size) for memory in (board.flash, board.ram)
        ):
            yield f"{place} are neither in flash nor in RAM"
        if segment.data:
            if not _holds(board.flash, segment.load, len(segment.data)):
                yield f"{place} are loaded to {segment.load:#x}, outside the flash"
            elif segment.load < end:
                yield f"{place} are loaded over another part"
            end = max(end, segment.load + len(segment.data))


def _vectors(firmware: Firmware, board: Board) -> Iterator[str]:
    start = board.flash.origin + board.boot_bytes
    words = _words(firmware, start, board.vector_words)
    if words is None:
        yield f"there is no vector table of {board.vector_words} words at {start:#x}"
        return
    alignment = 1 << (4 * board.vector_words - 1).bit_length()
    if start % alignment:
        yield f"the vector table at {start:#x} is not aligned to {alignment}"
    symbols = firmware.symbols
    isr = _SYSTEM_WORDS + board.uart.irq
    for index, word in enumerate(words):
        if index == 0:
            name, expected = "bnn_stack_top", symbols.get("bnn_stack_top")
        elif index in _RESERVED:
            name, expected = "0", 0
        else:
            name = {1: "bnn_reset", isr: "bnn_port_uart_isr"}.get(index, "bnn_fault_entry")
            # Bit 0 says that the handler is Thumb code, which is all there is.
            address = symbols.get(name)
            expected = None if address is None else address | 1
            if word % 2 == 0:
                yield f"vector {index} is no Thumb address: {word:#x}"
            if not _holds(board.flash, word & ~1, 2):
                yield f"vector {index} leads to {word:#x}, outside the flash"
        if word != expected:
            yield f"vector {index} is {word:#x} and not {name}"


def _stack(firmware: Firmware, board: Board) -> Iterator[str]:
    bottom, top = (firmware.symbols.get(f"bnn_stack_{end}", 0) for end in ("bottom", "top"))
    if bottom != board.ram.origin:
        # Anywhere else, one that overflows runs into variables instead of a fault.
        yield f"the stack begins at {bottom:#x} and not at the bottom of RAM"
    if top % 8 or not _holds(board.ram, bottom, top - bottom):
        yield f"the stack pointer starts at {top:#x}"


def _attributes(elf: Path, board: Board) -> Iterator[str]:
    tags = _build_attributes(elf)
    expected, text = _ARCHITECTURES[board.core]
    found = tags.get("TAG_CPU_ARCH")
    if found not in (expected, _ALSO.get(board.core)):
        yield f"it is code for architecture {found}, and a {board.core} is {expected} ({text})"
    hard = CORES[board.core].hard_float
    if (tags.get("TAG_ABI_VFP_ARGS", 0) == _HARD_FLOAT) != hard:
        yield f"it was {'not ' if hard else ''}compiled for registers of an FPU"


def _build_attributes(elf: Path) -> dict[str, Any]:
    with opened(elf) as file:
        section = file.get_section_by_name(".ARM.attributes")
        if section is None:
            return {}
        return {
            attribute.tag: attribute.value
            for part in section.iter_subsections()
            for scope in part.iter_subsubsections()
            for attribute in scope.iter_attributes()
        }


def _words(firmware: Firmware, address: int, count: int) -> tuple[int, ...] | None:
    for segment in firmware.segments:
        at = address - segment.load
        if at >= 0 and at + 4 * count <= len(segment.data):
            return struct.unpack_from(f"<{count}I", segment.data, at)
    return None


def _holds(memory: Memory, address: int, size: int) -> bool:
    return memory.origin <= address and address + size <= memory.end and size >= 0
