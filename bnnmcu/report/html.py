"""A report as one HTML page that needs no other file.

Everything that is shown is escaped, and pictures are embedded as images, in
which no script runs: names and figures may be anybody's.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path

from bnnmcu.errors import UsageError
from bnnmcu.report.document import Document, Picture, Section, Table

__all__ = ["to_html"]

_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}
# No page of ours loads anything from anywhere.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; }
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, sans-serif; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
nav ul { columns: 2; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.2rem 0 .4rem; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #444; }
tr:nth-child(even) td { background: #f5f5f5; }
.text { text-align: left; }
td[title] { text-decoration: underline dotted #999; text-underline-offset: .2em; }
.small, figcaption { font-size: .85rem; color: #444; }
.small li { overflow-wrap: anywhere; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; }
  table { font-size: 8pt; page-break-inside: avoid; }
  figure { page-break-inside: avoid; }
  nav { display: none; }
  .wide { overflow: visible; }
}
"""


def to_html(document: Document, folder: Path | None = None) -> str:
    """The text of a page; the same report and pictures give the same bytes.

    Args:
        folder: that the paths of pictures are relative to; without it they are left out, and
            their words stay.

    Raises:
        UsageError: a picture is neither SVG nor PNG.
        OSError: a picture cannot be read.
    """
    title = _text(document.title)
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{title}</h1>",
        "<nav><ul>",
        *(
            f'<li><a href="#{_anchor(number)}">{_text(section.title)}</a></li>'
            for number, section in enumerate(document.sections)
        ),
        "</ul></nav>",
    ]
    for number, section in enumerate(document.sections):
        parts += _section(section, _anchor(number), folder)
    return "\n".join([*parts, "</body>", "</html>"]) + "\n"


def _anchor(number: int) -> str:
    return f"section-{number + 1}"


def _section(section: Section, anchor: str, folder: Path | None) -> Iterator[str]:
    yield f'<section id="{anchor}">'
    yield f"<h2>{_text(section.title)}</h2>"
    for text in section.paragraphs:
        yield f"<p>{_text(text)}</p>"
    yield from _list(section.points, "")
    for table in section.tables:
        yield from _table(table)
    for picture in section.pictures:
        yield from _picture(picture, folder)
    yield from _list(section.notes, ' class="small"')
    yield "</section>"


def _list(texts: tuple[str, ...], kind: str) -> Iterator[str]:
    if texts:
        yield f"<ul{kind}>"
        yield from (f"<li>{_text(text)}</li>" for text in texts)
        yield "</ul>"


def _table(table: Table) -> Iterator[str]:
    yield '<div class="wide"><table>'
    yield f"<caption>{_text(table.title)}</caption>"
    heads = (f"<th{_side(table, i)}>{_text(text)}</th>" for i, text in enumerate(table.columns))
    yield f"<thead><tr>{''.join(heads)}</tr></thead>"
    yield "<tbody>"
    for number, row in enumerate(table.rows):
        hints = table.hints[number] if number < len(table.hints) else ()
        cells = []
        for i, text in enumerate(row):
            hint = hints[i] if i < len(hints) else ""
            more = f' title="{_text(hint)}"' if hint else ""
            cells.append(f"<td{_side(table, i)}{more}>{_text(text)}</td>")
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"
    if table.caption:
        yield f'<p class="small">{_text(table.caption)}</p>'


def _side(table: Table, column: int) -> str:
    return ' class="text"' if column < table.text_columns else ""


def _picture(picture: Picture, folder: Path | None) -> Iterator[str]:
    yield "<figure>"
    if folder is not None:
        kind = _KINDS.get(Path(picture.path).suffix)
        if kind is None:
            raise UsageError("a page has SVG and PNG pictures only", where=picture.path)
        data = base64.b64encode((folder / picture.path).read_bytes()).decode("ascii")
        yield f'<img alt="{_text(picture.title)}" src="data:{kind};base64,{data}">'
    caption = f": {_text(picture.caption)}" if picture.caption else ""
    yield f"<figcaption><strong>{_text(picture.title)}</strong>{caption}</figcaption>"
    yield "</figure>"


def _text(text: str) -> str:
    """Escaped for text and attributes, without what cannot be shown."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return html.escape(shown, quote=True)
