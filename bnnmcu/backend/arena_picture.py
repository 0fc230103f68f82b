"""The arena as a picture: steps to the right, offsets upwards, a box for each buffer.

A box spans the steps during which its buffer is in use.  Buffers that are too
small for their name have a number, and all of them a row in the table below.
"""

from __future__ import annotations

from dataclasses import dataclass

from bnnmcu.backend.arena import Placed
from bnnmcu.backend.emit import render
from bnnmcu.backend.plan import Plan

__all__ = ["arena_svg", "arena_text"]

#: Lives are drawn as bars up to so many steps; beyond, only as numbers.
_BARS = 64

# Everything below in pixels.
_LEFT, _TOP, _RIGHT = 76.0, 58.0, 24.0
_PLOT_WIDTH, _PLOT_HEIGHT = 860.0, 380.0
_NARROWEST, _WIDEST = 5.0, 150.0
_CHARACTER = 6.1
"""Mean advance of the font's 11-pixel characters; a little more than measured."""
_TELLING = 14
"""A name cut to fewer characters says less than a number."""
_LINE = 15.0
_LABEL_SIZE = 13.0
_NAME = 22
_ANGLE = 36
_FORWARD, _DOWN = 0.81, 0.59
"""Cosine and sine of the angle at which the steps' names are written."""
_TICKS = 5


@dataclass(frozen=True)
class _Box:
    """A buffer as it is drawn: pixels, and what is written where."""

    title: str
    x: float
    y: float
    width: float
    height: float
    kind: str
    label: str
    label_x: float
    label_y: float


@dataclass(frozen=True)
class _Text:
    """A word somewhere."""

    x: float
    y: float
    text: str


def _ordered(plan: Plan) -> list[Placed]:
    return sorted(plan.buffers, key=lambda b: (b.first, b.offset, b.last, b.name))


def _largest_step(plan: Plan) -> int:
    return max(step.ram_bytes for step in plan.steps)


def arena_text(plan: Plan) -> str:
    """One line a buffer: offset and size in bytes, name, and the steps of its life."""
    buffers, steps = _ordered(plan), len(plan.steps)
    rows = [("offset", "bytes", "buffer", "steps")]
    for buffer in buffers:
        life = f"{buffer.first}" if buffer.first == buffer.last else f"{buffer.first}-{buffer.last}"
        if steps <= _BARS:
            bar = "".join("#" if buffer.alive(i) else "." for i in range(steps))
            life = f"{bar}  {life}"
        rows.append((f"{4 * buffer.offset:,}", f"{4 * buffer.words:,}", buffer.name, life))
    offset, size, name = (max(len(row[i]) for row in rows) for i in range(3))
    head = (
        f"arena of {plan.graph.name}: {4 * plan.arena_words:,} bytes for {steps} steps; "
        f"the largest uses {_largest_step(plan):,}"
    )
    lines = [f"{a:>{offset}}  {b:>{size}}  {c:<{name}}  {d}" for a, b, c, d in rows]
    return "\n".join([head, "", *lines]) + "\n"


def _life(buffer: Placed) -> str:
    if buffer.first == buffer.last:
        return f"step {buffer.first}"
    return f"steps {buffer.first} to {buffer.last}"


def _facts(buffer: Placed) -> str:
    return f"{buffer.name}, {4 * buffer.words:,} bytes at {4 * buffer.offset:,}, {_life(buffer)}"


