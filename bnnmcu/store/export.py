"""Answers as tables for other programs: CSV, or Parquet with pyarrow.

One row for each draw of each answered image, in the order of the run; values as
they are in the file, nothing escaped or rounded (docs/RUNS.md lists the columns).
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bnnmcu.errors import MissingDependencyError
from bnnmcu.store.place import table_path
from bnnmcu.store.rows import NO_TARGET, Draw, Stored
from bnnmcu.store.store import Store

__all__ = ["COLUMNS", "Exported", "export_csv", "export_parquet", "stream_csv"]

#: Name and type of every column but the logits, which follow as ``logit_0`` and so on (int64).
COLUMNS = {
    "attack": "string",
    "levels": "int64",
    "image": "int64",
    "target": "int64",
    "true_label": "int64",
    "draw": "int64",
    "input_sha256": "string",
    "seed": "string",
    "label": "int64",
    "linf": "int64",
    "l2": "float64",
    "zero_gradients": "float64",
    "crafted_by": "string",
    "session": "int64",
    "board": "string",
    "answered_at": "string",
    "latency_s": "float64",
    "attempts": "int64",
    "ticks": "int64",
    "polluted": "bool",
}
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        rows: answers.
        unanswered: images that have none yet, and are not in the table.
    """

    rows: int
    unanswered: int

    def to_dict(self) -> dict[str, int]:
        """Plain values, for ``--json``."""
        return asdict(self)


def export_csv(run: Path, output: Path) -> Exported:
    """Write a run as CSV (RFC 4180, but lines end in a line feed; UTF-8; a header).

    An empty cell is a value that is not known; booleans are 0 and 1.

    Raises:
        UsageError: the output is a results file or no file, or in a folder that does not exist.
        StoreError: the run is no sound results file.
        OSError: the disk refuses.
    """

    def write(store: Store, classes: int, temporary: Path) -> None:
        with temporary.open("wb") as stream:
            _write_csv(store, classes, stream)

    return _export(run, output, write)


def stream_csv(run: Path, stream: BinaryIO) -> Exported:
    """Write a run as CSV to a stream, such as standard output, and leave that open.

    Raises:
        StoreError: the run is no sound results file; nothing was written.
        OSError: the stream takes no more.
    """
    with Store.read(run) as store:
        counted, classes = _count(store)
        _write_csv(store, classes, stream)
    return counted


def _write_csv(store: Store, classes: int, stream: BinaryIO) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *_logit_names(classes)])
        for row in _answers(store):
            writer.writerow([int(value) if isinstance(value, bool) else value for value in row])
    finally:
        # Flushes; the stream is not ours to close.
        text.detach()


def export_parquet(run: Path, output: Path) -> Exported:
    """Write a run as Parquet; the identity is in the file's metadata, under ``bnnmcu.identity``.

    Raises:
        MissingDependencyError: pyarrow is not installed.
        UsageError: the output is a results file or no file, or in a folder that does not exist.
        StoreError: the run is no sound results file.
        OSError: the disk refuses.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            "writing Parquet needs pyarrow",
            hint="pip install 'bnnmcu[parquet]', or export with --csv",
        ) from error

    def write(store: Store, classes: int, temporary: Path) -> None:
        types = COLUMNS | dict.fromkeys(_logit_names(classes), "int64")
        schema = pyarrow.schema(
            [(name, pyarrow.type_for_alias(kind)) for name, kind in types.items()],
            metadata={"bnnmcu.identity": json.dumps(store.identity, sort_keys=True)},
        )
        rows = _answers(store)
        with parquet.ParquetWriter(temporary, schema) as writer:
            while batch := list(itertools.islice(rows, _ROWS_AT_ONCE)):
                columns = dict(zip(types, zip(*batch, strict=True), strict=True))
                writer.write_table(pyarrow.table(columns, schema=schema))

    return _export(run, output, write)


def _logit_names(classes: int) -> list[str]:
    return [f"logit_{i}" for i in range(classes)]


def _export(run: Path, output: Path, write: Callable[[Store, int, Path], None]) -> Exported:
    """Count first, then write: a whole file or none."""
    target = table_path(output)
    with Store.read(run) as store:
        counted, classes = _count(store)
        try:
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        except OSError as error:
            # The user knows the file, not its temporary name.
            raise OSError(error.errno, error.strerror, str(output)) from error
        os.close(handle)
        temporary = Path(name)
        try:
            write(store, classes, temporary)
            # mkstemp makes private files; a table should be as readable as any other.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return counted


def _count(store: Store) -> tuple[Exported, int]:
    """What there is to write, and the number of classes; every value is checked on the way."""
    answered = unanswered = classes = 0
    for one in store.rows():
        answered += len(one.draws)
        unanswered += not one.draws
        classes = len(one.draws[0].logits) if one.draws else classes
    return Exported(answered, unanswered), classes


def _answers(store: Store) -> Iterator[tuple[Any, ...]]:
    """Values of one row after the other, in the order of :data:`COLUMNS`, then the logits."""
    for one in store.rows():
        for number, draw in enumerate(one.draws):
            yield _row(one, number, draw)


def _row(one: Stored, number: int, draw: Draw) -> tuple[Any, ...]:
    return (
        one.attack,
        one.levels,
        one.image,
        NO_TARGET if one.target is None else one.target,
        one.true_label,
        number,
        one.sha256,
        draw.seed,
        draw.label,
        one.linf,
        one.l2,
        one.zero_gradients,
        one.crafted_by,
        draw.session,
        draw.board,
        draw.answered_at,
        draw.latency_s,
        draw.attempts,
        draw.ticks,
        draw.polluted,
        *draw.logits,
    )
