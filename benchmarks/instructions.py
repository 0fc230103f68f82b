"""Exact instruction counts of the shipped networks, held against their history.

    python benchmarks/instructions.py             # fails if a count grew by more than 2 %
    python benchmarks/instructions.py --update    # records the counts of this version

Protocol: ``bnnmcu bench`` on QEMU's netduinoplus2 under ``-icount shift=0``,
firmware compiled by arm-none-eabi-gcc, board nucleo_f446re, five digits,
nothing on the wire; kernels as ``bnnmcu export --optimize`` chooses them. The
counts are emulated instructions, not cycles: they do not depend on the machine
that runs this. They do depend on the compiler, so counts of another compiler
version are shown but not judged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from bnnmcu.backend.choice import Goal, KernelChoice
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.bench import bench
from bnnmcu.boards import load_board
from bnnmcu.compiler import to_graph
from bnnmcu.data import load_digits
from bnnmcu.modelfile import read_model
from bnnmcu.target import TargetOptions, open_target

ROOT = Path(__file__).resolve().parent.parent
HISTORY = Path(__file__).with_name("instructions.json")
RUNS: tuple[tuple[str, Goal], ...] = (
    *(("b64", goal) for goal in ("speed", "balanced", "size")),
    ("c64", "balanced"),
    *(("s64", goal) for goal in ("speed", "balanced", "size")),
)
TOLERANCE = 0.02
FIGURES = ("instructions", "flash", "ram")


def measure(name: str, goal: Goal) -> dict[str, Any]:
    """The bench report of one shipped network, its kernels chosen for a goal."""
    graph = to_graph(read_model(ROOT / "examples" / "models" / f"{name}.pt"))
    with tempfile.TemporaryDirectory() as folder:
        project_folder = Path(folder) / name
        choice = KernelChoice(goal)
        write_project(graph, load_board("nucleo_f446re"), project_folder, choice=choice)
        project = load_project(project_folder)
        options = TargetOptions(emulate="qemu", toolchain="gcc", count=True)
        with open_target(project, options, lambda line: None) as target:
            return bench(project.plan, target, load_digits().stratified(5)).to_dict()


def figures(report: dict[str, Any]) -> dict[str, int]:
    """The judged figures of a report, by name."""
    total = {name: report["total"][name] for name in FIGURES}
    return total | {layer["name"]: layer["instructions"] for layer in report["layers"]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold instruction counts against their history.")
    parser.add_argument("--update", action="store_true", help="record the counts of this version")
    arguments = parser.parse_args()
    missing = [t for t in ("qemu-system-arm", "arm-none-eabi-gcc") if not shutil.which(t)]
    if missing:
        print(f"SKIPPED: {', '.join(missing)} not installed; nothing was measured")
        return 0
    history: dict[str, Any] = json.loads(HISTORY.read_text()) if HISTORY.exists() else {}
    grown = []
    measured = {}
    for model, goal in RUNS:
        name, report = f"{model} {goal}", measure(model, goal)
        measured[name] = {"toolchain": report["toolchain"], **figures(report)}
        before = history.get(name, {})
        same = before.get("toolchain") == report["toolchain"]
        for figure, value in figures(report).items():
            old = before.get(figure)
            change = f"{100 * (value / old - 1):+7.2f} %" if old else "     new"
            print(f"{name:13} {figure:14} {value:>12,}  {change}{'' if same else '  (not judged)'}")
            if old and same and value > old * (1 + TOLERANCE):
                grown.append(f"{name} {figure}: {old:,} to {value:,}")
    if arguments.update:
        HISTORY.write_text(json.dumps(measured, indent=2) + "\n")
        print(f"recorded in {HISTORY.name}")
        return 0
    if grown:
        print("grown by more than 2 %:\n  " + "\n  ".join(grown))
        print("mend it, or record it on purpose: python benchmarks/instructions.py --update")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
