"""``bnnmcu export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.models import compile_model
from bnnmcu.cli.options import (
    json_option,
    kernel_options,
    pixel_options,
    quantization_options,
)
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.backend.choice import KernelChoice
    from bnnmcu.backend.memory import Memory
    from bnnmcu.backend.plan import Plan
    from bnnmcu.boards import Board
    from bnnmcu.graph import Graph

__all__ = ["command"]

_COLUMNS = ("layer", "kernel", "constant", "MACs", "flash, bytes", "RAM, bytes")


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--board", "board_name", help="Name of a board, or a .toml file; for a firmware.")
@click.option(
    "--format",
    "product",
    type=click.Choice(["firmware", "library"]),
    default="firmware",
    show_default=True,
    help="A firmware for a board, or a C library for any firmware.",
)
@click.option(
    "--full-clock",
    is_flag=True,
    help="Set the clock up on a board where nobody has tried that (docs/BOARDS.md).",
)
@click.option(
    "--watchdog",
    is_flag=True,
    help="Reset the board when its firmware hangs; never tried on a chip (docs/BOARDS.md).",
)
@click.option(
    "--server",
    type=click.Choice(["bnnmcu", "mlperf"]),
    default="bnnmcu",
    show_default=True,
    help="What a firmware speaks: bnnmcu's protocol, or the MLPerf Tiny runner's (docs/MLPERF.md).",
)
@click.option("--prefix", help="Makes a library's names bnn_PREFIX_..., for several in a firmware.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder; default: MODEL-BOARD or MODEL-library.",
)
@click.option("--force", is_flag=True, help="Replace generated files even if they were edited.")
@click.option("--data", help="Images for --first-layer calibrated; as for 'evaluate'.")
@kernel_options
@quantization_options
@pixel_options
@json_option
def command(
    model: Path,
    board_name: str | None,
    product: str,
    full_clock: bool,
    watchdog: bool,
    server: str,
    prefix: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    data: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    choice: KernelChoice,
    **quantization: Any,
) -> None:
    """Turn a trained model into a PlatformIO project, or into a C library.

    MODEL is a model file: .pt or .safetensors of 'bnnmcu train' or
    bnnmcu.save, or .onnx of Brevitas.  Prints, for each layer,
    multiply-accumulates, flash and RAM, and refuses what the board cannot hold.

    \b
    Example:
      bnnmcu export examples/models/s64.pt --board nucleo_f446 -o s64
      bnnmcu export examples/models/s64.pt --format library --prefix digits -o digits
    """
    _check_options(board_name, product, prefix, watchdog, server)
    if data is not None and quantization["first_layer"] != "calibrated":
        raise UsageError(
            "only a calibrated first layer looks at images",
            where="--data",
            hint="add --first-layer calibrated, or leave it out",
        )
    reading = {"quantization": quantization, "mean": mean, "std": std, "data": data}
    if product == "library":
        _export_library(model, prefix, output, force, as_json, choice, reading)
    else:
        assert board_name is not None
        board = _board(board_name, full_clock, watchdog)
        _export_firmware(model, board, output, force, as_json, choice, reading, server)


def _check_options(
    board_name: str | None, product: str, prefix: str | None, watchdog: bool, server: str
) -> None:
    if product == "library" and board_name is not None:
        raise UsageError(
            "a library is for no board in particular",
            where="--board",
            hint="leave out --board, or --format library",
        )
    if product == "library" and watchdog:
        raise UsageError(
            "a library leaves the watchdog to the firmware that it is in",
            where="--watchdog",
            hint="leave it out, or --format library",
        )
    if product == "library" and server != "bnnmcu":
        raise UsageError(
            "a library speaks nothing by itself",
            where="--server",
            hint="leave it out, or --format library",
        )
    if product == "firmware" and board_name is None:
        raise UsageError(
            "a firmware is for one board",
            where="--board",
            hint="choose one of 'bnnmcu boards', or add --format library for C without a board",
        )
    if product == "firmware" and prefix is not None:
        raise UsageError(
            "only a library's names take a prefix", where="--prefix", hint="add --format library"
        )


def _read(model: Path, reading: dict[str, Any]) -> tuple[Graph, dict[str, Any] | None]:
    """The integer network, and how it was trained as far as the file says."""
    given = compile_model(model, **reading)
    assert given.lowering is not None
    for item in given.lowering.notes:
        note(f"{item.where}: {item.text}")
    return given.graph, given.training or None


def _board(name: str, full_clock: bool, watchdog: bool) -> Board:
    from bnnmcu.boards import load_board

    board = load_board(name)
    if full_clock:
        board = board.with_full_clock()
    return board.with_watchdog() if watchdog else board


def _export_firmware(
    model: Path,
    board: Board,
    output: Path | None,
    force: bool,
    as_json: bool,
    choice: KernelChoice,
    reading: dict[str, Any],
    server: str,
) -> None:
    from bnnmcu.backend.project import write_project
    from bnnmcu.boards import all_boards

    graph, training = _read(model, reading)
    folder = output or Path(f"{model.stem}-{board.name}")
    plan, memory = write_project(
        graph,
        board,
        folder,
        boards=all_boards(),
        force=force,
        training=training,
        choice=choice,
        server=server,
    )
    # The project is the same on every machine; what is shown is for the compiler here.
    here = memory.by(_compiler_here())
    memory = here if here.fits else memory
    if as_json:
        print_json(_as_dict(plan, memory, board, folder) | {"server": server})
        return
    _print(plan, memory, board)
    if server == "mlperf":
        note("code has an allowance for MLPerf's server; its buffers are smaller than shown")
    note(f"written to {folder}; next: {_next(board, folder, server)}")


def _next(board: Board, folder: Path, server: str) -> str:
    """What to do with a project; not every board has an emulator, or a name in PlatformIO."""
    if server == "mlperf":
        return f"bnnmcu build {folder}, and docs/MLPERF.md"
    if board.emulator.qemu or board.emulator.unicorn:
        return f"bnnmcu verify {folder} --emulate"
    return f"bnnmcu flash {folder}" if board.platformio.board else f"bnnmcu build {folder}"


def _compiler_here() -> str:
    """The compiler that builds a firmware on this machine, as far as sizes go."""
    from bnnmcu.errors import MissingDependencyError
    from bnnmcu.toolchain.detect import default_toolchain

    try:
        found = default_toolchain()
    except MissingDependencyError:
        found = "platformio"
    # PlatformIO brings a gcc.
    return "gcc" if found == "platformio" else found


def _export_library(
    model: Path,
    prefix: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
    choice: KernelChoice,
    reading: dict[str, Any],
) -> None:
    from bnnmcu.backend.library import write_library

    graph, training = _read(model, reading)
    folder = output or Path(f"{model.stem}-library")
    plan = write_library(
        graph, folder, prefix=prefix, force=force, training=training, choice=choice
    )
    if as_json:
        arena = 4 * plan.arena_words
        total = {"macs": plan.macs, "tables": plan.flash_bytes, "arena": arena}
        print_json(_network(plan, folder) | {"prefix": prefix, "total": total})
        return
    print_table(
        f"{graph.name} as a library",
        _COLUMNS,
        _layer_rows(plan, plan.flash_bytes, 4 * plan.arena_words),
        caption=f"{_promise(plan)} "
        "Tables and arena are exact; layers share the arena. Code and a context of a few "
        "dozen bytes come on top: size them with your compiler.",
        text_columns=3,
        last_is_total=True,
    )
    note(f"written to {folder}; next: {folder / 'README.md'}")


def _network(plan: Plan, folder: Path) -> dict[str, Any]:
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


def _as_dict(plan: Plan, memory: Memory, board: Board, folder: Path) -> dict[str, Any]:
    return _network(plan, folder) | {
        "board": board.name,
        "total": {"macs": plan.macs, "flash": memory.flash, "ram": memory.ram},
        "memory": memory.to_dict(),
    }


def _layer_rows(plan: Plan, tables: int, arena: int) -> list[list[str]]:
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


def _promise(plan: Plan) -> str:
    """What an observer of the processor is not told."""
    return {
        "time": "Constant time: no branch and no address depends on an image or a draw.",
        "count": "Constant count: as many instructions for every image and draw; addresses may "
        "differ.",
        "none": "Not constant: the number of instructions depends on the image.",
    }[plan.promise]


def _share(used: int, there: int) -> str:
    return f"{used:,} ({100 * used / there:.0f} %)"


def _print(plan: Plan, memory: Memory, board: Board) -> None:
    rows = _layer_rows(plan, memory.tables, memory.arena)
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
        _COLUMNS,
        rows,
        caption=f"{_promise(plan)} "
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
