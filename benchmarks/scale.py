"""What campaigns on a cluster cost, and where its parts end (docs/scale.md).

    python benchmarks/scale.py            # some minutes; writes benchmarks/scale.json

Seconds of this machine, so that the file says which; nothing here is a test. The
board is emulated, and its line has no pace but the host's.
"""

from __future__ import annotations

import json
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bnnmcu.attack.config import CampaignConfig, CwConfig
from bnnmcu.attack.oracle import NativeOracle
from bnnmcu.attack.pairs import chunks_of, places_of
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import load_board
from bnnmcu.cluster.boards import FarmOracle
from bnnmcu.cluster.crafting import ClusterCrafter
from bnnmcu.cluster.engine import Engine, open_cluster
from bnnmcu.cluster.farm import FarmBoard
from bnnmcu.cluster.settings import ClusterSettings
from bnnmcu.compiler import compile_file
from bnnmcu.data import load_digits
from bnnmcu.store import Example, Store

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS, CHUNK, DRAWS = 20, 25, 21
WORKERS = (1, 2)
CHUNKS_A_WORKER = 4
TASKS = 2_000


def crafting(workers: int) -> dict[str, float]:
    """Image-iterations a second of CW-L2 on S64, one gradient a step, by so many workers."""
    graph = compile_file(ROOT / "examples" / "models" / "s64.pt").graph
    chunks = CHUNKS_A_WORKER * workers
    data = load_digits().stratified(CHUNK * (chunks + workers))
    attack = CwConfig.paper(iterations=ITERATIONS, targets="pairs", early_abort=False)
    config = CampaignConfig((attack,), draws=1, chunk=CHUNK)
    with open_cluster(ClusterSettings(workers=workers)) as engine:
        crafter = ClusterCrafter(engine, config, graph, data, NativeOracle(graph), {}, device="cpu")
        all_of_them = chunks_of(places_of(attack, data, graph.classes), CHUNK)
        # Each worker makes its twin first.
        list(crafter.made(attack, all_of_them[:workers]))
        begun, before = time.monotonic(), crafter.seconds
        list(crafter.made(attack, all_of_them[workers:]))
        took = time.monotonic() - begun
        busy = crafter.seconds - before
    done = CHUNK * chunks * ITERATIONS
    return {
        "workers": workers,
        "image_iterations_per_second": round(done / took, 1),
        "core_seconds_per_1000_image_iterations": round(1000 * busy / done, 2),
        "busy": round(busy / took / workers, 3),
    }


def boards(count: int, folder: Path) -> dict[str, float]:
    """Queries a second of emulated boards with S64, and what the client takes of it."""
    graph = compile_file(ROOT / "examples" / "models" / "s64.pt").graph
    project = folder / f"s64-{count}"
    write_project(graph, load_board("nucleo_f446re"), project)
    farm = [FarmBoard(name=f"twin-{k}", emulate="qemu") for k in range(count)]
    data = load_digits().stratified(60 * count)
    seeds = np.arange(len(data), dtype=np.uint64)[:, None]
    with open_cluster(ClusterSettings(workers=1), farm) as engine:
        oracle = FarmOracle(engine, load_project(project))
        list(oracle.logits(data.images[:4], seeds[:4]))
        begun, own = time.monotonic(), time.process_time()
        list(oracle.arrivals(data.images, seeds))
        took, used = time.monotonic() - begun, time.process_time() - own
    return {
        "boards": count,
        "queries_per_second": round(len(data) / took, 2),
        "client_cpu_seconds_per_1000": round(1000 * used / len(data), 2),
    }


def _nothing(number: int) -> int:
    return number


def scheduler(engine: Engine) -> dict[str, float]:
    """Tasks a second that one scheduler and client start and end, with nothing in them."""
    begun = time.monotonic()
    futures = [engine.submit(_nothing, k, name="nothing", craft=True) for k in range(TASKS)]
    sent = time.monotonic() - begun
    for future in engine.as_completed(futures):
        engine.result(future, "nothing")
        future.release()
    took = time.monotonic() - begun
    return {
        "tasks": TASKS,
        "tasks_per_second": round(TASKS / took),
        "submitted_per_second": round(TASKS / sent),
    }


def store(folder: Path) -> dict[str, float]:
    """Examples and answers a second that a results file takes; the disk's own."""
    rng = np.random.default_rng(1)
    count = 1000
    images = rng.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    logits = rng.integers(-1000, 1000, (DRAWS, 10)).astype(np.int64)
    identity: dict[str, Any] = {"config": {}, "data": {"images": count}}
    with Store.open(folder / "store.sqlite", identity) as results:
        begun = time.monotonic()
        for start in range(0, count, CHUNK):
            results.add_examples(
                [
                    Example(attack="cw", levels=0, image=k, true_label=0, pixels=images[k])
                    for k in range(start, start + CHUNK)
                ]
            )
        crafted = time.monotonic() - begun
        todo = results.unanswered("cw", 0, (28, 28, 1))
        seeds = np.arange(DRAWS, dtype=np.uint64)
        begun = time.monotonic()
        for one in todo:
            results.add_answer(one.row, seeds, logits, None, False, board="twin-1")
        answered = time.monotonic() - begun
    size = (folder / "store.sqlite").stat().st_size
    return {
        "examples_per_second": round(count / crafted),
        "answered_images_per_second": round(count / answered),
        "draws": DRAWS,
        "bytes_per_image": round(size / count),
    }


def main() -> None:
    """Measure all, print, and write the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "store": store(folder),
            "crafting": [crafting(workers) for workers in WORKERS],
            "boards (emulated)": [boards(count, folder) for count in (1, 2)],
        }
        with open_cluster(ClusterSettings(workers=1)) as engine:
            found["scheduler"] = scheduler(engine)
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            found["processor"] = line.partition(":")[2].strip()
            break
    text = json.dumps(found, indent=2) + "\n"
    (Path(__file__).parent / "scale.json").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
