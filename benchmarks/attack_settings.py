"""How strong the gradient attacks are with each of their settings.

    python benchmarks/attack_settings.py --model examples/models/s64.pt -n 200
    python benchmarks/attack_settings.py --model examples/models/b64.pt -n 200 \\
        --attack fgsm --estimator identity --estimator strongest --loss ce --temperature 1

Every line of the table is a run of ``bnnmcu attack --native`` with the same
seed, so the same images and draws: accuracy in % under attack, mean over fresh
draws, lower is a stronger attack. The native twin computes exactly what a board
does, so these are the figures of a board; the seconds are of crafting, on this
machine. An S64's whole table takes more than ten minutes on two cores.
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
    AttackConfig,
    CampaignConfig,
    EstimatorChoice,
    FgsmConfig,
    LossName,
    PgdConfig,
)
from bnnmcu.attack.metrics import Summary, summarize
from bnnmcu.attack.oracle import NativeOracle, Oracle
from bnnmcu.compiler import to_graph
from bnnmcu.data import Dataset, load_dataset
from bnnmcu.graph import Graph
from bnnmcu.modelfile import read_model
from bnnmcu.store import Store

COLUMNS = "attack  estimator  loss    T   eps    accuracy  clean    seconds  made by"
ESTIMATORS = get_args(EstimatorChoice)


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
            made_by = Counter(json.loads(text)["estimator_kept"] for (text,) in rows)
        database.close()
    return summary, seconds, made_by


def settings(arguments: argparse.Namespace, eot: int) -> list[AttackConfig]:
    """Every attack that the options ask for; only cross-entropy has temperatures."""
    found: list[AttackConfig] = []
    for kind, estimator, loss in itertools.product(
        arguments.attack, arguments.estimator, arguments.loss
    ):
        temperatures = arguments.temperature if loss == "ce" else [1.0]
        for temperature, epsilon in itertools.product(temperatures, arguments.eps):
            common: dict[str, Any] = {
                "epsilon": epsilon,
                "eot_draws": eot,
                "loss": loss,
                "temperature": temperature,
                "estimator": estimator,
            }
            if kind == "fgsm":
                found.append(FgsmConfig(**common))
            else:
                more = {"steps": arguments.steps, "restarts": arguments.restarts}
                found.append(PgdConfig(**common, **more))
    return found


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    """The options; those with several values may be repeated."""
    parser = argparse.ArgumentParser(description="Measure gradient attacks by their settings.")
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a trained model file (.pt)")
    add("-n", dest="count", type=int, default=200, help="images (default: 200)")
    add("--data", default="digits", help="as for 'bnnmcu attack' (default: digits)")
    add("--seed", type=int, default=1, help="of the runs (default: 1)")
    add("--draws", type=int, default=20, help="fresh draws that judge an image (default: 20)")
    add("--eot", type=int, default=10, help="draws of every crafting step (default: 10)")
    add("--steps", type=int, default=40, help="PGD's (default: 40)")
    add("--restarts", type=int, default=1, help="PGD's, for each estimator (default: 1)")
    several: dict[str, tuple[Any, Sequence[Any] | None, list[Any]]] = {
        "--attack": (str, ("fgsm", "pgd"), ["fgsm", "pgd"]),
        "--estimator": (str, ESTIMATORS, list(ESTIMATORS)),
        "--loss": (str, get_args(LossName), list(get_args(LossName))),
        "--temperature": (float, None, [1.0, 10.0]),
        "--eps": (float, None, [0.1, 0.2, 0.3]),
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
    print(f"seed {arguments.seed}, {arguments.draws} fresh draws, EOT over {eot};")
    print(f"PGD with {arguments.steps} steps and {arguments.restarts} start(s) an estimator")
    print(COLUMNS)
    for attack in settings(arguments, eot):
        config = CampaignConfig((attack,), draws=arguments.draws, seed=arguments.seed)
        summary, seconds, made_by = run(config, graph, dataset, oracle)
        clean, attacked = summary.cases
        kept = ", ".join(f"{name} {made_by[name]}" for name in sorted(made_by))
        print(
            f"{attack.kind:6}  {attack.estimator:9}  {attack.loss:6} {attack.temperature:3g} "
            f"{attack.epsilon:5g}  {100 * attacked.mean.value:7.1f} %  "
            f"{100 * clean.mean.value:5.1f} %  {seconds:7.1f}  {kept}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
