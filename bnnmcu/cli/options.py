"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = [
    "json_option",
    "project_argument",
    "quantization_options",
    "seed_option",
    "target_options",
]

_F = TypeVar("_F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=1,
    show_default=True,
    help="Decides everything that is random.",
)

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
    ):
        command = option(command)
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
            "--port", metavar="URL", help="Serial port, or socket:// or rfc2217:// address."
        ),
    ):
        command = option(command)
    return command
