"""``bnnmcu verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import project_and_images
from bnnmcu.cli.options import (
    json_option,
    line_options,
    progress_options,
    project_argument,
    seed_option,
    target_options,
)
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.cli.progress import link_counters, link_text, show_progress

if TYPE_CHECKING:
    from bnnmcu.verify import Verification

__all__ = ["command"]


@click.command("verify")
@project_argument
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Images, class by class in turn.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Seeds for each image, if weights are drawn.",
)
@click.option(
    "--draws",
    type=click.IntRange(0, 100_000),
    default=5,
    show_default=True,
    help="Seeds whose drawn weights are read back and compared too.",
)
@click.option(
    "--data", help="As for 'evaluate', or 'noise'; default: digits where the network takes them."
)
@click.option(
    "--device-key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The secret of a board in field mode (docs/FIELD.md), to compute its seeds with.",
)
@seed_option
@target_options
@line_options
@progress_options
@json_option
def command(
    project: Path,
    count: int,
    seeds: int,
    draws: int,
    data: str | None,
    key_file: Path | None,
    seed: int,
    as_json: bool,
    **target: Any,
) -> None:
    """Hold a board's answers against the reference, bit for bit.

    Compares every logit of every image and seed, and the drawn weights
    themselves.  Exit code 1 on any difference.  A board in field mode chooses
    the seeds and tells no weights: its owner computes the seeds by its key.

    \b
    Example:
      bnnmcu verify s64 --emulate qemu -n 1000 --seeds 5
      bnnmcu verify s64 --port /dev/ttyACM0
      bnnmcu verify s64f --emulate --device-key board1.key
    """
    from bnnmcu.field import DeviceKey
    from bnnmcu.target import TargetOptions, open_target
    from bnnmcu.verify import verify

    loaded, images = project_and_images(project, data, count)
    key = None if key_file is None else DeviceKey.load(key_file)
    drawn = draws if loaded.graph.stochastic and key is None else 0
    with (
        open_target(loaded, TargetOptions(**target), note) as board,
        show_progress() as display,
    ):
        asked = seeds if loaded.graph.stochastic else 1
        lane = display.lane(
            board.label,
            board=True,
            unit="steps" if drawn else "images",
            link=lambda: board.device.stats,
            expected=board.line_rate(asked),
        )
        lane.begin("verify", len(images) + drawn)
        result = verify(
            loaded.graph,
            board.device,
            images,
            seeds=seeds,
            draws=draws,
            seed=seed,
            key=key,
            target=board.label,
            progress=lane.advance,
        )
        stats = board.device.stats
    if as_json:
        print_json(result.to_dict() | {"link": link_counters(stats)})
    else:
        rows = [["logits", f"{result.logits:,}", f"{result.differing_logits:,}"]]
        if result.draws:
            words = f"{result.drawn_words:,}"
            rows.append(
                [f"words of weights, {result.draws} seeds", words, f"{result.differing_words:,}"]
            )
        seeds_text = "one seed each" if result.seeds == 1 else f"{result.seeds} seeds each"
        facts = f"{result.images} images of {result.data}, {seeds_text}"
        if result.correct is not None:
            facts += f"; {100 * result.correct:.1f} % of the labels are right"
        facts += f"; {_flash(result)}"
        wrong = link_text(stats)
        facts += f"; on the line: {wrong}" if wrong else ""
        print_table(
            f"{result.model} on {result.target} against the reference",
            ["", "compared", "different"],
            rows,
            caption=facts,
        )
        for item in result.differences:
            note(f"image {item.image}, seed {item.seed}: {item.answered} is not {item.expected}")
    result.raise_if_different()


def _flash(result: Verification) -> str:
    """What is known of the firmware in its flash; in field mode, of its counter too."""
    if result.counters is not None:
        first, last = result.counters
        return f"field mode, its counter from {first:,} to {last:,}"
    if result.flash_crc is None:
        return "its flash has no checksum"
    return f"its flash matches its checksum, {result.flash_crc:08x}"
