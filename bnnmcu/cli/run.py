"""``bnnmcu run``."""

from __future__ import annotations

from pathlib import Path

import click

from bnnmcu.cli.inputs import open_project
from bnnmcu.cli.options import project_argument
from bnnmcu.cli.output import note, print_json

__all__ = ["command"]


@click.command("run")
@project_argument
@click.option(
    "--emulate",
    type=click.Choice(["auto", "qemu", "unicorn"]),
    is_flag=False,
    flag_value="auto",
    default="auto",
    show_default=True,
    help="Which emulator.",
)
@click.option("--toolchain", type=click.Choice(["gcc", "zig", "platformio"]), help="Compiler.")
@click.option("--json", "as_json", is_flag=True, help="Print the port as JSON.")
def command(project: Path, emulate: str, toolchain: str | None, as_json: bool) -> None:
    """Serve a project on an emulated board behind a serial port, until Ctrl-C.

    The port is a real terminal device: other programs open it as they would
    open a board's.

    \b
    Example:
      bnnmcu run s64 --emulate qemu
      bnnmcu verify s64 --port /dev/pts/3      (in another terminal)
    """
    from bnnmcu.target import build_for_emulation
    from bnnmcu.toolchain.emulator import choose_emulator, open_emulator
    from bnnmcu.toolchain.pty_bridge import PtyBridge

    loaded = open_project(project)
    kind = choose_emulator(emulate, loaded.board)
    build = build_for_emulation(loaded, toolchain, note)
    transport = open_emulator(kind, build.elf, loaded.board)
    with PtyBridge(transport) as bridge:
        if as_json:
            print_json({"port": bridge.port, "emulator": transport.name, "elf": str(build.elf)})
        else:
            print(bridge.port, flush=True)
        note(
            f"{loaded.graph.name} answers on {bridge.port}, {transport.name}; Ctrl-C ends it\n"
            f"  next: bnnmcu verify {project} --port {bridge.port}"
        )
        bridge.serve()
