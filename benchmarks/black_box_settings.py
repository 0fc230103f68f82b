"""How strong the attacks by queries are with each of their settings.

    python benchmarks/black_box_settings.py --model examples/models/s64.pt --attack square
    python benchmarks/black_box_settings.py --model examples/models/b64.pt \\
        --attack hopskipjump -n 20

Native twin, seed 1, 21 fresh draws: accuracy in % under attack, mean over draws
and by majority, and the mean L2 distance over all images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from attack_settings import run

from bnnmcu.attack.config import CampaignConfig, HopSkipJumpConfig, SquareConfig
from bnnmcu.attack.config.blackbox import BlackBoxConfig
from bnnmcu.attack.oracle import NativeOracle
from bnnmcu.compiler import to_graph
from bnnmcu.data import load_dataset
from bnnmcu.modelfile import read_model

#: Attack to the settings that are compared: text and configuration.
SETTINGS: dict[str, list[tuple[str, BlackBoxConfig]]] = {
    "square": [
        (f"confirm {confirm:2} recheck {recheck}", one)
        for confirm, recheck in ((0, 0), (10, 0), (10, 8))
        for one in [SquareConfig(epsilon=0.3, confirm=confirm, recheck=recheck)]
    ],
    "hopskipjump": [
        (f"probe {probe:g}", HopSkipJumpConfig(probe=probe)) for probe in (0.01, 0.1, 0.3, 1.0)
    ],
}


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure attacks by queries by their settings.")
    parser.add_argument("--model", type=Path, required=True, help="a trained model file (.pt)")
    parser.add_argument("--attack", choices=SETTINGS, required=True)
    parser.add_argument("-n", dest="count", type=int, default=100, help="images (default: 100)")
    arguments = parser.parse_args(given)
    graph = to_graph(read_model(arguments.model))
    dataset = load_dataset("digits").stratified(arguments.count)
    for text, attack in SETTINGS[arguments.attack]:
        summary, _, _ = run(CampaignConfig((attack,)), graph, dataset, NativeOracle(graph))
        case = summary.cases[1]
        print(
            f"{graph.name} {arguments.attack} {text:24} mean {100 * case.mean.value:5.1f} %  "
            f"majority {100 * case.majority.value:5.1f} %  L2 {case.l2:5.2f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
