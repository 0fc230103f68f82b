"""A report as one HTML page that needs no other file.

Everything that is shown is escaped, pictures of files are embedded as images, in
which no script runs, and those drawn here follow the page's colours: names and
figures may be anybody's.  The words are in ``templates/``.
"""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2
from markupsafe import Markup

from bnnmcu.errors import UsageError
from bnnmcu.report.document import Document, Picture

__all__ = ["environment", "to_html"]

_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
# No page of ours loads anything from anywhere.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def to_html(document: Document, folder: Path | None = None) -> str:
    """The text of a page; the same report and pictures give the same bytes.

    Args:
        folder: that the paths of pictures are relative to; without it pictures that are files
            are left out, and their words stay.

    Raises:
        UsageError: a picture is neither SVG nor PNG.
        OSError: a picture cannot be read.
    """
    made = environment()
    style, _, _ = made.loader.get_source(made, "document.css")  # type: ignore[union-attr]
    return made.get_template("document.html.j2").render(
        document=document,
        policy=_POLICY,
        style=Markup(style),  # noqa: S704  a file of ours
        image=lambda picture: _image(picture, folder),
    )


def environment() -> jinja2.Environment:
    """The templates of pages, which escape all that is not markup of ours."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("bnnmcu.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["shown"] = _shown
    return made


def _image(picture: Picture, folder: Path | None) -> str | None:
    """A ``data:`` address, or None where there is no file to show."""
    if picture.image is not None:
        return _address(".svg", picture.image.encode())
    if folder is None or not picture.path:
        return None
    suffix = Path(picture.path).suffix
    if suffix not in _KINDS:
        raise UsageError("a page has SVG and PNG pictures only", where=picture.path)
    return _address(suffix, (folder / picture.path).read_bytes())


def _address(suffix: str, data: bytes) -> str:
    return f"data:{_KINDS[suffix]};base64,{base64.b64encode(data).decode('ascii')}"


def _shown(text: str) -> str:
    """Without what cannot be shown."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
