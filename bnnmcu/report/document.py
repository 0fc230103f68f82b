"""A report before it has a form: sections of text and tables, and the facts behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Document", "Picture", "Section", "Table", "Verdict"]


@dataclass(frozen=True)
class Table:
    """Rows of text under a title.

    Attributes:
        title: what is shown.
        columns: their heads.
        rows: a cell for each column.
        text_columns: how many of the first hold text; the others hold numbers.
        caption: what must be known to read it.
        hints: for each row and column where the cell is from; empty where there is nothing to
            say. Pages show it when a cell is pointed at.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    caption: str | None = None
    hints: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Picture:
    """An image with its words.

    Attributes:
        path: of the file, relative to the document; empty where there is none.
        title: what is shown; stands for it where it cannot be seen.
        caption: what must be known to read it.
        image: an SVG file's text, shown apart from the page, so that its style stays its own.
        svg: an ``<svg>`` element of our own making, in which all foreign text is escaped; a page
            holds it as it is, in the page's colours.
    """

    path: str
    title: str
    caption: str | None = None
    svg: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Section:
    """One question and its answer.

    Attributes:
        title: the heading.
        paragraphs: plain sentences.
        points: the same as a list, each on its own.
        tables: below the text.
        pictures: below the tables.
        notes: below all of it, in small print: where figures are from.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a report comes to.

    Attributes:
        kind: ``good``, ``warn`` or ``bad``: how it is coloured.
        text: a sentence; ``kind`` says nothing that it does not.
    """

    kind: Literal["good", "warn", "bad"]
    text: str


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: of the whole.
        sections: in order.
        facts: plain JSON values, for scripts.
        verdict: the one sentence to read, if there is one.
    """

    title: str
    sections: tuple[Section, ...]
    facts: dict[str, Any]
    verdict: Verdict | None = None
