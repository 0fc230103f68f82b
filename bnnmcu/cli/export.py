"""``bnnmcu export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.options import json_option, quantization_options
from bnnmcu.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from bnnmcu.backend.memory import Memory
    from bnnmcu.backend.plan import Plan
    from bnnmcu.boards import Board

__all__ = ["command"]


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--board", "board_name", required=True, help="Name of a board, or a .toml file.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder; default: MODEL-BOARD."
)
@click.option("--force", is_flag=True, help="Replace generated files even if they were edited.")
@quantization_options
@json_option
def command(
    model: Path,
    board_name: str,
    output: Path | None,
    force: bool,
    as_json: bool,
    **quantization: Any,
) -> None:
    """Turn a trained model into a PlatformIO project.

    MODEL is a .pt or .safetensors file of 'bnnmcu train'.  Prints, for each
    layer, multiply-accumulates, flash and RAM, and refuses what the board
    cannot hold.

    \b
    Example:
      bnnmcu export examples/models/s64.pt --board nucleo_f446 -o s64
    """
    from bnnmcu.backend.project import write_project
    from bnnmcu.boards import all_boards, load_board
    from bnnmcu.frontend.paper import Quantization, to_graph
    from bnnmcu.modelfile import read_model

    board = load_board(board_name)
    source = read_model(model)
    graph = to_graph(source, Quantization(**quantization))
    folder = output or Path(f"{model.stem}-{board.name}")
    training = source.manifest.get("training")
    plan, memory = write_project(
        graph,
        board,
        folder,
        boards=all_boards(),
        force=force,
        training=training if isinstance(training, dict) else None,
    )
    if as_json:
        print_json(_as_dict(plan, memory, board, folder))
        return
    _print(plan, memory, board)
    note(f"written to {folder}; next: bnnmcu verify {folder} --emulate")


def _as_dict(plan: Plan, memory: Memory, board: Board, folder: Path) -> dict[str, Any]:
    from bnnmcu.graphfile import graph_sha256

    return {
        "folder": str(folder),
        "board": board.name,
        "model": plan.graph.name,
        "sha256": graph_sha256(plan.graph).hex(),
        "layers": [
            {
                "name": step.name,
                "kernel": step.kernel,
                "macs": step.macs,
                "flash": step.flash_bytes,
                "ram": step.ram_bytes,
            }
            for step in plan.steps
        ],
        "total": {"macs": plan.macs, "flash": memory.flash, "ram": memory.ram},
        "memory": memory.to_dict(),
    }


def _share(used: int, there: int) -> str:
    return f"{used:,} ({100 * used / there:.0f} %)"


def _print(plan: Plan, memory: Memory, board: Board) -> None:
    rows = [
        [step.name, step.kernel, f"{step.macs:,}", f"{step.flash_bytes:,}", f"{step.ram_bytes:,}"]
        for step in plan.steps
    ]
    rows.append(["all layers", "", f"{plan.macs:,}", f"{memory.tables:,}", f"{memory.arena:,}"])
    rows.append(
        ["protocol buffers, stack, variables", "", "", "", f"{memory.ram - memory.arena:,}"]
    )
    rows.append(["code (allowance)", "", "", f"{memory.code:,}", ""])
    rows.append(
        [
            f"total, share of {board.name}",
            "",
            "",
            _share(memory.flash, memory.board_flash),
            _share(memory.ram, memory.board_ram),
        ]
    )
    print_table(
        f"{plan.graph.name} on {board.title}",
        ["layer", "kernel", "MACs", "flash, bytes", "RAM, bytes"],
        rows,
        caption="Tables and arena are exact; layers share the arena. "
        "The linker reports the rest: bnnmcu build.",
        text_columns=2,
        last_is_total=True,
    )
