"""The picture of the arena: every buffer once, where and as long as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest
from random_dags import random_dag

from bnnmcu.backend.arena import Request, place
from bnnmcu.backend.arena_picture import arena_svg, arena_text
from bnnmcu.backend.plan import Plan, make_plan

SVG = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]


def _plan(count: int, name: Callable[[int], str], sizes: tuple[int, ...]) -> Plan:
    """A plan of so many steps, with one value and one scratch buffer each."""
    base = make_plan(random_dag(1002))
    requests = []
    for i in range(count):
        requests.append(Request(name(i), sizes[i % len(sizes)], i, min(count - 1, i + 1 + i % 3)))
        requests.append(Request(f"{name(i)}:scratch", 1, i, i))
    placed, words = place(requests)
    buffers = tuple(placed.values())
    steps = tuple(
        replace(
            base.steps[0], name=name(i), ram_bytes=4 * sum(b.words for b in buffers if b.alive(i))
        )
        for i in range(count)
    )
    return replace(base, steps=steps, buffers=buffers, arena_words=words)


PLANS = {
    "random": lambda: make_plan(random_dag(1004)),
    "one step": lambda: _plan(1, lambda i: f"a{i}", (7,)),
    "long names": lambda: _plan(
        20, lambda i: f"backbone.stage{i // 5}.block{i % 5}.conv_depthwise", (4000, 3, 900)
    ),
    "many steps": lambda: _plan(255, lambda i: f"layer{i}", (1, 20_000, 400)),
    "markup": lambda: _plan(3, lambda i: f"<a&b{i}>", (50, 60)),
}


@pytest.fixture(params=PLANS.values(), ids=list(PLANS))
def plan(request: pytest.FixtureRequest) -> Plan:
    made: Plan = request.param()
    return made


def _boxes(root: ElementTree.Element) -> dict[str, Box]:
    """Rectangles of buffers by what their tooltip says."""
    found = {}
    for rect in root.iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None:
            assert title.text
            found[title.text] = tuple(float(rect.attrib[k]) for k in ("x", "y", "width", "height"))
    return found  # type: ignore[return-value]


def test_every_buffer_has_its_box_and_its_row(plan: Plan) -> None:
    text = arena_svg(plan)
    assert text == arena_svg(plan)
    root = ElementTree.fromstring(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = _boxes(root)
    assert len(boxes) == len(plan.buffers)
    written = [element.text or "" for element in root.iter(f"{SVG}text")]
    for buffer in plan.buffers:
        start = f"{buffer.name}, {4 * buffer.words:,} bytes at {4 * buffer.offset:,}, step"
        title = next(title for title in boxes if title.startswith(start))
        x, y, w, h = boxes[title]
        assert 0 < x < x + w <= width
        assert 0 < y < y + h <= height
        assert w > 0
        assert h >= 2  # visible, however small it is
        assert any(row.endswith(f": {title}") for row in written)


def test_boxes_meet_only_where_buffers_do(plan: Plan) -> None:
    """Buffers that are alive together must not cover each other in the picture."""
    boxes = list(_boxes(ElementTree.fromstring(arena_svg(plan))).values())
    for (x, y, w, h), (u, v, s, t) in combinations(boxes, 2):
        together = x < u + s and u < x + w
        # Thin ones are drawn two pixels high, whatever they are.
        if together and min(h, t) > 2:
            assert y + h <= v + 0.02 or v + t <= y + 0.02


def test_labels_do_not_leave_their_boxes(plan: Plan) -> None:
    root = ElementTree.fromstring(arena_svg(plan))
    boxes = _boxes(root).values()
    for label in root.iter(f"{SVG}text"):
        if label.attrib.get("class") == "label":
            x, y = float(label.attrib["x"]), float(label.attrib["y"])
            around = [b for b in boxes if b[0] <= x <= b[0] + b[2] and b[1] <= y <= b[1] + b[3]]
            assert any(6 * len(label.text or "") <= box[2] for box in around)


def test_text_has_a_line_for_every_buffer(plan: Plan) -> None:
    lines = arena_text(plan).splitlines()
    assert f"{4 * plan.arena_words:,} bytes for {len(plan.steps)} steps" in lines[0]
    rows = [line.split() for line in lines[3:]]
    assert len(rows) == len(plan.buffers)
    found = {(row[2], row[0], row[1], row[-1]) for row in rows}
    for b in plan.buffers:
        life = f"{b.first}" if b.first == b.last else f"{b.first}-{b.last}"
        assert (b.name, f"{4 * b.offset:,}", f"{4 * b.words:,}", life) in found


def test_text_of_a_small_network() -> None:
    text = arena_text(_plan(2, lambda i: f"layer{i}", (250, 2)))
    assert text.splitlines()[1:] == [
        "",
        "offset  bytes  buffer          steps",
        "     0  1,000  layer0          ##  0-1",
        " 1,000      4  layer0:scratch  #.  0",
        " 1,000      8  layer1          .#  1",
        " 1,008      4  layer1:scratch  .#  1",
    ]
