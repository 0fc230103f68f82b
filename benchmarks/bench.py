"""What inferences cost, against the targets and against what they cost before.

    python benchmarks/bench.py             # fails if a target is missed or a figure grew by 2 %
    python benchmarks/bench.py --update    # records the figures of this version
    python benchmarks/bench.py --check     # only whether README.md shows what is recorded

Runs and targets stand in targets.json, recorded figures in history.json; README.md
describes the protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from judge import TIMED, against_history, lines, markdown, number
from networks import images, network

from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.bench import BenchReport, bench
from bnnmcu.boards import load_board
from bnnmcu.errors import BnnmcuError
from bnnmcu.target import TargetOptions, open_target
from bnnmcu.toolchain.native import NativeTwin, compiler_version, host_compiler

HERE = Path(__file__).resolve().parent
TARGETS = HERE / "targets.json"
HISTORY = HERE / "history.json"
README = HERE / "README.md"
START, END = "<!-- recorded figures: start -->\n", "<!-- recorded figures: end -->\n"
IMAGES = 5
TWIN_IMAGES = 2000
TWIN_REPEATS = 3
#: The functions that turn a layer's input into words of lanes (bnn_class_inputs*), by their names
#: in the ELF; what gcc has inlined elsewhere is not found, and stays in the layer's count.
GATHER = re.compile(
    r"bnn_(class_(inputs|planes|taps)\w*|approach|arrive|begin|collect|columns|finish|gather"
    r"|put\w*|swap|transpose)(\.\w+)*"
)


def run(name: str, network_name: str, board: str, optimize: Any) -> dict[str, Any]:
    """The figures of one run, or why there are none under ``error``."""
    graph = network(network_name)
    try:
        with tempfile.TemporaryDirectory(prefix="bnnmcu-") as folder:
            where = Path(folder) / "project"
            write_project(graph, load_board(board), where, choice=KernelChoice(optimize))
            project = load_project(where)
            options = TargetOptions(emulate="qemu", toolchain="gcc", count=True, profile=True)
            notes: list[str] = []
            with open_target(project, options, notes.append) as target:
                report = bench(project.plan, target, images(graph, IMAGES))
            if report.counted_by != "plugin":
                raise BnnmcuError("; ".join(note for note in notes if "plugin" in note))
            return figures(report)
    except Exception as error:
        # Whatever it is, the other runs' figures must not be lost.
        return {"error": f"{name}: {type(error).__name__}: {error}"}


def figures(report: BenchReport) -> dict[str, Any]:
    """The judged figures of a report, by name, and the compiler."""
    assert report.toolchain is not None
    found: dict[str, Any] = {
        "toolchain": report.toolchain,
        "instructions": report.total,
        "spread": report.most - report.least,
        "flash": report.flash,
        "ram": report.ram,
        "stack": report.stack,
    }
    if report.cycles_modelled is not None:
        found["cycles, modelled"] = report.cycles_modelled
    for layer in report.layers:
        found[layer.name] = layer.ticks
        gather = sum(n for name, n in layer.functions.items() if GATHER.fullmatch(name))
        if gather:
            found[f"{layer.name} without gather"] = layer.ticks - gather
    # A ratio of the layer that is named for it; the others do not pad.
    padded = next((layer for layer in report.layers if layer.name == "conv"), None)
    if padded is not None:
        found["conv MAC per instruction"] = round(padded.macs / padded.ticks, 3)
    return found


def twin_speed() -> dict[str, Any]:
    """Images a second of the native twin on one core, the best of some runs."""
    graph = network("b64")
    twin = NativeTwin(graph)
    data = images(graph, TWIN_IMAGES).images
    twin.run(data[:100])
    best = float("inf")
    for _ in range(TWIN_REPEATS):
        start = time.perf_counter()
        twin.run(data)
        best = min(best, time.perf_counter() - start)
    compiler = host_compiler()
    return {
        "images per second": round(len(data) / best),
        "machine": f"{processor()}, one of {os.cpu_count()} cores",
        "compiler": compiler_version(*compiler),
    }


def processor() -> str:
    """What this machine's processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def measure(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of all runs, several at a time, and then of the twin, alone."""
    start = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            # The largest first: the last one to be started decides when all are done.
            name: pool.submit(run, name, entry["network"], entry["board"], entry["optimize"])
            for name, entry in sorted(runs.items(), key=lambda item: "b128" not in item[0])
        }
        found = {name: jobs[name].result() for name in runs}
    print(f"{len(found)} runs in {time.perf_counter() - start:.0f} s; the native twin, alone")
    return found | {TIMED: twin_speed()}


def shown(history: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """README.md as it should be for what is recorded."""
    before, _, rest = README.read_text(encoding="utf-8").partition(START)
    return before + START + markdown(lines(rows, history), history) + END + rest.partition(END)[2]


def print_lines(rows: list[list[str]]) -> None:
    """A table as plain text, figures to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.ljust(width) if i in (0, 4) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description="Hold the costs of inferences against targets.")
    parser.add_argument("--update", action="store_true", help="record the figures of this version")
    parser.add_argument("--require", action="store_true", help="fail where tools are missing")
    parser.add_argument("--check", action="store_true", help="only look whether README.md is right")
    arguments = parser.parse_args()
    targets = json.loads(TARGETS.read_text(encoding="utf-8"))
    history: dict[str, Any] = json.loads(HISTORY.read_text()) if HISTORY.exists() else {}
    if arguments.check:
        right = README.read_text(encoding="utf-8") == shown(history, targets["rows"])
        print(f"{README.name} {'shows' if right else 'does NOT show'} what {HISTORY.name} records")
        return 0 if right else 1
    missing = [t for t in ("qemu-system-arm", "arm-none-eabi-gcc") if not shutil.which(t)]
    if missing:
        print("#" * 64)
        print(f"# SKIPPED: {', '.join(missing)} not installed; NOTHING was measured")
        print("#" * 64)
        return 1 if arguments.require else 0
    measured = measure(targets["runs"])
    errors = [entry["error"] for entry in measured.values() if "error" in entry]
    whole = {name: entry for name, entry in measured.items() if "error" not in entry}
    result = lines(targets["rows"], whole)
    print_lines([["", "must", "aim", "measured", ""], *(line.cells() for line in result)])
    print("instructions are exact and emulated; cycles in the history are modelled")
    for name, entry in whole.items():
        if name != TIMED and entry["toolchain"] != history.get(name, entry).get("toolchain"):
            print(f"{name}: the history is {history[name]['toolchain']}'s, so it is not judged")
    grown = list(against_history(history, whole))
    if arguments.update:
        if errors:
            print("not recorded:\n  " + "\n  ".join(errors))
            return 1
        HISTORY.write_text(json.dumps(measured, indent=2) + "\n")
        README.write_text(shown(measured, targets["rows"]), encoding="utf-8")
        print(f"recorded in {HISTORY.name} and {README.name}")
        for line in grown:
            print(f"  {line}")
    elif grown:
        print("worse by more than 2 %:\n  " + "\n  ".join(grown))
        print("mend it, or record it on purpose: python benchmarks/bench.py --update")
    missed = [line for line in result if line.missed]
    for line in missed:
        figure = "not measured" if line.measured is None else number(line.measured)
        print(f"MISSED: {line.row}: {figure}, must be {line.cells()[1]}")
    for line in errors:
        print(f"FAILED: {line}")
    return 1 if missed or errors or (grown and not arguments.update) else 0


if __name__ == "__main__":
    sys.exit(main())
