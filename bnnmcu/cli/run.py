"""``bnnmcu run``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from bnnmcu.cli.inputs import open_project
from bnnmcu.cli.options import project_argument
from bnnmcu.cli.output import note, print_json
from bnnmcu.errors import UsageError

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
@click.option(
    "--icount/--no-icount",
    default=True,
    show_default=True,
    help="Let QEMU's timer count instructions; without, it is faster and counts mean nothing.",
)
@click.option(
    "--tcp", metavar="[HOST:]PORT", help="A TCP port instead; of this machine only without HOST."
)
@click.option("--flaky", metavar="FLAWS", help="Spoil the line on purpose, see above.")
@click.option("--pace", type=int, metavar="BAUD", help="Let bytes take as long as on a real line.")
@click.option("--json", "as_json", is_flag=True, help="Print the port as JSON.")
def command(
    project: Path,
    emulate: str,
    toolchain: str | None,
    icount: bool,
    tcp: str | None,
    flaky: str | None,
    pace: int | None,
    as_json: bool,
) -> None:
    """Serve a project on an emulated board behind a serial port, until Ctrl-C.

    The port is a real terminal device: other programs open it as they would
    open a board's. With --tcp it is a TCP port for one client at a time, and
    whoever reaches it can use the board.

    FLAWS are KIND=PROBABILITY with commas between, for each direction. A byte
    can be hit by corrupt; a chunk of 64 bytes by drop, duplicate, reorder
    (:CHUNKS that overtake it, 2), split (:SECONDS between its pieces, 0.02),
    stall (:SECONDS of silence, 0.5), cut (the connection goes; with --tcp)
    and reset (of the board). seed=NUMBER chooses what is hit.

    \b
    Example:
      bnnmcu run s64 --emulate qemu
      bnnmcu verify s64 --port /dev/pts/3      (in another terminal)
      bnnmcu run s64 --tcp 5000 --pace 115200
      bnnmcu run s64 --flaky corrupt=1/20000,drop=0.002,stall=0.001:0.5,seed=7
    """
    from bnnmcu.backend.project import MLPERF
    from bnnmcu.link.flaky import FlakyTransport, Flaws, parse_flaws
    from bnnmcu.link.transport import Transport
    from bnnmcu.target import build_for_emulation
    from bnnmcu.toolchain.emulator import choose_emulator, open_emulator
    from bnnmcu.toolchain.pty_bridge import PtyBridge
    from bnnmcu.toolchain.tcp_bridge import TcpBridge, parse_address

    # Before anything takes long.
    flaws = parse_flaws(flaky) if flaky is not None else Flaws()
    address = parse_address(tcp) if tcp is not None else None
    if flaws.cut and address is None:
        raise UsageError(
            "a terminal cannot be cut and come back under its name",
            where="--flaky",
            hint="add --tcp 0, or leave cut out",
        )
    loaded = open_project(project)
    kind = choose_emulator(emulate, loaded.board)
    build = build_for_emulation(loaded, toolchain, note)
    transport: Transport = open_emulator(
        kind, build.elf, loaded.board, icount=icount, storage=loaded.emulated_flash
    )
    line = None
    if flaky is not None or pace is not None:
        try:
            transport = line = FlakyTransport(transport, flaws, pace=pace)
        except BaseException:
            transport.close()
            raise
    with TcpBridge(transport, *address) if address else PtyBridge(transport) as bridge:
        if as_json:
            print_json({"port": bridge.port, "emulator": transport.name, "elf": str(build.elf)})
        else:
            print(bridge.port)
        sys.stdout.flush()  # a script that waits for it reads a pipe
        if isinstance(bridge, TcpBridge) and bridge.public:
            note(
                "WARNING: other machines can reach this port; there is no password and no\n"
                "  encryption. Leave HOST out to keep it to this machine"
            )
        ask = f"bnnmcu verify {project} --port {bridge.port}"
        if loaded.board.field_mode:
            ask += " --device-key FILE"
        if loaded.server == MLPERF:
            ask = f"the MLPerf Tiny runner, or examples/mlperf_tiny.py {project} {bridge.port}"
        note(
            f"{loaded.graph.name} answers on {bridge.port}, {transport.name}; Ctrl-C ends it\n"
            f"  next: {ask}"
        )
        try:
            bridge.serve()
        finally:
            if line is not None:
                note(f"the line: {line.counts}")
