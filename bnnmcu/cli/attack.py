"""``bnnmcu attack``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from bnnmcu.attack.config import KINDS, PRESETS, Adversary, TargetRule
from bnnmcu.cli.clusters import ClusterChoice, cluster_options, farm_oracle, opened
from bnnmcu.cli.inputs import project_and_images, warn_if_seen
from bnnmcu.cli.options import (
    board_options_typed,
    json_option,
    line_options,
    progress_options,
    seed_option,
    target_options,
)
from bnnmcu.cli.output import note, print_json
from bnnmcu.cli.progress import link_counters, link_text
from bnnmcu.cli.summary import print_summary
from bnnmcu.errors import UsageError

if TYPE_CHECKING:
    from bnnmcu.attack.config import AttackConfig

__all__ = ["command", "make_attacks", "print_summary"]

# What a campaign file does not say itself.
_OF_A_FILE = (
    "project",
    "as_json",
    "progress",
    "quiet",
    "cluster",
    "workers",
    "cluster_tls",
    "dashboard",
)
_EPSILONS = (0.1, 0.2, 0.3)
# Options of single attacks, and the settings that they become.
_SETTINGS = {
    "eot": "eot_draws",
    "steps": "steps",
    "iterations": "iterations",
    "restarts": "restarts",
    "loss": "loss",
    "temperature": "temperature",
    "estimator": "estimator",
    "label": "label",
    "adversary": "adversary",
    "targets": "targets",
    "budget": "budget",
}


@click.command("attack")
@click.argument("project", metavar="DIR|FILE.toml", type=click.Path(path_type=Path))
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
    type=click.Choice([*KINDS, *PRESETS]),
    metavar="NAME",
    multiple=True,
    help=f"Which attacks; may be repeated. Default: fgsm and pgd. Kinds: {', '.join(KINDS)}; "
    f"settings with a name: {', '.join(PRESETS)}.",
)
@click.option(
    "--eps",
    "epsilons",
    type=click.FloatRange(min=0),
    multiple=True,
    help="Budgets of those that have one; may be repeated. Default: 0.1, 0.2 and 0.3, or the "
    "preset's own. L-infinity ones are used as whole pixel levels, floor(255 eps).",
)
@click.option(
    "--draws",
    type=click.IntRange(1, 1000),
    default=21,
    show_default=True,
    help="Draws that judge each image, none of them seen in crafting.",
)
@click.option(
    "--eot",
    type=click.IntRange(1, 1000),
    help="Draws whose loss every crafting step averages. Default: 10, AutoPGD's 20.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="PGD's (default 40) and AutoPGD's (default 100)."
)
@click.option("--iterations", type=click.IntRange(min=1), help="CW's; default 100.")
@click.option("--restarts", type=click.IntRange(min=1), help="PGD's and AutoPGD's; default 1.")
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
@click.option(
    "--adversary",
    type=click.Choice(get_args(Adversary)),
    help="What the attacker knows of the draws. Default: eot, an average over draws.",
)
@click.option(
    "--targets",
    type=click.Choice(get_args(TargetRule)),
    help="Labels to be reached: none, one an image so that all pairs fill evenly, or all.",
)
@click.option(
    "--budget", type=click.IntRange(min=1), help="Inferences that attacks by queries may cost."
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
@cluster_options
@progress_options
@json_option
def command(
    project: Path,
    count: int,
    kinds: tuple[str, ...],
    epsilons: tuple[float, ...],
    draws: int,
    data: str,
    results: Path | None,
    native: bool,
    seed: int,
    cluster: ClusterChoice,
    as_json: bool,
    **others: Any,
) -> None:
    """Attack the network on the board and report its accuracy.

    Images are crafted on a differentiable twin of the integer network, with
    the loss averaged over draws, or with nothing but the board's answers, and
    rounded to pixels; the board judges them with fresh draws. Answers are
    stored as they come: a run that was stopped, in whatever way, goes on when
    the same command is started again.

    FILE.toml is a campaign: networks, boards and attacks in one file, one
    report over all of them. docs/ATTACKS.md describes it, and which attack is
    for what.

    \b
    Example:
      bnnmcu attack s64 --emulate -n 100 --eps 0.3
      bnnmcu attack s64 --port /dev/ttyACM0 --attack cw-paper --attack cw-adaptive
      bnnmcu attack examples/campaign_quick.toml
      bnnmcu attack s64 --farm shelf.toml --cluster --workers 4
    """
    if project.suffix == ".toml":
        from bnnmcu.cli.attack_file import run_file

        _refuse_typed(project)
        with opened(cluster) as engine:
            run_file(project, as_json=as_json, cluster=engine)
        return
    typed = " and ".join(board_options_typed())
    if cluster.own_boards and (typed or native):
        raise UsageError(
            "the boards of a cluster answer",
            where=typed or "--native",
            hint=f"leave out {typed or '--native'}, or --farm and --board",
        )
    if native and typed:
        raise UsageError(
            "--native asks no board", where=typed, hint=f"leave out --native, or {typed}"
        )
    from bnnmcu.attack.audit import audit_run
    from bnnmcu.attack.config import CampaignConfig
    from bnnmcu.attack.metrics import summarize
    from bnnmcu.cli.campaigns import run_stored
    from bnnmcu.target import TargetOptions, open_target

    settings = {name: others.pop(option) for option, name in _SETTINGS.items()}
    settings = {name: value for name, value in settings.items() if value is not None}
    names = kinds or ("fgsm", "pgd")
    _refuse_useless(names, settings)
    loaded, images = project_and_images(project, data, count, labels=True)
    warn_if_seen(loaded.training, images)
    if not loaded.graph.stochastic:
        settings["eot_draws"] = 1
    config = CampaignConfig(attacks=make_attacks(names, epsilons, settings), draws=draws, seed=seed)

    with ExitStack() as stack:
        engine = stack.enter_context(opened(cluster))
        oracle = farm_oracle(cluster, engine, loaded)
        board = None
        if not native and oracle is None:
            board = stack.enter_context(open_target(loaded, TargetOptions(**others), note))
        summary, _ = run_stored(
            config,
            loaded.graph,
            images,
            lambda store: summarize(store, audit_run(store, loaded.graph, images)),
            name="attack",
            results=results,
            project=loaded,
            target=board,
            oracle=oracle,
            cluster=engine,
        )
        stats = board.device.stats if board else oracle.stats if oracle else None
    wrong = link_text(stats)
    if wrong:
        note(f"on the line: {wrong}; no answer was lost")
    if as_json:
        print_json(summary.to_dict() | {"link": link_counters(stats)})
    else:
        print_summary(summary)


def _refuse_typed(path: Path) -> None:
    """A campaign file says all of this itself, and one of the two would be ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and name not in _OF_A_FILE:
            raise UsageError(
                "stands in the campaign file",
                where=parameter.opts[-1],
                hint=f"leave it out, and see {path}",
            )


