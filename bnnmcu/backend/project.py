"""The generated PlatformIO project: written as a whole, read back with its checks.

The folder holds C sources, linker script, ``platformio.ini``, the board's
description, the graph, and ``manifest.json`` with the SHA-256 of every file.
The same graph and board give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bnnmcu import __version__
from bnnmcu.backend import checksum
from bnnmcu.backend.arena_picture import arena_svg
from bnnmcu.backend.emit import MODEL_FILES, model_sources, render, template_bytes
from bnnmcu.backend.folder import (
    MANIFEST,
    Product,
    digests,
    edited_files,
    manifest_bytes,
    model_entry,
    read_manifest,
    runtime_files,
)
from bnnmcu.backend.memory import STACK_BYTES, Memory, check_fits, largest_request
from bnnmcu.backend.mlperf import mlperf_header
from bnnmcu.backend.plan import DEFAULT_CHOICE, KernelChoice, Plan, make_plan
from bnnmcu.boards import Board, load_board, ring_bytes
from bnnmcu.errors import DoesNotFitError, ModelFileError, UsageError
from bnnmcu.field import DeviceKey
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256, load_graph, save_graph_bytes

__all__ = [
    "KEY_FILE",
    "MLPERF",
    "SERVERS",
    "Project",
    "check_field",
    "fixed_files",
    "load_project",
    "project_files",
    "write_project",
]

PROJECT = Product(
    "bnnmcu-project", 1, "a bnnmcu project", "bnnmcu export MODEL --board NAME -o DIR"
)
_APP = (
    "bnn_frame.h",
    "bnn_frame.c",
    "bnn_health.h",
    "bnn_health.c",
    "bnn_protocol.h",
    "bnn_server.h",
    "bnn_server_internal.h",
    "bnn_server.c",
    "bnn_server_baud.c",
    "bnn_server_device.c",
    "bnn_server_infer.c",
    "main.c",
)

#: What field mode has more, and the file that another one stands for (docs/FIELD.md).
_FIELD_APP = ("bnn_field.h", "bnn_field.c", "bnn_siphash.h", "bnn_siphash.c", "bnn_server_field.c")
_NOT_FIELD_APP = "bnn_server_infer.c"
#: Where a project in field mode has its key.
KEY_FILE = "src/bnn_field_key.c"

#: What a firmware can speak on its serial line: bnnmcu's protocol, or the MLPerf Tiny runner's.
SERVER, MLPERF = "bnnmcu", "mlperf"
SERVERS = (SERVER, MLPERF)
_MLPERF_APP = (
    "bnn_frame.h",
    "bnn_frame.c",
    "bnn_health.h",
    "bnn_health.c",
    "bnn_protocol.h",
    "bnn_mlperf.h",
    "bnn_mlperf_internal.h",
    "bnn_mlperf.c",
    "bnn_mlperf_input.c",
    "bnn_mlperf_results.c",
    "bnn_mlperf_text.c",
    "main_mlperf.c",
)
#: Code of the MLPerf server beyond the default one's, at most; of RAM it takes less.
_MLPERF_CODE = 3072


@dataclass(frozen=True, eq=False)
class Project:
    """A generated project.

    Attributes:
        folder: where it is.
        board: the board it was made for.
        graph: the network in it.
        manifest: its ``manifest.json``.
        edited: generated files that are missing or no longer as they were
            generated: what is built from them is not this network's firmware.
    """

    folder: Path
    board: Board
    graph: Graph
    manifest: dict[str, Any]
    edited: tuple[str, ...] = ()

    @property
    def training(self) -> dict[str, Any]:
        """How the network was trained, as far as its model file said."""
        training = self.manifest["model"].get("training")
        return training if isinstance(training, dict) else {}

    def predicted(self, toolchain: str) -> dict[str, Any] | None:
        """``compiler``, ``flash`` and ``ram`` as the export predicted them; None if it did not.

        PlatformIO compiles with gcc.  The code of the MLPerf server and of field mode was not
        measured.
        """
        if self.server == MLPERF or self.board.field_mode:
            return None
        memory = self.manifest.get("memory")
        known = memory.get("toolchains") if isinstance(memory, dict) else None
        name = "gcc" if toolchain == "platformio" else toolchain
        found = known.get(name) if isinstance(known, dict) else None
        if not isinstance(found, dict):
            return None
        flash, ram = found.get("flash"), found.get("ram")
        if not isinstance(flash, int) or not isinstance(ram, int):
            return None
        return {"compiler": f"{name} {found.get('compiler')}", "flash": flash, "ram": ram}

    @property
    def server(self) -> str:
        """What the firmware speaks, one of :data:`SERVERS`.

        Raises:
            ModelFileError: the manifest names another.
        """
        name = self.manifest.get("server", SERVER)
        if name not in SERVERS:
            raise ModelFileError(
                f"unknown server {name!r:.40}; this bnnmcu knows {', '.join(SERVERS)}",
                where=str(self.folder / MANIFEST),
                hint="export the model again",
            )
        return str(name)

    @property
    def emulated_flash(self) -> Path:
        """Where an emulated board in field mode keeps what a loss of power must not take."""
        return self.folder / "emulated-flash.bin"

    def check_answers(self) -> None:
        """Say what to do where a board with this firmware could not be understood.

        Raises:
            UsageError: it speaks the MLPerf Tiny runner's protocol.
        """
        if self.server == MLPERF:
            raise UsageError(
                "this project's firmware speaks the protocol of the MLPerf Tiny runner only",
                where=str(self.folder),
                hint="use that runner or examples/mlperf_tiny.py (docs/MLPERF.md), or export "
                "again without --server mlperf",
            )

    def check_evaluation(self, what: str) -> None:
        """Say what to do where a board in field mode could not answer.

        Args:
            what: needs seeds of its own choice, drawn weights or counts of layers; a command.

        Raises:
            UsageError: this project's firmware is in field mode.
        """
        if self.board.field_mode:
            raise UsageError(
                f"{what} chooses seeds and reads weights or counts of layers back, and this "
                "project's firmware is in field mode",
                where=str(self.folder),
                hint="export the network again without --field, and flash that firmware",
            )

    @property
    def choice(self) -> KernelChoice:
        """How its kernels were chosen; an export that did not say so took the plain ones.

        Raises:
            ModelFileError: the manifest's entry is not sound.
        """
        entry = self.manifest.get("kernels")
        if entry is None:
            return DEFAULT_CHOICE
        try:
            return KernelChoice.from_dict(entry["choice"])
        except (KeyError, TypeError, UsageError) as error:
            raise ModelFileError(
                f"unreadable choice of kernels: {error}",
                where=str(self.folder / MANIFEST),
                hint="export the model again",
            ) from error

    @property
    def plan(self) -> Plan:
        """The plan that was emitted."""
        return make_plan(self.graph, self.choice)

    @property
    def sha256(self) -> bytes:
        """Fingerprint of the network, as the board reports it."""
        return graph_sha256(self.graph)


def _in_folder(name: str) -> str:
    name = "main.c" if name == "main_mlperf.c" else name
    return f"{'include' if name.endswith('.h') else 'src'}/{name}"


def fixed_files(board: Board, server: str = SERVER) -> dict[str, bytes]:
    """The files of a project that do not depend on its network: runtime, server, port."""
    app: tuple[str, ...] = _MLPERF_APP if server == MLPERF else _APP
    if board.field_mode:
        app = (*(name for name in _APP if name != _NOT_FIELD_APP), *_FIELD_APP)
    rooms = (("app", app), ("port", (*board.port_headers, *board.port_sources)))
    runtime = {_in_folder(name): text for name, text in runtime_files().items()}
    return runtime | {
        _in_folder(name): template_bytes(f"{room}/{name}")
        for room, names in rooms
        for name in names
    }


def project_files(
    plan: Plan,
    board: Board,
    memory: Memory,
    training: Mapping[str, Any] | None = None,
    server: str = SERVER,
    key: DeviceKey | None = None,
) -> dict[str, bytes]:
    """Every file of a project by its relative path, the manifest included and last."""
    graph = plan.graph
    files: dict[str, bytes] = {}
    for name, text in model_sources(plan).items():
        files[f"{MODEL_FILES[name]}/{name}"] = text
    files |= fixed_files(board, server)
    if key is not None:
        files[KEY_FILE] = render("project/bnn_field_key.c.j2", key=key.secret, version=__version__)
        files[".gitignore"] = template_bytes("project/gitignore")
    if server == MLPERF:
        files["include/bnn_mlperf_model.h"] = mlperf_header(graph)
    common = {
        "server": server,
        "board": board,
        "model": {"name": graph.name, "sha256": graph_sha256(graph).hex()},
        "stack_bytes": STACK_BYTES,
        "version": __version__,
        "rx_bytes": ring_bytes(largest_request(plan)),
        "memory": memory,
    }
    files["include/bnn_board.h"] = render("project/bnn_board.h.j2", **common)
    files["linker.ld"] = render("project/linker.ld.j2", **common)
    if board.platformio.board:
        files["platformio.ini"] = render("project/platformio.ini.j2", **common)
        files["bnn_build.py"] = template_bytes("project/bnn_build.py")
        files["bnn_checksum.py"] = Path(checksum.__file__).read_bytes()
        if server == SERVER and not board.field_mode:
            # Verifying a board in field mode takes its key, which is not there to be passed on.
            files["test/test_custom_runner.py"] = template_bytes("project/test_custom_runner.py")
    files["README.md"] = render("project/README.md.j2", **common)
    files["board.toml"] = board.source.encode()
    files["graph.safetensors"] = save_graph_bytes(graph)
    files["arena.svg"] = arena_svg(plan).encode()
    manifest = {
        "format": PROJECT.format,
        "version": PROJECT.version,
        "bnnmcu": __version__,
        "board": board.name,
        "server": server,
        "model": model_entry(plan, training),
        "kernels": plan.report(),
        "memory": memory.to_dict(),
        "files": digests(files),
    }
    files[MANIFEST] = manifest_bytes(manifest)
    return files


def write_project(
    graph: Graph,
    board: Board,
    folder: Path,
    *,
    boards: Sequence[Board] = (),
    force: bool = False,
    training: Mapping[str, Any] | None = None,
    choice: KernelChoice = DEFAULT_CHOICE,
    server: str = SERVER,
    key: DeviceKey | None = None,
) -> tuple[Plan, Memory]:
    """Write a project, or bring an existing one up to date.

    What is in the folder but was not generated is never touched.

    Args:
        boards: among which to name one that fits when this one does not.
        force: replace generated files even if they were edited.
        training: how the network was trained, for the manifest.
        choice: how kernels are chosen; core, flash and RAM are the board's.
        server: what it speaks, one of :data:`SERVERS`.
        key: the secret of a board in field mode, and of no other.

    Raises:
        DoesNotFitError: the network is too large for the board.
        UsageError: the folder is something else, or generated files were edited; or field mode
            with the MLPerf server, or for a network that draws nothing.
        OSError: the folder cannot be written.
    """
    assert (key is not None) == board.field_mode, "a key, and a board in field mode"
    if board.field_mode:
        check_field(graph, server)
    plan = make_plan(
        graph, replace(choice, core=board.core, flash=board.usable_flash, ram=board.ram.size)
    )
    memory = check_fits(plan, board, boards)
    if server == MLPERF:
        memory = _with_mlperf(memory, graph, board)
    files = project_files(plan, board, memory, training, server, key)
    PROJECT.write(folder, files, force=force, secret=(KEY_FILE,))
    return plan, memory


def check_field(graph: Graph, server: str) -> None:
    """Refuse what cannot be in field mode.

    Raises:
        UsageError: the MLPerf server, or a network that draws nothing.
    """
    if server == MLPERF:
        raise UsageError(
            "the MLPerf Tiny runner sets the seed itself, and field mode takes none",
            where="--field",
            hint="leave out --field, or --server mlperf",
        )
    if not graph.stochastic:
        raise UsageError(
            f"{graph.name} draws no weights: there is no seed that field mode could keep",
            where="--field",
            hint="leave out --field",
        )


def _with_mlperf(memory: Memory, graph: Graph, board: Board) -> Memory:
    """An allowance for the other server; the linker has the last word."""
    others = tuple(replace(other, code=other.code + _MLPERF_CODE) for other in memory.others)
    memory = replace(memory, code=memory.code + _MLPERF_CODE, others=others)
    if not memory.fits:
        raise DoesNotFitError(
            f"{graph.name} with the MLPerf server does not fit {board.name}: flash "
            f"{memory.flash:,} of {memory.board_flash:,} bytes",
            hint="without --server mlperf it does, or choose a larger board",
        )
    return memory


def load_project(folder: Path) -> Project:
    """Read a project back.

    Raises:
        ModelFileError: it is incomplete, or its graph is not the manifest's.
        BoardError: its board description is unsound.
    """
    manifest = read_manifest(folder, PROJECT)
    graph = load_graph(folder / "graph.safetensors")
    if graph_sha256(graph).hex() != manifest["model"]["sha256"]:
        raise ModelFileError(
            "the graph is not the one the manifest names",
            where=str(folder / "graph.safetensors"),
            hint="export the model again",
        )
    board_file = folder / "board.toml"
    if not board_file.is_file():
        raise ModelFileError("board.toml is missing", where=str(folder), hint="export again")
    board = load_board(str(board_file), exported=True)
    return Project(folder, board, graph, manifest, tuple(edited_files(folder, manifest)))
