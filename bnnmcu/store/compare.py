"""Two runs side by side, by what is reproducible alone: no times, counts or machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bnnmcu.store.store import Store
from bnnmcu.store.values import differences

__all__ = ["Comparison", "ContentRow", "Difference", "compare", "content_rows"]


@dataclass(frozen=True)
class ContentRow:
    """One answer, or an image without one, as every run of the campaign must have it.

    Attributes:
        attack, levels, image, target: the place; without a target, the image was
            to become any other class.
        true_label: the data's.
        input_sha256: of the pixels.
        linf, l2, zero_gradients, crafted_by: see :class:`bnnmcu.store.Example`.
        draw, seed, logits, label: the answer; None without one.
    """

    attack: str
    levels: int
    image: int
    target: int | None
    true_label: int
    input_sha256: str
    linf: int
    l2: float
    zero_gradients: float
    crafted_by: str
    draw: int | None = None
    seed: str | None = None
    logits: tuple[int, ...] | None = None
    label: int | None = None

    @property
    def key(self) -> tuple[str, int, int, int, int]:
        """Where the row belongs; rows are in this order."""
        target, draw = (-1 if one is None else one for one in (self.target, self.draw))
        return self.attack, self.levels, self.image, target, draw

    @property
    def place(self) -> str:
        """The same for people."""
        case = f"{self.attack} {self.levels}/255" if self.levels else self.attack
        place = f"{case}, image {self.image}"
        if self.target is not None:
            place += f" to class {self.target}"
        return place + ("" if self.draw is None else f", draw {self.draw}")


@dataclass(frozen=True)
class Difference:
    """A value that is not the same in both.

    Attributes:
        place: the row, in words.
        column: which value; ``row`` where one of them lacks the whole row.
        first, second: the values; for a row, whether it is there.
    """

    place: str
    column: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common.

    Attributes:
        identity: fields in which the runs' identities differ.
        equal: rows that are the same in both.
        differing: rows that are in both, with other values.
        only_first, only_second: rows that are in one alone.
        first_differences: of the rows, in order; not all of them.
    """

    identity: tuple[Difference, ...]
    equal: int
    differing: int
    only_first: int
    only_second: int
    first_differences: tuple[Difference, ...]

    @property
    def same(self) -> bool:
        """No difference but in who answered: that a board and its twin agree is worth asking."""
        rows = self.differing + self.only_first + self.only_second
        return not rows and all(one.column.startswith("oracle.") for one in self.identity)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {"same": self.same, **asdict(self)}


def content_rows(path: Path) -> Iterator[ContentRow]:
    """All reproducible rows of a results file, by attack, levels, image, target and draw.

    Two runs of one campaign give equal rows, however often either was killed,
    and whichever machine it went on with.

    Raises:
        StoreError: it is no sound results file.
    """
    with Store.read(path) as store:
        for one in store.rows(store.cases(by_name=True)):
            image = ContentRow(
                attack=one.attack,
                levels=one.levels,
                image=one.image,
                target=one.target,
                true_label=one.true_label,
                input_sha256=one.sha256,
                linf=one.linf,
                l2=one.l2,
                zero_gradients=one.zero_gradients,
                crafted_by=one.crafted_by,
            )
            if not one.draws:
                yield image
            for i, draw in enumerate(one.draws):
                yield replace(image, draw=i, seed=draw.seed, logits=draw.logits, label=draw.label)


def compare(first: Path, second: Path, *, show: int = 10) -> Comparison:
    """Hold two results files against each other, row by row.

    Args:
        first, second: results files, of any version; either may be of a run in progress.
        show: how many differences are kept.

    Raises:
        StoreError: one of them is no sound results file.
    """
    with Store.read(first) as one, Store.read(second) as other:
        identity = tuple(
            Difference("identity", name, mine, theirs)
            for name, mine, theirs in differences(one.identity, other.identity)
        )
    shown: list[Difference] = []
    equal = differing = only_first = only_second = 0
    for left, right in _pairs(content_rows(first), content_rows(second)):
        if left is None or right is None:
            only_first += right is None
            only_second += left is None
            found = [Difference(_place(left, right), "row", left is not None, right is not None)]
        elif left == right:
            equal += 1
            continue
        else:
            differing += 1
            found = [
                Difference(left.place, field.name, mine, theirs)
                for field in fields(left)
                if (mine := getattr(left, field.name)) != (theirs := getattr(right, field.name))
            ]
        shown += found[: max(0, show - len(shown))]
    return Comparison(identity, equal, differing, only_first, only_second, tuple(shown))


def _place(left: ContentRow | None, right: ContentRow | None) -> str:
    row = left or right
    assert row is not None
    return row.place


def _pairs(
    first: Iterator[ContentRow], second: Iterator[ContentRow]
) -> Iterator[tuple[ContentRow | None, ContentRow | None]]:
    """Rows of the same key together; None where one side has none."""
    left, right = next(first, None), next(second, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key < right.key):
            yield left, None
            left = next(first, None)
        elif left is None or right.key < left.key:
            yield None, right
            right = next(second, None)
        else:
            yield left, right
            left, right = next(first, None), next(second, None)
