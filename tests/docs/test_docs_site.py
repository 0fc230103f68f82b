"""The site is built strictly, from nothing but the repository, and looks at nothing else."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest

from bnnmcu.cli.main import cli
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


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert not _LOADS.search(page.read_text(encoding="utf-8")), page


def test_references_are_those_of_the_code(site: Path) -> None:
    commands = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    for name in cli.list_commands(click.Context(cli)):
        assert f'id="bnnmcu-{name}"' in commands
    # An example stands line by line, as --help has it.
    assert "Example:\n" in commands
    modules = "".join(
        page.read_text(encoding="utf-8") for page in (site / "reference" / "api").glob("*.html")
    )
    for name in ("bnnmcu.api.export", "bnnmcu.backend.fit.fit_boards", "accuracy_figure"):
        assert name in modules


def test_links_lead_somewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            # Its links begin at the root of a server.
            continue
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r'<a [^>]*href="([^"#:?]+)', text):
            assert (page.parent / unquote(target)).exists(), f"{page.name}: {target}"


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    """The site as a server gives it; its search does not work in files."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    need_browser()
    with browser() as started:
        yield started


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["index", "start", "kernels", "reference/cli", "paper/index"])
def test_pages_fit_their_window(chromium: Any, served: str, name: str, width: int) -> None:
    with opened(chromium, f"{served}/{name}.html", width=width) as page:
        assert overflow(page) == 0
        assert page.locator("h1").count() == 1


def test_pictures_are_those_that_the_script_draws() -> None:
    drawn = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "_gen" / "pictures.py"), "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert drawn.returncode == 0, drawn.stdout + drawn.stderr
