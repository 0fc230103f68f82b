"""Places the layers of a network on a plane: a trunk, branches beside it, and lanes for the rest.

Layers stand in rows by their distance from the input.  The longest path is
the trunk, in the first column; what branches off it stands in columns to the
right, and a value that skips rows runs down a lane of its own between columns.
Long networks are cut into strips, where no more than one value crosses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Layout", "Place", "Route", "Sizes", "layout"]

Point = tuple[float, float]
Sources = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Sizes:
    """Lengths in the picture.

    Attributes:
        box_width, box_height: of a layer.
        pill_height: of the mark where a strip begins.
        row_gap, column_gap: between boxes; the lanes come on top of the second.
        lane: between two lanes.
        rows: aimed at in a strip.
    """

    box_width: float = 296
    box_height: float = 76
    pill_height: float = 24
    row_gap: float = 28
    column_gap: float = 24
    lane: float = 12
    rows: int = 20


@dataclass(frozen=True)
class Place:
    """Top left corner of a box; ``entry`` marks the value that a strip begins with."""

    name: str
    x: float
    y: float
    entry: bool


@dataclass(frozen=True)
class Route:
    """The way of a value to a reader; ``aside`` if it leaves the straight line."""

    source: str
    target: str
    points: tuple[Point, ...]
    aside: bool


@dataclass(frozen=True)
class Layout:
    """All places and ways, in a frame of this size."""

    width: float
    height: float
    places: tuple[Place, ...]
    routes: tuple[Route, ...]


def _ranks(sources: Sources, entry: str) -> dict[str, int]:
    """Rows: one below the lowest source."""
    ranks = {entry: 0}
    for name, reads in sources.items():
        ranks[name] = 1 + max(ranks[source] for source in reads)
    return ranks


def _cuts(sources: Sources, ranks: Mapping[str, int]) -> dict[int, str]:
    """Rows below which one value alone goes on, and that value."""
    last = max(ranks.values())
    crossing: list[set[str]] = [set() for _ in range(last + 1)]
    for name, reads in sources.items():
        for source in reads:
            for rank in range(ranks[source], ranks[name]):
                crossing[rank].add(source)
    return {rank: next(iter(over)) for rank, over in enumerate(crossing) if len(over) == 1}


def _strips(sources: Sources, entry: str, rows: int) -> list[tuple[str, dict[str, Sequence[str]]]]:
    """Pieces of a network: the value each begins with, and its layers."""
    ranks = _ranks(sources, entry)
    last, cuts = max(ranks.values()), _cuts(sources, ranks)
    count = -(-last // rows)
    aim = -(-last // count)
    strips: list[tuple[str, dict[str, Sequence[str]]]] = []
    start, begins = 0, entry
    while start < last:
        wanted = [rank for rank in cuts if start < rank <= start + aim]
        later = [rank for rank in cuts if rank > start + aim]
        end = max(wanted) if wanted else min(later, default=last)
        if last - start <= aim:
            end = last
        piece = {n: reads for n, reads in sources.items() if start < ranks[n] <= end}
        strips.append((begins, piece))
        start, begins = end, cuts.get(end, begins)
    return strips


def _walk_back(name: str, free: set[str], sources: Sources, ranks: Mapping[str, int]) -> list[str]:
    """A chain of free layers that ends in ``name``, as long as can be."""
    chain = [name]
    while reads := [s for s in sources.get(chain[0], ()) if s in free]:
        # Of equals the first: an addition's own source before what is added.
        chain.insert(0, max(reads, key=lambda s: ranks[s]))
    return chain


def _put(taken: list[list[tuple[int, int]]], span: tuple[int, int]) -> int:
    """The first of several lines on which a span of rows is free; it is taken now."""
    for index, spans in enumerate(taken):
        if all(span[1] <= a or b <= span[0] for a, b in spans):
            spans.append(span)
            return index
    taken.append([span])
    return len(taken) - 1


class _Strip:
    """One strip: columns first, then lanes, then points."""

    def __init__(self, entry: str, sources: Sources, sizes: Sizes) -> None:
        self.entry, self.sources, self.sizes = entry, sources, sizes
        self.ranks = _ranks(sources, entry)
        self.readers: dict[str, list[str]] = {name: [] for name in self.ranks}
        for name, reads in sources.items():
            for source in dict.fromkeys(reads):
                self.readers[source].append(name)
        self.column = self._columns()
        self.cells = {(self.column[n], self.ranks[n]) for n in self.ranks}
        self.edges = [(s, n) for n, reads in sources.items() for s in dict.fromkeys(reads)]
        self.lanes = self._lanes()
        self.tracks = self._tracks()

    def _columns(self) -> dict[str, int]:
        free = set(self.ranks)
        lowest = max(self.ranks, key=lambda n: self.ranks[n])
        trunk = _walk_back(lowest, free, self.sources, self.ranks)
        column = dict.fromkeys(trunk, 0)
        # The entry leads the trunk even if the lowest layer does not hang on it.
        column[self.entry] = 0
        free -= column.keys()
        taken: list[list[tuple[int, int]]] = []
        while free:
            tail = max(free, key=lambda n: (self.ranks[n], -list(self.ranks).index(n)))
            chain = _walk_back(tail, free, self.sources, self.ranks)
            free -= set(chain)
            first = max(self.ranks[s] for s in self.sources[chain[0]])
            last = max([self.ranks[r] for r in self.readers[tail]], default=self.ranks[tail] + 1)
            column |= dict.fromkeys(chain, _put(taken, (first, last)) + 1)
        return column

    def _free(self, column: int, above: int, below: int) -> bool:
        """No box between two rows of a column."""
        return not any((column, rank) in self.cells for rank in range(above + 1, below))

    def _clear(self, one: int, other: int, rank: int) -> bool:
        """No box between two columns of a row."""
        between = range(min(one, other) + 1, max(one, other))
        return not any((column, rank) in self.cells for column in between)

    def kind(self, source: str, target: str) -> str:
        """How a value gets there: straight, off to a branch, in from one, or by lanes."""
        (cu, ru), (cv, rv) = ((self.column[n], self.ranks[n]) for n in (source, target))
        if cu == cv and self._free(cu, ru, rv):
            return "straight"
        head = ru == max(self.ranks[s] for s in self.sources[target])
        if cu < cv and head and self._free(cv, ru - 1, rv) and self._clear(cu, cv, ru):
            return "off"
        tail = rv == max(self.ranks[r] for r in self.readers[source])
        if cu > cv and tail and self._free(cu, ru, rv + 1) and self._clear(cu, cv, rv):
            return "in"
        return "lane"

    def _lanes(self) -> dict[tuple[int, str, str], int]:
        """Lane of an edge in the gutter behind a column; short ones run closest to the boxes."""
        wanted: dict[int, list[tuple[int, int, str, str]]] = {}
        for source, target in self.edges:
            if self.kind(source, target) != "lane":
                continue
            above, below = self.ranks[source], self.ranks[target]
            columns = {self.column[source], self.column[target]}
            for column in columns:
                # Into another column only the last step needs the gutter there.
                start = above if column == self.column[source] else below - 1
                wanted.setdefault(column, []).append((start, below, source, target))
        lanes = {}
        for column, spans in wanted.items():
            used: list[list[tuple[int, int]]] = []
            for start, end, source, target in sorted(spans, key=lambda s: (s[1] - s[0], s)):
                lanes[column, source, target] = _put(used, (start, end))
        return lanes

    def _tracks(self) -> dict[tuple[str, str], float]:
        """For edges that change columns by lanes: how far up in the gap above their target."""
        above: dict[int, list[tuple[str, str]]] = {}
        for source, target in self.edges:
            other = self.column[source] != self.column[target]
            if other and self.kind(source, target) == "lane":
                above.setdefault(self.ranks[target], []).append((source, target))
        return {
            edge: (index + 1) / (len(edges) + 1)
            for edges in above.values()
            for index, edge in enumerate(edges)
        }

    def place(self, left: float) -> tuple[list[Place], list[Route], float, float]:
        """Boxes and ways with the strip's left edge at ``left``; right and bottom edge."""
        sizes = self.sizes
        columns = max(self.column.values()) + 1
        counts = [0] * columns
        for (column, _, _), lane in self.lanes.items():
            counts[column] = max(counts[column], lane + 1)
        self.x = [left]
        for count in counts:
            gutter = sizes.column_gap + (count + 1 if count else 0) * sizes.lane
            self.x.append(self.x[-1] + sizes.box_width + gutter)
        places = [
            Place(name, self.x[self.column[name]], self._top(rank), name == self.entry)
            for name, rank in self.ranks.items()
        ]
        routes = [self._route(source, target) for source, target in self.edges]
        bottom = self._top(max(self.ranks.values())) + sizes.box_height
        return places, routes, self.x[-1] - sizes.column_gap, bottom

    def _top(self, rank: int) -> float:
        sizes = self.sizes
        if rank == 0:
            return 0
        return sizes.pill_height + sizes.row_gap + (rank - 1) * (sizes.box_height + sizes.row_gap)

    def _height(self, name: str) -> float:
        return self.sizes.pill_height if name == self.entry else self.sizes.box_height

    def _lane_x(self, column: int, source: str, target: str) -> float:
        lane = self.lanes[column, source, target]
        return self.x[column] + self.sizes.box_width + (lane + 1.5) * self.sizes.lane

    def _route(self, source: str, target: str) -> Route:
        cu, cv = self.column[source], self.column[target]
        width = self.sizes.box_width
        top, below = self._top(self.ranks[source]), self._top(self.ranks[target])
        middle_u, middle_v = self.x[cu] + width / 2, self.x[cv] + width / 2
        right_u, right_v = self.x[cu] + width, self.x[cv] + width
        # Values leave in a box's lower half and come in in its upper half: lines never meet.
        out = top + 0.7 * self._height(source)
        into = below + 0.3 * self._height(target)
        kind = self.kind(source, target)
        points: tuple[Point, ...]
        if kind == "straight":
            points = ((middle_u, top + self._height(source)), (middle_v, below))
        elif kind == "off":
            points = ((right_u, out), (middle_v, out), (middle_v, below))
        elif kind == "in":
            points = ((middle_u, top + self._height(source)), (middle_u, into), (right_v, into))
        else:
            lane = self._lane_x(cu, source, target)
            points = ((right_u, out), (lane, out))
            if cu == cv:
                points += ((lane, into), (right_v, into))
            else:
                across = below - self.tracks[source, target] * self.sizes.row_gap
                other = self._lane_x(cv, source, target)
                points += ((lane, across), (other, across), (other, into), (right_v, into))
        return Route(source, target, points, kind != "straight")


def layout(sources: Sources, entry: str, sizes: Sizes | None = None) -> Layout:
    """Place a network.

    Args:
        sources: for each layer, in an order in which they can run, what it reads.
        entry: name of the input.
    """
    sizes = sizes or Sizes()
    places: list[Place] = []
    routes: list[Route] = []
    right, height = 0.0, 0.0
    for begins, piece in _strips(sources, entry, sizes.rows):
        strip = _Strip(begins, piece, sizes)
        mine, ways, end, bottom = strip.place(right)
        places += mine
        routes += ways
        right, height = end + 2 * sizes.column_gap, max(height, bottom)
    return Layout(right - 2 * sizes.column_gap, height, tuple(places), tuple(routes))
