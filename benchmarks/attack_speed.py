"""What attacks on the float model cost, in core-seconds, against budgets.

    python benchmarks/attack_speed.py             # prints, with what is over its budget
    python benchmarks/attack_speed.py --strict    # and fails where something is
    python benchmarks/attack_speed.py --update    # records the figures in attack_speed.json

README.md describes the protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
RECORD = HERE / "attack_speed.json"
MODELS = HERE.parent / "examples" / "models"
#: The least of so many runs counts: what else the machine does only ever adds.
REPEATS = 3
#: One image for each pair of a label and a wrong one, all in one batch.
CELLS = 90
#: Images of FGSM, and of a batch of it.
IMAGES, BATCH = 10_000, 250
#: Draws that judge the images, for the accuracy beside the cost.
JUDGES = 20


@dataclass(frozen=True)
class Row:
    """What is measured.

    Attributes:
        budget: core-seconds a ``unit``.
    """

    name: str
    model: str
    attack: Any
    budget: float
    unit: str


def rows() -> list[Row]:
    from bnnmcu.attack.config import CwConfig, FgsmConfig

    # Without early abort, so that it is a hundred iterations whatever the loss does.
    paper = CwConfig.paper(early_abort=False)
    adaptive = CwConfig.adaptive(search_steps=1, estimator="tanh")
    one = FgsmConfig(epsilon=0.3, adversary="paper", estimator="identity")
    ten = FgsmConfig(epsilon=0.3, estimator="tanh")
    return [
        Row("CW-L2, the paper's", "s64", paper, 0.06, "pair"),
        Row("CW-L2, the paper's", "b64", paper, 0.06, "pair"),
        Row("CW-L2, EOT-10, judged by fresh draws", "s64", adaptive, 0.10, "pair"),
        Row("FGSM, the paper's", "s64", one, 7.0, "10,000 images"),
        Row("FGSM, the paper's", "b64", one, 7.0, "10,000 images"),
        Row("FGSM, EOT-10", "s64", ten, 7.0, "10,000 images"),
    ]


def spent(work: Callable[[], Any]) -> tuple[float, Any]:
    """Core-seconds of this process, kernel included, and what the work gave."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def cells(data: Any) -> tuple[Any, Any, Any]:
    """Images, labels and targets: every pair of labels once, every image once."""
    index, targets = [], []
    for label in range(10):
        others = [other for other in range(10) if other != label]
        index += np.flatnonzero(data.labels == label)[: len(others)].tolist()
        targets += others
    return data.images[index], data.labels[index], np.array(targets)


def accuracy(model: Any, images: Any, labels: Any) -> float:
    """Mean over draws that no attack has seen, in percent; each image has its own."""
    import torch

    generator = torch.Generator().manual_seed(2**40)
    right = 0.0
    for image, label in zip(images, labels, strict=True):
        x = torch.from_numpy(image[np.newaxis]).float() / 255.0
        draws = model.sample(JUDGES, generator) if model.stochastic else None
        with torch.no_grad():
            right += float((model(x, draws).argmax(-1) == int(label)).double().mean())
    return 100.0 * right / len(images)


class Case:
    """A row with its model and images; warm."""

    def __init__(self, row: Row, data: Any) -> None:
        from bnnmcu.attack.float import load_float_model

        self.row = row
        self.model = load_float_model(MODELS / f"{row.model}.pt")
        self.runs: list[float] = []
        if row.unit == "pair":
            self.images, self.labels, targets = cells(data)
            self.parts = [(self.images, self.labels, targets)]
        else:
            # The bundled digits twice, classes in turn: 5,000 there are.
            mixed, twice = data.stratified(len(data)), np.arange(IMAGES) % len(data)
            self.images, self.labels = mixed.images[twice], mixed.labels[twice]
            self.parts = [
                (self.images[start : start + BATCH], self.labels[start : start + BATCH], None)
                for start in range(0, IMAGES, BATCH)
            ]
        # The first steps make oneDNN compile its kernels, once in the life of a process.
        self._craft(self.parts[:1])

    def _craft(self, parts: list[Any]) -> list[Any]:
        from bnnmcu.attack.craft import craft

        return [
            craft(self.model, self.row.attack, part, right, 1, targets=wrong)
            for part, right, wrong in parts
        ]

    def run(self) -> None:
        """Once more."""
        print(f"{self.row.name}, {self.row.model} ...", file=sys.stderr, flush=True)
        seconds, crafted = spent(lambda: self._craft(self.parts))
        self.runs.append(seconds)
        self.made = np.concatenate([one.images for one in crafted])

    def found(self) -> dict[str, Any]:
        """The figures of all runs."""
        row, sample = self.row, slice(0, CELLS)
        by = CELLS if row.unit == "pair" else 1
        change = (self.made[sample].astype(np.float64) - self.images[sample]) / 255.0
        right = accuracy(self.model, self.made[sample], self.labels[sample])
        return {
            "attack": row.name,
            "model": row.model,
            "unit": row.unit,
            "budget": row.budget,
            "core-seconds": round(min(self.runs) / by, 4),
            "all runs": [round(seconds / by, 4) for seconds in self.runs],
            "accuracy of 90, %": round(right, 1),
            "mean L2 of 90": round(float(np.sqrt((change**2).sum((1, 2, 3))).mean()), 2),
        }


def show(found: list[dict[str, Any]]) -> list[str]:
    """Print all figures; what is over its budget."""
    over = []
    print(f"Core-seconds on one thread, the least of {REPEATS} runs (others in brackets):")
    for one in found:
        verdict = "within" if one["core-seconds"] <= one["budget"] else "OVER"
        text = (
            f"{one['attack']}, {one['model']}: {one['core-seconds']:.3g} a {one['unit']}, "
            f"{verdict} the budget of {one['budget']:g}"
        )
        others = ", ".join(f"{seconds:.3g}" for seconds in one["all runs"])
        print(
            f"  {text} ({others}); accuracy on fresh draws {one['accuracy of 90, %']:.1f} %, "
            f"L2 {one['mean L2 of 90']:.2f}"
        )
        if verdict == "OVER":
            over.append(text)
    return over


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what attacks on the float model cost.")
    parser.add_argument("--update", action="store_true", help="record the figures")
    # Not by default: a machine that is busy makes every second longer.
    parser.add_argument("--strict", action="store_true", help="fail where a budget is exceeded")
    arguments = parser.parse_args()
    try:
        import torch

        from bnnmcu.data import load_digits
        from bnnmcu.errors import BnnmcuError

        torch.set_num_threads(1)
        data = load_digits()
    except ImportError as error:
        print(f"SKIPPED: {error}; what attacks cost was NOT measured")
        return 1 if arguments.strict else 0
    except BnnmcuError as error:
        print(f"SKIPPED: {error}; what attacks cost was NOT measured")
        return 1 if arguments.strict else 0
    measured = [Case(row, data) for row in rows()]
    # Round after round: a slow minute of a shared machine then hits one run of each.
    for _ in range(REPEATS):
        for case in measured:
            case.run()
    found = [case.found() for case in measured]
    over = show(found)
    if arguments.update:
        from bench import processor

        machine = {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load at the end": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        RECORD.write_text(json.dumps({"machine": machine, "rows": found}, indent=2) + "\n")
        print(f"recorded in {RECORD.name}")
    for text in over:
        print(f"MISSED: {text}")
    return 1 if over and arguments.strict else 0


if __name__ == "__main__":
    sys.exit(main())