def _shortened(text: str, most: int) -> str:
    """A text of at most so many characters; both ends of a long name say something."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def _ticks(top: int) -> list[int]:
    """Round offsets from 0 up to ``top`` bytes."""
    raw = max(top / _TICKS, 1.0)
    power = 10 ** (len(str(int(raw))) - 1)
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return list(range(0, top + 1, step))


def _boxes(plan: Plan, column: float) -> list[_Box]:
    scale = _PLOT_HEIGHT / plan.arena_words
    boxes = []
    for number, buffer in enumerate(_ordered(plan), 1):
        # Never so thin that it cannot be seen.
        height = max(buffer.words * scale, 2.0)
        x, width = _LEFT + buffer.first * column, (buffer.last - buffer.first + 1) * column
        y = _TOP + _PLOT_HEIGHT - buffer.offset * scale - height
        full = f"{buffer.name}, {4 * buffer.words:,} bytes"
        label = ""
        if height >= _LABEL_SIZE:
            most = int((width - 8) / _CHARACTER)
            texts = [full, buffer.name, str(number)]
            if most >= _TELLING:
                texts.insert(2, _shortened(buffer.name, most))
            label = next((text for text in texts if len(text) <= most), "")
        boxes.append(
            _Box(
                title=_facts(buffer),
                x=round(x + 0.5, 2),
                y=round(y, 2),
                width=round(width - 1, 2),
                height=round(height, 2),
                kind="scratch" if buffer.name.endswith(":scratch") else "value",
                label=label,
                label_x=round(x + width / 2, 2),
                label_y=round(y + height / 2 + 4, 2),
            )
        )
    return boxes


def _step_labels(plan: Plan, column: float) -> list[_Text]:
    """What stands below the steps: names, or numbers where they are too many for that."""
    roomy = column >= _LABEL_SIZE
    every = 1 if roomy else -(-int(2 * _LABEL_SIZE) // int(column))
    return [
        _Text(
            round(_LEFT + (i + 0.5) * column, 2),
            _TOP + _PLOT_HEIGHT + 14,
            f"{i} {_shortened(step.name, _NAME)}" if roomy else str(i),
        )
        for i, step in enumerate(plan.steps)
        if i % every == 0
    ]


def _table(plan: Plan, top: float, width: float) -> list[_Text]:
    """Number, name, size and life of every buffer; in two columns if they fit."""
    texts = [f"{i}: {_facts(buffer)}" for i, buffer in enumerate(_ordered(plan), 1)]
    columns = 2 if max(map(len, texts)) + 2 <= width / 2 / _CHARACTER else 1
    rows = -(-len(texts) // columns)
    return [
        _Text(
            round(_LEFT + (i // rows) * width / columns, 2),
            round(top + (i % rows) * _LINE, 2),
            text,
        )
        for i, text in enumerate(texts)
    ]


def arena_svg(plan: Plan) -> str:
    """An SVG image: one column a step, one box a buffer; the same plan gives the same text."""
    steps = len(plan.steps)
    column = min(max(_PLOT_WIDTH / steps, _NARROWEST), _WIDEST)
    width = max(column * steps, _PLOT_WIDTH * 0.75)
    boxes = _boxes(plan, column)
    labels = _step_labels(plan, column)
    longest = max(len(label.text) for label in labels)
    table_top = _TOP + _PLOT_HEIGHT + 40 + longest * _CHARACTER * _DOWN
    rows = _table(plan, table_top, width)
    right = max(
        _LEFT + width + _RIGHT,
        *(text.x + len(text.text) * _CHARACTER for text in rows),
        *(text.x + len(text.text) * _CHARACTER * _FORWARD + _RIGHT for text in labels),
    )
    size = 4 * plan.arena_words
    ticks = [
        _Text(_LEFT - 8, round(_TOP + _PLOT_HEIGHT * (1 - tick / size), 2), f"{tick:,}")
        for tick in _ticks(size)
    ]
    return render(
        "pictures/arena.svg.j2",
        name=plan.graph.name,
        size=size,
        largest=_largest_step(plan),
        steps=steps,
        left=_LEFT,
        top=_TOP,
        plot_width=round(column * steps, 2),
        plot_height=_PLOT_HEIGHT,
        width=round(right),
        height=round(max(row.y for row in rows) + 20),
        boxes=boxes,
        labels=labels,
        rows=rows,
        ticks=ticks,
        angle=_ANGLE,
    ).decode()
