"""``bnnmcu doctor``."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from bnnmcu.cli.options import json_option
from bnnmcu.cli.output import print_json, print_table

__all__ = ["command"]


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """Show what is installed, what is missing, and how to get it.

    Exit code 1 if a project cannot be compiled and run with what is there.

    \b
    Example:
      bnnmcu doctor
    """
    from bnnmcu.toolchain.detect import detect

    found = detect()
    can_compile = any(tool.found for tool in found if tool.name in ("arm-none-eabi-gcc", "ziglang"))
    can_emulate = any(tool.found for tool in found if tool.name in ("qemu-system-arm", "unicorn"))
    if as_json:
        print_json(
            {
                "tools": [asdict(tool) | {"found": tool.found} for tool in found],
                "can_compile": can_compile,
                "can_emulate": can_emulate,
            }
        )
    else:
        print_table(
            "Tools",
            ["tool", "for", "version", "how to get it"],
            [
                [
                    tool.name,
                    tool.purpose,
                    tool.version or tool.absent,
                    "" if tool.found else tool.install,
                ]
                for tool in found
            ],
            text_columns=4,
        )
        print(
            f"compile firmware: {'yes' if can_compile else 'NO'}; "
            f"emulate boards: {'yes' if can_emulate else 'NO'}"
        )
    if not (can_compile and can_emulate):
        sys.exit(1)
