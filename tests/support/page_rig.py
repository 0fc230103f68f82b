"""A headless Chromium that looks at pages, and says what is wrong with them."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WIDE, NARROW = 1280, 390
_PATHS = ("chromium", "chromium-browser", "google-chrome")


def need_browser() -> str:
    """Its path; skips, with the reason, where there is none."""
    for package in ("playwright", "axe_playwright_python"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path = next((found for name in _PATHS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    return path


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium without a screen or a network."""
    path = need_browser()
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=path, args=flags)
        yield started
        started.close()


@contextmanager
def opened(
    started: Any, address: str, *, width: int = WIDE, scheme: str = "light"
) -> Iterator[Any]:
    """A page, in which nothing may be reported and nothing loaded from outside."""
    said: list[str] = []
    asked: list[str] = []
    page = started.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    page.close()
    assert said == []
    local = ("file:", "data:", "blob:", "http://127.0.0.1:")
    assert [one for one in asked if not one.startswith(local)] == []


def overflow(page: Any) -> int:
    """Pixels that the page is wider than its window."""
    found = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert isinstance(found, int)
    return found


def violations(page: Any) -> list[str]:
    """What axe-core finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['target'] for node in one['nodes']][:3]}" for one in found]
