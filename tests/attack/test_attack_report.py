"""Reports: what stays whole in Markdown, and which flags are told how often."""

from __future__ import annotations

import re

from bnnmcu.attack.flags import Flag
from bnnmcu.report.document import Document, Section, Table
from bnnmcu.report.flag_text import told
from bnnmcu.report.markdown import to_markdown


def test_no_text_breaks_a_table() -> None:
    table = Table(
        "what | was\nseen",
        ("name", "left", "right"),
        (("a|b", "1\n2", "\x1b[31m3"), ("", "4", "5")),
        caption="read\r\nme",
    )
    section = Section("One\n# Two", ("first\nsecond",), ("- a\n- b",), (table,))
    lines = to_markdown(Document("T\nU", (section,), {})).splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# T U", "## One # Two"]
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}
    assert rows[1] == "| --- | ---: | ---: |"
    assert all(line.isprintable() for line in lines)
    assert "first second" in lines


def test_every_warning_is_told_and_a_note_not_for_every_case() -> None:
    flags = [Flag("saturated", "note", f"case {i}") for i in range(5)]
    flags += [Flag("saturated", "warning", f"case {i}") for i in range(4)]
    flags += [Flag("audit", "note", "evil \x1b[2J text")]
    lines = list(told(flags))
    assert [line for line in lines if line.startswith("warning: ")] == [
        f"warning: case {i} [saturated]" for i in range(4)
    ]
    assert lines[4:7] == [
        "note: case 0 [saturated]",
        "note: case 1 [saturated]",
        "note: the same of 3 more cases; --json has all [saturated]",
    ]
    assert lines[7].isprintable()
    assert len(lines) == 8
