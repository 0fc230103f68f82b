"""Whether a result is ever lost: a bad line for ten thousand images, kills and resets in one run.

    python benchmarks/soak.py             # prints; fails if a row differs (some ten minutes)
    python benchmarks/soak.py --update    # records the figures in soak.json

README.md describes the protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench import processor
from networks import network

import bnnmcu
from bnnmcu.backend.project import Project, load_project, write_project
from bnnmcu.boards import load_board
from bnnmcu.data import load_dataset
from bnnmcu.errors import DataError
from bnnmcu.link.device import Device
from bnnmcu.link.flaky import FlakyTransport, Flaws, parse_flaws
from bnnmcu.link.transport import Transport
from bnnmcu.store.compare import compare
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.emulator import open_emulator
from bnnmcu.toolchain.tcp_bridge import TcpBridge

HERE = Path(__file__).resolve().parent
RECORD = HERE / "soak.json"
NETWORK = "b64"
BOARD = "nucleo_f446re"
IMAGES = 10_000
#: One byte in 20,000; of the chunks of 64 bytes 0.2 % are lost, 0.1 % come twice, 0.05 % stall.
FLAWS = "corrupt=1/20000,drop=0.002,duplicate=0.001,stall=0.0005:0.1,seed={seed}"
RUN_IMAGES, KILLS, RESETS = 1500, 50, 20
#: Of the kills, those by the clock and not by progress: they hit a program that starts.
EARLY, EARLY_SECONDS = 0.2, 2.0
#: Bytes that an image of the network takes on the wire, roughly; for choosing moments alone.
WIRE = 810
SEED = 1
PATIENCE = 1800.0


class Meter:
    """Counts what is sent to an emulated board, and resets the board after given totals."""

    def __init__(self, inner: Any, resets: list[int]) -> None:
        self.name: str = inner.name
        self.passed = 0
        self.resets = 0
        self._inner = inner
        self._left = sorted(resets)

    def write(self, data: bytes) -> None:
        self.passed += len(data)
        self._inner.write(data)
        while self._left and self.passed >= self._left[0]:
            self._left.pop(0)
            self.resets += 1
            self._inner.reset()

    def read(self, size: int, timeout: float) -> bytes:
        data: bytes = self._inner.read(size, timeout)
        return data

    def reset_input(self) -> None:
        self._inner.reset_input()

    def close(self) -> None:
        self._inner.close()


def answers(transport: Transport, project: Project, images: npt.NDArray[np.uint8]) -> list[bytes]:
    """A row of logits for each image, in order."""
    with Device(transport, expect_model=project.sha256) as device:
        asked = ((image, [index]) for index, image in enumerate(images))
        return [answer.logits.tobytes() for answer in device.infer_many(asked)]


def bad_line(
    project: Project, elf: Path, images: npt.NDArray[np.uint8], flaws: Flaws
) -> dict[str, Any]:
    """The same images without flaws and with them, row by row."""
    clean = answers(open_emulator("unicorn", elf, project.board), project, images)
    line = FlakyTransport(open_emulator("unicorn", elf, project.board), flaws)
    start = time.monotonic()
    with Device(line, expect_model=project.sha256) as device:
        asked = ((image, [index]) for index, image in enumerate(images))
        spoiled = [answer.logits.tobytes() for answer in device.infer_many(asked)]
        stats = asdict(device.stats)
    return {
        "images": len(images),
        "answers": len(spoiled),
        "different": sum(a != b for a, b in zip(clean, spoiled, strict=False)),
        "missing or too many": abs(len(spoiled) - len(images)),
        "seconds": round(time.monotonic() - start, 1),
        "line": asdict(line.counts),
        "link": stats,
    }


def command(project: Project, port: str, count: int, results: Path) -> list[str]:
    """The program that is killed: an evaluation whose answers are stored."""
    return [
        *(sys.executable, "-m", "bnnmcu", "evaluate", str(project.folder), "--port", port),
        *("--data", "digits", "-n", str(count), "-o", str(results), "--json"),
    ]


def stored_run(
    project: Project,
    elf: Path,
    results: Path,
    *,
    count: int,
    kills: int = 0,
    resets: int = 0,
    seed: int = SEED,
) -> dict[str, Any]:
    """One evaluation of emulated hardware, whose host is killed and whose board is reset.

    Raises:
        RuntimeError: it failed by itself, or was over before it had been killed so often.
    """
    chance = random.Random(f"soak/{seed}")  # noqa: S311  reproducible, not secret
    total = count * WIRE
    moments = [chance.randrange(total) for _ in range(resets)]
    meter = Meter(open_emulator("unicorn", elf, project.board), moments)
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with TcpBridge(meter) as bridge, tempfile.TemporaryFile() as said:
        for left in range(kills, -1, -1):
            process = subprocess.Popen(
                command(project, bridge.port, count, results),
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
            )
            try:
                killed = left > 0 and _kill(process, meter, chance, total // (kills + 2))
                printed, _ = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
                process.wait()
            if not killed and (left or process.returncode):
                said.seek(0)
                raise RuntimeError(
                    f"the run ended with {process.returncode}, {left} kills before its time:\n"
                    + said.read().decode(errors="replace")[-2000:]
                )
    return {
        "images": count,
        "kills": kills,
        "resets": meter.resets,
        "error": json.loads(printed)["error"],
        "seconds": round(time.monotonic() - start, 1),
    }


def _kill(process: subprocess.Popen[bytes], meter: Meter, chance: random.Random, each: int) -> bool:
    """Kill a run at some moment; False if it was over before."""
    early = chance.random() < EARLY
    deadline = time.monotonic() + (chance.uniform(0, EARLY_SECONDS) if early else PATIENCE)
    # Twice the mean at most, so that all kills together take about the whole run.
    enough = meter.passed + chance.randrange(1, 2 * each)
    while process.poll() is None:
        if time.monotonic() >= deadline or (not early and meter.passed >= enough):
            process.kill()
            return True
        time.sleep(0.005)
    return False


def killed_run(
    project: Project, elf: Path, folder: Path, *, count: int, kills: int, resets: int, seed: int
) -> dict[str, Any]:
    """A disturbed run against an undisturbed one, by all content columns of their stores."""
    whole, broken = folder / "whole.sqlite", folder / "broken.sqlite"
    calm = stored_run(project, elf, whole, count=count)
    rough = stored_run(project, elf, broken, count=count, kills=kills, resets=resets, seed=seed)
    found = compare(whole, broken)
    return rough | {
        "error of the undisturbed run": calm["error"],
        "rows that are equal": found.equal,
        "rows that differ": found.differing,
        "rows in one alone": found.only_first + found.only_second,
        "same": found.same and calm["error"] == rough["error"],
    }


def judge(found: dict[str, Any]) -> list[str]:
    """What was lost, changed, or not put to the test."""
    missed = []
    for entry in found["bad line"]:
        if entry["different"] or entry["missing or too many"]:
            missed.append(f"bad line: {entry['different']} of {entry['images']} rows differ")
        for kind in ("corrupt", "drop", "duplicate", "stall"):
            if not entry["line"][kind]:
                missed.append(f"bad line: {kind} never happened")
    entry = found["kills and resets"]
    if not entry["same"] or entry["rows that are equal"] != entry["images"]:
        missed.append(f"kills and resets: {entry['rows that are equal']} rows are equal")
    return missed


def measure(
    folder: Path, images: int, count: int, kills: int, resets: int, note: Callable[[str], None]
) -> dict[str, Any]:
    write_project(network(NETWORK), load_board(BOARD), folder / "net")
    project = load_project(folder / "net")
    elf = build_firmware(project.folder, "gcc").elf
    try:
        data, seeds = load_dataset("mnist"), (SEED,)
    except DataError:
        # 5,000 of them, so twice, with other flaws the second time.
        data, seeds = load_dataset("digits"), (SEED, SEED + 1)
    data = data.stratified(min(len(data), images // len(seeds)))
    found: dict[str, Any] = {"data": data.name, "bad line": []}
    for seed in seeds:
        flaws = FLAWS.format(seed=seed)
        note(f"{len(data)} images of {data.name}, clean and through {flaws}")
        entry = bad_line(project, elf, data.images, parse_flaws(flaws))
        found["bad line"].append({"flaws": flaws} | entry)
    note(f"a run of {count} images with {kills} kills of the host and {resets} resets of the board")
    found["kills and resets"] = {"seed": SEED} | killed_run(
        project, elf, folder, count=count, kills=kills, resets=resets, seed=SEED
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Look whether a result is ever lost.")
    parser.add_argument("--images", type=int, default=IMAGES, help="through the bad line")
    parser.add_argument("--run", type=int, default=RUN_IMAGES, help="images of the killed run")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--resets", type=int, default=RESETS)
    parser.add_argument("--update", action="store_true", help="record the figures")
    arguments = parser.parse_args()
    if not shutil.which("arm-none-eabi-gcc"):
        print("SKIPPED: arm-none-eabi-gcc is not installed; NOTHING was tried")
        return 1
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bnnmcu-") as folder:
        found = measure(
            Path(folder),
            arguments.images,
            arguments.run,
            arguments.kills,
            arguments.resets,
            lambda text: print(text, file=sys.stderr, flush=True),
        )
    record = {
        "network": NETWORK,
        "board": BOARD,
        "emulator": f"unicorn {version('unicorn')}",
        "bnnmcu": bnnmcu.__version__,
        "python": platform.python_version(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "minutes": round((time.monotonic() - start) / 60, 1),
        **found,
    }
    text = json.dumps(record, indent=2) + "\n"
    print(text, end="")
    missed = judge(found)
    for line in missed:
        print(f"MISSED: {line}")
    if arguments.update and not missed:
        RECORD.write_text(text)
        print(f"recorded in {RECORD.name}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
