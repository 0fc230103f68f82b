"""``bnnmcu report``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from bnnmcu.cli.options import json_option
from bnnmcu.cli.output import last_line, note, print_json

__all__ = ["command"]

_file = click.Path(path_type=Path, dir_okay=False)


@click.command("report")
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=_file, help="HTML page to write, one file that needs no other."
)
@click.option("--markdown", type=_file, help="Markdown file to write, without pictures.")
@click.option(
    "--bench",
    "benches",
    multiple=True,
    type=_file,
    help="What 'bnnmcu bench --json' printed, to stand beside the runs; may be given again.",
)
@json_option
def command(
    runs: tuple[Path, ...],
    output: Path | None,
    markdown: Path | None,
    benches: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Make a page of stored runs, or show their charts here.

    RUN is a results file, or a folder with some; several stand side by side. The
    page has the verdict and all flags, accuracy against budgets, iterations and
    queries, images before and after, who was taken for whom, costs and memory,
    and how to repeat it.  Without -o the charts are drawn in the terminal.

    \b
    Example:
      bnnmcu report s64/results -o report.html
      bnnmcu report s64/results
      bnnmcu report b64/results s64/results --bench bench.json -o both.html
    """
    from bnnmcu.modelfile import atomic_write
    from bnnmcu.report.costs import read_bench
    from bnnmcu.report.html import to_html
    from bnnmcu.report.markdown import to_markdown
    from bnnmcu.report.run_page import run_page, verdict
    from bnnmcu.report.stored import read_runs

    with last_line(verbose=False) as say:
        say("reading")
        found = read_runs(runs)
    counted = [read_bench(path) for path in benches]
    if output is not None or markdown is not None:
        with last_line(verbose=False) as say:
            say(f"drawing the page of {len(found)} run{'s' * (len(found) != 1)}")
            document = run_page(found, counted)
        for path, text in (
            (output, to_html(document) if output else ""),
            (markdown, to_markdown(document) if markdown else ""),
        ):
            if path is not None:
                atomic_write(path, text.encode())
                note(f"written: {path}")
    judged = verdict(found)
    if as_json:
        print_json(
            {
                "verdict": {"kind": judged.kind, "text": judged.text},
                "runs": [
                    {"results": str(run.path), "summary": run.summary.to_dict()} for run in found
                ],
            }
        )
        return
    print(judged.text)
    if output is None and markdown is None:
        from rich.console import Console

        from bnnmcu.report.terminal import charts

        width = None if sys.stdout.isatty() else 120
        console = Console(highlight=False, markup=False, emoji=False, width=width)
        for chart in charts(found):
            console.print(chart)
        named = shlex.join(str(path) for path in runs)
        note(f"next: bnnmcu report {named} -o report.html")
