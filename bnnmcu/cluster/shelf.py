"""A worker's boards: opened when first asked, kept open, and closed when it ends.

Runs in worker processes.  Nothing here raises to the scheduler what a board
did: a failure is an answer, so that the client can say why a board is out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tempfile
import threading
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin

from bnnmcu.attack.oracle import DeviceOracle
from bnnmcu.backend.project import Project, load_project
from bnnmcu.cluster.farm import FarmBoard
from bnnmcu.cluster.feeder import Batch, Feeder, Replies
from bnnmcu.errors import BnnmcuError
from bnnmcu.link.stats import LinkStats
from bnnmcu.target import Target, open_target

__all__ = ["SHELF", "Batch", "Failed", "Opened", "PackedProject", "Replies", "Shelf", "pack"]

#: What the plugin is called in its worker.
SHELF = "bnnmcu-shelf"

_MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class PackedProject:
    """A project's folder as one piece of bytes, to travel to a worker.

    Attributes:
        data: a zip file of it.
        sha256: of these bytes, in hex.
    """

    data: bytes
    sha256: str


def pack(project: Project) -> PackedProject:
    """A project's files, without results; the same bytes for the same files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(project.folder.rglob("*")):
            name = path.relative_to(project.folder)
            # What was built is built again where it is needed: tools differ.
            if path.is_file() and name.parts[0] not in ("results", "build", ".pio"):
                archive.writestr(zipfile.ZipInfo(name.as_posix()), path.read_bytes())
    data = buffer.getvalue()
    return PackedProject(data, hashlib.sha256(data).hexdigest())


def _unpack(packed: PackedProject, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(packed.data)) as archive:
        if sum(one.file_size for one in archive.infolist()) > _MOST_BYTES:
            raise ValueError("a project of such a size is none")
        archive.extractall(folder)


@dataclass(frozen=True)
class Opened:
    """A board that answers.

    Attributes:
        label: of the way to it, e.g. ``qemu:netduinoplus2 (emulated)``.
        emulated: whether its figures must be labelled so.
        seeded: whether seeds decide its draws.
    """

    label: str
    emulated: bool
    seeded: bool


@dataclass(frozen=True)
class Failed:
    """A board that does not.

    Attributes:
        reason: in words.
    """

    reason: str


@dataclass
class _Open:
    target: Target
    oracle: DeviceOracle
    stack: ExitStack
    sha256: str


@dataclass
class Shelf(WorkerPlugin):
    """A plugin of a Dask worker that owns boards.

    Attributes:
        boards: those attached to its machine.
    """

    boards: tuple[FarmBoard, ...]
    name: str = SHELF
    _open: dict[str, _Open] = field(default_factory=dict, repr=False)
    _projects: dict[str, Project] = field(default_factory=dict, repr=False)

    def setup(self, worker: Any) -> None:
        """Called by Dask in the worker process."""
        self._lock = threading.Lock()
        self._turns = {one.name: threading.Lock() for one in self.boards}
        self._packed: dict[str, PackedProject] = {}
        self._log: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="bnnmcu-shelf-")
        self._feeders = {one.name: self._feeder(one.name) for one in self.boards}

    def _feeder(self, name: str) -> Feeder:
        def opened(sha256: str) -> DeviceOracle:
            return self._opened(name, self._packed[sha256]).oracle

        return Feeder(name, opened, lambda: self.shut(name))

    def teardown(self, worker: Any) -> None:
        """Close what is open; called by Dask."""
        for feeder in self._feeders.values():
            feeder.close()
        for name in list(self._open):
            self.shut(name)
        self._folder.cleanup()

    def __getstate__(self) -> dict[str, Any]:
        # Travels to the worker before anything is open.
        return {"boards": self.boards, "name": self.name, "_open": {}, "_projects": {}}

    def open(self, name: str, packed: PackedProject) -> Opened | Failed:
        """Open a board with this firmware, or find it open."""
        try:
            one = self._opened(name, packed)
        except (BnnmcuError, OSError, ValueError) as error:
            return Failed(str(error))
        return Opened(one.target.label, one.target.emulated, one.oracle.seeded)

    def ask(self, name: str, packed: PackedProject, batch: Batch) -> Replies:
        """Have a board answer; opens it again after a failure or a restart of the worker."""
        feeder = self._feeders.get(name)
        if feeder is None:
            return Replies((), 0.0, LinkStats(), f"this worker has no board {name!r}")
        self._packed[packed.sha256] = packed
        return feeder.ask(packed.sha256, batch)

    def _opened(self, name: str, packed: PackedProject) -> _Open:
        if name not in self._turns:
            raise ValueError(f"this worker has no board {name!r}")
        with self._turns[name]:
            return self._open_now(name, packed)

    def _open_now(self, name: str, packed: PackedProject) -> _Open:
        there = self._open.get(name)
        if there is not None and there.sha256 == packed.sha256:
            return there
        self.shut(name)
        board = next(one for one in self.boards if one.name == name)
        project = self._project(packed)
        stack = ExitStack()
        try:
            # Two boards must not build one folder at once.
            with self._lock if board.emulate else contextlib.nullcontext():
                target = stack.enter_context(open_target(project, board.options, self._log.append))
            oracle = DeviceOracle(
                target.device, label="emulated" if target.emulated else "hardware"
            )
        except BaseException:
            stack.close()
            raise
        self._open[name] = _Open(target, oracle, stack, packed.sha256)
        return self._open[name]

    def _project(self, packed: PackedProject) -> Project:
        with self._lock:
            if packed.sha256 not in self._projects:
                folder = Path(self._folder.name) / packed.sha256[:16]
                _unpack(packed, folder)
                self._projects[packed.sha256] = load_project(folder)
            return self._projects[packed.sha256]

    def shut(self, name: str) -> None:
        """Close a board if it is open."""
        one = self._open.pop(name, None)
        if one is not None:
            with contextlib.suppress(BnnmcuError, OSError):
                one.stack.close()
