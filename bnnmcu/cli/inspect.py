"""``bnnmcu inspect``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.models import Model, read_any
from bnnmcu.cli.options import json_option, pixel_options, quantization_options
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.backend.plan import Plan
    from bnnmcu.graph import Graph
    from bnnmcu.inspect import Description
    from bnnmcu.network import Network
    from bnnmcu.passes import Lowering

__all__ = ["command"]


@click.command("inspect")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--after", metavar="PASS", help="Show the network after this pass, not the last.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw what is shown as an SVG picture.",
)
@click.option(
    "--arena",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw the memory of the activations as an SVG picture.",
)
@click.option("--data", help="Images for --first-layer calibrated; as for 'evaluate'.")
@quantization_options
@pixel_options
@json_option
def command(
    model: Path,
    after: str | None,
    picture: Path | None,
    arena: Path | None,
    data: str | None,
    as_json: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    **quantization: Any,
) -> None:
    """Show a network layer by layer, after each step of its compilation.

    MODEL is a model file (.pt, .safetensors, .onnx), or a project of 'bnnmcu
    export'.  Lists the passes with the number of changes each made, then the
    integer network that is left: shapes, ranges, sizes, what quantisation
    lost, and the memory it takes.

    \b
    Example:
      bnnmcu inspect examples/models/s64.pt --picture s64.svg
      bnnmcu inspect examples/models/s64.pt --after fold-signs
    """
    from bnnmcu.backend.plan import KernelChoice, make_plan
    from bnnmcu.inspect import describe, graph_svg

    given = read_any(model, quantization, mean=mean, std=std, data=data)
    shown = _shown(given, after)
    description = describe(shown)
    # Memory belongs to the finished network alone.
    plan = None
    if after is None or arena is not None:
        plan = make_plan(given.graph, given.choice or KernelChoice())
    if picture is not None:
        _write(picture, graph_svg(description))
    if arena is not None and plan is not None:
        from bnnmcu.backend.arena_picture import arena_svg

        _write(arena, arena_svg(plan))
    if as_json:
        print_json(_as_dict(description, given.lowering, plan))
        return
    if after is None and given.lowering is not None:
        _print_passes(given.lowering)
    _print_rows(description, after)
    if after is None:
        if given.lowering is not None:
            _print_errors(given.lowering)
        if plan is not None:
            from bnnmcu.backend.arena_picture import arena_text

            print(arena_text(plan))


def _shown(given: Model, after: str | None) -> Network | Graph:
    if after is None:
        return given.graph
    if given.lowering is None:
        raise UsageError(
            "a project holds the finished network only",
            where="--after",
            hint="give the model file that it was exported from",
        )
    snapshot = given.lowering.after(after)
    shown = snapshot.graph or snapshot.network
    assert shown is not None
    return shown


def _write(path: Path, text: str) -> None:
    from bnnmcu.modelfile import atomic_write

    atomic_write(path, text.encode())
    note(f"written: {path}")


def _as_dict(
    description: Description, lowering: Lowering | None, plan: Plan | None
) -> dict[str, Any]:
    result = description.to_dict()
    if lowering is not None:
        result["passes"] = [
            {"name": step.name, "text": step.text, "changes": step.changes}
            for step in lowering.snapshots
        ]
        result["notes"] = [asdict(item) for item in lowering.notes]
        result["errors"] = [asdict(error) for error in lowering.errors]
    if plan is not None:
        result["arena"] = {
            "bytes": 4 * plan.arena_words,
            "buffers": [asdict(buffer) for buffer in plan.buffers],
            "steps": [step.name for step in plan.steps],
        }
    return result


def _print_passes(lowering: Lowering) -> None:
    rows = [[step.name, step.text, f"{step.changes:,}"] for step in lowering.snapshots]
    print_table(
        f"How {lowering.network.name} was compiled",
        ["pass", "what it does", "changes"],
        rows,
        text_columns=2,
    )


def _print_rows(description: Description, after: str | None) -> None:
    rows = [
        [
            row.name,
            f"{row.operation} {row.detail}".strip(),
            ", ".join(row.reads),
            f"{'x'.join(map(str, row.shape))} {row.kind}",
            "" if row.low is None or row.high is None else f"{row.low:,} to {row.high:,}",
            f"{row.parameters:,}" if row.parameters else "",
            f"{row.macs:,}" if row.macs else "",
        ]
        for row in description.rows
    ]
    rows.append(["all", "", "", "", "", f"{description.parameters:,}", f"{description.macs:,}"])
    image = description.image
    shape = "x".join(map(str, image.shape))
    where = f" after {after}" if after else ""
    print_table(
        f"{description.model}: {description.stage}{where}",
        ["layer", "operation", "reads", "value", "range", "parameters", "MACs"],
        rows,
        caption=f"shapes are {description.layout}; the input is {shape} {image.kind}",
        text_columns=4,
        last_is_total=True,
    )


def _print_errors(lowering: Lowering) -> None:
    rows = [
        [
            error.layer,
            f"{error.bits} bits" if error.bits else "exact",
            f"{100 * error.worst:.4f} %" if error.bits else "",
            f"{100 * error.rms:.4f} %" if error.bits else "",
        ]
        for error in lowering.errors
    ]
    if rows:
        print_table(
            "What quantisation lost",
            ["layer", "weights", "worst error", "typical error"],
            rows,
            caption="worst: of the largest weight; typical: root mean square, of the weights'",
            text_columns=2,
        )
    for item in lowering.notes:
        print(f"note: {item.where}: {item.text}")
    if lowering.notes:
        print()
