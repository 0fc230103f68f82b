"""A run's results file: opened, filled as answers come, and read.

A crafted chunk is one transaction, and so is an answered image: each is there
whole or not at all, and nothing that was committed is lost to a kill.  One
process writes at a time; any number may read meanwhile, each sees the file as
it was when it was opened.  docs/RUNS.md describes the tables.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import StoreError
from bnnmcu.reference import argmax
from bnnmcu.store.database import (
    Syncing,
    check_identity,
    check_kind,
    connect,
    explained,
    fill_new,
    is_empty,
    read_identity,
)
from bnnmcu.store.identity import check_facts
from bnnmcu.store.judged import Judged, judge
from bnnmcu.store.lock import Holder
from bnnmcu.store.migrate import in_memory, migrate
from bnnmcu.store.pending import Pending, read_pending
from bnnmcu.store.place import check_place
from bnnmcu.store.provenance import now
from bnnmcu.store.rows import (
    NO_TARGET,
    Example,
    Stored,
    check_board,
    check_example,
    pixels_sha256,
    read_cases,
    read_rows,
)
from bnnmcu.store.schema import SCHEMA_VERSION
from bnnmcu.store.sessions import Session, begin_session, read_sessions
from bnnmcu.store.values import UNKNOWN_SEED

__all__ = ["Store", "image_count"]


def image_count(identity: Mapping[str, Any]) -> int | None:
    """Images of the run's data set; None if its identity does not say."""
    data = identity.get("data")
    count = data.get("images") if isinstance(data, Mapping) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


