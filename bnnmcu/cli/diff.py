"""``bnnmcu diff``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import images_for, open_project
from bnnmcu.cli.models import compile_model
from bnnmcu.cli.options import (
    board_options_typed,
    json_option,
    pixel_options,
    quantization_options,
    seed_option,
    target_options,
)
from bnnmcu.cli.output import note, print_json, print_table, progress_bar
from bnnmcu.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bnnmcu.compare import Diff
    from bnnmcu.graph import Graph

__all__ = ["command"]

# Larger .npy files are data sets: those go to --data.
_MOST_IMAGES = 1_000
_NOISE = "noise"


@click.command("diff")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("project", metavar="[DIR]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--data", help="As for 'evaluate', or 'noise'; default: digits where the network takes them."
)
@click.option(
    "--image",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .npy file of uint8 pixels instead: (H, W, C), (H, W) or (N, H, W, C).",
)
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1, _MOST_IMAGES),
    default=1,
    show_default=True,
    help="Images of --data.",
)
@seed_option
@quantization_options
@pixel_options
@target_options
@json_option
def command(
    model: Path,
    project: Path | None,
    data: str | None,
    image: Path | None,
    count: int,
    seed: int,
    as_json: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    port: str | None,
    baud: int | None,
    emulate: str | None,
    toolchain: str | None,
    trace: Path | None,
    **quantization: Any,
) -> None:
    """Find the first layer where the executions of a network part.

    Runs one input through the float network, the integer network, its C on
    this machine, and a board, and compares every value they have in common.
    MODEL is a model file or an exported project; DIR is a project, whose own
    C and board are then compared.  Exit code 1 for a difference between
    integers, or one that rounding cannot explain.

    \b
    Example:
      bnnmcu diff examples/models/s64.pt
      bnnmcu diff examples/models/s64.pt s64 --emulate qemu -n 5
    """
    from bnnmcu.compare import diff
    from bnnmcu.target import TargetOptions, open_target

    if model.is_dir() and project is not None:
        raise UsageError(
            "two projects; one is compared",
            where=str(project),
            hint="give the model file first, then its project",
        )
    folder = model if model.is_dir() else project
    if folder is None and (port is not None or emulate is not None):
        raise UsageError(
            "a board runs a project",
            where="--port" if port is not None else "--emulate",
            hint="name the project's folder behind the model",
        )
    typed = " and ".join(board_options_typed())
    if typed and port is None and emulate is None:
        raise UsageError(
            "no board is named",
            where=typed,
            hint=f"add --emulate or --port URL, or leave out {typed}",
        )
    loaded = open_project(folder) if folder is not None else None
    subject: Any
    graph: Graph
    if model.is_dir():
        assert loaded is not None
        subject = graph = loaded.graph
    else:
        calibration = None if data == _NOISE else data or "digits"
        given = compile_model(model, quantization, mean=mean, std=std, data=calibration)
        subject, graph = given.lowering, given.graph
    images, source = _images(graph, data, image, count)
    with ExitStack() as stack:
        device, label = None, "board"
        if port is not None or emulate is not None:
            assert loaded is not None
            loaded.check_evaluation("diff with a board")
            options = TargetOptions(port, emulate, baud, toolchain, trace)
            board = stack.enter_context(open_target(loaded, options, note))
            device, label = board.device, board.label
        bar = stack.enter_context(progress_bar())
        task = bar.add_task("comparing", total=len(images), info="")
        result = diff(
            subject,
            images,
            project=loaded,
            device=device,
            seed=seed,
            data=source,
            target=label,
            progress=lambda n: bar.advance(task, n),
        )
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)
    result.raise_if_different()


def _images(
    graph: Graph, data: str | None, image: Path | None, count: int
) -> tuple[npt.NDArray[np.uint8], str]:
    """Images (N, H, W, C) and what a report calls them."""
    if image is None:
        images = images_for(graph, data, count)
        return images.images, images.name
    import numpy as np

    try:
        pixels = np.load(image, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"cannot read it: {error}", where=str(image), hint="write it with numpy.save"
        ) from error
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise DataError(
            "it holds no uint8 pixels", where=str(image), hint="pixels are 0 to 255, before scaling"
        )
    shape = graph.input_shape
    if pixels.shape == shape[:2] and shape[2] == 1:
        pixels = pixels[..., np.newaxis]
    if pixels.shape == shape:
        pixels = pixels[np.newaxis]
    if pixels.shape[1:] != shape or not 1 <= len(pixels) <= _MOST_IMAGES:
        raise DataError(
            f"it holds pixels of shape {pixels.shape}, {graph.name} takes {shape}", where=str(image)
        )
    return pixels, image.name


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.3g} %)" if part else "0"


def _print(result: Diff) -> None:
    if result.layers:
        rows = [
            [
                layer.layer,
                layer.kind,
                f"{layer.compared:,}",
                _share(layer.differing, layer.compared) if layer.kind == "signs" else "",
                "" if layer.kind == "signs" else f"{100 * layer.relative:.3g} %",
                f"{layer.unexplained:,}",
            ]
            for layer in result.layers
        ]
        print_table(
            f"{result.model}: float network against integer graph",
            ["layer", "", "compared", "signs that differ", "largest change", "unexplained"],
            rows,
            caption="each network on its own input; unexplained: more than rounding, where the "
            "layer gets the integer network's input",
            text_columns=2,
        )
    plural = "s" if result.images > 1 else ""
    rows = [
        [
            stage.left,
            stage.right,
            f"{stage.compared:,}",
            f"{stage.differing:,}",
            f"{stage.unexplained:,}",
        ]
        for stage in result.stages
    ]
    drawn = f", weights drawn with seed {result.seeds[0]}" if result.seeds else ""
    print_table(
        f"{result.model}, {result.images} image{plural} of {result.data}{drawn}",
        ["", "", "values compared", "different", "unexplained"],
        rows,
        text_columns=2,
    )
    for name, labels in result.labels.items():
        print(f"label{plural} of the {name}: {', '.join(map(str, labels))}")
    floats = result.labels.get("float network", ())
    for i, (one, other) in enumerate(zip(floats, result.labels["integer graph"], strict=False)):
        if one != other and result.exact:
            print(f"image {i}: rounding alone changes the label from {one} to {other}")
    if result.logit_change is not None:
        print(f"largest change of a logit: {100 * result.logit_change:.3g} % of their spread")
    for stage in result.stages:
        if stage.first is not None and stage.first is not stage.first_unexplained:
            print(f"{stage.left} and {stage.right} part first, by rounding, at {stage.first}")
        if stage.first_unexplained is not None:
            print(f"{stage.left} and {stage.right} part first at {stage.first_unexplained}")
        if stage.note:
            print(f"  {stage.note}")
