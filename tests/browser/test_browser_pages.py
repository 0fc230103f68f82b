"""Pages in a real browser: widths, colours, keyboard, paper, and what axe-core finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bnnmcu.report.html import to_html
from bnnmcu.report.run_page import run_page
from bnnmcu.report.stored import read_run
from tests.support.page_rig import NARROW, WIDE, browser, opened, overflow, violations
from tests.support.run_rig import make_run

_PAPER = Path(__file__).parents[2] / "docs" / "paper" / "index.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report over two runs, one of them with names that try to break it."""
    folder = tmp_path_factory.mktemp("page")
    runs = [
        read_run(make_run(folder / "evil.sqlite")),
        read_run(make_run(folder / "plain.sqlite", model="plain")),
    ]
    page = folder / "report.html"
    page.write_text(to_html(run_page(runs)), encoding="utf-8")
    return page.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("which", ["report", "paper"])
def test_layout_and_colours(
    chromium: Any, address: str, which: str, width: int, scheme: str
) -> None:
    where = address if which == "report" else _PAPER.as_uri()
    with opened(chromium, where, width=width, scheme=scheme) as page:
        assert overflow(page) == 0
        assert violations(page) == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(ground.split("(")[1].split(",")[0])
        assert (red < 64) == (scheme == "dark")


def test_charts_take_the_pages_colours(chromium: Any, address: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        with opened(chromium, address, scheme=scheme) as page:
            colours.append(
                page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
            )
    assert colours[0] != colours[1]


def test_text_of_charts_stays_within_them(chromium: Any, address: str) -> None:
    with opened(chromium, address) as page:
        outside = page.evaluate(
            """() => [...document.querySelectorAll('svg')].flatMap(svg => {
                const box = svg.getBoundingClientRect();
                return [...svg.querySelectorAll('text')].filter(text => {
                    const own = text.getBoundingClientRect();
                    return own.left < box.left - 1 || own.right > box.right + 1
                        || own.top < box.top - 1 || own.bottom > box.bottom + 1;
                }).map(text => text.textContent);
            })"""
        )
        assert outside == []


def test_keyboard(chromium: Any, address: str) -> None:
    with opened(chromium, address, width=NARROW) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        # What is too wide can be reached, and so scrolled.
        assert page.evaluate(
            "document.activeElement.closest('main') !== null"
            " && getComputedStyle(document.activeElement).overflowX"
        ) in ("auto", True)


def test_a_screen_reader_has_names_and_places(chromium: Any, address: str) -> None:
    with opened(chromium, address) as page:
        assert page.locator("main").count() == page.locator("header").count() == 1
        assert page.locator("h1").count() == 1
        names = page.evaluate(
            """() => [...document.querySelectorAll('[role=img]')].map(one =>
                document.getElementById(one.getAttribute('aria-labelledby')).textContent)"""
        )
        assert len(names) == page.locator("svg").count() > 0
        assert all(names)


def test_on_paper_it_is_dark_on_light(chromium: Any, address: str) -> None:
    with opened(chromium, address, scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert len(page.pdf()) > 10_000