class Store:
    """An open results file; a context manager.  Made by :meth:`open` or :meth:`read`.

    Attributes:
        path: of the file.
        identity: of the run: all that must agree when it goes on.
        resumed: the file was there before.
        version: of the schema that the file had when it was opened.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, identity: dict[str, Any]) -> None:
        self.path = path
        self.identity = identity
        self.resumed = False
        self.version = SCHEMA_VERSION
        self._database = database
        self._syncing = Syncing(database)
        self._holder: Holder | None = None
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
            path: is created if it is not there; a file of an earlier version is migrated,
                and a copy of it kept.
            identity: all that must agree (plain JSON values).
            provenance: kept for this session, never compared; versions, machine
                and the code's revision are added.

        Raises:
            StoreError: the file is no store, of another schema or another run,
                altered, in use, or cannot be written.
            UsageError: a device or a pipe is there.
        """
        plain: dict[str, Any] = json.loads(json.dumps(identity, allow_nan=False))
        check_facts(path, plain)
        check_place(path)
        holder = Holder(path)
        try:
            with explained(path):
                store = cls._opened(path, plain, dict(provenance or {}))
        except BaseException:
            holder.release()
            raise
        store._holder = holder
        return store

    @classmethod
    def _opened(cls, path: Path, identity: dict[str, Any], about: dict[str, Any]) -> Self:
        database = connect(path, writable=True)
        try:
            store = cls(path, database, identity)
            store.resumed = not is_empty(database)
            if store.resumed:
                store.version = check_kind(path, database)
                check_identity(path, identity, read_identity(path, database))
            if store.version != SCHEMA_VERSION:
                about["migrated_from"] = store.version
                about["copy_kept"] = migrate(path, database, store.version).name
            # Only now: a refused file is left as it was, to the last byte.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA foreign_keys = ON")
            if not store.resumed:
                with store._syncing.commit(now=True):
                    fill_new(database, identity)
            with store._syncing.commit(now=True):
                store._session = begin_session(database, path, about)
        except BaseException:
            database.close()
            raise
        return store

    @classmethod
    def read(cls, path: Path) -> Self:
        """Open the results of a run to look at them, also while it is going on.

        Raises:
            StoreError: there is no such file, or it is no store, altered or damaged.
        """
        if not path.is_file():
            raise StoreError("no such results file", where=str(path), hint="check the path")
        with explained(path):
            database = connect(path, writable=False)
        try:
            with explained(path):
                # A transaction that only reads: the file as it is now, until it is closed.
                database.execute("BEGIN")
                version = check_kind(path, database)
                identity = read_identity(path, database)
                if version != SCHEMA_VERSION:
                    with contextlib.closing(database) as old:
                        old.execute("COMMIT")
                        database = in_memory(path, old, version)
        except BaseException:
            database.close()
            raise
        store = cls(path, database, identity)
        store.resumed, store.version = True, version
        return store

    @classmethod
    def migrate(cls, path: Path) -> Path | None:
        """Bring a file to the present version; gives the copy kept, None if it was up to date.

        Raises:
            StoreError: there is no such file, or it is no store, altered, damaged or in use.
        """
        if not path.is_file():
            raise StoreError("no such results file", where=str(path), hint="check the path")
        holder = Holder(path)
        try:
            with explained(path), contextlib.closing(connect(path, writable=True)) as database:
                version = check_kind(path, database)
                if version == SCHEMA_VERSION:
                    return None
                copy = migrate(path, database, version)
                database.execute("PRAGMA journal_mode = DELETE")
                return copy
        finally:
            holder.release()

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
        """Leave one plain file behind, without log and lock; may be called twice."""
        # What was committed is safe without any of this; it only tidies up.
        if self._session:
            with contextlib.suppress(sqlite3.Error):
                with self._syncing.commit(now=True):
                    self._database.execute(
                        "UPDATE session SET ended_at = ? WHERE id = ?", (now(), self._session)
                    )
                # Waits a little for readers; where one stays, the log does, but it is empty.
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._database.execute("PRAGMA journal_mode = DELETE")
            self._session = 0
        self._database.close()
        if self._holder:
            self._holder.release()

    def add_examples(self, examples: Sequence[Example], *, seconds: float | None = None) -> None:
        """Store a chunk of images, whole or not at all.

        Args:
            examples: of one case.
            seconds: that crafting all of them took.

        Raises:
            StoreError: one of them is there already or impossible, or the disk refuses.
        """
        each = None if seconds is None else seconds / max(1, len(examples))
        # Crafting is dear: it is on the disk before the run goes on.
        with explained(self.path), self._syncing.commit(now=True):
            at = now()
            for one in examples:
                check_example(self.path, one)
                pixels = np.ascontiguousarray(one.pixels, dtype=np.uint8).tobytes()
                cursor = self._database.execute(
                    "INSERT INTO example (attack, levels, image, target, true_label, pixels, "
                    "sha256, linf, l2, zero_gradients, crafted_by) "
                    "VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                    (
                        one.attack,
                        one.levels,
                        one.image,
                        NO_TARGET if one.target is None else one.target,
                        one.true_label,
                        pixels,
                        pixels_sha256(pixels),
                        one.linf,
                        one.l2,
                        one.zero_gradients,
                        json.dumps(one.crafted_by or {}, sort_keys=True, allow_nan=False),
                    ),
                )
                self._database.execute(
                    "INSERT INTO crafting VALUES (?,?,?,?)",
                    (cursor.lastrowid, self._session, at, each),
                )

    def add_answer(
        self,
        example: int,
        seeds: npt.NDArray[np.uint64] | None,
        logits: npt.NDArray[np.int64],
        ticks: npt.NDArray[np.uint32] | None,
        polluted: bool,
        *,
        latency_s: float | None = None,
        attempts: int = 1,
        board: str = "",
    ) -> None:
        """Store all draws of one image, whole or not at all.

        Args:
            example: the row of the image.
            seeds: shape (D,); None where only the device knows them.
            logits: shape (D, classes).
            ticks: shape (D,) or None.
            polluted: the ticks are not to be trusted.
            latency_s: from sending the request to having the reply, for all draws.
            attempts: transmissions that the request needed.
            board: who answered.

        Raises:
            StoreError: it was answered already, or the disk refuses.
        """
        check_board(self.path, board)
        at = now()
        answers, times = [], []
        for draw in range(len(logits)):
            seed = UNKNOWN_SEED if seeds is None else f"{int(seeds[draw]):016x}"
            values = logits[draw].astype("<i8").tobytes()
            answers.append((draw, seed, values, int(argmax(logits[draw])), example))
            count = None if ticks is None else int(ticks[draw])
            times.append(
                (example, draw, self._session, board, at, latency_s, attempts, count, int(polluted))
            )
        with explained(self.path), self._syncing.commit():
            self._database.executemany(
                "INSERT INTO query SELECT id, ?, sha256, ?, ?, ? FROM example WHERE id = ?",
                answers,
            )
            self._database.executemany("INSERT INTO timing VALUES (?,?,?,?,?,?,?,?,?)", times)

    def take_back(self, board: str) -> int:
        """Remove all answers of a board of this session; gives how many images lost theirs.

        For a board that was caught with a wrong answer: what it said before is worth nothing.

        Raises:
            StoreError: the disk refuses.
        """
        with explained(self.path), self._syncing.commit(now=True):
            rows = self._database.execute(
                "SELECT DISTINCT example FROM timing WHERE board = ? AND session = ?",
                (board, self._session),
            ).fetchall()
            self._database.executemany("DELETE FROM timing WHERE example = ?", rows)
            self._database.executemany("DELETE FROM query WHERE example = ?", rows)
        return len(rows)

    def examples(self, attack: str, levels: int) -> set[tuple[int, int | None]]:
        """Image and target of what a case has already."""
        with explained(self.path):
            rows = self._database.execute(
                "SELECT image, target FROM example WHERE attack = ? AND levels = ?",
                (attack, levels),
            ).fetchall()
        return {(int(row[0]), None if row[1] == NO_TARGET else int(row[1])) for row in rows}

    def unanswered(self, attack: str, levels: int, shape: tuple[int, int, int]) -> list[Pending]:
        """A case's images without an answer, by index and target.

        Args:
            attack, levels: the case.
            shape: of an image, (H, W, C).

        Raises:
            StoreError: one of them was altered.
        """
        with explained(self.path):
            return read_pending(self._database, self.path, (attack, levels), shape)

    def cases(self, *, by_name: bool = False) -> list[tuple[str, int]]:
        """Attack and levels of every case: in the order of crafting, or by name and levels."""
        with explained(self.path):
            return read_cases(self._database, by_name=by_name)

    def rows(self, cases: Iterable[tuple[str, int]] | None = None) -> Iterator[Stored]:
        """Examples with their answers, each value checked.

        Args:
            cases: which; None for all, in the order of crafting.  In each, images ascend.

        Raises:
            StoreError: a value that no campaign writes.
        """
        wanted = self.cases() if cases is None else cases
        with explained(self.path):
            count = image_count(self.identity)
            yield from read_rows(self._database, self.path, count, wanted)

    def sessions(self) -> list[Session]:
        """Every time the run was started, in order.

        Raises:
            StoreError: a value that no session writes.
        """
        with explained(self.path):
            return read_sessions(self._database, self.path)

    def judged(self) -> list[Judged]:
        """Every answered example, by case in the order of crafting, then by image.

        Raises:
            StoreError: a value that no campaign writes.
        """
        return [judge(one) for one in self.rows() if one.draws]
