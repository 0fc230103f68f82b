"""Pages and charts of stored runs: the figures are the run's, and no name breaks a page."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bnnmcu.cli.main import main
from bnnmcu.errors import StoreError
from bnnmcu.report import charts
from bnnmcu.report.charts.numbers import (
    accuracy_by_epsilon,
    accuracy_by_iterations,
    confusion,
    distortions,
    fooled_by_queries,
    strongest,
)
from bnnmcu.report.costs import read_bench
from bnnmcu.report.html import to_html
from bnnmcu.report.run_page import run_page, verdict
from bnnmcu.report.stored import StoredRun, read_run
from bnnmcu.report.terminal import charts as terminal_charts
from tests.support.run_rig import CLASSES, IMAGES, make_run

_BENCH = {
    "model": "tiny",
    "target": "qemu:x (emulated)",
    "emulated": True,
    "unit": "instructions",
    "inferences": 2,
    "layers": [
        {"name": "conv1", "kernel": "bnn_a", "macs": 10, "instructions": 900, "bytes": 4},
        {"name": "dense", "kernel": "bnn_b", "macs": 5, "instructions": 100, "bytes": 8},
    ],
    "total": {"instructions": 1000},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return read_run(make_run(tmp_path_factory.mktemp("run") / "run.sqlite"))


class _Page(HTMLParser):
    """Tags, addresses and ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.addresses.append(value or "")


