"""A board to talk to: on a serial port, or emulated from the same firmware."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.backend.project import Project
from bnnmcu.errors import DeviceMismatchError, UsageError
from bnnmcu.link.device import Device
from bnnmcu.link.ports import resolve_port
from bnnmcu.link.transport import Transport, open_port
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.count_plugin import CountPlugin
from bnnmcu.toolchain.detect import default_toolchain
from bnnmcu.toolchain.emulator import choose_emulator, open_emulator
from bnnmcu.toolchain.qemu import QemuBoard

__all__ = ["Target", "TargetOptions", "build_for_emulation", "open_target"]


@dataclass(frozen=True)
class TargetOptions:
    """Which board, and how to reach it.

    Attributes:
        port: a serial port, URL, ``auto`` or ``serial:NUMBER``; or None.
        emulate: ``auto``, ``qemu`` or ``unicorn``; or None.
        baud: of the port; the board's own if None.
        toolchain: compiler for an emulated board; chosen if None.
        trace: file for a log of all frames.
        count: have the emulator count instructions, even if that is slow.
        profile: have QEMU count each layer exactly and model its cycles.
    """

    port: str | None = None
    emulate: str | None = None
    baud: int | None = None
    toolchain: str | None = None
    trace: Path | None = None
    count: bool = False
    profile: bool = False


@dataclass(frozen=True)
class Target:
    """An open board.

    Attributes:
        device: its protocol client.
        emulated: whether figures must be labelled as emulated.
        label: for reports, e.g. ``qemu:netduinoplus2 (emulated)``.
        build: the firmware, if it was built here.
        plugin: what counts in QEMU, if asked for and to be had.
        instructions_per_tick: what a tick of the emulated board's timer stands for; None if
            nothing counts there.
    """

    device: Device
    emulated: bool
    label: str
    build: BuildResult | None
    plugin: CountPlugin | None = None
    instructions_per_tick: float | None = None


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
    """Open the board and check that it is the project's and runs its network.

    Args:
        log: is told what is being done, one line at a time.

    Raises:
        UsageError: neither or both of a port and an emulator.
        LinkError: no board there, another one, or it runs another network.
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
            port = resolve_port(options.port, project.board.usb.ids, project.board.title)
            if port != options.port:
                log(f"{options.port} is {port}")
            transport = open_port(port, options.baud or project.board.uart.baud)
        else:
            kind = choose_emulator(options.emulate, project.board)
            build = build_for_emulation(project, options.toolchain, log)
            transport = open_emulator(
                kind,
                build.elf,
                project.board,
                count=options.count,
                profile=log if options.profile else None,
            )
            log(f"emulating on {transport.name}")
        stack.callback(transport.close)
        trace = (
            stack.enter_context(options.trace.open("a", encoding="utf-8"))
            if options.trace
            else None
        )
        device = stack.enter_context(Device(transport, expect_model=project.sha256, trace=trace))
        if device.info.board != project.board.name:
            # Its figures would be credited to the wrong board.
            raise DeviceMismatchError(
                f"the firmware says that it is on {device.info.board!r}; the project is for "
                f"{project.board.name!r}",
                where=transport.name,
                hint="name the project that was flashed, or flash this one",
            )
        fault = device.last_fault()
        if fault is not None:
            log(f"note: before its last reset the firmware crashed: {fault.text}")
        # The firmware announces no clock where there is none: on an emulator.
        emulated = device.info.clock_hz == 0
        label = transport.name
        if options.port is not None:
            label += " (emulated)" if emulated else " (hardware)"
        plugin = transport.plugin if isinstance(transport, QemuBoard) else None
        per_tick = _instructions_per_tick(project, transport) if emulated else None
        yield Target(device, emulated, label, build, plugin, per_tick)


def _instructions_per_tick(project: Project, transport: Transport) -> float | None:
    """What a tick of an emulated timer stands for; unicorn's counts instructions."""
    if not isinstance(transport, QemuBoard):
        return 1.0
    return project.board.emulator.instructions_per_tick
