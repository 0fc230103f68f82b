"""``bnnmcu evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bnnmcu.cli.inputs import warn_if_seen
from bnnmcu.cli.models import read_any
from bnnmcu.cli.options import json_option, pixel_options, quantization_options, seed_option
from bnnmcu.cli.output import print_json, print_table, progress_bar

__all__ = ["command"]


@click.command("evaluate")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    default="digits",
    show_default=True,
    help="digits, mnist, FOLDER (IDX files), or an .npz file.",
)
@click.option("-n", "count", type=click.IntRange(min=1), help="Images, class by class in turn.")
@click.option(
    "--draws",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Draws for each image, if weights are drawn.",
)
@seed_option
@quantization_options
@pixel_options
@json_option
def command(
    model: Path,
    data: str,
    count: int | None,
    draws: int,
    seed: int,
    as_json: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **quantization: Any,
) -> None:
    """Measure the error of the integer network on a data set.

    MODEL is a model file (.pt, .safetensors, .onnx), or a project of 'bnnmcu
    export' (whose quantisation then counts).  A calibrated first layer is
    calibrated on the same data.  Runs the generated C on this machine: the same bits as on
    the board.

    \b
    Example:
      bnnmcu evaluate examples/models/s64.pt --data digits --draws 20
    """
    from bnnmcu.data import load_dataset
    from bnnmcu.evaluate import evaluate

    given = read_any(model, quantization, mean=mean, std=std, data=data)
    graph = given.graph
    images = load_dataset(data)
    images.check_suits(graph.name, graph.input_shape, graph.classes)
    warn_if_seen(given.training, images)
    if count is not None:
        images = images.stratified(count)
    with progress_bar() as bar:
        task = bar.add_task("evaluating", total=len(images), info="")
        result = evaluate(
            graph, images, draws=draws, seed=seed, progress=lambda n: bar.advance(task, n)
        )
    if as_json:
        print_json(result.to_dict())
        return
    rows = [["mean over draws", f"{100 * result.error:.3f} %"]]
    if result.draws > 1:
        rows.append(["spread of one draw (standard deviation)", f"{100 * result.spread:.3f} %"])
        rows.append(["majority of draws", f"{100 * result.majority_error:.3f} %"])
        rows.append(["wrong in at least one draw", f"{100 * result.worst_error:.3f} %"])
    print_table(
        f"{graph.name}: error on {result.images:,} images of {result.data}",
        ["", "error"],
        rows,
        caption=f"integer graph, native twin; {result.draws} draws an image, seed {seed}",
    )
