"""``bnnmcu replay``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.options import (
    board_options_typed,
    json_option,
    line_options,
    progress_options,
    target_options,
)
from bnnmcu.cli.output import note, print_json
from bnnmcu.cli.progress import link_counters, link_text
from bnnmcu.cli.summary import print_summary
from bnnmcu.errors import MismatchFoundError, UsageError

if TYPE_CHECKING:
    from bnnmcu.attack.metrics import Summary
    from bnnmcu.attack.replay import Replayed
    from bnnmcu.backend.project import Project
    from bnnmcu.graph import Graph
    from bnnmcu.store import Store

__all__ = ["command"]


@click.command("replay")
@click.argument("run", metavar="RESULTS.sqlite", type=click.Path(path_type=Path))
@click.argument("model", metavar="DIR|MODEL", type=click.Path(path_type=Path))
@click.option(
    "--case",
    "cases",
    metavar="NAME",
    multiple=True,
    help="Only this case, and the clean images; may be repeated. Default: all.",
)
@click.option("--native", is_flag=True, help="Ask the native twin on this machine, not a board.")
@click.option(
    "-o",
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Results file; if it exists, the replay goes on. Default: one in DIR/results.",
)
@target_options
@line_options
@progress_options
@json_option
def command(
    run: Path,
    model: Path,
    cases: tuple[str, ...],
    native: bool,
    results: Path | None,
    as_json: bool,
    **target: Any,
) -> None:
    """Show the images of a stored run again: to any board, or to another network.

    Nothing is crafted. Pixels and seeds are those of the results file, bit for
    bit, so the same network must give the same logits on every board: if it
    does not, the exit code is 1. Another network is judged on images that were
    made for the first one.

    \b
    Example:
      bnnmcu replay s64/results/attack-0123456789ab.sqlite s64 --port auto
      bnnmcu replay attack.sqlite c64 --native --case pgd -o transfer.sqlite
    """
    typed = " and ".join(board_options_typed())
    if native and typed:
        raise UsageError(
            "--native asks no board", where=typed, hint=f"leave out --native, or {typed}"
        )
    project, graph = _model(model, native=native, typed=typed, results=results)
    from bnnmcu.attack.metrics import summarize
    from bnnmcu.attack.replay import Replay, replay_identity
    from bnnmcu.cli.campaigns import Work, do_stored, oracle_of, own_file
    from bnnmcu.store import Store
    from bnnmcu.target import TargetOptions, open_target

    with ExitStack() as stack:
        source = stack.enter_context(Store.read(run))
        # Before a firmware is compiled: no board can mend what is wrong here.
        counts = _counts(source, cases)
        board = None
        if not native:
            assert project is not None
            board = stack.enter_context(open_target(project, TargetOptions(**target), note))
        oracle = oracle_of(graph, board)
        identity = replay_identity(source, graph, oracle, cases)
        path = results or own_file(model / "results", "replay", identity)

        def sum_up(store: Store) -> tuple[Summary, Replayed]:
            return summarize(store), Replay(source, graph, oracle, store, cases=cases).found()

        work = Work(
            identity,
            graph,
            oracle,
            cases=len(counts),
            total=sum(counts),
            begin=lambda store: Replay(source, graph, oracle, store, cases=cases).run,
            project=project,
            target=board,
        )
        summary, found = do_stored(work, path, sum_up)
        stats = board.device.stats if board else None
    wrong = link_text(stats)
    if wrong:
        note(f"on the line: {wrong}; no answer was lost")
    if as_json:
        print_json(
            found.to_dict()
            | {"summary": summary.to_dict(), "results": str(path), "link": link_counters(stats)}
        )
        if not found.agrees:
            raise click.exceptions.Exit(1)
        return
    print_summary(summary)
    for line in _told(found):
        print(line)
    if not found.agrees:
        raise MismatchFoundError(
            f"{found.compared - found.equal:,} answers of the same network are other ones",
            where=str(path),
            hint=f"bnnmcu runs compare {run} {path}",
        )


def _model(
    model: Path, *, native: bool, typed: str, results: Path | None
) -> tuple[Project | None, Graph]:
    """The network that answers, and its project if it is one."""
    from bnnmcu.cli.inputs import open_project
    from bnnmcu.cli.models import compile_model

    if model.suffix not in (".pt", ".safetensors", ".onnx"):
        project = open_project(model)
        return project, project.graph
    if not native:
        raise UsageError(
            f"a board runs a project's firmware, and this is a model file: {typed or 'it'} needs "
            "a project",
            where=str(model),
            hint="--native for the native twin, or bnnmcu export first",
        )
    if results is None:
        raise UsageError(
            "no results file is named, and a model file has no folder for one",
            where=str(model),
            hint="add -o FILE.sqlite",
        )
    return None, compile_model(model, {}).graph


def _counts(source: Store, cases: tuple[str, ...]) -> list[int]:
    """Images of each case that is replayed."""
    from bnnmcu.attack.replay import chosen_cases

    return [len(source.examples(*case)) for case in chosen_cases(source, cases)]


def _told(found: Replayed) -> list[str]:
    """For people: what the answers have in common with the stored ones."""
    lines = [f"{found.images:,} images replayed, {found.answers:,} answers"]
    if found.drawn_anew:
        lines.append(
            f"{found.drawn_anew:,} of them with draws of their own: the stored run knew no seeds, "
            "or its network draws nothing"
        )
    if found.compared and found.same_network:
        lines.append(
            f"the same network: {found.equal:,} of {found.compared:,} answers are equal to the "
            "stored ones, logit by logit"
        )
    elif found.compared:
        lines.append(
            f"another network: {found.same_label:,} of {found.compared:,} answers have the label "
            "of the stored ones"
        )
    if found.same_network and found.first_difference:
        lines.append(f"the first that differs: {found.first_difference}")
    return lines
