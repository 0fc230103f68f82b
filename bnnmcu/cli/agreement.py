"""``bnnmcu agreement``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.attack import make_attacks
from bnnmcu.cli.inputs import images_for, warn_if_seen
from bnnmcu.cli.models import compile_model
from bnnmcu.cli.options import (
    json_option,
    pixel_options,
    progress_options,
    quantization_options,
    seed_option,
)
from bnnmcu.cli.output import print_json, print_table
from bnnmcu.cli.progress import Display, Lane, show_progress
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.agreement import Agreement, Case, LayerAgreement

__all__ = ["command"]

_NOISE = "noise"


@click.command("agreement")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data", help="As for 'evaluate', or 'noise'; default: digits where the network takes them."
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    help="Images, class by class in turn. Default: 100, or all there are.",
)
@click.option(
    "--draws",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Draws, each for all images and the same on both sides, if weights are drawn.",
)
@click.option(
    "--attack",
    "kinds",
    type=click.Choice(["fgsm", "pgd"]),
    multiple=True,
    help="Compare on adversarial images too; may be repeated.",
)
@click.option(
    "--eps",
    "epsilons",
    type=click.FloatRange(0, 1),
    multiple=True,
    default=(0.1,),
    show_default=True,
    help="The attacks' L-infinity budgets; may be repeated.",
)
@click.option("--steps", type=click.IntRange(min=1), default=40, show_default=True, help="PGD's.")
@seed_option
@quantization_options
@pixel_options
@progress_options
@json_option
def command(
    model: Path,
    data: str | None,
    count: int | None,
    draws: int,
    kinds: tuple[str, ...],
    epsilons: tuple[float, ...],
    steps: int,
    seed: int,
    as_json: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **quantization: Any,
) -> None:
    """Compare the integer network with the float one it was made from.

    MODEL is a model file (.pt, .safetensors, .onnx).  Both networks run on the
    same images, and with the same drawn weights where weights are drawn:
    labels, logits, and the signs and values of every layer that both have.
    Adversarial images are crafted on the integer network.

    \b
    Example:
      bnnmcu agreement examples/models/s64.pt --attack fgsm --eps 0.1
    """
    from bnnmcu.agreement import agreement

    if model.is_dir():
        raise UsageError(
            "a project holds the integer network only",
            where=str(model),
            hint="give the model file it was exported from",
        )
    calibration = None if data == _NOISE else data or "digits"
    given = compile_model(model, quantization, mean=mean, std=std, data=calibration)
    assert given.lowering is not None
    graph = given.graph
    images = images_for(graph, data, count)
    warn_if_seen(given.training, images)
    common = {"eot_draws": 10 if graph.stochastic else 1}
    attacks = make_attacks(kinds, epsilons, common, steps=steps, restarts=1, label=None)
    with show_progress() as display:
        result = agreement(
            given.lowering,
            images,
            attacks=attacks,
            draws=draws,
            seed=seed,
            progress=_progress_of(display),
        )
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)


def _progress_of(display: Display) -> Callable[[str, int, int], None]:
    """A callback that gives each piece of work a lane of its own."""
    lanes: dict[str, Lane] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in lanes:
            lanes[what] = display.lane("agreement")
            lanes[what].begin(what, total)
        lanes[what].update(done)

    return show


def _name(case: Case) -> str:
    return f"{case.attack} {case.levels}/255" if case.levels else case.attack


def _share(error: float | None) -> str:
    return "-" if error is None else f"{100 * error:.2f} %"


def _cell(layer: LayerAgreement) -> str:
    if layer.differing is not None:
        return f"{100 * layer.differing:.4f} %"
    return f"{100 * (layer.rms or 0.0):.4f} %"


def _print(result: Agreement) -> None:
    """One row a case, then one row a layer."""
    rows = [
        [
            _name(case),
            f"{100 * case.same_label:.2f} %",
            _share(case.float_error),
            _share(case.integer_error),
            f"{100 * case.mean_change:.3f} %",
            f"{100 * case.largest_change:.3f} %",
            f"{100 * case.decided_by:.3f} %" if case.same_label < 1 else "-",
        ]
        for case in result.cases
    ]
    each = f", {result.draws} draws, equal on both sides" if result.draws > 1 else ""
    print_table(
        f"{result.model}: integer against float on {result.images:,} images of {result.data}{each}",
        [
            "images",
            "same label",
            "float error",
            "integer error",
            "mean change",
            "largest change",
            "largest lead lost",
        ],
        rows,
        caption="Changes of a logit and leads of a label in percent of the float logits' mean "
        "spread, largest minus smallest.",
    )
    rows = [
        [layer.layer, layer.kind, *(_cell(case.layers[i]) for case in result.cases)]
        for i, layer in enumerate(result.cases[0].layers)
    ]
    print_table(
        "Layers that both networks have",
        ["layer", "compared", *(_name(case) for case in result.cases)],
        rows,
        caption="Signs: share that differs. Values: root mean square difference in percent of "
        "their standard deviation.",
        text_columns=2,
    )
