"""Options that several commands share."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from bnnmcu import __version__
from bnnmcu.cli.output import INTERRUPTED, Mode, emit, show_as
from bnnmcu.errors import UsageError

__all__ = [
    "board_options_typed",
    "complete_board",
    "json_option",
    "kernel_options",
    "line_options",
    "pixel_options",
    "progress_options",
    "project_argument",
    "quantization_options",
    "seed_option",
    "target_options",
]

_F = TypeVar("_F", bound=Callable[..., Any])

# Those of target_options and line_options: they mean nothing where no board is asked.
_OF_A_BOARD = frozenset(
    ("port", "emulate", "baud", "toolchain", "trace", "max_baud", "reconnect", "flaky", "pace")
)


def complete_board(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of boards that begin so, for shells."""
    from bnnmcu.boards import all_boards

    return [
        CompletionItem(name, help=board.title)
        for board in all_boards()
        for name in (board.name, *board.aliases)
        if name.startswith(incomplete)
    ]


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=1,
    show_default=True,
    help="Decides everything that is random.",
)


def kernel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How kernels are chosen: the command gets a ``KernelChoice`` as ``choice``."""

    @wraps(command)
    def with_choice(
        *args: Any,
        optimize: Literal["speed", "balanced", "size"],
        constant_count: bool,
        constant_time: bool,
        **others: Any,
    ) -> Any:
        from bnnmcu.backend.choice import KernelChoice

        if constant_count and constant_time:
            raise UsageError(
                "only one of --constant-count and --constant-time",
                where="--constant-time",
                hint="--constant-time promises an equal count of instructions too",
            )
        choice = KernelChoice(optimize, "time" if constant_time else "count")
        return command(*args, choice=choice, **others)

    for option in (
        click.option(
            "--constant-time",
            is_flag=True,
            help="Take kernels in which no branch and no address depends on an image or a draw.",
        ),
        click.option(
            "--constant-count",
            is_flag=True,
            help="Take kernels with as many instructions for every image and draw: the default.",
        ),
        click.option(
            "--optimize",
            type=click.Choice(["speed", "balanced", "size"]),
            default="balanced",
            show_default=True,
            help="What kernels are chosen for; never changes a result.",
        ),
    ):
        with_choice = option(with_choice)
    return with_choice


def progress_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is shown while the command works, on standard error."""

    @wraps(command)
    def with_progress(*args: Any, progress: Mode, quiet: bool, **others: Any) -> Any:
        if quiet and progress != "auto":
            raise UsageError(
                f"--quiet shows no progress, --progress {progress} does",
                where="--quiet",
                hint="leave one of them out",
            )
        show_as("quiet" if quiet else progress)
        name = click.get_current_context().info_name
        emit("start", command=name, version=__version__, arguments=sys.argv[1:])
        try:
            result = command(*args, **others)
        except KeyboardInterrupt:
            emit("end", exit_code=INTERRUPTED)
            if progress == "json":
                raise click.exceptions.Exit(INTERRUPTED) from None
            raise
        emit("end", exit_code=0)
        return result

    for option in (
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            help="Show nothing but the result, warnings and errors.",
        ),
        click.option(
            "--progress",
            type=click.Choice(["auto", "bar", "plain", "json"]),
            default="auto",
            show_default=True,
            help="How progress is shown on standard error: bars, a line of text every few "
            "seconds, or JSON lines for scripts; auto is bars on a terminal and else text.",
        ),
    ):
        with_progress = option(with_progress)
    return with_progress


project_argument = click.argument(
    "project", metavar="DIR", type=click.Path(path_type=Path, file_okay=True)
)


def quantization_options(command: _F) -> _F:
    """How floats become integers."""
    for option in (
        click.option(
            "--generator",
            type=click.Choice(["xorshift128", "lfsr113", "taus88"]),
            default="xorshift128",
            show_default=True,
            help="Random generator of stochastic layers.",
        ),
        click.option(
            "--planes",
            type=click.IntRange(2, 8),
            default=4,
            show_default=True,
            help="Bit-planes of stochastic weights; below 4 the defence itself changes.",
        ),
        click.option(
            "--first-layer-bits",
            type=click.IntRange(8, 14),
            default=14,
            show_default=True,
            help="Width of the first layer's integer weights.",
        ),
        click.option(
            "--first-layer",
            type=click.Choice(["per-channel", "calibrated"]),
            default="per-channel",
            show_default=True,
            help="Scale each filter to its largest weight, or clip it where images say so.",
        ),
        click.option(
            "--hidden-bits",
            type=click.IntRange(8, 14),
            default=12,
            show_default=True,
            help="Width of real weights behind the first layer.",
        ),
        click.option(
            "--keep-dead-channels",
            "dead_channels",
            is_flag=True,
            flag_value=False,
            default=True,
            help="Keep channels whose bits never change.",
        ),
    ):
        command = option(command)
    return command


def _numbers(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """One number, or one for each channel: ``0.5`` or ``0.49,0.48,0.45``."""
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise click.BadParameter(
            f"{value!r} is no number, nor numbers with commas between them",
            ctx=context,
            param=parameter,
        )
    return numbers


def pixel_options(command: _F) -> _F:
    """What a pixel means to a network from an ``.onnx`` file."""
    for name, meaning in (("--std", "Divisor"), ("--mean", "Mean")):
        command = click.option(
            name,
            callback=_numbers,
            metavar="X[,X...]",
            help=f"{meaning} in (p / 255 - mean) / std, for .onnx files; one number, or one "
            "for each channel.",
        )(command)
    return command


def target_options(command: _F) -> _F:
    """A board on a port, or an emulated one."""
    for option in (
        click.option(
            "--trace",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write a log of all frames to this file.",
        ),
        click.option(
            "--toolchain",
            type=click.Choice(["gcc", "zig", "platformio"]),
            help="Compiler for an emulated board; gcc if installed, else zig.",
        ),
        click.option(
            "--emulate",
            type=click.Choice(["auto", "qemu", "unicorn"]),
            is_flag=False,
            flag_value="auto",
            help="Use an emulated board: qemu if installed, else unicorn.",
        ),
        click.option("--baud", type=int, help="Baud rate of --port; the board's by default."),
        click.option(
            "--port",
            metavar="URL",
            help="Serial port, 'auto', serial:NUMBER (the USB serial number), or a socket:// or "
            "rfc2217:// address.",
        ),
    ):
        command = option(command)
    return command


def board_options_typed() -> list[str]:
    """Which options of a board were typed with the command that runs now, e.g. ``--flaky``."""
    context = click.get_current_context()
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in _OF_A_BOARD
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]


def line_options(command: _F) -> _F:
    """How a board is kept in reach, and what its line is made to suffer."""
    for option in (
        click.option(
            "--pace",
            type=click.IntRange(300, 12_000_000),
            metavar="BAUD",
            help="Let bytes take as long as on a line of this rate.",
        ),
        click.option(
            "--flaky",
            metavar="FLAWS",
            help="Spoil the line on purpose, e.g. corrupt=1/20000,drop=0.002,seed=7; "
            "'bnnmcu run --help' lists all.",
        ),
        click.option(
            "--reconnect",
            type=click.FloatRange(min=0),
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help="Wait so long for a board that was unplugged or reset; 0 gives up at once.",
        ),
        click.option(
            "--max-baud",
            type=click.IntRange(min=0),
            metavar="N",
            help="Raise the baud rate of a serial port up to this, as far as its bridge bears; "
            "0 leaves it as it is. Default: 921600.",
        ),
    ):
        command = option(command)
    return command
