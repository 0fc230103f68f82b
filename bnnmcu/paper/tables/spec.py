"""What a table of the paper is made of: rows, columns, and the job behind each cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from bnnmcu.paper.jobs import JSON, Job
from bnnmcu.paper.measure import job
from bnnmcu.paper.published import Published, published
from bnnmcu.paper.recipes import Recipe, Regimen, Trainable

__all__ = ["Column", "Family", "Part", "Row", "Sizes", "Source", "TableSpec"]

#: What a table needs: the figures of its cells, the adaptive attack beside them, FGSM at other
#: temperatures (table 1), and a sample on an emulated board.
Part = Literal["cells", "adaptive", "temperatures", "board"]

#: Filters of the first layer that the paper has.
FILTERS = (64, 128, 256)


@dataclass(frozen=True)
class Sizes:
    """How many images and pairs are measured; None for all, or the usual number.

    Attributes:
        images: of the test set, class by class in turn, where all are usual.
        pairs: of CW-L2 with 100 iterations.
        long_pairs: of CW-L2 with 1,000 iterations.
        adaptive_pairs: of the adaptive CW-L2.
        adaptive_images: of the adaptive attacks within a budget.
        board_images: shown to an emulated board.
    """

    images: int | None = None
    pairs: int = 990
    long_pairs: int = 200
    adaptive_pairs: int = 270
    adaptive_images: int = 1000
    board_images: int = 200


@dataclass(frozen=True)
class Source:
    """A measure, its settings, and which of its values is shown.

    Attributes:
        measure: of :data:`bnnmcu.paper.measure.MEASURES`.
        value: the name of the figure.
        settings: that differ from the measure's own.
        size: the attribute of :class:`Sizes` that says how much is measured.
        flip: 1 minus the value is shown: accuracy of an error.
    """

    measure: str
    value: str
    settings: tuple[tuple[str, JSON], ...] = ()
    size: str = "images"
    flip: bool = False

    def job(self, trainable: Trainable, sizes: Sizes) -> Job:
        """What has to be measured."""
        settings = dict(self.settings)
        count = getattr(sizes, self.size)
        if count is not None:
            settings["pairs" if self.measure == "cw" else "images"] = count
        return job(trainable, self.measure, **settings)


@dataclass(frozen=True)
class Column:
    """A figure that every row has, or those of some kinds.

    Attributes:
        key: of the paper's numbers.
        title: the head, such as ``ε 0.1``.
        source: of our figures.
        adaptive: what is left under the adaptive attack.
        kinds: of network that have it.
        percent: the figure is a share of 1, shown in percent.
        good: whether a high figure is the better one; None under an attack, where a higher
            accuracy may as well come of a weaker attack.
    """

    key: str
    title: str
    source: Source
    adaptive: Source | None = None
    kinds: str = "ABCS"
    percent: bool = True
    good: Literal["high", "low"] | None = None


@dataclass(frozen=True)
class Family:
    """Networks of one kind and regimen.

    Attributes:
        kind: A, B, C or S.
        regimen: what they are trained on.
        more_filters: that a table has besides 64, 128 and 256.
        seeds: trainings, if nobody says how many.
    """

    kind: str
    regimen: Regimen = "clean"
    more_filters: tuple[int, ...] = ()
    seeds: int | None = None


@dataclass(frozen=True)
class Row:
    """One network of a table, whatever its recipe and seed."""

    family: Family
    filters: int
    dataset: str

    def trainable(self, recipe: Recipe, seed: int) -> Trainable:
        """The network to train."""
        return Trainable(
            self.family.kind,
            self.filters,
            self.family.regimen,
            recipe,
            seed,
            self.dataset,
        )

    @property
    def name(self) -> str:
        """As the paper writes it."""
        return self.trainable("best", 1).name

    @property
    def kind(self) -> str:
        """A, B, C or S."""
        return self.family.kind


@dataclass(frozen=True)
class TableSpec:
    """One table.

    Attributes:
        name: ``table1`` to ``table6``.
        title: what it shows.
        protocol: how it was measured, here and in the paper.
        families: its rows, for each number of filters.
        columns: its figures.
        seeds: trainings of each row, if nobody says how many.
        dataset: ``mnist`` or ``cifar10``.
        elsewhere: the table in which the paper prints a figure, by kind and column.
        temperatures: FGSM is repeated at these.
        board: the attack whose images an emulated board is shown; None for none.
        extras: figures of a second table, which has no paper's number beside it.
    """

    name: str
    title: str
    protocol: str
    families: tuple[Family, ...]
    columns: tuple[Column, ...]
    seeds: int = 2
    dataset: str = "mnist"
    elsewhere: dict[tuple[str, str], str] = field(default_factory=dict)
    temperatures: tuple[float, ...] = ()
    board: str | None = None
    extras: tuple[Column, ...] = ()

    def rows(self, filters: tuple[int, ...] | None = None) -> Iterator[Row]:
        """Rows with these numbers of filters; the paper's for None."""
        for family in self.families:
            own = (*family.more_filters, *FILTERS)
            for count in own if filters is None else filters:
                yield Row(family, count, self.dataset)

    def paper(self, row: Row, column: Column) -> Published | None:
        """What the paper prints, there or in another table."""
        table = self.elsewhere.get((row.kind, column.key), self.name)
        return published(table, row.name, column.key)

    def temperature_sources(self) -> tuple[Source, ...]:
        """FGSM at each of the temperatures, on the columns' first figure."""
        base = self.columns[0].source
        return tuple(
            replace(base, settings=(*base.settings, ("temperature", value)))
            for value in self.temperatures
        )

    def board_source(self) -> Source:
        """The sample on an emulated board."""
        assert self.board is not None
        return Source(
            "emulated", "differing_logits", (("attack", self.board),), size="board_images"
        )
