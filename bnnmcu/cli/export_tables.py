"""What ``bnnmcu export`` shows of a network: tables and JSON, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnmcu.cli.output import note, print_table

if TYPE_CHECKING:
    from bnnmcu.backend.memory import Memory
    from bnnmcu.backend.plan import Plan
    from bnnmcu.boards import Board

__all__ = [
    "COLUMNS",
    "firmware_as_dict",
    "layer_rows",
    "network_as_dict",
    "print_firmware",
    "promise",
]

#: Of the tables of layers.
COLUMNS = ("layer", "kernel", "constant", "MACs", "flash, bytes", "RAM, bytes")


def network_as_dict(plan: Plan, folder: Path) -> dict[str, Any]:
    """The layers and how their kernels were chosen, for ``--json``."""
    from bnnmcu.graphfile import graph_sha256

    return {
        "folder": str(folder),
        "model": plan.graph.name,
        "sha256": graph_sha256(plan.graph).hex(),
        "choice": plan.choice.to_dict(),
        "constant": {"asked": plan.choice.constant, "holds": plan.promise},
        "layers": [
            {
                "name": step.name,
                "kernel": step.kernel,
                "option": step.option,
                "constant": step.promise,
                "macs": step.macs,
                "flash": step.flash_bytes,
                "ram": step.ram_bytes,
                "alternatives": step.report(),
            }
            for step in plan.steps
        ],
    }


def firmware_as_dict(plan: Plan, memory: Memory, board: Board, folder: Path) -> dict[str, Any]:
    """The same, and what it takes of a board."""
    return network_as_dict(plan, folder) | {
        "board": board.name,
        "total": {"macs": plan.macs, "flash": memory.flash, "ram": memory.ram},
        "memory": memory.to_dict(),
    }


def layer_rows(plan: Plan, tables: int, arena: int) -> list[list[str]]:
    """One row a layer, and their sum."""
    rows = [
        [
            step.name,
            step.option,
            step.promise,
            f"{step.macs:,}",
            f"{step.flash_bytes:,}",
            f"{step.ram_bytes:,}",
        ]
        for step in plan.steps
    ]
    return [*rows, ["all layers", "", plan.promise, f"{plan.macs:,}", f"{tables:,}", f"{arena:,}"]]


def promise(plan: Plan) -> str:
    """What an observer of the processor is not told."""
    return {
        "time": "Constant time: no branch and no address depends on an image or a draw.",
        "count": "Constant count: as many instructions for every image and draw; addresses may "
        "differ.",
        "none": "Not constant: the number of instructions depends on the image.",
    }[plan.promise]


def _share(used: int, there: int) -> str:
    return f"{used:,} ({100 * used / there:.0f} %)"


def print_firmware(plan: Plan, memory: Memory, board: Board) -> None:
    """The table of layers, with flash and RAM in all."""
    rows = layer_rows(plan, memory.tables, memory.arena)
    rows.append(
        ["protocol buffers, stack, variables", "", "", "", "", f"{memory.ram - memory.arena:,}"]
    )
    rows.append([f"code by {_compiler(memory)}", "", "", "", f"{memory.code:,}", ""])
    rows.append(
        [
            f"total, share of {board.name}",
            "",
            "",
            "",
            _share(memory.flash, memory.board_flash),
            _share(memory.ram, memory.board_ram),
        ]
    )
    print_table(
        f"{plan.graph.name} on {board.title}",
        COLUMNS,
        rows,
        caption=f"{promise(plan)} "
        f"Tables and arena are exact; layers share the arena. {_code_note(memory, board)}",
        text_columns=3,
        last_is_total=True,
    )
    if memory.unmeasured:
        note(f"no size is known of {', '.join(memory.unmeasured)}: an allowance stands for it")


def _code_note(memory: Memory, board: Board) -> str:
    """Where the figure for code comes from."""
    if memory.stand_in:
        return (
            f"No code was measured for the {board.core}: code and variables are an allowance, "
            f"from what a {memory.stand_in} needs. 'bnnmcu build' tells the true size."
        )
    others = "".join(map(_other, memory.others))
    return f"Code as measured of that compiler{others}. 'bnnmcu build' compares."


def _compiler(memory: Memory) -> str:
    return f"{memory.toolchain} {memory.compiler}"


def _other(memory: Memory) -> str:
    fits = "" if memory.fits else ", which does not fit"
    return f"; with {_compiler(memory)} flash {memory.flash:,} and RAM {memory.ram:,} bytes{fits}"
