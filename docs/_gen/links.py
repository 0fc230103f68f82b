"""Links of the documents, in terms of the repository and in terms of the site.

A document of the repository links to files beside it, in docs/ or not. On the site, documents of
docs/ keep their place, SECURITY.md is the page security.md, README.md is the home page, and every
other file that is linked to gets a page of its own under repository/.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

__all__ = ["ROOT", "linked_files", "outside_code", "page_of", "rewritten"]

ROOT = Path(__file__).resolve().parents[2]

_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(\))")
#: Fenced blocks, indented blocks after an empty line, and code in a line.
_CODE = re.compile(
    r"(^(?:```|~~~)[^\n]*\n.*?^(?:```|~~~)[ \t]*$|^(?: {4}|\t)[^\n]*$|`[^`\n]+`)",
    flags=re.MULTILINE | re.DOTALL,
)
_HOMES = {"README.md": "index.md", "SECURITY.md": "security.md"}


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """``text`` with ``change`` applied to what is not code."""
    parts = _CODE.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)


def _target(origin: str, link: str) -> str:
    """The file, relative to the repository, that a link of ``origin`` means."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    if (ROOT / path).is_dir() and (ROOT / path / "README.md").exists():
        return f"{path}/README.md"
    return path


def linked_files(origin: str, text: str) -> set[str]:
    """Files that a document of the repository links to, relative to the repository."""
    found: set[str] = set()

    def collect(part: str) -> str:
        found.update(_target(origin, match[2]) for match in _LINK.finditer(part))
        return part

    outside_code(text, collect)
    return found


def page_of(path: str) -> str:
    """Where the site has a file of the repository, as a source of mkdocs."""
    if path in _HOMES:
        return _HOMES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    suffix = "" if path.endswith(".md") else ".md"
    return str(PurePosixPath("repository") / (path + suffix))


def rewritten(origin: str, page: str, text: str) -> str:
    """``text`` of the file ``origin`` with links as the page ``page`` needs them.

    What does not exist is left as it is, so that the strict build names it.
    """

    def change(match: re.Match[str]) -> str:
        target = _target(origin, match[2])
        if not (ROOT / target).exists() and page_of(target) == target:
            return match[0]
        link = posixpath.relpath(page_of(target), posixpath.dirname(page) or ".")
        return f"{match[1]}{link}{match[3] or ''}{match[4]}"

    return outside_code(text, lambda part: _LINK.sub(change, part))
