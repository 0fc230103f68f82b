"""Finding the records behind a cell: those of one network and protocol, whatever their seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bnnmcu.paper.jobs import canonical
from bnnmcu.paper.recipes import Recipe
from bnnmcu.paper.record import Record
from bnnmcu.paper.tables.spec import Row, Sizes, Source

__all__ = ["Index", "Measurements"]

# Names of the data of the paper, and of a copy of it that says so.
_PAPERS = ("MNIST test", "CIFAR-10")
# How much was measured, and who emulated, do not make it another figure; they are shown.
_SIZES = ("images", "pairs", "emulator", "boards")


@dataclass(frozen=True)
class Measurements:
    """Records of one network and protocol, one for each seed.

    Attributes:
        records: by seed, in order; all of the same size.
        source: what is shown of them.
    """

    records: tuple[Record, ...]
    source: Source

    @property
    def values(self) -> list[float]:
        """The figure of each seed that has one."""
        found = (record.number(self.source.value) for record in self.records)
        return [1 - one if self.source.flip else one for one in found if one is not None]

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the records."""
        return tuple(record.id for record in self.records)

    @property
    def counted(self) -> int | None:
        """Images or pairs of each record."""
        record = self.records[0]
        size = record.number("pairs" if self.source.measure == "cw" else "images")
        return None if size is None else int(size)


class Index:
    """Records, found by what they measured.

    Args:
        records: of one file; where they are of several data sets that a network fits, those of
            the one with most images count, and :attr:`left_out` names the others.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        every = list(records)
        best: dict[str, tuple[int, str]] = {}
        for record in every:
            dataset = str(record.what["model"]["dataset"])
            best[dataset] = max(
                best.get(dataset, (0, "")), (record.data_images, record.data_sha256)
            )
        #: Records of other data.
        self.left_out: list[Record] = []
        #: The others.
        self.records: list[Record] = []
        self._found: dict[str, list[Record]] = defaultdict(list)
        for record in every:
            if best[str(record.what["model"]["dataset"])][1] != record.data_sha256:
                self.left_out.append(record)
                continue
            self.records.append(record)
            self._found[_key(record.what)].append(record)

    def is_papers(self, dataset: str) -> bool:
        """Whether what was measured on ``mnist`` or ``cifar10`` may be held against the paper."""
        names = {one.data_name for one in self.records if one.what["model"]["dataset"] == dataset}
        return all(name.startswith(_PAPERS) for name in names)

    def find(self, source: Source, row: Row, recipe: Recipe) -> Measurements | None:
        """The records of a cell; of the size that most seeds have, and then the largest."""
        what = source.job(row.trainable(recipe, 1), Sizes()).what()
        groups: dict[str, dict[int, Record]] = defaultdict(dict)
        for record in self._found.get(_key(what), []):
            groups[canonical(_size(record.what))].setdefault(record.seed, record)
        if not groups:
            return None
        chosen = max(
            groups.values(),
            key=lambda group: (len(group), _counted(next(iter(group.values())))),
        )
        return Measurements(tuple(chosen[seed] for seed in sorted(chosen)), source)


def _size(what: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in what["settings"].items() if name in _SIZES}


def _counted(record: Record) -> float:
    """Images or pairs; None among the settings stands for all of them."""
    return record.number("pairs") or record.number("images") or 0.0


def _key(what: Mapping[str, Any]) -> str:
    """All that makes it another figure: not the seed, and not the size."""
    return canonical(
        {
            **what,
            "model": {name: one for name, one in what["model"].items() if name != "seed"},
            "training": {name: one for name, one in what["training"].items() if name != "seed"},
            "settings": {name: one for name, one in what["settings"].items() if name not in _SIZES},
        }
    )
