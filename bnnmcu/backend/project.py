"""The generated PlatformIO project: written as a whole, read back with its checks.

The folder holds C sources, linker script, ``platformio.ini``, the board's
description, the graph, and ``manifest.json`` with the SHA-256 of every file.
The same graph and board give the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bnnmcu import __version__
from bnnmcu.backend.emit import MODEL_FILES, model_sources, render, template_bytes
from bnnmcu.backend.memory import STACK_BYTES, Memory, check_fits, largest_request
from bnnmcu.backend.plan import Plan, make_plan
from bnnmcu.boards import Board, load_board, ring_bytes
from bnnmcu.errors import ModelFileError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256, load_graph, save_graph_bytes

__all__ = ["Project", "load_project", "project_files", "write_project"]

FORMAT = "bnnmcu-project"
VERSION = 1
_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_RUNTIME = ("bnn.h", "bnn.c", "bnn_kernels.h", "bnn_kernels.c")
_APP = (
    "bnn_frame.h",
    "bnn_frame.c",
    "bnn_protocol.h",
    "bnn_server.h",
    "bnn_server.c",
    "main.c",
)


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

    @property
    def sha256(self) -> bytes:
        """Fingerprint of the network, as the board reports it."""
        return graph_sha256(self.graph)


def _in_folder(name: str) -> str:
    return f"{'include' if name.endswith('.h') else 'src'}/{name}"


def project_files(
    plan: Plan, board: Board, memory: Memory, training: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """Every file of a project by its relative path, the manifest included and last."""
    graph = plan.graph
    files: dict[str, bytes] = {}
    for name, text in model_sources(plan).items():
        files[f"{MODEL_FILES[name]}/{name}"] = text
    for room, names in (("runtime", _RUNTIME), ("app", _APP)):
        for name in names:
            files[_in_folder(name)] = template_bytes(f"{room}/{name}")
    for name in ("bnn_port.h", *board.port_sources):
        files[_in_folder(name)] = template_bytes(f"port/{name}")
    common = {
        "board": board,
        "model": {"name": graph.name, "sha256": graph_sha256(graph).hex()},
        "stack_bytes": STACK_BYTES,
        "version": __version__,
        "rx_bytes": ring_bytes(largest_request(plan)),
        "memory": memory,
    }
    files["include/bnn_board.h"] = render("project/bnn_board.h.j2", **common)
    files["linker.ld"] = render("project/linker.ld.j2", **common)
    files["platformio.ini"] = render("project/platformio.ini.j2", **common)
    files["README.md"] = render("project/README.md.j2", **common)
    files["bnn_build.py"] = template_bytes("project/bnn_build.py")
    files["board.toml"] = board.source.encode()
    files["graph.safetensors"] = save_graph_bytes(graph)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "bnnmcu": __version__,
        "board": board.name,
        "model": {
            "name": graph.name,
            "sha256": graph_sha256(graph).hex(),
            "macs": plan.macs,
            "arena_bytes": 4 * plan.arena_words,
            "generator": graph.generator if plan.planes else None,
            "planes": plan.planes,
            "training": dict(training or {}),
        },
        "memory": memory.to_dict(),
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())},
    }
    files[_MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    return files


def _safe_name(name: str) -> bool:
    """Whether a manifest's file name stays inside the project."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    hint = "export the model again: bnnmcu export MODEL --board NAME -o DIR"
    if not folder.is_dir() or not path.is_file():
        raise ModelFileError("not a bnnmcu project: no manifest.json", where=str(folder), hint=hint)
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("too large")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        sound = (
            manifest["format"] == FORMAT
            and isinstance(manifest["files"], dict)
            and all(
                _safe_name(name) and isinstance(digest, str)
                for name, digest in manifest["files"].items()
            )
            and isinstance(manifest["model"], dict)
            and isinstance(manifest["model"]["sha256"], str)
        )
        version = manifest["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"unreadable manifest: {error}", where=str(path), hint=hint) from error
    if version != VERSION:
        raise ModelFileError(
            f"manifest of version {version!r}; this bnnmcu reads {VERSION}",
            where=str(path),
            hint=hint,
        )
    if not sound:
        raise ModelFileError("unreadable manifest", where=str(path), hint=hint)
    result: dict[str, Any] = manifest
    return result


def _edited(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Generated files that are missing or no longer as they were generated."""
    changed = []
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            changed.append(name)
    return changed


def write_project(
    graph: Graph,
    board: Board,
    folder: Path,
    *,
    boards: Sequence[Board] = (),
    force: bool = False,
    training: Mapping[str, Any] | None = None,
) -> tuple[Plan, Memory]:
    """Write a project, or bring an existing one up to date.

    All files are complete before the first one is put in its place, and the
    manifest comes last: a project that was interrupted in between does not
    match its manifest, and says so when it is loaded.  What is in the folder
    but was not generated (builds, results, notes) is never touched.

    Args:
        boards: among which to name one that fits when this one does not.
        force: replace generated files even if they were edited.
        training: how the network was trained, for the manifest.

    Raises:
        DoesNotFitError: the network is too large for the board.
        UsageError: the folder is something else, or generated files were edited.
        OSError: the folder cannot be written.
    """
    plan = make_plan(graph)
    memory = check_fits(plan, board, boards)
    files = project_files(plan, board, memory, training)
    stale = _stale_files(folder, set(files), force=force)
    existed = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".bnnmcu-", dir=folder) as name:
            for path, data in files.items():
                staged = Path(name) / path
                staged.parent.mkdir(parents=True, exist_ok=True)
                staged.write_bytes(data)
            for path in files:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(name) / path).replace(folder / path)
        for path in stale:
            (folder / path).unlink(missing_ok=True)
    except OSError as error:
        if not existed:
            # Gone if nothing was put in its place yet; a folder with files stays.
            with contextlib.suppress(OSError):
                folder.rmdir()
        # The user knows the folder, not the temporary names in it.
        raise OSError(error.errno, error.strerror, str(folder)) from error
    return plan, memory


def _stale_files(folder: Path, names: set[str], *, force: bool) -> list[str]:
    """Files of an older export that the new one does not have; checks that it may be replaced."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise UsageError("exists and is no folder", where=str(folder), hint="choose another: -o")
    if not any(folder.iterdir()):
        return []
    if not (folder / _MANIFEST).is_file():
        raise UsageError(
            "the folder is not empty and not a bnnmcu project",
            where=str(folder),
            hint="choose another with -o",
        )
    old = _read_manifest(folder)
    edited = [name for name in _edited(folder, old) if (folder / name).exists()]
    if edited and not force:
        raise UsageError(
            f"generated files were edited: {', '.join(edited[:4])}",
            where=str(folder),
            hint="save your changes elsewhere and add --force, or choose another folder",
        )
    return sorted(set(old["files"]) - names)


def load_project(folder: Path) -> Project:
    """Read a project back.

    Raises:
        ModelFileError: it is incomplete, or its graph is not the manifest's.
        BoardError: its board description is unsound.
    """
    manifest = _read_manifest(folder)
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
    board = load_board(str(board_file))
    return Project(folder, board, graph, manifest, tuple(_edited(folder, manifest)))
