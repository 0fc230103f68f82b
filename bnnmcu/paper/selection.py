"""What is wanted of the tables, and the jobs that follow, in the order in which they are done."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from bnnmcu.errors import UsageError
from bnnmcu.paper.figures.spec import FigureJob, Wanted
from bnnmcu.paper.recipes import Recipe
from bnnmcu.paper.tables import ORDER, TABLES
from bnnmcu.paper.tables.spec import Part, Row, Sizes, Source, TableSpec
from bnnmcu.paper.toy import ToyJob

__all__ = ["PARTS", "Selection", "Task", "tasks"]

#: All of them, in the order of work.
PARTS: tuple[Part, ...] = get_args(Part)
# Networks that are trained without being in the paper's tables have at least so many filters.
_DEFAULT_FILTERS = (64,)


@dataclass(frozen=True)
class Selection:
    """What to measure.

    Attributes:
        tables: names, in any order.
        filters: K; None for 64, and the other ones that a table has beside (table 3: 32).
        seeds: first and last; None for each table's own number, from 1 on.
        recipes: ``paper``, ``best`` or both.
        rows: names such as ``B64+``; none for all.
        parts: of each table; none for all, and then those that are dear (``adaptive`` and
            ``board``) of the first training only.
        sizes: how much is measured.
        emulator: ``auto``, ``qemu`` or ``unicorn``; None to emulate no board.
        arguments: of the command line that each record keeps, such as ``--data digits``.
        figures: names, in any order; drawn from tables' records where they have them.
    """

    tables: tuple[str, ...]
    filters: tuple[int, ...] | None = None
    seeds: tuple[int, int] | None = None
    recipes: tuple[Recipe, ...] = ("paper", "best")
    rows: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    sizes: Sizes = field(default_factory=Sizes)
    emulator: Literal["auto", "qemu", "unicorn"] | None = "auto"
    arguments: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()

    def specs(self) -> list[TableSpec]:
        """The tables, in the order of work.

        Raises:
            UsageError: a row that no table of these has.
        """
        specs = [TABLES[name] for name in ORDER if name in self.tables]
        known = {row.name for spec in specs for row in self.rows_of(spec, every=True)}
        for name in self.rows:
            if name not in known:
                raise UsageError(
                    f"no table chosen has a row {name!r}",
                    where="--row",
                    hint=f"rows are {', '.join(sorted(known))}; other sizes with --k",
                )
        return specs

    def rows_of(self, spec: TableSpec, *, every: bool = False) -> list[Row]:
        """Rows of a table; ``every`` for those that no --row names, too."""
        found: list[Row] = []
        for family in spec.families:
            # A row that is named is wanted, whatever its size.
            own = (*family.more_filters, *_DEFAULT_FILTERS)
            filters = self.filters or ((*family.more_filters, 64, 128, 256) if self.rows else own)
            one = replace(spec, families=(family,))
            found += one.rows(tuple(sorted(set(filters))))
        return [row for row in found if every or not self.rows or row.name in self.rows]

    def seeds_of(self, spec: TableSpec, row: Row) -> range:
        """Of the trainings of a row."""
        if self.seeds is not None:
            return range(self.seeds[0], self.seeds[1] + 1)
        return range(1, (row.family.seeds or spec.seeds) + 1)


@dataclass(frozen=True)
class Task:
    """A job, and what it is for.

    Attributes:
        table: the first table or figure that needs it.
        command: that does this job and, at most, those of the same row or figure.
    """

    job: FigureJob
    table: str
    command: str

    @property
    def name(self) -> str:
        """Network and measure, for people."""
        key = self.job.key if isinstance(self.job, ToyJob) else self.job.trainable.key
        return f"{key} {self.job.measure}"


def tasks(selection: Selection) -> list[Task]:
    """Everything to be done, each job once, in the order of work.

    Networks come one after the other, so that each is trained when it is needed, and what is
    in the cells of a table comes before what stands beside them.

    Raises:
        UsageError: a row or a size that there is not.
    """
    found: dict[FigureJob, Task] = {}
    for spec in selection.specs():
        for part in PARTS if not selection.parts else selection.parts:
            for task in _of_table(selection, spec, part):
                found.setdefault(task.job, task)
    for task in _of_figures(selection):
        found.setdefault(task.job, task)
    return list(found.values())


def _of_figures(selection: Selection) -> Iterator[Task]:
    if not selection.figures:
        return
    from bnnmcu.paper.figures.catalogue import FIGURES

    first, last = selection.seeds or (1, 1)
    for name in selection.figures:
        for filters in selection.filters or _DEFAULT_FILTERS:
            for seed in range(first, last + 1):
                for recipe in selection.recipes:
                    wanted = Wanted(
                        (filters,),
                        (seed,),
                        (recipe,),
                        selection.sizes.pairs,
                        selection.sizes.long_pairs,
                    )
                    more = () if filters in _DEFAULT_FILTERS else ("--k", str(filters))
                    words = ["bnnmcu", "paper", name, *more, "--recipe", recipe]
                    words += ["--seeds", f"{seed}-{seed}", *selection.arguments]
                    for job in FIGURES[name].jobs(wanted):
                        yield Task(job, name, shlex.join(words))


def _of_table(selection: Selection, spec: TableSpec, part: Part) -> Iterator[Task]:
    for row in selection.rows_of(spec):
        seeds = selection.seeds_of(spec, row)
        recipes = selection.recipes
        if part in ("adaptive", "board"):
            # Of the better network, and once if nobody asks for more.
            recipes = ("best",) if "best" in recipes else recipes
            seeds = seeds if selection.parts else range(seeds.start, min(seeds.stop, 2))
        for seed in seeds:
            for recipe in recipes:
                trainable = row.trainable(recipe, seed)
                for source in _sources(selection, spec, row, part):
                    yield Task(
                        source.job(trainable, selection.sizes),
                        spec.name,
                        command_for(spec.name, row.name, recipe, seed, part, selection.arguments),
                    )


def _sources(selection: Selection, spec: TableSpec, row: Row, part: Part) -> Iterator[Source]:
    if part == "board":
        if spec.board is not None and row.kind != "A" and selection.emulator is not None:
            source = spec.board_source()
            yield replace(source, settings=(*source.settings, ("emulator", selection.emulator)))
        return
    if part == "temperatures":
        yield from spec.temperature_sources()
        return
    for column in (*spec.columns, *spec.extras):
        if row.kind in column.kinds:
            wanted = column.source if part == "cells" else column.adaptive
            if wanted is not None:
                yield wanted


def command_for(
    table: str, row: str, recipe: str, seed: int, part: Part, more: tuple[str, ...] = ()
) -> str:
    """The command that measures one row, with one seed."""
    digits = "".join(sign for sign in row if sign.isdigit())
    k = () if digits in ("64", "128", "256") else ("--k", digits)
    words = ["bnnmcu", "paper", table, "--row", row, *k, "--recipe", recipe]
    if TABLES[table].dataset == "cifar10":
        # Where it is differs from machine to machine, and nothing says it but this option.
        words += ["--cifar", "FOLDER"]
    return shlex.join([*words, "--seeds", f"{seed}-{seed}", "--part", part, *more])
