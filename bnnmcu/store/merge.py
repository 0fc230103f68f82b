"""Parts of one campaign, from several machines or backups, to one file."""

from __future__ import annotations

import heapq
import itertools
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bnnmcu.errors import StoreError, UsageError
from bnnmcu.store.database import check_identity, connect, explained, fill_new, transaction
from bnnmcu.store.place import new_results
from bnnmcu.store.rows import NO_TARGET, Draw, Stored
from bnnmcu.store.store import Store

__all__ = ["Merged", "merge"]

_CONTENT = ("true_label", "sha256", "linf", "l2", "zero_gradients", "crafted_by")


@dataclass(frozen=True)
class Merged:
    """What a merged file holds.

    Attributes:
        images: of all cases.
        queries: answers, one a draw.
        twice: answers that several parts had, equal in all of them.
        sessions: of all parts, each once.
    """

    images: int
    queries: int
    twice: int
    sessions: int

    def to_dict(self) -> dict[str, int]:
        """Plain values, for ``--json``."""
        return asdict(self)


def merge(parts: Sequence[Path], output: Path) -> Merged:
    """Put together what parts of one campaign have answered.

    Args:
        parts: at least two results files with the same identity; they are only read.
        output: a new file; it appears when all of it is there, or not at all.

    Raises:
        UsageError: less than two parts, or the output is no file.
        StoreError: a part is of another campaign or contradicts another one, or
            the output, or a log of its name, is there already.
    """
    if len(parts) < 2:
        raise UsageError("one part; at least two are needed", where="merge")
    target = new_results(output)
    partial = target.with_name(f".{target.name}.partial")
    with ExitStack() as stack:
        stores = [stack.enter_context(Store.read(part)) for part in parts]
        for store in stores[1:]:
            check_identity(store.path, stores[0].identity, store.identity)
        partial.unlink(missing_ok=True)
        stack.callback(partial.unlink, missing_ok=True)
        with (
            explained(output),
            closing(connect(partial, writable=True)) as database,
            transaction(database),
        ):
            fill_new(database, stores[0].identity)
            merged = _fill(database, stores)
        if os.path.lexists(target):
            raise StoreError("was made meanwhile", where=str(output), hint="choose another file")
        partial.rename(target)
    return merged


def _fill(database: sqlite3.Connection, stores: Sequence[Store]) -> Merged:
    sessions, count = _sessions(database, stores)
    cases = dict.fromkeys(case for store in stores for case in store.cases())
    images = queries = twice = 0
    for case in cases:
        labelled = [_labelled(store, number, case) for number, store in enumerate(stores)]
        merged = heapq.merge(*labelled, key=lambda found: (*_place(found), found[0]))
        for _, group in itertools.groupby(merged, key=_place):
            found = list(group)
            answered = _agreed(stores, found)
            number, first = found[0]
            images += 1
            _insert_example(database, images, first, sessions[number, first.session])
            if answered is not None:
                number, holder = answered
                rows = [(draw, sessions[number, draw.session]) for draw in holder.draws]
                _insert_answers(database, images, first.sha256, rows)
                queries += len(rows)
                twice += len(rows) * (sum(bool(one.draws) for _, one in found) - 1)
    return Merged(images, queries, twice, count)


def _place(found: tuple[int, Stored]) -> tuple[int, int]:
    """Image and target as they are in the file, so that they have an order."""
    one = found[1]
    return one.image, NO_TARGET if one.target is None else one.target


def _labelled(store: Store, number: int, case: tuple[str, int]) -> Iterator[tuple[int, Stored]]:
    return ((number, one) for one in store.rows([case]))


def _sessions(
    database: sqlite3.Connection, stores: Sequence[Store]
) -> tuple[dict[tuple[int, int], int], int]:
    """Rows of the parts' sessions in the output; one that two backups share is one there."""
    known: dict[str, int] = {}
    rows: dict[tuple[int, int], int] = {}
    for number, store in enumerate(stores):
        seen: Counter[str] = Counter()
        for session in store.sessions():
            about = json.dumps(dict(session.provenance), sort_keys=True)
            alike = f"{session.started_at} {about}"
            # Two of one part are two, even if they look alike.
            seen[alike] += 1
            text = f"{seen[alike]} {alike}"
            if text not in known:
                known[text] = len(known) + 1
                database.execute(
                    "INSERT INTO session VALUES (?, ?, ?, ?)",
                    (known[text], session.started_at, session.ended_at, about),
                )
            rows[number, session.row] = known[text]
    return rows, len(known)


def _agreed(
    stores: Sequence[Store], found: Sequence[tuple[int, Stored]]
) -> tuple[int, Stored] | None:
    """The part whose answers are taken, if any has some; all that there are must be equal."""
    number, first = found[0]
    taken = (number, first) if first.draws else None
    for other_number, other in found[1:]:
        for name in _CONTENT:
            mine, theirs = getattr(first, name), getattr(other, name)
            if mine != theirs:
                raise _conflict(stores, (number, first), other_number, name, mine, theirs)
        if not other.draws:
            continue
        if taken is None:
            taken = (other_number, other)
            continue
        mine, theirs = _answers(taken[1]), _answers(other)
        if mine != theirs:
            raise _conflict(stores, taken, other_number, "answers", mine, theirs)
    return taken


def _answers(one: Stored) -> list[tuple[str, tuple[int, ...]]]:
    return [(draw.seed, draw.logits) for draw in one.draws]


def _conflict(
    stores: Sequence[Store],
    first: tuple[int, Stored],
    second: int,
    what: str,
    mine: Any,
    theirs: Any,
) -> StoreError:
    number, one = first
    place = f"image {one.image}" + ("" if one.target is None else f" to class {one.target}")
    values = "" if what == "answers" else f" ({mine!r:.40} and {theirs!r:.40})"
    return StoreError(
        f"{one.attack}, {one.levels} levels, {place}: {what} differ from those in "
        f"{stores[number].path}{values}",
        where=str(stores[second].path),
        hint="nothing was written; 'bnnmcu runs compare' shows all differences",
    )


def _insert_example(database: sqlite3.Connection, row: int, one: Stored, session: int) -> None:
    database.execute(
        "INSERT INTO example VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            row,
            one.attack,
            one.levels,
            one.image,
            NO_TARGET if one.target is None else one.target,
            one.true_label,
            one.pixels,
            one.sha256,
            one.linf,
            one.l2,
            one.zero_gradients,
            one.crafted_by,
        ),
    )
    database.execute(
        "INSERT INTO crafting VALUES (?,?,?,?)", (row, session, one.crafted_at, one.crafting_s)
    )


def _insert_answers(
    database: sqlite3.Connection, example: int, sha256: str, rows: Sequence[tuple[Draw, int]]
) -> None:
    for i, (draw, session) in enumerate(rows):
        logits = b"".join(value.to_bytes(8, "little", signed=True) for value in draw.logits)
        database.execute(
            "INSERT INTO query VALUES (?,?,?,?,?,?)",
            (example, i, sha256, draw.seed, logits, draw.label),
        )
        database.execute(
            "INSERT INTO timing VALUES (?,?,?,?,?,?,?,?,?)",
            (
                example,
                i,
                session,
                draw.board,
                draw.answered_at,
                draw.latency_s,
                draw.attempts,
                draw.ticks,
                int(draw.polluted),
            ),
        )
