"""A folder of generated files: written as a whole, brought up to date, checked.

Every product of an export is such a folder.  Its ``manifest.json`` names the
product and the SHA-256 of every other file, which is how a later export knows
what it may replace, and how anybody knows what was edited.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bnnmcu.backend.plan import Plan
from bnnmcu.errors import ModelFileError, UsageError
from bnnmcu.graphfile import graph_sha256
from bnnmcu.resources import templates

__all__ = [
    "MANIFEST",
    "Product",
    "digests",
    "edited_files",
    "manifest_bytes",
    "model_entry",
    "read_manifest",
    "runtime_files",
]

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Product:
    """A kind of generated folder.

    Attributes:
        format, version: what its manifest says.
        title: for messages, with its article: ``a bnnmcu project``.
        command: makes one; for hints.
    """

    format: str
    version: int
    title: str
    command: str

    def write(
        self,
        folder: Path,
        files: Mapping[str, bytes],
        *,
        force: bool,
        secret: Collection[str] = (),
    ) -> None:
        """Put a product in a folder, or bring the one that is there up to date.

        All files are complete before the first one is put in its place, and the
        manifest comes last: a folder whose export was interrupted in between does
        not match its manifest, and says so when it is read.  What is in the folder
        but was not generated (builds, results, notes) is never touched.

        Args:
            files: by relative path, the manifest included and last.
            force: replace generated files even if they were edited.
            secret: of the files, those that nobody but their owner may read.

        Raises:
            UsageError: the folder is something else, or generated files were edited.
            ModelFileError: its manifest is unreadable.
            OSError: the folder cannot be written.
        """
        stale = self._stale_files(folder, set(files), force=force)
        existed = folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".bnnmcu-", dir=folder) as name:
                for path, data in files.items():
                    staged = Path(name) / path
                    staged.parent.mkdir(parents=True, exist_ok=True)
                    # Before anything is in it.
                    staged.touch(mode=0o600 if path in secret else 0o666)
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

    def _stale_files(self, folder: Path, names: set[str], *, force: bool) -> list[str]:
        """Files of an older export that the new one lacks; checks that it may be replaced."""
        if not folder.exists():
            return []
        if not folder.is_dir():
            raise UsageError(
                "exists and is no folder", where=str(folder), hint="choose another: -o"
            )
        if not any(folder.iterdir()):
            return []
        if not (folder / MANIFEST).is_file():
            raise UsageError(
                f"the folder is not empty and not {self.title}",
                where=str(folder),
                hint="choose another with -o",
            )
        old = read_manifest(folder, self)
        edited = [name for name in edited_files(folder, old) if (folder / name).exists()]
        if edited and not force:
            raise UsageError(
                f"generated files were edited: {', '.join(edited[:4])}",
                where=str(folder),
                hint="save your changes elsewhere and add --force, or choose another folder",
            )
        return sorted(set(old["files"]) - names)


def runtime_files() -> dict[str, bytes]:
    """The C files of ``firmware_templates/runtime`` by name: every product carries them all."""
    found = templates().joinpath("runtime").iterdir()
    files = {file.name: file for file in found if file.name.endswith((".c", ".h"))}
    return {name: files[name].read_bytes() for name in sorted(files)}


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of every file, as a manifest lists them."""
    return {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}


def model_entry(plan: Plan, training: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a manifest says about the network."""
    graph = plan.graph
    return {
        "name": graph.name,
        "sha256": graph_sha256(graph).hex(),
        "macs": plan.macs,
        "arena_bytes": 4 * plan.arena_words,
        "generator": graph.generator if plan.planes else None,
        "planes": plan.planes,
        "training": dict(training or {}),
    }


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as it is written."""
    return (json.dumps(manifest, indent=2) + "\n").encode()


def _safe_name(name: str) -> bool:
    """Whether a manifest's file name stays inside its folder."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def read_manifest(folder: Path, product: Product) -> dict[str, Any]:
    """The manifest of a folder, checked.

    Raises:
        ModelFileError: there is none, it is another product's, or it is not sound.
    """
    path = folder / MANIFEST
    hint = f"export the model again: {product.command}"
    if not folder.is_dir() or not path.is_file():
        raise ModelFileError(f"not {product.title}: no {MANIFEST}", where=str(folder), hint=hint)
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("too large")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        of_product = manifest["format"] == product.format
        version = manifest["version"]
        sound = (
            isinstance(manifest["files"], dict)
            and all(
                _safe_name(name) and isinstance(digest, str)
                for name, digest in manifest["files"].items()
            )
            and isinstance(manifest["model"], dict)
            and isinstance(manifest["model"]["sha256"], str)
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"unreadable manifest: {error}", where=str(path), hint=hint) from error
    if not of_product:
        raise ModelFileError(
            f"not {product.title}: its manifest is of the format {manifest['format']!r:.40}",
            where=str(path),
            hint=f"name another folder, or {hint}",
        )
    if version != product.version:
        raise ModelFileError(
            f"manifest of version {version!r}; this bnnmcu reads {product.version}",
            where=str(path),
            hint=hint,
        )
    if not sound:
        raise ModelFileError("unreadable manifest", where=str(path), hint=hint)
    result: dict[str, Any] = manifest
    return result


def edited_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Generated files that are missing or no longer as they were generated."""
    changed = []
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            changed.append(name)
    return changed
