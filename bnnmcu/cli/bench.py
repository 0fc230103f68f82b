"""``bnnmcu bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import project_and_images
from bnnmcu.cli.options import json_option, project_argument, seed_option, target_options
from bnnmcu.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from bnnmcu.bench import BenchReport

__all__ = ["command"]


@click.command("bench")
@project_argument
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Images, class by class in turn.",
)
@click.option(
    "--data", help="As for 'evaluate', or 'noise'; default: digits where the network takes them."
)
@seed_option
@target_options
@json_option
def command(
    project: Path, count: int, data: str | None, seed: int, as_json: bool, **target: Any
) -> None:
    """Count instructions or cycles on the board, layer by layer.

    An emulator counts instructions, exactly; from QEMU's, cycles are modelled.
    Only a real board measures cycles.  Nothing is on the wire while an
    inference is counted.

    \b
    Example:
      bnnmcu bench s64 --emulate qemu --json
    """
    from bnnmcu.bench import bench
    from bnnmcu.target import TargetOptions, open_target

    loaded, images = project_and_images(project, data, count)
    loaded.check_evaluation("bench")
    with open_target(loaded, TargetOptions(**target, count=True, profile=True), note) as board:
        report = bench(loaded.plan, board, images, seed=seed)
        build = board.build
    predicted = None if build is None else loaded.predicted(build.toolchain)
    bound = None if build is None or build.stack_bound is None else build.stack_bound.bytes
    if as_json:
        print_json(report.to_dict() | {"predicted": predicted, "stack_bound": bound})
        return
    print_bench(report, predicted, bound)


def print_bench(
    report: BenchReport, predicted: dict[str, Any] | None = None, stack_bound: int | None = None
) -> None:
    """The table of a bench run, with what was said about memory before."""
    unit = report.unit.replace("_", " ")
    modelled = report.cycle_model is not None
    rows = [
        _row(
            layer.name, layer.kernel, (layer.macs, layer.ticks, layer.cycles_modelled, layer.bytes)
        )
        for layer in report.layers
    ]
    macs, tables = (sum(getattr(layer, n) for layer in report.layers) for n in ("macs", "bytes"))
    rows.append(_row("one inference", "", (macs, report.total, report.cycles_modelled, tables)))
    facts = [f"{report.inferences} inferences, {report.least:,} to {report.most:,} {unit}"]
    if report.resolution:
        facts.append(f"each off by up to {report.resolution} (a coarse timer)")
    if report.milliseconds is not None:
        facts.append(f"{report.milliseconds:.2f} ms measured at {report.clock_hz / 1e6:.0f} MHz")
    if report.cycle_model is not None and report.milliseconds_modelled is not None:
        model = report.cycle_model
        facts.append(
            f"about {report.milliseconds_modelled:.2f} ms at {model.clock_hz / 1e6:g} MHz: cycles "
            f"are modelled ({model.memory}), never compared with hardware, "
            f"perhaps {100 * model.error:.0f} % off"
        )
    if report.flash is not None and report.ram is not None:
        facts.append(f"flash {report.flash:,}, RAM {report.ram:,} bytes ({report.toolchain})")
    if predicted is not None:
        facts.append(
            f"predicted {predicted['flash']:,} and {predicted['ram']:,} ({predicted['compiler']})"
        )
    if report.stack is not None:
        at_most = "" if stack_bound is None else f", {stack_bound:,} at most"
        facts.append(f"deepest stack {report.stack:,} bytes{at_most}")
    print_table(
        f"{report.model} on {report.target}",
        ["layer", "kernel", "MACs", unit, *["cycles, modelled"] * modelled, "tables, bytes"],
        rows,
        caption="; ".join(facts),
        text_columns=2,
        last_is_total=True,
    )


def _row(name: str, kernel: str, figures: tuple[int | None, ...]) -> list[str]:
    """A line of the table; figures that there are not have no column either."""
    return [name, kernel, *(f"{figure:,}" for figure in figures if figure is not None)]
