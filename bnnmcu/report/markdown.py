"""A report as Markdown, GitHub's dialect."""

from __future__ import annotations

from collections.abc import Iterator

from bnnmcu.report.document import Document, Table

__all__ = ["to_markdown"]


def to_markdown(document: Document) -> str:
    """The text of a file; the same report gives the same bytes."""
    blocks = [f"# {_line(document.title)}"]
    for section in document.sections:
        blocks.append(f"## {_line(section.title)}")
        blocks += [_line(text) for text in section.paragraphs]
        if section.points:
            blocks.append("\n".join(f"- {_line(text)}" for text in section.points))
        for table in section.tables:
            blocks += _table(table)
        for picture in section.pictures:
            blocks.append(f"![{_line(picture.title)}]({_line(picture.path)})")
            caption = f": {_line(picture.caption)}" if picture.caption else ""
            blocks.append(f"**{_line(picture.title)}**{caption}")
        if section.notes:
            blocks.append("\n".join(f"- {_line(text)}" for text in section.notes))
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> Iterator[str]:
    yield f"**{_line(table.title)}**"
    marks = ["---" if i < table.text_columns else "---:" for i in range(len(table.columns))]
    rows = [table.columns, marks, *table.rows]
    yield "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in rows)
    if table.caption:
        yield f"{_line(table.caption)}"


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|") or " "


def _line(text: str) -> str:
    """Without what would end a line, or steer a terminal: names may be anybody's."""
    return "".join(sign if sign.isprintable() else " " for sign in text).strip()
