"""What mkdocs calls: pages that are made at build time, and links that leave docs/."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import reference
from links import ROOT, linked_files, outside_code, page_of, rewritten
from mkdocs.structure.files import File, Files

#: Pages of docs/ that are written by hand and may hold references of mkdocstrings.
_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".c": "c", ".h": "c"}
_ORIGINS: dict[str, str] = {}
#: A file larger than this is given as it is, since a page of it would help nobody.
_MOST_BYTES = 60_000
_ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):(?=<code)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the reference, and a page for every file that a document links to."""
    _ORIGINS.clear()
    for name, text in reference.pages().items():
        files.append(File.generated(config, name, content=text))
    waiting = {"SECURITY.md"}
    for file in files.documentation_pages():
        path = ROOT / "docs" / file.src_uri
        if path.exists():
            _ORIGINS[file.src_uri] = f"docs/{file.src_uri}"
            waiting |= linked_files(f"docs/{file.src_uri}", path.read_text(encoding="utf-8"))
    done: set[str] = set()
    while waiting:
        path_of = waiting.pop()
        if path_of in done or path_of.startswith("docs/") or path_of == "README.md":
            continue
        done.add(path_of)
        file = ROOT / path_of
        if not file.is_file():
            continue  # The strict build names the link that leads nowhere.
        text = _page(path_of, file)
        if path_of.endswith(".md"):
            waiting |= linked_files(path_of, text)
        files.append(File.generated(config, page_of(path_of), content=text))
        _ORIGINS[page_of(path_of)] = path_of
    return files


def _page(path: str, file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = _LANGUAGES.get(file.suffix, "text")
    if len(text) > _MOST_BYTES:
        return f"# {path}\n\nA file of {len(text):,} characters; see the repository.\n"
    fence = "````" if "```" in text else "```"
    return f"# {path}\n\n{fence}{language}\n{text.rstrip()}\n{fence}\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead to pages; brackets of the specification stay brackets."""
    uri = page.file.src_uri
    origin = _ORIGINS.get(uri)
    if origin is None:
        return markdown
    text = rewritten(origin, uri, markdown)
    # [*O*][*KH*] is the shape of an array; mkdocstrings would take it for a reference.
    return outside_code(text, lambda part: part.replace("][", "]&#91;"))


def on_page_content(html: str, **_: Any) -> str:
    """Roles of docstrings (as in :mod:`bnnmcu.api`) are code and no more."""
    return _ROLE.sub("", html)
