"""How strong the gradient attacks are with each of their settings.

    python benchmarks/attack_settings.py --model examples/models/s64.pt -n 200
    python benchmarks/attack_settings.py --model examples/models/b64.pt -n 200 \\
        --attack fgsm --estimator identity --estimator strongest --loss ce --temperature 1
    python benchmarks/attack_settings.py --model examples/models/s64.pt -n 100 \\
        --attack apgd --attack apgd-l2 --attack pgd-l2 --attack jsma --attack jsma-paper \\
        --estimator tanh --loss ce --loss dlr --temperature 1 --eps 0.1

Every line of the table is a run of ``bnnmcu attack --native`` with the same
seed, so the same images and draws: accuracy in % under attack, mean over fresh
draws, lower is a stronger attack; share of draws that give the target, where
there is one; mean L2 distance over all images. The native twin computes exactly
what a board does, so these are the figures of a board; the seconds are of
crafting, on this machine. An S64's whole table takes more than ten minutes on
two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from bnnmcu.attack.campaign import CLEAN, Campaign, Progress, campaign_identity
from bnnmcu.attack.config import (
    KINDS,
    PRESETS,
    AttackConfig,
    CampaignConfig,
    EstimatorChoice,
    LossName,
)
from bnnmcu.attack.metrics import Summary, summarize
from bnnmcu.attack.oracle import NativeOracle, Oracle
from bnnmcu.compiler import to_graph
from bnnmcu.data import Dataset, load_dataset
from bnnmcu.graph import Graph
from bnnmcu.modelfile import read_model
from bnnmcu.store import Store

COLUMNS = (
    "attack          setting                     budget  accuracy  clean     hit     L2  seconds"
)
ESTIMATORS = get_args(EstimatorChoice)
#: Attacks with a budget: their kind, and what sets them apart.
BOUNDED: dict[str, tuple[str, dict[str, Any]]] = {
    "fgsm": ("fgsm", {}),
    "pgd": ("pgd", {}),
    "pgd-l2": ("pgd-l2", {}),
    "apgd": ("apgd", {}),
    "apgd-l2": ("apgd", {"norm": "l2"}),
}


def run(
    config: CampaignConfig, graph: Graph, dataset: Dataset, oracle: Oracle
) -> tuple[Summary, float, Counter[str]]:
    """A whole campaign: its summary, the seconds of crafting, and what made the images kept."""
    seconds, last = 0.0, time.perf_counter()

    def watch(progress: Progress) -> None:
        nonlocal seconds, last
        now = time.perf_counter()
        if progress.stage == "craft" and progress.attack != CLEAN:
            seconds += now - last
        last = now

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.sqlite"
        with Store.open(path, campaign_identity(config, graph, dataset, oracle)) as store:
            Campaign(config, graph, dataset, oracle, store).run(watch)
            summary = summarize(store)
        with sqlite3.connect(path) as database:
            rows = database.execute("SELECT crafted_by FROM example WHERE attack != ?", (CLEAN,))
            kept = (json.loads(text).get("estimator_kept") for (text,) in rows)
            made_by = Counter(name for name in kept if name)
        database.close()
    return summary, seconds, made_by


def settings(arguments: argparse.Namespace, eot: int) -> list[tuple[str, str, AttackConfig]]:
    """Name, setting and attack: all that the options ask for."""
    found: list[tuple[str, str, AttackConfig]] = []
    for name in arguments.attack:
        if name in PRESETS:
            found += presets(name, arguments)
        elif name in BOUNDED:
            found += bounded(name, arguments, eot)
        else:
            for estimator in arguments.estimator:
                # Not every attack tries several and keeps the best.
                if estimator != "strongest":
                    attack = KINDS[name](eot_draws=eot, estimator=estimator)  # type: ignore[call-arg]
                    found.append((name, estimator, attack))
    return found


def presets(name: str, arguments: argparse.Namespace) -> list[tuple[str, str, AttackConfig]]:
    """As it stands; with every budget, if it has one."""
    try:
        return [(name, "", PRESETS[name]())]
    except TypeError:
        return [(name, "", PRESETS[name](epsilon=epsilon)) for epsilon in arguments.eps]


def bounded(
    name: str, arguments: argparse.Namespace, eot: int
) -> list[tuple[str, str, AttackConfig]]:
    """Every estimator with every loss; only cross-entropy has temperatures."""
    kind, fixed = BOUNDED[name]
    if name != "fgsm":
        fixed = fixed | {"steps": arguments.steps, "restarts": arguments.restarts}
    found = []
    budgets = arguments.l2 if name.endswith("l2") else arguments.eps
    for estimator, loss in itertools.product(arguments.estimator, arguments.loss):
        temperatures = arguments.temperature if loss == "ce" else [1.0]
        for temperature, epsilon in itertools.product(temperatures, budgets):
            attack = KINDS[kind](
                epsilon=epsilon,
                eot_draws=eot,
                loss=loss,
                temperature=temperature,
                estimator=estimator,
                **fixed,
            )
            text = f"{estimator:9} {loss:6} T={temperature:g}"
            found.append((name, text, attack))
    return found


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    """The options; those with several values may be repeated."""
    parser = argparse.ArgumentParser(description="Measure gradient attacks by their settings.")
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a trained model file (.pt)")
    add("-n", dest="count", type=int, default=200, help="images (default: 200)")
    add("--data", default="digits", help="as for 'bnnmcu attack' (default: digits)")
    add("--seed", type=int, default=1, help="of the runs (default: 1)")
    add("--draws", type=int, default=21, help="fresh draws that judge an image (default: 21)")
    add("--eot", type=int, default=10, help="draws of every crafting step (default: 10)")
    add("--steps", type=int, default=40, help="of attacks that have them (default: 40)")
    add("--restarts", type=int, default=1, help="for each estimator (default: 1)")
    kinds = (*BOUNDED, "cw", "jsma", *PRESETS)
    several: dict[str, tuple[Any, Sequence[Any] | None, list[Any]]] = {
        "--attack": (str, kinds, ["fgsm", "pgd"]),
        "--estimator": (str, ESTIMATORS, list(ESTIMATORS)),
        "--loss": (str, get_args(LossName), list(get_args(LossName))),
        "--temperature": (float, None, [1.0, 10.0]),
        "--eps": (float, None, [0.1, 0.2, 0.3]),
        "--l2": (float, None, [1.0, 2.0]),
    }
    for name, (kind, choices, default) in several.items():
        text = f"may be repeated (default: {', '.join(map(str, default))})"
        add(name, action="append", type=kind, choices=choices, help=text)
    arguments = parser.parse_args(given)
    for name, (_, _, default) in several.items():
        if getattr(arguments, name[2:]) is None:
            setattr(arguments, name[2:], default)
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    arguments = parse(given)
    graph = to_graph(read_model(arguments.model))
    dataset = load_dataset(arguments.data).stratified(arguments.count)
    oracle = NativeOracle(graph)
    eot = arguments.eot if graph.stochastic else 1
    print(f"{graph.name} on the {oracle.name}: {len(dataset)} images of {dataset.name},")
    print(f"seed {arguments.seed}, {arguments.draws} fresh draws, EOT over {eot} but for presets;")
    print(f"{arguments.steps} steps and {arguments.restarts} start(s) an estimator")
    print(COLUMNS)
    for name, setting, attack in settings(arguments, eot):
        config = CampaignConfig((attack,), draws=arguments.draws, seed=arguments.seed)
        summary, seconds, made_by = run(config, graph, dataset, oracle)
        clean, attacked = summary.cases
        kept = ", ".join(f"{name} {made_by[name]}" for name in sorted(made_by))
        budget = f"{attack.levels / 255.0:6.3f}" if attack.levels else "     -"
        hit = attacked.target_hit
        print(
            f"{name:15} {setting:27} {budget}  {100 * attacked.mean.value:6.1f} %  "
            f"{100 * clean.mean.value:4.1f} %  {f'{100 * hit.value:4.1f} %' if hit else '     -'}  "
            f"{attacked.l2:5.2f}  {seconds:7.1f}{'  ' + kept if len(made_by) > 1 else ''}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
