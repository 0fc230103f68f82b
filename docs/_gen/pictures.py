"""Draws the pictures of docs/pictures: python docs/_gen/pictures.py

Each picture has a background of its own, so that it is legible on a light and on a dark page.
What the pictures count, they count here, from small examples.
"""

from __future__ import annotations

import sys
from math import atan2, degrees
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["FOLDER", "pictures"]

FOLDER = Path(__file__).resolve().parents[1] / "pictures"
_CELL = 24
# Three filters at eight inputs, and what one position sees: 1 is +1.
_FILTERS = ((1, 0, 1, 1, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 1, 0), (0, 0, 1, 0, 0, 1, 0, 0))
_SEEN = (1, 1, 0, 1, 0, 1, 1, 0)


class Picture:
    """Shapes, in the order in which they are drawn; lengths in pixels."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self.title, self.width, self.height = title, width, height
        self.shapes: list[dict[str, Any]] = []

    def rect(self, x: float, y: float, w: float, h: float, style: str = "box") -> None:
        self.shapes.append({"kind": "rect", "x": x, "y": y, "w": w, "h": h, "style": style})

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        self.shapes.append(
            {"kind": "text", "x": x, "y": y, "text": text, "style": style, "anchor": anchor}
        )

    def arrow(self, x: float, y: float, x2: float, y2: float) -> None:
        turn = round(degrees(atan2(y2 - y, x2 - x)), 1)
        self.shapes.append({"kind": "arrow", "x": x, "y": y, "x2": x2, "y2": y2, "turn": turn})

    def label(self, x: float, y: float, w: float, lines: tuple[str, ...], h: float = 46) -> None:
        """A box with lines of text in its middle, the first one bold."""
        self.rect(x, y, w, h)
        top = y + h / 2 + 5 - 8.5 * (len(lines) - 1)
        for i, line in enumerate(lines):
            self.text(x + w / 2, top + 17 * i, line, "" if i else "bold", "middle")

    def bits(self, x: float, y: float, bits: tuple[int, ...], marks: tuple[int, ...] = ()) -> None:
        """A row of bits; those at ``marks`` stand out."""
        for i, bit in enumerate(bits):
            at = x + _CELL * i
            style = "mark" if i in marks else ("one" if bit else "zero")
            self.rect(at, y, _CELL - 2, _CELL - 2, style)
            ink = "dark" if i in marks else ("on" if bit else "")
            self.text(at + _CELL / 2 - 1, y + 16, str(bit), f"code {ink}".strip(), "middle")

    def svg(self) -> str:
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            undefined=StrictUndefined,
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        return environment.get_template("picture.svg").render(vars(self))


def _road() -> Picture:
    p = Picture("From a model to a board", 700, 190)
    steps = (
        ("model", "PyTorch, QONNX"),
        ("integer graph", "the contract"),
        ("C", "kernels chosen"),
    )
    for i, lines in enumerate((*steps, ("board", "or an emulator"))):
        p.label(16 + 176 * i, 24, 140, lines)
        if i:
            p.arrow(16 + 176 * i - 36, 47, 16 + 176 * i - 2, 47)
    p.label(192, 118, 140, ("reference", "numpy"))
    p.arrow(262, 70, 262, 116)
    p.arrow(614, 70, 614, 141)
    p.arrow(614, 141, 336, 141)
    p.text(475, 132, "the same logits, bit for bit", "", "middle")
    return p


def _lanes() -> Picture:
    p = Picture("Lanes are channels, or lanes are positions", 700, 220)
    for x, head, lane, note in (
        (20, "a word of channels", "channel", "one position: ones must be counted inside"),
        (370, "words of positions", "position", "eight positions: words are only added"),
    ):
        p.text(x, 28, head, "bold")
        p.text(x, 206, note)
        p.text(x + 96, 52, f"{lane} 0 … 7", "", "middle")
        for row in range(1 if lane == "channel" else 4):
            p.bits(x, 62 + 28 * row, tuple(_FILTERS[row % 3][(i + row) % 8] for i in range(8)))
            if lane == "position":
                p.text(x + 204, 78 + 28 * row, f"input {row}")
    p.arrow(116, 92, 116, 128)
    p.text(116, 148, f"how many ones? {sum(_FILTERS[0])}", "", "middle")
    p.arrow(466, 172, 466, 190)
    return p


def _planes() -> Picture:
    rows = (_FILTERS[0], _FILTERS[1], (0, 1, 1, 0, 1, 1, 0, 1))
    sums = tuple(map(sum, zip(*rows, strict=True)))
    p = Picture("A full adder over words", 700, 190)
    p.text(20, 28, "three words of weight 1", "bold")
    for i, row in enumerate(rows):
        p.bits(20, 44 + 28 * i, row)
    p.label(262, 58, 110, ("full adder", "logic only"))
    p.arrow(216, 82, 258, 82)
    p.arrow(376, 82, 412, 82)
    p.text(420, 28, "two planes", "bold")
    p.bits(420, 44, tuple(s & 1 for s in sums))
    p.text(620, 60, "weight 1")
    p.bits(420, 86, tuple(s >> 1 for s in sums))
    p.text(620, 102, "weight 2")
    for i, s in enumerate(sums):
        p.text(431 + _CELL * i, 142, str(s), "code bold", "middle")
    p.text(620, 142, "the counts")
    p.text(20, 172, "Each column is one position. All columns are added at once.")
    return p


def _patterns() -> list[tuple[int, ...]]:
    """Of each input: which of the filters after the first disagree with it."""
    first = _FILTERS[0]
    return [tuple(int(f[i] != first[i]) for f in _FILTERS[1:]) for i in range(len(first))]


def _classes() -> Picture:
    patterns = _patterns()
    p = Picture("Inputs fall into classes", 700, 300)
    p.text(20, 30, "a set of three filters, eight inputs", "bold")
    for i in range(8):
        p.text(121 + _CELL * i, 52, str(i), "code", "middle")
    for row, bits in enumerate(_FILTERS):
        p.text(20, 76 + 28 * row, ("first", "second", "third")[row])
        marks = tuple(i for i in range(8) if row and patterns[i][row - 1])
        p.bits(110, 60 + 28 * row, bits, marks)
    p.rect(330, 64, 14, 14, "mark")
    p.text(352, 76, "disagrees with the first filter")
    kinds = ((0, 0), (1, 0), (0, 1), (1, 1))
    names = ("all agree", "2nd differs", "3rd differs", "both differ")
    for c, (kind, name) in enumerate(zip(kinds, names, strict=True)):
        inside = [i for i in range(8) if patterns[i] == kind]
        x = 20 + 166 * c
        p.rect(x, 172, 154, 74)
        p.text(x + 12, 194, f"class {c}: {name}", "bold")
        for j, i in enumerate(inside):
            p.rect(x + 12 + 28 * j, 208, 24, 24, "zero")
            p.text(x + 24 + 28 * j, 225, str(i), "code", "middle")
    p.text(20, 278, "Each input is in one class, and is added once for all three filters.")
    return p


def _fold() -> Picture:
    patterns, first = _patterns(), _FILTERS[0]
    kinds = ((0, 0), (1, 0), (0, 1), (1, 1))
    members = [[i for i in range(8) if patterns[i] == kind] for kind in kinds]
    wrong = [sum(_SEEN[i] != first[i] for i in inside) for inside in members]
    p = Picture("The mismatches of a second filter", 700, 290)
    p.text(20, 30, "one position; mismatches of the first filter in each class", "bold")
    for c in range(4):
        turned = kinds[c][0] == 1
        x = 20 + 166 * c
        p.rect(x, 48, 154, 64, "mark" if turned else "box")
        ink = "dark" if turned else ""
        p.text(x + 77, 76, f"class {c}: {wrong[c]} of {len(members[c])}", f"bold {ink}", "middle")
        note = "2nd differs: turned" if turned else "2nd agrees: kept"
        p.text(x + 77, 98, note.replace(": ", ", "), ink, "middle")
    m = sum(wrong)
    turned_sum = sum(w for w, kind in zip(wrong, kinds, strict=True) if kind[0])
    n = sum(len(i) for i, kind in zip(members, kinds, strict=True) if kind[0])
    second = m - 2 * turned_sum + n
    assert second == sum(a != b for a, b in zip(_SEEN, _FILTERS[1], strict=True))
    p.text(20, 150, f"first filter:   m = {' + '.join(map(str, wrong))} = {m}", "code")
    p.text(20, 178, f"turned classes: M = {turned_sum} mismatches, n = {n} inputs", "code")
    p.text(
        20, 206, f"second filter:  m - 2 M + n = {m} - {2 * turned_sum} + {n} = {second}", "code"
    )
    p.text(20, 246, f"Counted one by one, the second filter has {second} mismatches, too.")
    p.text(
        20, 268, "A mismatch of the first is a match of the second there, and the other way round."
    )
    return p


def _draw() -> Picture:
    level, words = (0, 1, 1), (0b101, 0b010, 0b110)
    p = Picture("Drawing weights", 700, 236)
    p.text(20, 28, "levels of 8 weights, k = 3", "bold")
    planes = tuple(tuple((v >> j) & 1 for v in range(8)) for j in range(3))
    for j in range(3):
        p.bits(20, 44 + 30 * j, planes[j])
        p.text(218, 60 + 30 * j, f"plane {j}")
    for v in range(8):
        p.text(31 + _CELL * v, 150, str(v), "code", "middle")
    p.text(218, 150, "level")
    p.text(310, 28, "random words", "bold")
    random = tuple(
        tuple((words[j] >> (i % 3) ^ level[j] & i) & 1 for i in range(8)) for j in range(3)
    )
    drawn = planes[2]
    for j in range(3):
        p.bits(310, 44 + 30 * j, random[j])
        triples = zip(drawn, random[j], planes[j], strict=True)
        drawn = tuple(int(sum(three) >= 2) for three in triples)
    p.arrow(506, 84, 560, 84)
    p.text(570, 80, "majority,")
    p.text(570, 98, "plane by plane")
    p.arrow(406, 136, 406, 170)
    p.bits(310, 178, drawn)
    p.text(508, 194, "drawn: 1 is +1")
    p.text(20, 194, "P(+1) = (v + top bit of v) / 8")
    p.text(20, 222, "Level 0 never gives +1, level 7 always does.")
    return p


def pictures() -> dict[str, str]:
    """File names, and the SVG of each."""
    return {
        "road.svg": _road().svg(),
        "lanes.svg": _lanes().svg(),
        "planes.svg": _planes().svg(),
        "classes.svg": _classes().svg(),
        "fold.svg": _fold().svg(),
        "draw.svg": _draw().svg(),
    }


def stale() -> list[str]:
    """Names of files that are not as they would be drawn now."""
    return [
        name
        for name, svg in pictures().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text(encoding="utf-8") != svg
    ]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(f"draw them again: {', '.join(stale())}" if stale() else 0)
    FOLDER.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (FOLDER / name).write_text(svg, encoding="utf-8")
