"""``bnnmcu study``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import open_project, project_and_images
from bnnmcu.cli.options import (
    json_option,
    line_options,
    progress_options,
    project_argument,
    seed_option,
    target_options,
)
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.errors import MismatchFoundError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bnnmcu.attack.study.seed_figures import SeedRow
    from bnnmcu.attack.study.state_figures import StateStudy
    from bnnmcu.backend.project import Project
    from bnnmcu.data import Dataset
    from bnnmcu.graph import Graph
    from bnnmcu.target import Target

__all__ = ["command"]

_NO_CLAIM = (
    "beyond short seeds that can all be tried, neither an attack nor security is claimed from "
    "labels or logits"
)
_UNITS = (
    ("years", 365.25 * 86400),
    ("days", 86400.0),
    ("hours", 3600.0),
    ("minutes", 60.0),
    ("s", 1.0),
)


@click.group("study")
def command() -> None:
    """Study what a secret seed of the drawn weights is worth.

    Both studies know the network, and ask a board, an emulated board, or
    without either the native twin. What they show and what not: docs/STUDY.md.

    \b
    Example:
      bnnmcu study seed s64 --bits 8 --bits 12
      bnnmcu study state s64 --emulate
    """


@contextmanager
def _board(project: Project, target: dict[str, Any]) -> Iterator[Target | None]:
    """The board that was named, if one was."""
    from bnnmcu.target import TargetOptions, open_target

    options = TargetOptions(**target)
    if options.port is None and options.emulate is None:
        yield None
        return
    with open_target(project, options, note) as board:
        if board.device.info.field:
            raise UsageError(
                "a board in field mode takes no seed and tells no weight",
                where=board.label,
                hint="study the same network exported without --field",
            )
        yield board


@command.command("seed")
@project_argument
@click.option(
    "--bits",
    type=click.IntRange(1, 24),
    multiple=True,
    default=(6, 8, 10, 12),
    show_default=True,
    help="Length of the secret seed; may be repeated.",
)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=400_000,
    show_default=True,
    help="Inferences that a search may take; one that would take more is extrapolated.",
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Images of each kind, class by class in turn; asked again and again.",
)
@click.option(
    "--draws",
    type=click.IntRange(2, 100_000),
    default=256,
    show_default=True,
    help="Draws from which an image's entropy is measured.",
)
@click.option(
    "--attack",
    "kind",
    type=click.Choice(["fgsm", "cw"]),
    default="fgsm",
    show_default=True,
    help="What makes the adversarial images; cw, in the paper's setting, is slow.",
)
@click.option(
    "--eps",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Budget of FGSM.",
)
@click.option("--data", default="digits", show_default=True, help="As for 'evaluate'.")
@seed_option
@target_options
@line_options
@progress_options
@json_option
def seed_command(
    project: Path,
    bits: tuple[int, ...],
    budget: int,
    count: int,
    draws: int,
    kind: str,
    eps: float,
    data: str,
    seed: int,
    as_json: bool,
    **target: Any,
) -> None:
    """Search for a raw seed of a few bits, from labels and from logits.

    The device's seed goes up by one with each inference; the search tries all.
    Measured: the answers that single a seed out, beside the least number that
    its length allows. Longer seeds are extrapolated, and say so.

    \b
    Example:
      bnnmcu study seed s64 --bits 8 --bits 12
      bnnmcu study seed s64 --emulate --bits 8
    """
    import numpy as np

    from bnnmcu.attack.oracle import DeviceOracle, NativeOracle, Oracle
    from bnnmcu.attack.study.seed_figures import measure_set, study_seeds
    from bnnmcu.toolchain.native import NativeTwin

    loaded, images = project_and_images(project, data, count, labels=True)
    graph = loaded.graph
    if not graph.stochastic:
        raise UsageError(
            f"{graph.name} draws no weights: it has no seed",
            where=str(project),
            hint="use a stochastic network, such as S64",
        )
    rng = np.random.default_rng(seed)
    twin = NativeTwin(graph)
    adversarial = _adversarial(graph, images, kind, eps, seed)
    sets = [
        measure_set(twin.run, name, pixels, draws=draws, rng=rng)
        for name, pixels in (("clean", images.images), ("adversarial", adversarial))
    ]
    with _board(loaded, target) as board:
        oracle: Oracle = NativeOracle(graph)
        if board is not None:
            oracle = DeviceOracle(board.device, label="emulated" if board.emulated else "hardware")
        rows = study_seeds(twin.run, oracle, sets, bits, rng=rng, budget=budget, progress=note)
    entropies = {chosen.name: chosen.entropy for chosen in sets}
    if as_json:
        print_json(
            {
                "model": graph.name,
                "oracle": {"name": oracle.name, "label": oracle.label},
                "data": images.name,
                "images": len(images),
                "draws": draws,
                "attack": kind,
                "epsilon": eps if kind == "fgsm" else None,
                "label_entropy_bits": entropies,
                "rows": [row.to_dict() for row in rows],
            }
        )
    else:
        _print_seeds(
            f"{graph.name} on {oracle.name} ({oracle.label}): finding a raw seed of s bits",
            rows,
            ", ".join(f"{value:.3f} bit {name}" for name, value in entropies.items()),
        )
    missed = [row for row in rows if row.found is False]
    if missed:
        raise MismatchFoundError(
            f"{len(missed)} secret seeds were not singled out",
            hint="ask other images: see --data and -n",
        )


def _adversarial(
    graph: Graph, images: Dataset, kind: str, epsilon: float, seed: int
) -> npt.NDArray[np.uint8]:
    """Images that lie where draws disagree; those of CW have a target each, all in turn."""
    import numpy as np

    from bnnmcu.attack.config import PRESETS, FgsmConfig
    from bnnmcu.attack.craft import craft, make_twin

    twin, pixels, labels = make_twin(graph), images.images, images.labels
    if kind == "fgsm":
        note(f"crafting {len(images)} images by FGSM, epsilon {epsilon}")
        return craft(twin, FgsmConfig(epsilon=epsilon), pixels, labels, seed).images
    note(f"crafting {len(images)} images by CW-L2 in the paper's setting")
    wrong = graph.classes - 1
    targets = (labels + 1 + np.arange(len(labels)) // graph.classes % wrong) % graph.classes
    return craft(twin, PRESETS["cw-paper"](), pixels, labels, seed, targets=targets).images


def _duration(seconds: float) -> str:
    """With the largest unit of which there is one at least."""
    for unit, size in _UNITS:
        if seconds >= size:
            value = seconds / size
            return f"{value:,.1f} {unit}" if value < 1e5 else f"{value:.0e} {unit}"
    return f"{seconds:.2f} s"


def _print_seeds(title: str, rows: list[SeedRow], entropies: str) -> None:
    def number(value: float | None, form: str = ",.1f") -> str:
        return "-" if value is None else format(value, form)

    print_table(
        title,
        ["images", "seen", "s", "", "least s/H", "answers, mean", "most", "here", "time"],
        [
            [
                row.images,
                row.kind,
                str(row.bits),
                "extrapolated" if row.extrapolated else "measured",
                number(row.bound),
                number(row.mean),
                number(row.most, ",d"),
                number(row.answers, ",d"),
                _duration(row.seconds),
            ]
            for row in rows
        ],
        text_columns=4,
        caption=f"H, entropy of a label over draws: {entropies}; s/H by that of the images "
        "that were needed. Mean and most of all 2^s secrets; "
        "'here' for the secret of this device; time of the search on this machine, one core. "
        f"{_NO_CLAIM[0].upper()}{_NO_CLAIM[1:]}.",
    )


@command.command("state")
@project_argument
@click.option(
    "--words",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="32-bit words of weights to dump, of the first drawn layer.",
)
@click.option(
    "--secret",
    type=click.IntRange(0, 2**64 - 1),
    help="The device's seed. Default: 64 random bits, by --seed.",
)
@click.option(
    "--find-seed/--no-find-seed",
    default=True,
    show_default=True,
    help="Look for the seed too, half a minute or more, and predict the next one's weights.",
)
@seed_option
@target_options
@line_options
@progress_options
@json_option
def state_command(
    project: Path,
    words: int,
    secret: int | None,
    find_seed: bool,
    seed: int,
    as_json: bool,
    **target: Any,
) -> None:
    """Recover the generator's state from dumped weights, by linear algebra.

    A few hundred weights of one draw settle the state, hence the rest of the
    draw; a search of half the seed's bits settles the seed, hence the draws of
    those that follow. Each prediction is held against the device: exit code 1
    if one fails.

    \b
    Example:
      bnnmcu study state s64 --emulate
      bnnmcu study state s64 --port /dev/ttyACM0 --words 20
    """
    import numpy as np

    from bnnmcu.attack.study.state_figures import device_dump, native_dump, study_state
    from bnnmcu.toolchain.native import NativeTwin

    loaded = open_project(project)
    if secret is None:
        secret = int(np.random.default_rng(seed).integers(0, 1 << 64, dtype=np.uint64))
    with _board(loaded, target) as board:
        name = f"native twin of {loaded.graph.name}" if board is None else board.label
        result = study_state(
            loaded.graph,
            native_dump(NativeTwin(loaded.graph)) if board is None else device_dump(board.device),
            secret,
            words=words,
            find_seed=find_seed,
            progress=lambda tried: note(f"looking for the seed: {100 * tried / 2**32:.0f} %"),
        )
    if as_json:
        print_json({"model": loaded.graph.name, "oracle": name} | result.to_dict())
    else:
        _print_state(f"{loaded.graph.name} on {name}", result)
    if not result.exact or (find_seed and result.seed != secret):
        raise MismatchFoundError(
            "a prediction from dumped weights is wrong",
            hint="'bnnmcu verify' tells whether the device draws as it should",
        )


def _print_state(title: str, result: StateStudy) -> None:
    rows = [
        ["weights dumped", f"{result.dumped:,}"],
        ["linear equations in them", f"{result.equations:,}"],
        [f"weights that settle all {result.state_bits} bits", f"{result.weights:,}"],
        ["information in these, at most", f"{result.entropy:.0f} bits"],
        ["time of the linear algebra", f"{1000 * result.seconds:.0f} ms"],
        ["further weights of the draw, predicted", f"{result.predicted:,}"],
        ["  of these right", f"{result.right:,}"],
    ]
    if result.seed_seconds is not None:
        found = "not found" if result.seed is None else f"{result.seed:016x}"
        rows += [
            ["seed", found],
            ["time of its search", _duration(result.seed_seconds)],
            ["weights of the next seed's draw, predicted", f"{result.next_weights:,}"],
            ["  of these right", f"{result.next_right:,}"],
        ]
    print_table(
        f"{title}: the state of {result.generator}, k = {result.planes}",
        ["", ""],
        rows,
        caption="The attacker knows the network and the dumped weights. "
        f"{_NO_CLAIM[0].upper()}{_NO_CLAIM[1:]}.",
    )
