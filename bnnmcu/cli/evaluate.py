"""``bnnmcu evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import warn_if_seen
from bnnmcu.cli.models import read_any
from bnnmcu.cli.options import (
    board_options_typed,
    json_option,
    line_options,
    pixel_options,
    progress_options,
    quantization_options,
    seed_option,
    target_options,
)
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.cli.progress import link_counters, link_text, show_progress
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.backend.project import Project
    from bnnmcu.data import Dataset
    from bnnmcu.evaluate import Evaluation
    from bnnmcu.graph import Graph
    from bnnmcu.target import Target, TargetOptions

__all__ = ["command"]


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits, mnist, FOLDER (IDX files), or an .npz file.",
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    help="Images, class by class in turn. Default: all.",
)
@click.option(
    "--draws",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Draws for each image, if weights are drawn.",
)
@click.option(
    "-o",
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Store every answer in this file; if it exists, the run goes on. Default with a board: "
    "one in MODEL/results for each configuration; without: none.",
)
@seed_option
@quantization_options
@pixel_options
@target_options
@line_options
@progress_options
@json_option
def command(
    model: Path,
    data: str,
    count: int | None,
    draws: int,
    results: Path | None,
    seed: int,
    as_json: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **options: Any,
) -> None:
    """Measure the error of the integer network on a data set.

    MODEL is a model file (.pt, .safetensors, .onnx), or a project of 'bnnmcu
    export' (whose quantisation then counts).  A calibrated first layer is
    calibrated on the same data.  Runs the generated C on this machine: the same bits as on
    the board; or, with --port or --emulate, a project's firmware.  A board's
    answers are stored as they come: a run that was stopped, in whatever way,
    goes on when the same command is started again.

    \b
    Example:
      bnnmcu evaluate examples/models/s64.pt --data digits --draws 20
      bnnmcu evaluate s64 --port /dev/ttyACM0 -n 1000
    """
    _check_board(model, options)
    from bnnmcu.data import load_dataset
    from bnnmcu.target import TargetOptions

    names = {field.name for field in fields(TargetOptions)} & options.keys()
    chosen = TargetOptions(**{name: options.pop(name) for name in names})
    on_board = chosen.port is not None or chosen.emulate is not None
    given = read_any(model, options, mean=mean, std=std, data=data)
    images = load_dataset(data)
    images.check_suits(given.graph.name, given.graph.input_shape, given.graph.classes)
    warn_if_seen(given.training, images)
    if count is not None:
        images = images.stratified(count)
    if on_board:
        result = _on_board(model, images, chosen, results, draws, seed)
    else:
        result = _native(given.graph, images, results, draws, seed)
    if as_json:
        print_json(result.to_dict())
    else:
        result.print()


def _check_board(model: Path, options: dict[str, Any]) -> None:
    """Refuse options of a board where none would be asked, before anything takes long."""
    typed = " and ".join(board_options_typed())
    if typed and not model.is_dir():
        raise UsageError(
            f"a board runs a project's firmware, and this is a model file: {typed} needs a project",
            where=str(model),
            hint=f"bnnmcu export {model} --board NAME -o DIR, then evaluate DIR; "
            f"or leave out {typed} for the native twin",
        )
    if typed and options["port"] is None and options["emulate"] is None:
        raise UsageError(
            "no board is named, and the native twin has no use for it",
            where=typed,
            hint=f"add --emulate or --port URL, or leave out {typed}",
        )


@dataclass(frozen=True)
class _Result:
    """Errors, and who answered.

    Attributes:
        who: for people.
        label: ``hardware``, ``emulated`` or ``native``.
        stats: of the board's line; None without one.
        results: where the answers are stored, if they are.
    """

    errors: Evaluation
    who: str
    label: str
    stats: Any
    results: Path | None

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Wilson's 95 % intervals over images, by the name of the share.

        On the safe side for the mean over draws: draws of one image differ less than images do.
        """
        from bnnmcu.attack.metrics import wilson

        count = self.errors.images
        shares = {
            name: wilson(getattr(self.errors, name) * count, count)
            for name in ("error", "majority_error", "worst_error")
        }
        return {name: (share.low, share.high) for name, share in shares.items()}

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return self.errors.to_dict() | {
            "intervals": self.intervals,
            "target": self.who,
            "label": self.label,
            "link": link_counters(self.stats),
            "results": str(self.results) if self.results else None,
        }

    def print(self) -> None:
        """The table of errors, and below what the line had to put up with."""
        found, intervals = self.errors, self.intervals

        def row(name: str, share: str) -> list[str]:
            low, high = intervals[share]
            return [
                name,
                f"{100 * getattr(found, share):.3f} %",
                f"{100 * low:.3f} to {100 * high:.3f} %",
            ]

        rows = [row("mean over draws" if found.draws > 1 else "wrong label", "error")]
        if found.draws > 1:
            spread = f"{100 * found.spread:.3f} %"
            rows.append(["spread of one draw (standard deviation)", spread, ""])
            rows.append(row("majority of draws", "majority_error"))
            rows.append(row("wrong in at least one draw", "worst_error"))
        draws = "1 draw" if found.draws == 1 else f"{found.draws} draws"
        caption = f"integer graph, {self.who}; {draws} an image, seed {found.seed}"
        if self.stats is not None:
            caption += f"; on the line: {self.stats.requests:,} requests, "
            caption += link_text(self.stats) or "nothing lost"
        print_table(
            f"{found.model}: error on {found.images:,} images of {found.data}",
            ["", "error", "95 %"],
            rows,
            caption=caption,
        )


def _native(graph: Graph, images: Dataset, results: Path | None, draws: int, seed: int) -> _Result:
    who = "native twin"
    if results is not None:
        errors, path = _stored(graph, images, results, draws, seed)
        return _Result(errors, who, "native", None, path)
    from bnnmcu.evaluate import evaluate

    with show_progress() as display:
        lane = display.lane(who)
        lane.begin("clean", len(images))
        errors = evaluate(graph, images, draws=draws, seed=seed, progress=lane.advance)
    return _Result(errors, who, "native", None, None)


def _on_board(
    folder: Path,
    images: Dataset,
    options: TargetOptions,
    results: Path | None,
    draws: int,
    seed: int,
) -> _Result:
    from bnnmcu.backend.project import load_project
    from bnnmcu.target import open_target

    project = load_project(folder)
    with open_target(project, options, note) as target:
        errors, path = _stored(project.graph, images, results, draws, seed, project, target)
        label = "emulated" if target.emulated else "hardware"
        return _Result(errors, target.label, label, target.device.stats, path)


def _stored(
    graph: Graph,
    images: Dataset,
    results: Path | None,
    draws: int,
    seed: int,
    project: Project | None = None,
    target: Target | None = None,
) -> tuple[Evaluation, Path]:
    """The clean images alone, as a campaign without attacks."""
    import numpy as np

    from bnnmcu.attack.config import CampaignConfig
    from bnnmcu.cli.campaigns import run_stored
    from bnnmcu.evaluate import evaluation_of
    from bnnmcu.store import Store

    def errors(store: Store) -> Evaluation:
        predicted = np.array([one.labels for one in store.judged()], dtype=np.int64)
        return evaluation_of(graph, images, predicted, seed)

    return run_stored(
        CampaignConfig(attacks=(), draws=draws, seed=seed),
        graph,
        images,
        errors,
        name="evaluate",
        results=results,
        project=project,
        target=target,
    )
