"""The site is built strictly, from nothing but the repository, and looks at nothing else."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.page_rig import NARROW, WIDE, browser, need_browser, opened, overflow

ROOT = Path(__file__).resolve().parents[2]
_LOADS = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed (pip install 'bnnmcu[docs]')")
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_in_the_menu_and_loads_nothing(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    menu = (site / "index.html").read_text(encoding="utf-8")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not _LOADS.search(text), page
        name = page.relative_to(site).as_posix()
        assert name == "404.html" or f'href="{name}"' in menu or name == "index.html", name


def test_references_are_those_of_the_code(site: Path) -> None:
    from bnnmcu.cli.main import cli

    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    for name in cli.commands or cli.list_commands(None):  # type: ignore[arg-type]
        assert f'id="bnnmcu-{name}"' in commands
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert "bnnmcu.api.export" in python
    assert "accuracy_figure" in python


def test_links_to_files_are_no_links(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r'<a [^>]*href="([^"#:]+)', text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    need_browser()
    with browser() as started:
        yield started


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["index", "start", "kernels", "reference/commands", "paper/index"])
def test_pages_fit_their_window(chromium: Any, site: Path, name: str, width: int) -> None:
    with opened(chromium, (site / f"{name}.html").as_uri(), width=width) as page:
        assert overflow(page) == 0
        assert page.locator("h1").count() == 1
