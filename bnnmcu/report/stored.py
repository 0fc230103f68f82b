"""Stored runs as reports need them: figures, and enough of the images to show some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.metrics import Summary, summarize
from bnnmcu.attack.metrics.votes import right_images, stays_right
from bnnmcu.errors import StoreError, UsageError
from bnnmcu.store import Store
from bnnmcu.store.identity import check_facts
from bnnmcu.store.judged import Judged
from bnnmcu.store.sessions import Session
from bnnmcu.store.timing import Timing, timing_of

__all__ = ["Shown", "StoredRun", "printable", "read_run", "read_runs", "run_files", "summary_of"]

_SUFFIX = ".sqlite"
_CLEAN = ("clean", 0)
# Columns of a picture of examples.
_SHOWN = 8

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Shown:
    """One example, to be looked at.

    Attributes:
        image: index in the data set.
        true_label: the data's.
        before, after: labels that most draws gave, of the clean and of the changed image.
        original, changed: uint8, as many as the network takes; flat.
        l2: Euclidean norm of the change, in units of [0, 1].
    """

    image: int
    true_label: int
    before: int
    after: int
    original: Pixels
    changed: Pixels
    l2: float


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A results file, read and checked.

    Attributes:
        path: of the file.
        summary: figures and flags; names in it may be printed.
        sessions: every time that it was started.
        timing: of its requests.
        judged: the answered examples of each case, by name and levels, clean first.
        shown: of each case some that were right when clean and are not any more.
    """

    path: Path
    summary: Summary
    sessions: tuple[Session, ...]
    timing: Timing
    judged: dict[tuple[str, int], tuple[Judged, ...]]
    shown: dict[tuple[str, int], tuple[Shown, ...]]

    @property
    def title(self) -> str:
        """``S64 on unicorn (emulated)``."""
        model, oracle = self.summary.identity["model"], self.summary.identity["oracle"]
        return f"{model['name']} on {oracle['name']} ({oracle['label']})"

    @property
    def right(self) -> set[int]:
        """Images that are right by majority when clean."""
        return right_images(self.judged.get(_CLEAN, ()))


def printable(value: Any) -> Any:
    """A JSON value without what could steer a terminal: the file may be anybody's."""
    if isinstance(value, str):
        return "".join(
            sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in value
        )
    if isinstance(value, dict):
        return {printable(key): printable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [printable(inner) for inner in value]
    return value


def summary_of(store: Store) -> Summary:
    """Figures of a run whose names may be printed.

    Raises:
        StoreError: it says of itself what no campaign does.
    """
    check_facts(store.path, store.identity, whole=True)
    summary = summarize(store)
    drawn = summary.identity["config"]["draws"] if summary.identity["model"]["stochastic"] else 1
    for case in summary.cases:
        # Who knows the seed is judged with that one.
        draws = 1 if case.knows_seed else drawn
        if case.draws != draws:
            raise StoreError(
                f"{case.attack}, {case.levels} levels: {case.draws} draws an image, not {draws} as "
                "the run's identity says",
                where=str(store.path),
                hint="a file that was altered or damaged: move it away and start a new run",
            )
    cases = tuple(
        replace(case, adversary=printable(case.adversary), settings=printable(case.settings))
        for case in summary.cases
    )
    return replace(summary, identity=printable(summary.identity), cases=cases)


def run_files(paths: Sequence[Path]) -> list[Path]:
    """Results files that were named, and those of named folders in the order of their names.

    Raises:
        UsageError: a folder holds none, or nothing was named.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(one for one in path.rglob(f"*{_SUFFIX}") if one.is_file())
        if not inside:
            raise UsageError(
                "no results file (*.sqlite) is in this folder",
                where=str(path),
                hint="'bnnmcu runs list' shows where runs are; 'bnnmcu attack' makes one",
            )
        found += inside
    if not found:
        raise UsageError("no run is named", where="RUN", hint="bnnmcu runs list")
    return list(dict.fromkeys(found))


def read_runs(paths: Sequence[Path]) -> list[StoredRun]:
    """Several files or folders; see :func:`run_files` and :func:`read_run`."""
    return [read_run(path) for path in run_files(paths)]


def read_run(path: Path) -> StoredRun:
    """A run's figures, and some of its images.

    Args:
        path: a results file; it may still grow.

    Raises:
        StoreError: it is no results file, damaged, or holds no answer.
    """
    with Store.read(path) as store:
        summary = summary_of(store)
        if not summary.cases:
            raise StoreError(
                "the run has no answer yet", where=str(path), hint="start its command again"
            )
        judged: dict[tuple[str, int], list[Judged]] = {}
        for one in store.judged():
            judged.setdefault((one.attack, one.levels), []).append(one)
        groups = {case: tuple(group) for case, group in judged.items()}
        return StoredRun(
            path=path,
            summary=summary,
            sessions=tuple(store.sessions()),
            timing=timing_of(store.rows()),
            judged=groups,
            shown=_shown(store, groups),
        )


def _shown(
    store: Store, groups: dict[tuple[str, int], tuple[Judged, ...]]
) -> dict[tuple[str, int], tuple[Shown, ...]]:
    clean = {one.image: one for one in groups.get(_CLEAN, ())}
    right = right_images(clean.values())
    wanted = {
        case: _chosen([one for one in group if one.image in right and not stays_right(one)])
        for case, group in groups.items()
        if case != _CLEAN
    }
    needed = {one.image for chosen in wanted.values() for one in chosen}
    originals = (
        {one.image: one.pixels for one in store.rows([_CLEAN]) if one.image in needed}
        if needed
        else {}
    )
    found: dict[tuple[str, int], tuple[Shown, ...]] = {}
    for case, chosen in wanted.items():
        places = {(one.image, one.target) for one in chosen}
        rows = {(row.image, row.target): row.pixels for row in store.rows([case])} if places else {}
        found[case] = tuple(
            Shown(
                one.image,
                one.true_label,
                _label(clean[one.image]),
                _label(one),
                np.frombuffer(originals[one.image], np.uint8),
                np.frombuffer(rows[one.image, one.target], np.uint8),
                one.l2,
            )
            for one in chosen
            if (one.image, one.target) in rows
        )
    return found


def _chosen(fooled: Sequence[Judged]) -> list[Judged]:
    """One of each class first, then more of them, in the order of the data."""
    by_class: dict[int, list[Judged]] = {}
    for one in sorted(
        fooled, key=lambda one: (one.image, -1 if one.target is None else one.target)
    ):
        by_class.setdefault(one.true_label, []).append(one)
    turns = max(map(len, by_class.values()), default=0)
    ordered = (
        by_class[label][turn]
        for turn in range(turns)
        for label in sorted(by_class)
        if turn < len(by_class[label])
    )
    return [one for one, _ in zip(ordered, range(_SHOWN), strict=False)]


def _label(one: Judged) -> int:
    """That most draws gave, the smallest of several."""
    return min(set(one.labels), key=lambda label: (-one.labels.count(label), label))
