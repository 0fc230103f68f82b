"""What was measured, in one JSON file: a record for each job, with all that made it.

Needs no torch.  The file is read as anybody's: every field is checked, and a
number of a record that does not follow from what it says is refused.  It is
written whole, under another name first, after every job, so that a run which is
killed goes on where it stood; two runs may share it.  The same records give
the same bytes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bnnmcu.errors import StoreError
from bnnmcu.outputs import output_path
from bnnmcu.paper.record import Record
from bnnmcu.store.lock import Holder

__all__ = [
    "FORMAT",
    "VERSION",
    "Results",
    "add_record",
    "merge",
    "read_results",
    "to_text",
    "total_seconds",
    "write_results",
]

FORMAT, VERSION = "bnnmcu-paper-results", 1
# Seconds to wait for another process that writes the same file.
_PATIENCE = 20.0
_MAX_BYTES = 64 * 1024 * 1024
_HINT = (
    "nothing was changed; name another file with --results, or move this one away and put a "
    "sound copy in its place"
)

#: Records by their ids.
Results = Mapping[str, Record]


def read_results(path: Path) -> dict[str, Record]:
    """The records of a file, by id.

    Args:
        path: need not be there: then there are none.

    Raises:
        StoreError: it is no sound file of results.
    """
    try:
        # A device says that it is empty, and may never end.
        if path.exists() and not path.is_file():
            raise StoreError("is no file", where=str(path), hint=_HINT)
        if path.stat().st_size > _MAX_BYTES:
            raise StoreError("larger than any file of results", where=str(path), hint=_HINT)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise StoreError("is no text", where=str(path), hint=_HINT) from error
    except OSError as error:
        raise StoreError(
            f"cannot be read: {error.strerror}", where=str(path), hint=_HINT
        ) from error
    return _parse(text, str(path))


def _parse(text: str, where: str) -> dict[str, Record]:
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"is no JSON: {error}", where=where, hint=_HINT) from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise StoreError(f"is no file of results ({FORMAT})", where=where, hint=_HINT)
    if value.get("version") != VERSION:
        raise StoreError(
            f"has version {value.get('version')!r}, this bnnmcu reads {VERSION}",
            where=where,
            hint="use the bnnmcu that wrote it, or name another file with --results",
        )
    if set(value) != {"format", "version", "records"} or not isinstance(value["records"], list):
        raise StoreError("must have format, version and a list of records", where=where, hint=_HINT)
    found: dict[str, Record] = {}
    for number, entry in enumerate(value["records"]):
        record = Record.from_dict(entry, f"{where}: record {number}", _HINT)
        if record.id in found:
            raise StoreError(f"record {record.id} stands there twice", where=where, hint=_HINT)
        found[record.id] = record
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def to_text(records: Results) -> str:
    """The text of a file: records by id, keys sorted."""
    value = {
        "format": FORMAT,
        "version": VERSION,
        "records": [records[name].to_dict() for name in sorted(records)],
    }
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def write_results(path: Path, records: Results) -> None:
    """Write a file whole, or leave the old one.

    Raises:
        UsageError: the path is no file's.
        OSError: it cannot be written.
    """
    target = output_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(to_text(records))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def add_record(path: Path, record: Record) -> dict[str, Record]:
    """Put a record into a file, beside what others wrote there meanwhile.

    Returns:
        All records of the file.

    Raises:
        StoreError: the file is unsound, or has another record of that id.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        records = merge(read_results(path), {record.id: record})
        # What could not be read again would take all other records with it.
        _parse(to_text({record.id: record}), f"record {record.id}")
        write_results(path, records)
    return records


def merge(first: Results, second: Results) -> dict[str, Record]:
    """The records of both.

    Of two that measured the same network, the first stays: only times and machines differ.

    Raises:
        StoreError: both have a record whose figures or weights are not the same.
    """
    both = dict(first)
    for name, record in second.items():
        other = both.setdefault(name, record)
        if other.facts() != record.facts():
            raise StoreError(
                f"two records {name} ({record.title}) contradict each other: "
                f"{_difference(other, record)}",
                where="results",
                hint="keep one of the files; --results names another one",
            )
    return both


def _difference(one: Record, other: Record) -> str:
    if one.model_sha256 != other.model_sha256:
        return (
            f"they measured different weights, {one.model_sha256[:12]} and "
            f"{other.model_sha256[:12]}"
        )
    keys = sorted(one.values.keys() | other.values.keys())
    names = [key for key in keys if one.values.get(key) != other.values.get(key)]
    return f"{', '.join(names) or 'graph'} differs on the same weights"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time read, change and write; the lock ends with the process.

    Raises:
        StoreError: another one held it for too long, or the folder cannot be written.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            holder = Holder(path)
            break
        except StoreError:
            # Writing takes milliseconds; whoever holds it longer has not ended well.
            if time.monotonic() > end:
                raise
    try:
        yield
    finally:
        holder.release()


def total_seconds(records: Iterable[Record]) -> tuple[float, float]:
    """Core-seconds of training, each network once, and of measuring."""
    training: dict[str, float] = {}
    measuring = 0.0
    for record in records:
        measuring += record.measuring_seconds
        if record.training_seconds is not None:
            training[record.model_sha256] = record.training_seconds
    return sum(training.values()), measuring
