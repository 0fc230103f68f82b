"""``bnnmcu boards``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import project_and_images
from bnnmcu.cli.options import json_option, project_argument, target_options
from bnnmcu.cli.output import note, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from bnnmcu.boards import Board

__all__ = ["command"]


@click.group("boards", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the boards, with what is known about each.

    What the levels mean: docs/BOARDS.md. 'report' makes the evidence for one.

    \b
    Example:
      bnnmcu boards --json
      bnnmcu boards report s64 --port auto
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@command.command("report")
@project_argument
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Images, class by class in turn.",
)
@click.option(
    "--data", help="As for 'evaluate', or 'noise'; default: digits where the network takes them."
)
@click.option("--notes", default="", help="Your words: revision of the board, adapter, ...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; BOARD-report.json by default.",
)
@target_options
@json_option
def report(
    project: Path,
    count: int,
    data: str | None,
    notes: str,
    output: Path | None,
    as_json: bool,
    **target: Any,
) -> None:
    """Verify a board and write a report that you can send.

    It holds the board's greeting, the comparison with the reference, the cost of
    an inference and the versions of the tools; no names of users, folders or
    ports. Exit code 1 if an answer differs.

    \b
    Example:
      bnnmcu boards report s64 --port auto --notes "MB1136 rev C-03"
    """
    from bnnmcu.errors import MismatchFoundError
    from bnnmcu.evidence import collect
    from bnnmcu.modelfile import atomic_write
    from bnnmcu.target import TargetOptions, open_target

    loaded, images = project_and_images(project, data, count)
    loaded.check_evaluation("boards report")
    draws = 5 if loaded.graph.stochastic else 0
    with (
        open_target(loaded, TargetOptions(**target), note) as board,
        progress_bar() as bar,
    ):
        task = bar.add_task("verifying", total=len(images) + draws, info="")
        found = collect(
            loaded,
            board,
            images,
            draws=draws,
            notes=notes,
            progress=lambda n: bar.advance(task, n),
        )
    path = output or Path(f"{loaded.board.name}-report.json")
    atomic_write(path, (json.dumps(found, indent=2) + "\n").encode())
    verified = found["verify"]
    if as_json:
        print_json(found)
    else:
        print(
            f"{loaded.board.title}: {verified['logits']:,} logits of {verified['images']} images "
            f"compared, {verified['differing_logits']:,} different"
        )
        print(f"evidence for: {found['level']}")
    note(
        f"written to {path}: look through it, then attach it to an issue or a pull request "
        "of bnnmcu"
    )
    if not verified["exact"]:
        raise MismatchFoundError(
            "the board's answers differ from the reference",
            where=loaded.board.name,
            hint=f"'bnnmcu diff {project} --port ...' finds the layer; do send the report",
        )


@command.command("evidence")
@click.argument("reports", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@json_option
def evidence(reports: tuple[Path, ...], as_json: bool) -> None:
    """Read reports that were sent, and say what each shows.

    \b
    Example:
      bnnmcu boards evidence nucleo_f446re-report.json
    """
    from dataclasses import asdict

    from bnnmcu.errors import DataError
    from bnnmcu.evidence import read_report

    findings = []
    for path in reports:
        try:
            findings.append(read_report(json.loads(path.read_text(encoding="utf-8")), str(path)))
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise DataError(f"not a JSON file: {error}", where=str(path)) from error
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    print_table(
        "Reports",
        ["board", "level", "board file", "text for [evidence]"],
        [
            [
                finding.board,
                finding.level,
                "as shipped" if finding.shipped else "another",
                finding.text,
            ]
            for finding in findings
        ],
        text_columns=4,
    )


def _list(as_json: bool) -> None:
    from bnnmcu.boards import all_boards

    boards = sorted(all_boards(), key=lambda board: (board.experimental, board.name))
    if as_json:
        print_json([_as_dict(board) for board in boards])
        return
    print_table(
        "Boards",
        ["name", "chip", "core", "flash", "RAM", "clock", "emulators", "level"],
        [
            [
                board.name,
                board.chip,
                board.core,
                f"{board.flash.size // 1024} KB",
                f"{board.ram.size // 1024} KB",
                f"{board.clock_hz / 1e6:g} MHz",
                ", ".join(_emulators(board)),
                board.evidence.level + (", experimental" if board.experimental else ""),
            ]
            for board in boards
        ],
        text_columns=8,
        caption="The clock is what the firmware runs at; 1 KB is 1,024 bytes. docs/BOARDS.md says "
        "what the levels mean. A board of your own: give its .toml file to --board.",
    )


def _as_dict(board: Board) -> dict[str, Any]:
    return {
        "name": board.name,
        "aliases": list(board.aliases),
        "title": board.title,
        "chip": board.chip,
        "core": board.core,
        "flash": board.flash.size,
        "ram": board.ram.size,
        "clock_hz": board.clock_hz,
        "full_clock_hz": board.clock.hz,
        "uart": {
            "instance": board.uart.instance,
            "tx": board.uart.tx,
            "rx": board.uart.rx,
            "baud": board.uart.baud,
            "bridge": board.uart.bridge,
        },
        "usb_ids": list(board.usb.ids),
        "platformio": board.platformio.board,
        "trng": board.trng,
        "emulators": _emulators(board),
        "experimental": board.experimental,
        "level": board.evidence.level,
        "evidence": board.evidence.text,
    }


def _emulators(board: Board) -> list[str]:
    machine = board.emulator.qemu
    return ([f"qemu {machine}"] if machine else []) + (
        ["unicorn"] if board.emulator.unicorn else []
    )
