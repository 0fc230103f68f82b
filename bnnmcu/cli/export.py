"""``bnnmcu export``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.export_tables import (
    COLUMNS,
    firmware_as_dict,
    layer_rows,
    network_as_dict,
    print_firmware,
    promise,
)
from bnnmcu.cli.models import compile_model
from bnnmcu.cli.options import (
    complete_board,
    json_option,
    kernel_options,
    pixel_options,
    quantization_options,
)
from bnnmcu.cli.output import last_line, note, print_json, print_table
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.backend.choice import KernelChoice
    from bnnmcu.backend.memory import Memory
    from bnnmcu.backend.plan import Plan
    from bnnmcu.boards import Board
    from bnnmcu.field import DeviceKey
    from bnnmcu.passes import Lowering

__all__ = ["command"]


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--board",
    "board_name",
    shell_complete=complete_board,
    help="Name of a board, or a .toml file; for a firmware.",
)
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
@click.option(
    "--field",
    is_flag=True,
    help="Field mode: the board draws seeds of its own, and tells none (docs/FIELD.md).",
)
@click.option(
    "--device-key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The secret of a board in field mode; made if there is no such file. One for each board.",
)
@click.option("--prefix", help="Makes a library's names bnn_PREFIX_..., for several in a firmware.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder; default: MODEL-BOARD or MODEL-library.",
)
@click.option(
    "--report",
    "page",
    metavar="PAGE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="HTML page about the network: layers, kernels, memory, and which other boards would do.",
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
    field: bool,
    key_file: Path | None,
    prefix: str | None,
    output: Path | None,
    page: Path | None,
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
      bnnmcu export examples/models/s64.pt --board nucleo_f446 --field --device-key board1.key
    """
    _check_field(product, field, key_file)
    _check_options(board_name, product, prefix, watchdog, server)
    if page is not None and product == "library":
        raise UsageError(
            "the page is about a network on a board",
            where="--report",
            hint="leave it out, or --format library; 'bnnmcu inspect' shows the network",
        )
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
        board = _board(board_name, full_clock, watchdog, field)
        plan, memory, lowering, training = _export_firmware(
            model, board, output, force, as_json, choice, reading, server, key_file
        )
        if page is not None:
            _write_page(page, plan, memory, board, lowering, training, choice)


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


def _check_field(product: str, field: bool, key_file: Path | None) -> None:
    if field and product == "library":
        raise UsageError(
            "a library takes its seeds from the firmware that it is in",
            where="--field",
            hint="leave it out, or --format library",
        )
    if field and key_file is None:
        raise UsageError(
            "a board in field mode needs a secret of its own",
            where="--field",
            hint="add --device-key FILE, which is made if it does not exist",
        )
    if key_file is not None and not field:
        raise UsageError(
            "only a board in field mode has a secret", where="--device-key", hint="add --field"
        )


def _key(path: Path) -> DeviceKey:
    """The secret of a board, which may have to be made; says so, and where it will lie."""
    from bnnmcu.field import DeviceKey, readable_by_others

    key, made = DeviceKey.load_or_make(path)
    if made:
        note(f"{path} is the board's new secret: keep it, and give no other board the same")
    elif readable_by_others(path):
        note(f"warning: others can read {path}, and so all seeds of the board: chmod 600 {path}")
    return key


def _read(model: Path, reading: dict[str, Any]) -> tuple[Lowering, dict[str, Any] | None]:
    """The compiled network, and how it was trained as far as the file says."""
    given = compile_model(model, **reading)
    assert given.lowering is not None
    for item in given.lowering.notes:
        note(f"{item.where}: {item.text}")
    return given.lowering, given.training or None


def _write_page(
    page: Path,
    plan: Plan,
    memory: Memory,
    board: Board,
    lowering: Lowering,
    training: dict[str, Any] | None,
    choice: KernelChoice,
) -> None:
    from bnnmcu.backend.fit import fit_boards
    from bnnmcu.boards import all_boards
    from bnnmcu.modelfile import atomic_write
    from bnnmcu.report.html import to_html
    from bnnmcu.report.model_page import model_page

    with last_line(verbose=False) as say:
        fits = fit_boards(plan.graph, all_boards(), choice, progress=say)
    document = model_page(
        plan,
        memory,
        board,
        fits,
        lowering=lowering,
        training=training,
        command=shlex.join(["bnnmcu", *sys.argv[1:]]),
    )
    atomic_write(page, to_html(document).encode())
    note(f"the network's page is {page}")


def _board(name: str, full_clock: bool, watchdog: bool, field: bool) -> Board:
    from bnnmcu.boards import all_boards, load_board

    board = load_board(name)
    if full_clock:
        board = board.with_full_clock()
    if watchdog:
        board = board.with_watchdog()
    return board.with_field_mode(all_boards()) if field else board


def _export_firmware(
    model: Path,
    board: Board,
    output: Path | None,
    force: bool,
    as_json: bool,
    choice: KernelChoice,
    reading: dict[str, Any],
    server: str,
    key_file: Path | None,
) -> tuple[Plan, Memory, Lowering, dict[str, Any] | None]:
    from bnnmcu.backend.project import KEY_FILE, check_field, write_project
    from bnnmcu.boards import all_boards

    lowering, training = _read(model, reading)
    graph = lowering.graph
    folder = output or Path(f"{model.stem}-{board.name}")
    if key_file is not None:
        # Before a key is made for nothing.
        check_field(graph, server)
    key = None if key_file is None else _key(key_file)
    plan, memory = write_project(
        graph,
        board,
        folder,
        boards=all_boards(),
        force=force,
        training=training,
        choice=choice,
        server=server,
        key=key,
    )
    # The project is the same on every machine; what is shown is for the compiler here.
    here = memory.by(_compiler_here())
    memory = here if here.fits else memory
    if as_json:
        print_json(
            firmware_as_dict(plan, memory, board, folder)
            | {"server": server, "field_mode": board.field_mode}
        )
        return plan, memory, lowering, training
    print_firmware(plan, memory, board)
    if board.field_mode:
        note(
            f"field mode: the key is in {folder / KEY_FILE}, in what is built from it and in the "
            "board's flash; whoever reads one of them knows all seeds"
        )
    if server == "mlperf":
        note("code has an allowance for MLPerf's server; its buffers are smaller than shown")
    note(f"written to {folder}; next: {_next(board, folder, server)}")
    return plan, memory, lowering, training


def _next(board: Board, folder: Path, server: str) -> str:
    """What to do with a project; not every board has an emulator, or a name in PlatformIO."""
    if server == "mlperf":
        return f"bnnmcu build {folder}, and docs/MLPERF.md"
    if board.field_mode:
        return f"bnnmcu verify {folder} --emulate unicorn --device-key FILE"
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

    lowering, training = _read(model, reading)
    graph = lowering.graph
    folder = output or Path(f"{model.stem}-library")
    plan = write_library(
        graph, folder, prefix=prefix, force=force, training=training, choice=choice
    )
    if as_json:
        arena = 4 * plan.arena_words
        total = {"macs": plan.macs, "tables": plan.flash_bytes, "arena": arena}
        print_json(network_as_dict(plan, folder) | {"prefix": prefix, "total": total})
        return
    print_table(
        f"{graph.name} as a library",
        COLUMNS,
        layer_rows(plan, plan.flash_bytes, 4 * plan.arena_words),
        caption=f"{promise(plan)} "
        "Tables and arena are exact; layers share the arena. Code and a context of a few "
        "dozen bytes come on top: size them with your compiler.",
        text_columns=3,
        last_is_total=True,
    )
    note(f"written to {folder}; next: {folder / 'README.md'}")
