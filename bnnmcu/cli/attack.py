"""``bnnmcu attack``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnnmcu.cli.inputs import project_and_images, warn_if_seen
from bnnmcu.cli.options import (
    board_options_typed,
    json_option,
    line_options,
    progress_options,
    project_argument,
    seed_option,
    target_options,
)
from bnnmcu.cli.output import note, print_json, print_table
from bnnmcu.cli.progress import link_counters, link_text
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.attack.config import AttackConfig
    from bnnmcu.attack.metrics import Accuracy, Summary

__all__ = ["command", "make_attacks", "print_summary"]


@click.command("attack")
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
    "--attack",
    "kinds",
    type=click.Choice(["fgsm", "pgd"]),
    multiple=True,
    help="Which attacks; may be repeated. Default: all.",
)
@click.option(
    "--eps",
    "epsilons",
    type=click.FloatRange(0, 1),
    multiple=True,
    default=(0.1, 0.2, 0.3),
    show_default=True,
    help="L-infinity budgets; may be repeated. Used as whole pixel levels, floor(255 eps).",
)
@click.option(
    "--draws",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Draws that judge each image, none of them seen in crafting.",
)
@click.option(
    "--eot",
    type=click.IntRange(1, 1000),
    default=10,
    show_default=True,
    help="Draws whose loss every crafting step averages.",
)
@click.option("--steps", type=click.IntRange(min=1), default=40, show_default=True, help="PGD's.")
@click.option("--restarts", type=click.IntRange(min=1), default=1, show_default=True, help="PGD's.")
@click.option("--loss", type=click.Choice(["ce", "margin", "dlr"]), help="What is maximised.")
@click.option("--temperature", type=float, help="Softmax temperature of the ce loss.")
@click.option(
    "--estimator",
    type=click.Choice(["strongest", "identity", "clipped", "tanh"]),
    help="Gradient of a threshold; strongest tries all and keeps the best for each image.",
)
@click.option(
    "--label",
    type=click.Choice(["prediction", "true"]),
    help="Whose label FGSM attacks; the paper's is the network's own prediction.",
)
@click.option("--data", default="digits", show_default=True, help="As for 'evaluate'.")
@click.option(
    "-o",
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Results file; if it exists, the run goes on. Default: one in DIR/results for each "
    "configuration.",
)
@click.option(
    "--native", is_flag=True, help="Ask the native twin on this machine instead of a board."
)
@seed_option
@target_options
@line_options
@progress_options
@json_option
def command(
    project: Path,
    count: int,
    kinds: tuple[str, ...],
    epsilons: tuple[float, ...],
    draws: int,
    eot: int,
    steps: int,
    restarts: int,
    loss: str | None,
    temperature: float | None,
    estimator: str | None,
    label: str | None,
    data: str,
    results: Path | None,
    native: bool,
    seed: int,
    as_json: bool,
    **target: Any,
) -> None:
    """Attack the network on the board and report its accuracy.

    Images are crafted on a differentiable twin of the integer network, with
    the loss averaged over draws, and rounded to pixels; the board judges them
    with fresh draws. Answers are stored as they come: a run that was stopped,
    in whatever way, goes on when the same command is started again.

    \b
    Example:
      bnnmcu attack s64 --emulate -n 100 --eps 0.3
      bnnmcu attack s64 --port /dev/ttyACM0
    """
    typed = " and ".join(board_options_typed())
    if native and typed:
        raise UsageError(
            "--native asks no board", where=typed, hint=f"leave out --native, or {typed}"
        )
    from bnnmcu.attack.config import CampaignConfig
    from bnnmcu.attack.metrics import summarize
    from bnnmcu.cli.campaigns import run_stored
    from bnnmcu.target import TargetOptions, open_target

    loaded, images = project_and_images(project, data, count, labels=True)
    warn_if_seen(loaded.training, images)
    common: dict[str, Any] = {"eot_draws": eot if loaded.graph.stochastic else 1}
    common |= {
        key: value
        for key, value in (("loss", loss), ("temperature", temperature), ("estimator", estimator))
        if value is not None
    }
    attacks = make_attacks(
        kinds or ("fgsm", "pgd"), epsilons, common, steps=steps, restarts=restarts, label=label
    )
    config = CampaignConfig(attacks=attacks, draws=draws, seed=seed)

    with ExitStack() as stack:
        board = None
        if not native:
            board = stack.enter_context(open_target(loaded, TargetOptions(**target), note))
        summary, _ = run_stored(
            config,
            loaded.graph,
            images,
            summarize,
            name="attack",
            results=results,
            project=loaded,
            target=board,
        )
        stats = board.device.stats if board else None
    wrong = link_text(stats)
    if wrong:
        note(f"on the line: {wrong}; no answer was lost")
    if as_json:
        print_json(summary.to_dict() | {"link": link_counters(stats)})
    else:
        print_summary(summary)


def make_attacks(
    kinds: Sequence[str],
    epsilons: Sequence[float],
    common: dict[str, Any],
    *,
    steps: int,
    restarts: int,
    label: str | None,
) -> tuple[AttackConfig, ...]:
    """The attacks of a run: every kind with every budget."""
    from bnnmcu.attack.config import FgsmConfig, PgdConfig

    attacks: list[AttackConfig] = []
    for kind in dict.fromkeys(kinds):
        for epsilon in dict.fromkeys(epsilons):
            if kind == "fgsm":
                extra: dict[str, Any] = {"label": label} if label else {}
                attacks.append(FgsmConfig(epsilon=epsilon, **common, **extra))
            else:
                attacks.append(PgdConfig(epsilon=epsilon, steps=steps, restarts=restarts, **common))
    return tuple(attacks)


def _share(accuracy: Accuracy) -> str:
    value, low, high = (100 * x for x in (accuracy.value, accuracy.low, accuracy.high))
    return f"{value:5.1f} % [{low:.1f}, {high:.1f}]"


def print_summary(summary: Summary) -> None:
    """Flags first, then a line for each case."""
    identity = summary.identity
    model, oracle, data = identity["model"], identity["oracle"], identity["data"]
    rows = [
        [
            case.attack,
            f"{case.epsilon:.3f} ({case.levels}/255)" if case.levels else "-",
            _share(case.mean),
            f"{100 * case.majority.value:5.1f} %",
            f"{100 * case.worst.value:5.1f} %",
            f"{case.l2:.2f}",
        ]
        for case in summary.cases
    ]
    draws = f", {identity['config']['draws']} fresh draws each" if model["stochastic"] else ""
    for flag in summary.flags:
        note(f"{flag.severity}: {flag.text}")
    print_table(
        f"{model['name']} on {oracle['name']} ({oracle['label']}): accuracy under attack",
        ["attack", "epsilon", "mean of draws [95 %]", "majority", "all draws", "mean L2"],
        rows,
        caption=f"{data['images']} images of {data['name']}{draws}; "
        "budgets are whole pixel levels, accuracies are after rounding to pixels"
        + ("" if summary.complete else "; NOT COMPLETE: start the run again"),
    )
