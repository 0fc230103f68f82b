"""A board to talk to: on a serial port, or emulated from the same firmware."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bnnmcu.backend.project import Project
from bnnmcu.errors import DeviceMismatchError, ToolchainError, UsageError
from bnnmcu.link.baud import BaudPlan
from bnnmcu.link.device import Device
from bnnmcu.link.field import FieldInferRequest
from bnnmcu.link.flaky import FlakyTransport, Flaws, parse_flaws
from bnnmcu.link.frame import Frame, encode_frame
from bnnmcu.link.ports import list_ports, resolve_port
from bnnmcu.link.protocol import InferRequest, MessageType
from bnnmcu.link.reconnect import port_opener
from bnnmcu.link.timing import Timing
from bnnmcu.link.trace import TraceFile
from bnnmcu.link.transport import Transport, open_port
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.count_plugin import CountPlugin
from bnnmcu.toolchain.detect import default_toolchain
from bnnmcu.toolchain.emulator import choose_emulator, open_emulator
from bnnmcu.toolchain.process import Log
from bnnmcu.toolchain.qemu import QemuBoard

__all__ = ["Target", "TargetOptions", "build_for_emulation", "open_target"]

# On the wire: a start bit, eight of data and a stop bit.
_BITS_A_BYTE = 10
# An emulator that ends so often in one run is broken.
_MOST_RESTARTS = 100
#: Seconds that a request waits at least where the board counts: a retry that was not needed, as
#: of a busy host, would be received during the count.
_COUNTING = 2.0


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
        max_baud: how far the baud of a port may be raised; 921,600 if None, and 0 to leave it.
        reconnect: seconds to wait for a board that has gone; 0 gives up at once.
        flaky: flaws to put on the line, as :func:`bnnmcu.link.flaws.parse_flaws` reads them.
        pace: bits per second to slow the line down to.
    """

    port: str | None = None
    emulate: str | None = None
    baud: int | None = None
    toolchain: str | None = None
    trace: Path | None = None
    count: bool = False
    profile: bool = False
    max_baud: int | None = None
    reconnect: float = 60.0
    flaky: str | None = None
    pace: int | None = None


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
        port: the serial port or URL; None for an emulator in this process.
        usb_serial: serial number of the USB device behind the port, if it has one.
        pace: bits per second that the line carries, as far as that is known.
    """

    device: Device
    emulated: bool
    label: str
    build: BuildResult | None
    plugin: CountPlugin | None = None
    instructions_per_tick: float | None = None
    port: str | None = None
    usb_serial: str | None = None
    pace: int | None = None

    @property
    def baud(self) -> int | None:
        """Bits per second of a serial port; None where there is none."""
        return self.pace if self.port is not None else None

    def line_rate(self, draws: int) -> float | None:
        """Images a second that the line can carry at most; None if that is not known.

        Args:
            draws: asked for of each image.
        """
        if self.pace is None:
            return None
        info = self.device.info
        pixels = bytes(math.prod(info.input_shape))
        left, total = draws, 0
        while left > 0:
            size = min(left, info.max_seeds)
            request = (
                FieldInferRequest(pixels, size).pack()
                if info.field
                else InferRequest(pixels, (0,) * size).pack()
            )
            total += len(encode_frame(Frame(MessageType.INFER, 0, request)))
            left -= size
        return self.pace / _BITS_A_BYTE / total


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
        UsageError: neither or both of a port and an emulator, or a firmware of another protocol.
        LinkError: no board there, another one, or it runs another network.
    """
    # A firmware of another protocol would only be silent.
    project.check_answers()
    if (options.port is None) == (options.emulate is None):
        raise UsageError(
            "name a board: either --port or --emulate",
            hint="--emulate runs the same firmware without a board",
        )
    # Before anything takes long: the text may be wrong.
    flaws = parse_flaws(options.flaky) if options.flaky is not None else None
    with ExitStack() as stack:
        way: _Port | _Emulator = (
            _Port(project, options, log)
            if options.port is not None
            else _Emulator(project, options, log)
        )
        line = _Line(way, flaws, options.pace)
        transport = line.open()
        stack.callback(transport.close)
        trace = (
            stack.enter_context(TraceFile(options.trace.open("ab"), str(options.trace), log))
            if options.trace
            else None
        )
        device = stack.enter_context(
            Device(
                transport,
                timing=Timing(floor=_COUNTING) if options.count or options.profile else None,
                expect_model=project.sha256,
                trace=trace,
                reopen=line.open if way.returns and options.reconnect else None,
                reconnect=options.reconnect,
                baud=way.plan,
            )
        )
        if device.info.board != project.board.name:
            # Its figures would be credited to the wrong board.
            raise DeviceMismatchError(
                f"the firmware says that it is on {device.info.board!r}; the project is for "
                f"{project.board.name!r}",
                where=transport.name,
                hint="name the project that was flashed, or flash this one",
            )
        if device.info.field != project.board.field_mode:
            modes = {True: "field mode", False: "evaluation mode"}
            raise DeviceMismatchError(
                f"the firmware is in {modes[device.info.field]}; the project is for "
                f"{modes[project.board.field_mode]}",
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
        yield Target(
            device,
            emulated,
            label,
            way.build,
            plugin=line.inner.plugin if isinstance(line.inner, QemuBoard) else None,
            instructions_per_tick=_instructions_per_tick(project, line.inner) if emulated else None,
            port=way.port,
            usb_serial=way.usb_serial,
            pace=options.pace or (device.baud if way.plan else way.baud),
        )


class _Port:
    """The way to a board on a port.

    Attributes:
        port: name or URL.
        usb_serial: of the bridge; None if it has none, or is not of this computer.
        baud: that the port is opened with; None where that means nothing.
        plan: which bauds the board may be brought to; None to leave it as it is.
        returns: whether it can be opened again.
        build: no firmware was built for it.
    """

    build = None
    returns = True

    def __init__(self, project: Project, options: TargetOptions, log: Log) -> None:
        assert options.port is not None
        self.port = resolve_port(options.port, project.board.usb.ids, project.board.title)
        if self.port != options.port:
            log(f"{options.port} is {self.port}")
        baud = options.baud or project.board.uart.baud
        # What is behind a socket has a baud too, but nobody tells which.
        self.baud = None if self.port.lower().startswith("socket:") else baud
        self.plan = self._plan(baud, options.max_baud)
        names = (self.port, os.path.realpath(self.port))
        self.usb_serial = next(
            (port.serial_number for port in list_ports() if port.device in names), None
        )
        self._opener = port_opener(self.port, baud, opener=open_port)
        self._log = log
        self._patience = options.reconnect
        self._opened = False
        self._lost = False

    def open(self) -> Transport:
        """Open it; later the same one again, under whatever name it has by then."""
        if self._opened and not self._lost:
            self._lost = True
            self._log(
                f"the connection to {self.port} is lost: "
                f"trying for {self._patience:g} s to have it back"
            )
        transport = self._opener()
        if self._lost:
            self._log(f"connected to {transport.name} again")
        self._opened, self._lost = True, False
        return transport

    def _plan(self, start: int, most: int | None) -> BaudPlan | None:
        if most is None:
            # A server of ports may take long to change a baud, or not say that it cannot.
            most = BaudPlan(start).most if "://" not in self.port else 0
        return BaudPlan(start, most) if most > start else None


class _Emulator:
    """The way to an emulated board, whose firmware is built first; see :class:`_Port`."""

    port = usb_serial = baud = plan = None

    def __init__(self, project: Project, options: TargetOptions, log: Log) -> None:
        self._kind = choose_emulator(options.emulate, project.board)
        self.build = build_for_emulation(project, options.toolchain, log)
        self._board = project.board
        self._storage = project.emulated_flash if project.board.field_mode else None
        self._options = options
        self._log = log
        self._starts = 0
        # What counts must have seen everything that it is asked about.
        self.returns = not (options.count or options.profile)

    def open(self) -> Transport:
        """Start the emulator.

        Raises:
            ToolchainError: it does not start, or has been started too often.
        """
        if self._starts > _MOST_RESTARTS:
            raise ToolchainError(
                f"the emulator has ended {self._starts} times in one run",
                hint="something is wrong with it: try the other one, --emulate unicorn or qemu",
            )
        self._starts += 1
        transport = open_emulator(
            self._kind,
            self.build.elf,
            self._board,
            count=self._options.count,
            profile=self._log if self._options.profile else None,
            storage=self._storage,
        )
        if self._starts == 1:
            self._log(f"emulating on {transport.name}")
        else:
            again = f"{self._starts - 1} of at most {_MOST_RESTARTS} times"
            self._log(f"the connection to {transport.name} was lost: it was started again, {again}")
        return transport


class _Line:
    """What lies between this program and the board, spoiled if that was asked for.

    Attributes:
        inner: the port or the emulator.
    """

    def __init__(self, way: _Port | _Emulator, flaws: Flaws | None, pace: int | None) -> None:
        self.inner: Transport
        self._way = way
        self._flaws = flaws
        self._pace = pace
        self._spoiled: FlakyTransport | None = None

    def open(self) -> Transport:
        """Open it, for the first time or again."""
        self.inner = self._way.open()
        if self._spoiled is not None:
            self._spoiled.renew(self.inner)
        elif self._flaws is not None or self._pace is not None:
            try:
                self._spoiled = FlakyTransport(self.inner, self._flaws or Flaws(), pace=self._pace)
            except BaseException:
                self.inner.close()
                raise
        return self._spoiled or self.inner


def _instructions_per_tick(project: Project, transport: Transport) -> float | None:
    """What a tick of an emulated timer stands for; unicorn's counts instructions."""
    if not isinstance(transport, QemuBoard):
        return 1.0
    return project.board.emulator.instructions_per_tick