def _settings_of(name: str) -> tuple[type[AttackConfig], set[str]]:
    from bnnmcu.attack.campaign_cases import kind_of

    kind = kind_of(name)
    return kind, {field.name for field in fields(kind)}


def _refuse_useless(names: Sequence[str], settings: Mapping[str, Any]) -> None:
    for option, setting in _SETTINGS.items():
        if setting in settings and not any(setting in _settings_of(name)[1] for name in names):
            raise UsageError(
                f"no attack chosen has it ({', '.join(names)})",
                where=f"--{option}",
                hint="leave it out, or name an attack that has it with --attack",
            )


def make_attacks(
    names: Sequence[str], epsilons: Sequence[float], settings: Mapping[str, Any], **more: Any
) -> tuple[AttackConfig, ...]:
    """The attacks of a run: every kind or preset, those that have one with every budget.

    Args:
        epsilons: none for the usual ones, or a preset's own.
        settings, more: of each attack those that it has; None for its own.
    """
    from bnnmcu.attack.campaign_cases import has_budget

    wanted = {name: value for name, value in {**settings, **more}.items() if value is not None}
    attacks: list[AttackConfig] = []
    for name in dict.fromkeys(names):
        _, known = _settings_of(name)
        make: Callable[..., AttackConfig] = KINDS.get(name) or PRESETS[name]
        own = {key: value for key, value in wanted.items() if key in known}
        if "epsilon" not in known or (not epsilons and has_budget(name)):
            attacks.append(make(**own))
        else:
            budgets = dict.fromkeys(epsilons or _EPSILONS)
            attacks += [make(epsilon=epsilon, **own) for epsilon in budgets]
    return tuple(attacks)