def test_curves_are_the_runs_figures(run: StoredRun) -> None:
    fgsm = next(one for one in accuracy_by_epsilon(run, "linf") if one.label == "fgsm")
    # By the rig 4 and 9 of 12 images are fooled.
    assert fgsm.x == (0.0, 25 / 255, 76 / 255)
    assert fgsm.y == pytest.approx((1.0, 8 / 12, 3 / 12))
    assert all(low <= y <= high for low, y, high in zip(fgsm.low, fgsm.y, fgsm.high, strict=True))
    (steps,) = accuracy_by_iterations(run)
    assert steps.x == (1.0, 40.0)
    assert steps.y == pytest.approx((9 / 12, 1 / 12))
    (asked,) = fooled_by_queries(run)
    assert asked.x == (10, 10, 20, 30, 40, 50, 60)
    assert asked.y == pytest.approx(tuple(i / 12 for i in range(7)))
    worst = strongest(run)
    assert worst is not None
    assert worst.attack == "pgd-40"
    found = confusion(run, worst)
    assert found.images.tolist() == [IMAGES // CLASSES] * CLASSES
    assert np.allclose(found.shares.sum(axis=1), 1)
    assert found.shares.trace() * IMAGES / CLASSES == pytest.approx(1)
    norms = distortions(run)
    assert {name: len(values) for name, values in norms.items()} == {
        "fgsm, epsilon 0.098": 4,
        "fgsm, epsilon 0.298": 9,
        "pgd-1, epsilon 0.098": 3,
        "pgd-40, epsilon 0.098": 11,
        "square, epsilon 0.098": 6,
    }


def test_shown_images_were_right_and_are_not_any_more(run: StoredRun) -> None:
    assert run.shown
    for shown in run.shown.values():
        for one in shown:
            assert one.before == one.true_label != one.after
            change = (one.changed.astype(float) - one.original) / 255
            assert one.l2 == pytest.approx(np.linalg.norm(change))


def test_a_page_needs_nothing_and_runs_nothing(run: StoredRun) -> None:
    text = to_html(run_page([run]))
    page = _Page(text)
    assert "script" not in page.tags
    assert not {"iframe", "object", "embed", "link", "base", "form"} & set(page.tags)
    assert all(one.startswith(("#", "data:image/png;base64,")) for one in page.addresses)
    assert {one[1:] for one in page.addresses if one.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text
    assert page.tags.count("svg") >= 6
    # Colours of charts are the page's.
    assert "stroke: var(--s1, #0072b2)" in text
    assert text == to_html(run_page([read_run(run.path)]))


def test_the_page_shows_what_the_run_holds(run: StoredRun) -> None:
    text = to_html(run_page([run]))
    for title in (
        "Accuracy against epsilon",
        "Accuracy against iterations",
        "Images fooled against queries",
        "right when clean, and not any more",
        "Who is taken for whom",
        "How far images were moved",
        "Where this is from",
        "How to repeat it",
    ):
        assert title in text
    assert "8.3 % [" in text
    assert f"SHA-256 {'ab' * 32}" in text


def test_two_runs_stand_side_by_side(run: StoredRun, tmp_path: Path) -> None:
    other = read_run(make_run(tmp_path / "other.sqlite", model="second"))
    text = to_html(run_page([run, other]))
    assert "Side by side" in text
    assert "second on board (emulated)" in text
    assert len(_Page(text).ids) == len(set(_Page(text).ids))


def test_the_verdict_fails_closed(run: StoredRun, tmp_path: Path) -> None:
    assert verdict([run]).kind == "bad"
    assert verdict([run]).text.startswith("Broken: 8.3 %")
    part = read_run(make_run(tmp_path / "part.sqlite", complete=False))
    assert verdict([part]).kind == "bad"
    assert verdict([run, part]).text.startswith("Not complete: ")


def test_figures_are_left_out_where_there_is_nothing_to_show(run: StoredRun) -> None:
    with charts.styled():
        assert charts.accuracy_figure([run], "l2") is None
        assert charts.examples_figure(()) is None
        assert charts.bars_figure(["a"], [0], "x") is None
        assert charts.accuracy_figure([run]) is not None


def test_charts_in_the_terminal(run: StoredRun) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=120)
    for chart in terminal_charts([run]):
        console.print(chart)
    text = stream.getvalue()
    assert "66.7 %" in text
    assert "\x1b" not in text
    assert re.search(r"pgd-40, epsilon 0.098 .* 11 ", text)


def test_a_bench_file_beside_it(run: StoredRun, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(_BENCH))
    found = read_bench(path)
    assert found.label == "instructions (emulated)"
    text = to_html(run_page([run], [found]))
    assert "900 (90.0 %)" in text
    assert "1,000 instructions (emulated) for one image" in text


@pytest.mark.parametrize(
    "broken",
    [
        "[]",
        "{",
        "[" * 100_000,
        json.dumps(_BENCH | {"unit": "parsecs"}),
        json.dumps(_BENCH | {"layers": [{"name": "x"}]}),
        json.dumps(_BENCH | {"total": {"instructions": -1}}),
        json.dumps(_BENCH | {"inferences": True}),
        json.dumps(_BENCH | {"model": "x" * 1000}),
    ],
)
def test_a_bench_file_of_something_else_is_refused(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(broken)
    with pytest.raises(StoreError, match="bench --json"):
        read_bench(path)


def _exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["report", *arguments])
    code = stop.value.code
    assert isinstance(code, int)
    return code


def test_command(run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, text = tmp_path / "report.html", tmp_path / "report.md"
    assert _exit_code(str(run.path.parent), "-o", str(page), "--markdown", str(text)) == 0
    assert capsys.readouterr().out.startswith("Broken: ")
    assert page.read_text().startswith("<!doctype html>")
    assert text.read_text().startswith("# ")
    assert _exit_code(str(run.path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"]["kind"] == "bad"
    assert len(found["runs"][0]["summary"]["cases"]) == 6
    assert _exit_code(str(run.path)) == 0
    shown = capsys.readouterr()
    assert "square, epsilon 0.098" in shown.out
    assert "-o report.html" in shown.err


def test_the_command_says_what_is_wrong(
    run: StoredRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code() != 0
    assert "bnnmcu runs list" in capsys.readouterr().err
    assert _exit_code(str(tmp_path)) != 0
    assert "no results file" in capsys.readouterr().err
    assert _exit_code(str(tmp_path / "none.sqlite")) != 0
    assert "next: " in capsys.readouterr().err
    assert _exit_code(str(run.path), "--bench", str(tmp_path / "none.json")) != 0
    assert "bnnmcu bench DIR" in capsys.readouterr().err
    assert _exit_code(str(run.path), "-o", str(run.path / "x.html")) != 0
    assert "Traceback" not in capsys.readouterr().err
