"""A board to talk to: on a serial port, or emulated from the same firmware."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.backend.project import Project
from bnnmcu.errors import UsageError
from bnnmcu.link.device import Device
from bnnmcu.link.transport import Transport, open_port
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.detect import default_toolchain
from bnnmcu.toolchain.emulator import choose_emulator, open_emulator

__all__ = ["Target", "TargetOptions", "build_for_emulation", "open_target"]


@dataclass(frozen=True)
class TargetOptions:
    """Which board, and how to reach it.

    Attributes:
        port: a serial port or URL; or None.
        emulate: ``auto``, ``qemu`` or ``unicorn``; or None.
        baud: of the port; the board's own if None.
        toolchain: compiler for an emulated board; chosen if None.
        trace: file for a log of all frames.
        count: have the emulator count instructions, even if that is slow.
    """

    port: str | None = None
    emulate: str | None = None
    baud: int | None = None
    toolchain: str | None = None
    trace: Path | None = None
    count: bool = False


@dataclass(frozen=True)
class Target:
    """An open board.

    Attributes:
        device: its protocol client.
        emulated: whether figures must be labelled as emulated.
        label: for reports, e.g. ``qemu:netduinoplus2 (emulated)``.
        build: the firmware, if it was built here.
    """

    device: Device
    emulated: bool
    label: str
    build: BuildResult | None


def build_for_emulation(
    project: Project, toolchain: str | None, log: Callable[[str], None]
) -> BuildResult:
    """Compile a project with the chosen toolchain, or the best one there is."""
    chosen = toolchain or default_toolchain()
    log(f"compiling with {chosen}")
    return build_firmware(project.folder, chosen, announce=log)


@contextmanager
def open_target(
    project: Project, options: TargetOptions, log: Callable[[str], None]
) -> Iterator[Target]:
    """Open the board and check that it runs this project's network.

    Args:
        log: is told what is being done, one line at a time.

    Raises:
        UsageError: neither or both of a port and an emulator.
        LinkError: no board there, or it runs another network.
    """
    if (options.port is None) == (options.emulate is None):
        raise UsageError(
            "name a board: either --port or --emulate",
            hint="--emulate runs the same firmware without a board",
        )
    with ExitStack() as stack:
        build = None
        transport: Transport
        if options.port is not None:
            transport = open_port(options.port, options.baud or project.board.uart.baud)
        else:
            kind = choose_emulator(options.emulate, project.board)
            build = build_for_emulation(project, options.toolchain, log)
            transport = open_emulator(kind, build.elf, project.board, count=options.count)
            log(f"emulating on {transport.name}")
        stack.callback(transport.close)
        trace = (
            stack.enter_context(options.trace.open("a", encoding="utf-8"))
            if options.trace
            else None
        )
        device = stack.enter_context(Device(transport, expect_model=project.sha256, trace=trace))
        # The firmware announces no clock where there is none: on an emulator.
        emulated = device.info.clock_hz == 0
        label = transport.name
        if options.port is not None:
            label += " (emulated)" if emulated else " (hardware)"
        yield Target(device, emulated, label, build)
