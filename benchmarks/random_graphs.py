"""Random networks: the generated C against the reference, bit for bit, and a record of it.

    python benchmarks/random_graphs.py                      # 5,000 natively, 240 under QEMU
    python benchmarks/random_graphs.py --first 100000 --count 1000 --qemu 0 --record other.json

Each network (tests/support/random_dags.py, by its seed) answers five images with three draws
each; the native twin's logits, drawn weights, and every value that a layer leaves in the arena
must equal the reference's.  Under QEMU, on emulated Cortex-M4 and Cortex-M3 boards, the logits
must.  Batches run in processes of their own, so that a crash is a difference and not the end.
Ends with 1 if anything differs; the seeds of what differs are printed and recorded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from qemu_rig import board_differences  # noqa: E402
from random_dags import random_dag  # noqa: E402
from twin_check import AT_ONCE, differences, inputs  # noqa: E402

import bnnmcu  # noqa: E402
from bnnmcu.backend.folder import runtime_files  # noqa: E402
from bnnmcu.backend.plan import make_plan  # noqa: E402
from bnnmcu.graph import Graph, infer  # noqa: E402
from bnnmcu.graphfile import graph_sha256  # noqa: E402
from bnnmcu.toolchain.detect import GCC, package_version, program_version, zig_command  # noqa: E402
from bnnmcu.toolchain.native import compiler_version, host_compiler  # noqa: E402

RECORD = Path(__file__).with_name("random_graphs.json")
#: Networks of one firmware: 4 MB hold them.
ON_BOARD = 40
BATCH_TIMEOUT_S = 1800
#: Core and compiler of each batch under QEMU, in turn.
BOARDS = (("cortex-m4f", "gcc"), ("cortex-m4f", "zig"), ("cortex-m3", "gcc"))


def contents(graphs: list[Graph]) -> dict[str, Any]:
    """What a batch is made of, to be added up."""
    nodes: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    logits = 0
    for graph in graphs:
        specs = infer(graph)
        nodes.update(f"{type(n).__name__} on {specs[n.source].kind}" for n in graph.nodes)
        kernels.update(step.kernel for step in make_plan(graph).steps)
        logits += inputs(graph)[1].size * graph.classes
    digest = hashlib.sha256(b"".join(graph_sha256(graph) for graph in graphs)).hexdigest()
    return {"nodes": nodes, "kernels": kernels, "logits": logits, "sha256": digest}


def batch(first: int, count: int, board: str) -> dict[str, Any]:
    """One batch in this process: what it held, and what differs."""
    graphs = [random_dag(seed) for seed in range(first, first + count)]
    with tempfile.TemporaryDirectory(prefix="bnnmcu-") as folder:
        work = Path(folder) / "batch"
        if board:
            wrong = board_differences(graphs, work, *board.split("/"))
        else:
            wrong = differences(graphs, work)
    return contents(graphs) | {"differences": wrong}


def in_child(first: int, count: int, board: str = "") -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--batch", f"{first},{count},{board}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BATCH_TIMEOUT_S, check=False
    )
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout)
        return result
    reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"differences": [f"seeds {first} to {first + count - 1}: {reason}"]}


def _batches(first: int, count: int, size: int) -> list[tuple[int, int]]:
    return [(at, min(size, first + count - at)) for at in range(first, first + count, size)]


def run_all(jobs: list[tuple[int, int, str]], workers: int) -> dict[str, Any]:
    """All batches; sums, and the differences in the order of the seeds."""
    total: dict[str, Any] = {"nodes": Counter(), "kernels": Counter(), "logits": 0}
    digest, wrong, done = hashlib.sha256(), [], 0
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        for job, result in zip(jobs, pool.map(lambda j: in_child(*j), jobs), strict=True):
            done += job[1]
            wrong += result["differences"]
            total["nodes"].update(result.get("nodes", {}))
            total["kernels"].update(result.get("kernels", {}))
            total["logits"] += result.get("logits", 0)
            digest.update(result.get("sha256", "").encode())
            line = f"{done:>6} networks, {len(wrong)} differences, "
            print(f"{line}{time.monotonic() - began:.0f} s", flush=True)
            for text in result["differences"]:
                print(f"  DIFFERENT: {text}", flush=True)
    counts = {key: dict(sorted(total[key].items())) for key in ("nodes", "kernels")}
    return {
        "graphs": done,
        "differences": wrong,
        "logits_compared": total["logits"],
        "sha256_of_fingerprints": digest.hexdigest(),
    } | counts


def runtime_sha256() -> str:
    """Which C it was: of the runtime's files, by name."""
    digest = hashlib.sha256()
    for name, text in sorted(runtime_files().items()):
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def versions(qemu: bool) -> dict[str, str]:
    """Of everything that takes part."""
    found = {
        "bnnmcu": bnnmcu.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "host_compiler": compiler_version(*host_compiler()),
    }
    if qemu:
        found["arm_compiler"] = f"{GCC} {program_version(GCC)}"
        found["zig"] = package_version("ziglang") or program_version((zig_command() or ("zig",))[0])
        found["qemu"] = program_version("qemu-system-arm")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Random networks against the reference.")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=5000, help="networks, natively")
    parser.add_argument("--qemu", type=int, default=240, help="of these also under QEMU")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="batches at a time")
    parser.add_argument("--record", type=Path, default=RECORD, help="the file to write")
    parser.add_argument("--batch", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.batch:
        first, count, board = arguments.batch.split(",")
        print(json.dumps(batch(int(first), int(count), board)))
        return 0
    missing = [tool for tool in ("qemu-system-arm", GCC) if not shutil.which(tool)]
    missing += ["zig"] * (zig_command() is None)
    if arguments.qemu and missing:
        parser.error(f"{', '.join(missing)} not installed: install them, or say --qemu 0")
    native = [(*pair, "") for pair in _batches(arguments.first, arguments.count, AT_ONCE)]
    record: dict[str, Any] = {
        "first_seed": arguments.first,
        "last_seed": arguments.first + arguments.count - 1,
        "images_each": int(inputs(random_dag(0))[1].shape[0]),
        "draws_each": int(inputs(random_dag(0))[1].shape[1]),
        "versions": versions(arguments.qemu > 0),
        "runtime_sha256": runtime_sha256(),
    }
    print(f"native twin: {arguments.count} networks", flush=True)
    record["native"] = run_all(native, arguments.jobs)
    wrong = record["native"]["differences"]
    if arguments.qemu:
        print(f"QEMU (emulated): {arguments.qemu} networks", flush=True)
        pairs = _batches(arguments.first, arguments.qemu, ON_BOARD)
        boards = [BOARDS[i % len(BOARDS)] for i in range(len(pairs))]
        jobs = [(*pair, "/".join(board)) for pair, board in zip(pairs, boards, strict=True)]
        record["qemu_emulated"] = run_all(jobs, arguments.jobs)
        used: Counter[str] = Counter()
        for _, count, board in jobs:
            used[board] += count
        record["qemu_emulated"]["boards"] = dict(used)
        wrong = wrong + record["qemu_emulated"]["differences"]
    arguments.record.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{len(wrong)} differences; recorded in {arguments.record}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
