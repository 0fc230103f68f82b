"""A network as an SVG picture: layers as boxes with what is known of them, values as arrows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bnnmcu.backend.emit import render
from bnnmcu.inspect.describe import Description, Row
from bnnmcu.inspect.layout import Layout, Place, Point, Route, Sizes, layout

__all__ = ["graph_svg"]

_MARGIN = 24.0
_HEADER = 64.0
#: Widest a character of a monospaced font is, in units of its size.
_EM = 0.62
_PADDING = 12.0
_NAME_SIZE, _TEXT_SIZE, _TITLE_SIZE = 12.0, 10.5, 16.0
_ARROW = 6.0
#: A colour for each kind of value, and what it is called.
_KINDS = {
    "float": ("#7d6fb0", "real numbers"),
    "u8": ("#8a8a8a", "pixels, 8 bits"),
    "bit": ("#2f7fc1", "signs, 1 bit"),
    "int": ("#c9762b", "integers, 32 bits"),
}


@dataclass(frozen=True)
class _Text:
    """A line of text; ``end`` if x is its right edge."""

    x: float
    y: float
    text: str
    size: float
    role: str
    end: bool = False


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    radius: float
    color: str
    title: str
    lines: tuple[_Text, ...]


@dataclass(frozen=True)
class _Arrow:
    points: str
    head: str
    aside: bool


def _short(value: int) -> str:
    """An integer in at most seven characters."""
    if abs(value) < 100_000:
        return str(value)
    for unit, name in ((10**18, "E"), (10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}" if abs(value) < 1000 * unit else f"{value:.1e}"
    return f"{value / 1000:.3g}k"


def _fit(text: str, width: float, size: float, *, tail: bool = False) -> str:
    """Text that is not wider than ``width``; ``tail`` keeps its end."""
    most = int(width / (_EM * size))
    if len(text) <= most:
        return text
    return f"…{text[1 - most :]}" if tail else f"{text[: most - 1]}…"


def _pair(left: str, right: str, box: tuple[float, float, float], y: float) -> list[_Text]:
    """Two texts on one line: the left one gives way."""
    x, _, width = box
    room = width - 2 * _PADDING
    taken = (len(right) + 1) * _EM * _TEXT_SIZE if right else 0.0
    lines = [_Text(x + _PADDING, y, _fit(left, room - taken, _TEXT_SIZE), _TEXT_SIZE, "text")]
    if right:
        lines.append(_Text(x + width - _PADDING, y, right, _TEXT_SIZE, "faint", end=True))
    return lines


def _box(row: Row, place: Place, sizes: Sizes) -> _Box:
    x, y, width = place.x, place.y, sizes.box_width
    room = width - 2 * _PADDING
    shape = "x".join(map(str, row.shape))
    bounds = ""
    if row.low is not None and row.high is not None:
        bounds = f"[{_short(row.low)}, {_short(row.high)}]"
    operation = f"{row.operation} {row.detail}".strip()
    macs = f"{_short(row.macs)} MACs" if row.macs else ""
    parameters = f"{_short(row.parameters)} param." if row.parameters else ""
    frame = (x, y, width)
    lines = [
        _Text(
            x + _PADDING, y + 18, _fit(row.name, room, _NAME_SIZE, tail=True), _NAME_SIZE, "name"
        ),
        _Text(x + _PADDING, y + 34, _fit(operation, room, _TEXT_SIZE), _TEXT_SIZE, "text"),
        *_pair(f"{shape} {row.kind}", macs, frame, y + 50),
        *_pair(bounds, parameters, frame, y + 66),
    ]
    title = f"{row.name}: {operation}, {shape} {row.kind}"
    if bounds:
        title += f" from {row.low:,} to {row.high:,}"
    title += f", {row.macs:,} MACs, {row.parameters:,} parameters"
    shown = tuple(line for line in lines if line.text)
    return _Box(x, y, width, sizes.box_height, 6, _KINDS[row.kind][0], title, shown)


def _pill(row: Row, place: Place, sizes: Sizes, *, goes_on: bool) -> _Box:
    shape = "x".join(map(str, row.shape))
    text = f"{row.name} {shape} {row.kind}"
    if goes_on:
        # The shape stands in its box already; the name is what must be found again.
        text = f"from {row.name}"
    room = sizes.box_width - 2 * _PADDING
    line = _Text(
        place.x + _PADDING,
        place.y + 16,
        _fit(text, room, _TEXT_SIZE, tail=goes_on),
        _TEXT_SIZE,
        "text",
    )
    return _Box(
        place.x,
        place.y,
        sizes.box_width,
        sizes.pill_height,
        sizes.pill_height / 2,
        _KINDS[row.kind][0],
        f"{row.name}: {shape} {row.kind}",
        (line,),
    )


def _arrow(route: Route) -> _Arrow:
    (ax, ay), (bx, by) = route.points[-2:]
    head: Sequence[Point]
    if ay == by:
        back = _ARROW if ax > bx else -_ARROW
        head = ((bx, by), (bx + back, by - _ARROW / 2), (bx + back, by + _ARROW / 2))
    else:
        head = ((bx, by), (bx - _ARROW / 2, by - _ARROW), (bx + _ARROW / 2, by - _ARROW))
    return _Arrow(_points(route.points), _points(head), route.aside)


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _legend(kinds: Sequence[str]) -> list[tuple[float, str, str]]:
    """Where, in which colour, and what."""
    entries, x = [], 0.0
    for kind in kinds:
        color, text = _KINDS[kind]
        entries.append((x, color, f"{kind}: {text}"))
        x += (len(kind) + len(text) + 6) * _EM * _TEXT_SIZE
    return entries


def graph_svg(description: Description) -> str:
    """The picture of a network: plain SVG without scripts, readable on light and dark pages."""
    sizes = Sizes()
    rows = {row.name: row for row in (description.image, *description.rows)}
    placed: Layout = layout(
        {row.name: row.reads for row in description.rows}, description.image.name, sizes
    )
    boxes = []
    for place in placed.places:
        row = rows[place.name]
        if place.entry:
            goes_on = row is not description.image
            boxes.append(_pill(row, place, sizes, goes_on=goes_on))
        else:
            boxes.append(_box(row, place, sizes))
    kinds = [kind for kind in _KINDS if any(row.kind == kind for row in rows.values())]
    legend = _legend(kinds)
    order = (
        "channels x rows x columns"
        if description.layout == "CxHxW"
        else "rows x columns x channels"
    )
    subtitle = (
        f"{len(description.rows)} operations, {description.parameters:,} parameters, "
        f"{description.macs:,} MACs; shapes are {order}"
    )
    title = f"{description.model}: {description.stage}"
    texts = max(len(subtitle) * _EM * _TEXT_SIZE, len(title) * _EM * _TITLE_SIZE)
    last_x, _, last = legend[-1]
    width = max(placed.width, texts, last_x + (len(last) + 4) * _EM * _TEXT_SIZE)
    return render(
        "pictures/graph.svg.j2",
        width=round(width + 2 * _MARGIN),
        height=round(placed.height + 2 * _MARGIN + _HEADER),
        margin=_MARGIN,
        header=_HEADER + _MARGIN,
        title=title,
        subtitle=subtitle,
        legend=legend,
        boxes=boxes,
        arrows=[_arrow(route) for route in placed.routes],
        title_size=_TITLE_SIZE,
        text_size=_TEXT_SIZE,
    ).decode()
