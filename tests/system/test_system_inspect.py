"""What is shown of a network, and the pictures of it."""

from __future__ import annotations

import itertools
import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_dags import random_dag
from random_networks import random_network
from small_network import IMAGES, small_network

from bnnmcu.backend.plan import make_plan
from bnnmcu.backend.project import write_project
from bnnmcu.boards import load_board
from bnnmcu.graph import infer
from bnnmcu.inspect import Description, Row, describe, graph_svg
from bnnmcu.inspect.layout import Layout, Sizes, layout
from bnnmcu.network import Add, Affine, Conv, Flatten, Linear, MaxPool, Network, Sign
from bnnmcu.network.file import save_network
from bnnmcu.passes import PASSES, lower

_SVG = "{http://www.w3.org/2000/svg}"
# Widest character of the fonts that the picture asks for, in units of their size.
_WIDEST = 0.61


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inspect") / "small.safetensors"
    save_network(path, small_network())
    return path


def test_the_table_says_what_the_graph_is(cli, model: Path) -> None:
    done = cli("inspect", model, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    lowering = lower(small_network())
    specs = infer(lowering.graph)
    assert [row["name"] for row in shown["rows"]] == [n.name for n in lowering.graph.nodes]
    for row in shown["rows"]:
        spec = specs[row["name"]]
        assert tuple(row["shape"]) == spec.shape
        assert (row["kind"], row["low"], row["high"]) == (spec.kind, spec.low, spec.high)
    plan = make_plan(lowering.graph)
    assert shown["macs"] == plan.macs
    assert shown["arena"]["bytes"] == 4 * plan.arena_words
    assert [(p["name"], p["changes"]) for p in shown["passes"]] == [
        (s.name, s.changes) for s in lowering.snapshots
    ]
    assert [e["layer"] for e in shown["errors"]] == [e.layer for e in lowering.errors]


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_can_be_looked_at(name: str) -> None:
    snapshot = lower(small_network()).after(name)
    shown = snapshot.graph or snapshot.network
    assert shown is not None
    description = describe(shown)
    assert description.macs > 0
    assert description.stage == ("integer graph" if snapshot.graph else "float network")
    ET.fromstring(graph_svg(description))


@pytest.mark.parametrize("seed", range(20))
def test_every_operation_has_a_row(seed: int) -> None:
    lowering = lower(random_network(seed, exact=False))
    for snapshot in lowering.snapshots:
        shown = snapshot.graph or snapshot.network
        assert shown is not None
        assert len(describe(shown).rows) == len(snapshot.graph.nodes if snapshot.graph
                                                else snapshot.network.ops)  # fmt: skip
    graph = random_dag(seed)
    assert describe(graph).macs == make_plan(graph).macs


def test_command_shows_passes_errors_and_arena(cli, model: Path) -> None:
    done = cli("inspect", model)
    assert done.returncode == 0, done.stderr
    for text in ("dead-channels", "What quantisation lost", "second", "arena of small"):
        assert text in done.stdout
    after = cli("inspect", model, "--after", "fold-signs")
    assert "Decide after Affine" in after.stdout
    assert "float network" in after.stdout


def test_command_on_a_project(cli, tmp_path: Path) -> None:
    write_project(lower(small_network()).graph, load_board("nucleo_f446re"), tmp_path / "project")
    done = cli("inspect", tmp_path / "project", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "small"
    refused = cli("inspect", tmp_path / "project", "--after", "fold-signs")
    assert refused.returncode == 2
    assert "give the model file" in refused.stderr


def test_command_draws_both_pictures(cli, model: Path, tmp_path: Path) -> None:
    picture, arena = tmp_path / "graph.svg", tmp_path / "arena.svg"
    done = cli("inspect", model, "--picture", picture, "--arena", arena)
    assert done.returncode == 0, done.stderr
    for path in (picture, arena):
        assert ET.parse(path).getroot().tag == f"{_SVG}svg"


def test_a_calibrated_first_layer_needs_images(cli, model: Path, tmp_path: Path) -> None:
    asked = ("inspect", model, "--first-layer", "calibrated", "--json")
    refused = cli(*asked)
    assert refused.returncode == 2
    assert "images" in refused.stderr
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=np.zeros(len(IMAGES), dtype=np.int64))
    done = cli(*asked, "--data", tmp_path / "data.npz")
    assert done.returncode == 0, done.stderr
    assert "calibrated on 6 images" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--after", "nothing"), 2, "use one of read"),
        (("--std", "0.5"), 2, "leave it out"),
        (("--hidden-bits", "15"), 2, "not in the range"),
        (("--picture", "."), 2, "is a directory"),
    ],
)
def test_refusals(
    cli, model: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = cli("inspect", model, *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_options_reach_the_compiler(cli, model: Path) -> None:
    def rows(*arguments: str) -> dict[str, Any]:
        done = cli("inspect", model, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return {row["name"]: row for row in json.loads(done.stdout)["rows"]}

    assert rows()["first"]["shape"] == [8, 8, 5]
    assert rows("--keep-dead-channels")["first"]["shape"] == [8, 8, 6]
    assert "8 bits" in rows("--first-layer-bits", "8")["first"]["detail"]


# The picture.


def _residual(blocks: int) -> Network:
    """As deep as people make them: two values cross every row of a block."""
    rng = np.random.default_rng(1)
    ops: list[Any] = [Conv("stem", "input", rng.normal(size=(8, 1, 3, 3)), padding=(1, 1, 1, 1))]
    last = "stem"
    for i in range(blocks):
        weights = rng.choice([-1.0, 1.0], (8, 8, 3, 3))
        ops += [
            Sign(f"layer{i}.sign", last),
            Conv(f"layer{i}.conv", f"layer{i}.sign", weights, padding=(1, 1, 1, 1)),
            Affine(f"layer{i}.norm", f"layer{i}.conv", rng.uniform(0.1, 1, 8), rng.normal(size=8)),
            Add(f"layer{i}.add", f"layer{i}.norm", last),
        ]
        last = f"layer{i}.add"
    ops += [MaxPool("pool", last, (8, 8), (8, 8)), Flatten("flat", "pool")]
    ops.append(Linear("head", "flat", rng.normal(size=(4, 8))))
    return Network("deep", (1, 8, 8), tuple(ops), np.full(1, 1 / 255), np.zeros(1))


def _random_sources(seed: int) -> dict[str, tuple[str, ...]]:
    """Worse than any network: every layer reads one or two of the last few."""
    chosen = random.Random(seed)
    names, sources = ["input"], {}
    for i in range(chosen.choice([3, 12, 40])):
        reads = [
            chosen.choice(names[-chosen.choice([1, 2, 6]) :]) for _ in range(chosen.choice([1, 2]))
        ]
        sources[f"n{i}"] = tuple(reads)
        names.append(f"n{i}")
    return sources


def _inside(one: tuple[float, float], other: tuple[float, float], low: float, high: float) -> bool:
    first, last = min(one[0], other[0]), max(one[0], other[0])
    return first < high if first == last and first > low else max(first, low) < min(last, high)


def _crossed(placed: Layout) -> list[tuple[str, str, str]]:
    """Lines that run through a box."""
    sizes, found = Sizes(), []
    for route in placed.routes:
        for a, b in itertools.pairwise(route.points):
            assert a[0] == b[0] or a[1] == b[1]
            for place in placed.places:
                height = sizes.pill_height if place.entry else sizes.box_height
                across = _inside((a[0], 0), (b[0], 0), place.x, place.x + sizes.box_width)
                down = _inside((a[1], 0), (b[1], 0), place.y, place.y + height)
                if across and down:
                    found.append((route.source, route.target, place.name))
    return found


def _merged(placed: Layout) -> list[tuple[str, str]]:
    """Lines of different values, to different readers, that run on top of each other."""
    pieces = [(route, a, b) for route in placed.routes for a, b in itertools.pairwise(route.points)]
    found = []
    for i, (one, a, b) in enumerate(pieces):
        for other, c, d in pieces[:i]:
            if one.source == other.source or one.target == other.target:
                continue
            for k in (0, 1):
                if a[k] == b[k] == c[k] == d[k]:
                    low = max(min(a[1 - k], b[1 - k]), min(c[1 - k], d[1 - k]))
                    high = min(max(a[1 - k], b[1 - k]), max(c[1 - k], d[1 - k]))
                    if low < high - 0.01:
                        found.append((one.source, other.source))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_lines_keep_clear_of_boxes_and_of_each_other(seed: int) -> None:
    sources = _random_sources(seed)
    placed = layout(sources, "input")
    assert {p.name for p in placed.places} == {"input", *sources}
    edges = {(source, name) for name, reads in sources.items() for source in reads}
    assert {(r.source, r.target) for r in placed.routes} == edges
    assert _crossed(placed) == []
    assert _merged(placed) == []


def test_a_deep_residual_network_is_cut_into_strips() -> None:
    graph = lower(_residual(40)).graph
    description = describe(graph)
    placed = layout({row.name: row.reads for row in description.rows}, "input")
    assert _crossed(placed) == []
    entries = [place for place in placed.places if place.entry]
    assert len(entries) > 3
    assert placed.height < 3_000
    shortcuts = [route for route in placed.routes if route.aside]
    assert len(shortcuts) >= 40
    picture = ET.fromstring(graph_svg(description))
    titles = {title.text for title in picture.iter(f"{_SVG}title") if title.text}
    assert all(any(t.startswith(f"{n.name}:") for t in titles) for n in graph.nodes)


_LONG = Description(
    "long",
    "integer graph",
    "HxWxC",
    Row("input", "", "", (), (65_535, 65_535, 65_535), "u8", 0, 255, 0, 0),
    (
        Row(
            f"a<b>&{'very.' * 30}end",
            "IntegerConv",
            "9x9 stride 1234,5678 pad 1,2,3,4 dilation 5 groups 1024, 14 bits",
            ("input",),
            (65_535, 65_535, 65_535),
            "int",
            -(2**63),
            2**63 - 1,
            10**15,
            10**18,
        ),
    ),
)


@pytest.mark.parametrize(
    "description",
    [_LONG, describe(lower(_residual(3)).graph), describe(_residual(3)), describe(random_dag(0))],
    ids=["long", "residual", "float", "random"],
)
def test_text_stays_in_its_box(description: Description) -> None:
    checked = 0
    for group in ET.fromstring(graph_svg(description)).iter(f"{_SVG}g"):
        box = group.find(f"{_SVG}rect")
        if group.find(f"{_SVG}title") is None or box is None:
            continue
        left, top = float(box.get("x", 0)), float(box.get("y", 0))
        right, bottom = left + float(box.get("width", 0)), top + float(box.get("height", 0))
        lines: dict[float, list[tuple[float, float]]] = {}
        for text in group.iter(f"{_SVG}text"):
            x, y = float(text.get("x", 0)), float(text.get("y", 0))
            width = len(text.text or "") * _WIDEST * float(text.get("font-size", 0))
            start = x - width if text.get("text-anchor") == "end" else x
            assert left + 4 <= start
            assert start + width <= right - 4
            assert top < y < bottom
            lines.setdefault(y, []).append((start, start + width))
            checked += 1
        for spans in lines.values():
            ordered = sorted(spans)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(ordered))
    assert checked >= 3


def test_the_picture_is_the_same_every_time() -> None:
    assert graph_svg(describe(random_dag(3))) == graph_svg(describe(random_dag(3)))
