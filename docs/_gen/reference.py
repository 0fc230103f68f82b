"""The reference: commands from click, modules by mkdocstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bnnmcu.cli.main import cli

__all__ = ["MODULES", "pages"]

#: Public modules, in the order of the page: what to say of each, and its name.
MODULES = {
    "From a module to a folder": ["bnnmcu.api"],
    "Compiler and graph": [
        "bnnmcu.compiler",
        "bnnmcu.graph.model",
        "bnnmcu.graph.nodes",
        "bnnmcu.graph.values",
    ],
    "Boards side by side": ["bnnmcu.boards.board", "bnnmcu.backend.fit", "bnnmcu.backend.memory"],
    "Reference": ["bnnmcu.reference", "bnnmcu.lfsr", "bnnmcu.evaluate", "bnnmcu.verify"],
    "Boards on a line": ["bnnmcu.link.device", "bnnmcu.link.protocol", "bnnmcu.target"],
    "Attacks": [
        "bnnmcu.attack.model",
        "bnnmcu.attack.fgsm",
        "bnnmcu.attack.pgd",
        "bnnmcu.attack.cw",
        "bnnmcu.attack.jsma",
        "bnnmcu.attack.campaign",
    ],
    "Stored runs and reports": [
        "bnnmcu.store.store",
        "bnnmcu.store.compare",
        "bnnmcu.report.document",
        "bnnmcu.report.stored",
        "bnnmcu.report.charts.draw",
        "bnnmcu.report.charts.numbers",
        "bnnmcu.report.run_page",
    ],
    "Errors": ["bnnmcu.errors"],
}

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701  (Markdown; words are escaped by the filter below)
)
_ENVIRONMENT.filters["slug"] = lambda text: re.sub(r"\W+", "-", text.lower()).strip("-")


def pages() -> dict[str, str]:
    """Pages to be made: their place on the site, and their Markdown."""
    made = {
        "reference/cli.md": _ENVIRONMENT.get_template("cli.md").render(
            commands=list(_commands(cli, "bnnmcu"))
        ),
        "reference/api.md": _ENVIRONMENT.get_template("api.md").render(groups=MODULES),
    }
    for group, modules in MODULES.items():
        name = _ENVIRONMENT.filters["slug"](group)
        made[f"reference/api/{name}.md"] = _ENVIRONMENT.get_template("modules.md").render(
            group=group, modules=modules
        )
    return made


def _commands(group: click.Group, path: str) -> Iterator[dict[str, Any]]:
    with click.Context(group, info_name=path) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is None or command.hidden:
                continue
            yield _described(command, f"{path} {name}")
            if isinstance(command, click.Group):
                yield from _commands(command, f"{path} {name}")


def _described(command: click.Command, path: str) -> dict[str, Any]:
    with click.Context(command, info_name=path) as context:
        usage = " ".join([path, *command.collect_usage_pieces(context)])
        options = [
            record
            for parameter in command.get_params(context)
            if (record := parameter.get_help_record(context)) is not None
        ]
    return {
        "path": path,
        "depth": path.count(" "),
        "usage": usage,
        "paragraphs": list(_paragraphs(command.help or "")),
        "options": [(_cell(names), _cell(text)) for names, text in options],
    }


def _paragraphs(text: str) -> Iterator[dict[str, Any]]:
    """Paragraphs of a help text; those after a backspace stand as they are."""
    text = inspect.cleandoc(text.split("\f")[0])
    for paragraph in re.split(r"\n\s*\n", text):
        verbatim = paragraph.startswith("\b")
        lines = [line for line in paragraph.split("\n") if line.strip() != "\b"]
        # Examples have no other indentation than that of the help text.
        body = "\n".join(line.rstrip() for line in lines)
        yield {"text": body if verbatim else " ".join(body.split()), "verbatim": verbatim}


def _cell(text: str) -> str:
    """A text for a cell of a table."""
    for sign in ("\\", "|", "*", "_", "[", "]", "<", ">"):
        text = text.replace(sign, f"&#{ord(sign)};")
    return " ".join(text.split())
