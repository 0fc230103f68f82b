"""Commands in the documents are commands that exist, with options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from bnnmcu.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]


def _commands() -> list[tuple[str, str]]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ {4}(bnnmcu .*)$", text, flags=re.MULTILINE):
            found.append((document.name, line.partition("#")[0].strip()))
    return found


@pytest.mark.parametrize(("document", "line"), _commands())
def test_documented_commands_parse(document: str, line: str) -> None:
    words = shlex.split(line)[1:]
    context = click.Context(cli)
    command = cli.get_command(context, words[0])
    assert command is not None, f"{document}: {line}"
    # Raises for an unknown option, a missing value or a missing argument.
    command.make_context(words[0], words[1:], parent=context)


def test_documents_have_commands() -> None:
    assert len(_commands()) > 10


def test_relative_links_lead_somewhere() -> None:
    for document in [*DOCUMENTS, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
