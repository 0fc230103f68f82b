"""Results on disk: one SQLite file a run, safe to kill at any moment.

Tables (``user_version`` is the schema's version):

* ``run``: one row, the *identity* of the run as JSON: configuration, model,
  data and oracle, all that must agree when it is resumed.
* ``session``: one row for every time the run was started, with its
  provenance (command line, versions, machine, port).
* ``example``: one row for every image of every case (``clean``, ``fgsm``,
  ``pgd`` ...), with pixels, their SHA-256 and how they were crafted.
* ``query``: one row for every draw of every example: seed, logits (int64,
  little endian), label, ticks, time.

A crafted chunk is one transaction, and so is an answered image: each is there
whole or not at all.  The file is held by one process at a time; SQLite's own
lock vanishes with the process, so a killed run leaves nothing to clean up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.database import (
    SCHEMA_VERSION,
    check_identity,
    check_kind,
    connect,
    explained,
    prepare,
    read_identity,
)
from bnnmcu.errors import StoreError
from bnnmcu.reference import argmax

__all__ = ["SCHEMA_VERSION", "Example", "Judged", "Store", "pixels_sha256"]

_PACKAGES = ("bnnmcu", "numpy", "torch")


@dataclass(frozen=True, eq=False)
class Example:
    """An image as it is shown to the oracle.

    Attributes:
        attack: the case, ``clean`` or an attack's name.
        levels: its budget in pixel levels, 0 when clean.
        image: index in the data set.
        true_label: the data's.
        pixels: uint8, shape (H, W, C).
        linf: largest change in pixel levels.
        l2: Euclidean norm of the change, in units of the pixels' range [0, 1].
        zero_gradients: share of the attack's steps without any gradient.
        crafted_by: all parameters of the attack, and as ``estimator_kept`` which
            estimator's image this is; empty when clean.
    """

    attack: str
    levels: int
    image: int
    true_label: int
    pixels: npt.NDArray[np.uint8]
    linf: int = 0
    l2: float = 0.0
    zero_gradients: float = 0.0
    crafted_by: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Judged:
    """What metrics need of one answered example; see :class:`Example`.

    Attributes:
        labels: the oracle's, one for each draw.
        ticks: likewise, without polluted counts; empty without a device.
    """

    attack: str
    levels: int
    image: int
    true_label: int
    linf: int
    l2: float
    zero_gradients: float
    labels: tuple[int, ...]
    ticks: tuple[int, ...]


def pixels_sha256(pixels: npt.NDArray[np.uint8]) -> str:
    """Fingerprint of an image: shape and bytes."""
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


class Store:
    """An open results file; a context manager.  Made by :meth:`open` or :meth:`read`."""

    def __init__(self, path: Path, database: sqlite3.Connection, identity: dict[str, Any]) -> None:
        self.path = path
        self.identity = identity
        self.resumed = False
        self._database = database
        self._session = 0

    @classmethod
    def open(
        cls,
        path: Path,
        identity: Mapping[str, Any],
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> Self:
        """Start a run, or go on with the one in the file.

        Args:
            path: is created if it is not there.
            identity: all that must agree (plain JSON values).
            provenance: kept for this session, never compared; versions and
                machine are added.

        Raises:
            StoreError: the file is no store, of another schema or another run,
                in use, or cannot be written.
        """
        plain: dict[str, Any] = json.loads(json.dumps(identity))
        with explained(path):
            database = connect(path, writable=True)
        try:
            with explained(path):
                resumed = prepare(path, database, plain)
                store = cls(path, database, plain)
                store.resumed = resumed
                about = {**(provenance or {}), "versions": _versions(), "host": platform.platform()}
                with database:
                    cursor = database.execute(
                        "INSERT INTO session (started_at, provenance) VALUES (?, ?)",
                        (_now(), json.dumps(about, sort_keys=True)),
                    )
                store._session = int(cursor.lastrowid or 0)
        except BaseException:
            database.close()
            raise
        return store

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open the results of a run to look at them.

        Raises:
            StoreError: there is no such file, it is no store, or a run is using it.
        """
        if not path.is_file():
            raise StoreError("no such results file", where=str(path), hint="check the path")
        with explained(path):
            database = connect(path, writable=False)
        try:
            with explained(path):
                check_kind(path, database)
                identity = read_identity(path, database)
        except BaseException:
            database.close()
            raise
        return cls(path, database, identity)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise a StoreError that names the differing fields if this is another run's file."""
        check_identity(self.path, json.loads(json.dumps(identity)), self.identity)

    def close(self) -> None:
        """Leave one plain file behind (without its write-ahead log)."""
        if self._session:
            # What was committed is safe without this; it only tidies up.
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("PRAGMA journal_mode = DELETE")
        self._database.close()

    def add_examples(self, examples: Sequence[Example]) -> None:
        """Store a chunk of images, whole or not at all.

        Raises:
            StoreError: one of them is there already, or the disk refuses.
        """
        rows = [
            (
                one.attack,
                one.levels,
                one.image,
                one.true_label,
                np.ascontiguousarray(one.pixels).tobytes(),
                pixels_sha256(one.pixels),
                one.linf,
                one.l2,
                one.zero_gradients,
                json.dumps(one.crafted_by or {}, sort_keys=True),
                self._session,
            )
            for one in examples
        ]
        with explained(self.path), self._database:
            self._database.executemany(
                "INSERT INTO example (attack, levels, image, true_label, pixels, sha256, linf, "
                "l2, zero_gradients, crafted_by, session) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                rows,
            )

    def add_answer(
        self,
        example: int,
        seeds: npt.NDArray[np.uint64],
        logits: npt.NDArray[np.int64],
        ticks: npt.NDArray[np.uint32] | None,
        polluted: bool,
    ) -> None:
        """Store all draws of one image, whole or not at all.

        Args:
            example: the row of the image.
            seeds: shape (D,).
            logits: shape (D, classes).
            ticks: shape (D,) or None.
            polluted: the ticks are not to be trusted.
        """
        now = _now()
        rows = [
            (
                example,
                draw,
                f"{int(seeds[draw]):016x}",
                logits[draw].astype("<i8").tobytes(),
                int(argmax(logits[draw])),
                None if ticks is None else int(ticks[draw]),
                int(polluted),
                now,
                self._session,
            )
            for draw in range(len(seeds))
        ]
        with explained(self.path), self._database:
            self._database.executemany("INSERT INTO query VALUES (?,?,?,?,?,?,?,?,?)", rows)

    def images(self, attack: str, levels: int) -> set[int]:
        """Indices of the images that a case has already."""
        with explained(self.path):
            rows = self._database.execute(
                "SELECT image FROM example WHERE attack = ? AND levels = ?", (attack, levels)
            ).fetchall()
        return {int(row[0]) for row in rows}

    def unanswered(
        self, attack: str, levels: int, shape: tuple[int, int, int]
    ) -> list[tuple[int, int, npt.NDArray[np.uint8]]]:
        """Row, image index and pixels of a case's images without an answer, by index.

        Raises:
            StoreError: the pixels of one were altered.
        """
        with explained(self.path):
            rows = self._database.execute(
                "SELECT id, image, pixels, sha256 FROM example WHERE attack = ? AND levels = ? "
                "AND NOT EXISTS (SELECT 1 FROM query WHERE query.example = example.id) "
                "ORDER BY image",
                (attack, levels),
            ).fetchall()
        found = []
        for row, image, blob, sha256 in rows:
            pixels = np.frombuffer(blob, dtype=np.uint8)
            if pixels.size != int(np.prod(shape)) or (
                pixels_sha256(pixels.reshape(shape)) != sha256
            ):
                raise StoreError(
                    f"the pixels of image {image} ({attack}, {levels} levels) were altered",
                    where=str(self.path),
                    hint="move the file away and start a new run",
                )
            found.append((int(row), int(image), pixels.reshape(shape)))
        return found

    def judged(self) -> list[Judged]:
        """Every answered example, by case in the order of crafting, then by image."""
        with explained(self.path):
            rows = self._database.execute(
                "SELECT e.attack, e.levels, e.image, e.true_label, e.linf, e.l2, "
                "e.zero_gradients, q.label, q.ticks, q.polluted, e.id "
                "FROM example e JOIN query q ON q.example = e.id "
                "ORDER BY (SELECT min(f.id) FROM example f "
                "WHERE f.attack = e.attack AND f.levels = e.levels), e.image, q.draw"
            ).fetchall()
        found: dict[int, list[Any]] = {}
        for row in rows:
            found.setdefault(row[10], []).append(row)
        return [_judged(group) for group in found.values()]


def _judged(rows: Sequence[Any]) -> Judged:
    """The draws of one example, as :meth:`Store.judged` selects them."""
    attack, levels, image, true_label, linf, l2, zero_gradients = rows[0][:7]
    return Judged(
        attack=attack,
        levels=levels,
        image=image,
        true_label=true_label,
        linf=linf,
        l2=l2,
        zero_gradients=zero_gradients,
        labels=tuple(row[7] for row in rows),
        ticks=tuple(row[8] for row in rows if row[8] is not None and not row[9]),
    )
