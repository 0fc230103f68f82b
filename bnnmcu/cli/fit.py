"""``bnnmcu fit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.models import read_any
from bnnmcu.cli.options import (
    complete_board,
    json_option,
    kernel_options,
    pixel_options,
    quantization_options,
)
from bnnmcu.cli.output import last_line, note, print_json
from bnnmcu.cli.summary import print_tables

if TYPE_CHECKING:
    from bnnmcu.backend.choice import KernelChoice
    from bnnmcu.backend.fit import Fit

__all__ = ["command"]


@click.command("fit")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--board",
    "names",
    multiple=True,
    shell_complete=complete_board,
    help="Name of a board, or a .toml file; may be given again. Default: all boards.",
)
@click.option("--data", help="Images for --first-layer calibrated; as for 'evaluate'.")
@kernel_options
@quantization_options
@pixel_options
@json_option
def command(
    model: Path,
    names: tuple[str, ...],
    data: str | None,
    choice: KernelChoice,
    as_json: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **quantization: Any,
) -> None:
    """Compare all boards for one network: what fits, and what it costs there.

    MODEL is a model file (.pt, .safetensors, .onnx), or a project of 'bnnmcu
    export'. Nothing is compiled: flash and RAM are predicted, instructions are
    estimated and times modelled, as docs/CYCLES.md says. Exit code 6 if the
    network fits none of the boards.

    \b
    Example:
      bnnmcu fit examples/models/s64.pt
      bnnmcu fit examples/models/b64.pt --board nucleo_f446 --board nucleo_f072rb --optimize size
    """
    from bnnmcu.backend.fit import check_any, fit_boards
    from bnnmcu.boards import all_boards, load_board
    from bnnmcu.report.fit_table import fit_table

    given = read_any(model, quantization, mean=mean, std=std, data=data)
    boards = [load_board(name) for name in names] if names else all_boards()
    with last_line(verbose=False) as say:
        found = fit_boards(given.graph, boards, choice, progress=say)
    if as_json:
        print_json([_as_dict(one) for one in found])
    else:
        print_tables([fit_table(given.graph.name, found)])
    check_any(given.graph.name, found)
    if not as_json:
        first = next(one for one in found if one.fits)
        note(f"next: bnnmcu export {model} --board {first.board.name} --report model.html")


def _as_dict(one: Fit) -> dict[str, Any]:
    return {
        "board": one.board.name,
        "core": one.board.core,
        "level": one.board.evidence.level,
        "fits": one.fits,
        "why_not": one.why_not or None,
        "gave_way": list(one.gave_way),
        "memory": one.memory.to_dict(),
        "estimated": {
            "instructions": one.instructions,
            "milliseconds_modelled": round(one.milliseconds, 3),
            "clock_hz": one.board.clock_hz,
            "costs_of": one.costs_of,
        },
    }
