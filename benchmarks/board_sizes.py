"""Builds a shipped network for every board there is, and keeps the sizes.

    python benchmarks/board_sizes.py              # table; fails where a board does not build
    python benchmarks/board_sizes.py --check      # also fails where sizes are not those kept,
                                                  # none are kept, or a compiler is missing
    python benchmarks/board_sizes.py --update     # keeps the sizes of this version

Every board is built with arm-none-eabi-gcc; one of each core also with zig. The
network is the smallest that is shipped, B64, its kernels chosen for speed as far
as the board's memory goes; where it does not fit, one of random weights. Each
ELF is looked into: its segments lie in the board's memories, its vector table is
where the core looks, its code is for that core (bnnmcu/toolchain/image.py).

Sizes are the linker's, in bytes. They depend on the compiler, so those of
another version are shown but not judged: --check says how many that were, and
fails if nothing could be judged at all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.project import write_project
from bnnmcu.boards import CORES, Board, all_boards, load_board
from bnnmcu.compiler import to_graph
from bnnmcu.errors import BnnmcuError, DoesNotFitError
from bnnmcu.graph import Graph
from bnnmcu.modelfile import read_model
from bnnmcu.network import Affine, Conv, Flatten, Linear, Network, Sign
from bnnmcu.passes import lower
from bnnmcu.toolchain.compiler import build_firmware
from bnnmcu.toolchain.detect import GCC, zig_command
from bnnmcu.toolchain.image import faults

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(__file__).with_name("board_sizes.json")
MODEL = ROOT / "examples" / "models" / "b64.pt"
FIGURES = ("flash", "ram")


def zig_boards() -> set[str]:
    """The first board of each core that zig knows."""
    first: dict[str, str] = {}
    for board in all_boards():
        if CORES[board.core].zig:
            first.setdefault(board.core, board.name)
    return set(first.values())


def random_network() -> Graph:
    """A small network for digits; what it answers means nothing."""
    rng = np.random.default_rng(1)
    ops = (
        Conv("conv1", "input", rng.normal(size=(16, 1, 8, 8)), stride=(4, 4)),
        Affine("norm1", "conv1", rng.uniform(0.5, 2, 16), rng.normal(size=16)),
        Sign("sign1", "norm1"),
        Conv("conv2", "sign1", rng.choice([-1.0, 1.0], (16, 16, 3, 3))),
        Affine("norm2", "conv2", rng.uniform(0.5, 2, 16), rng.normal(size=16)),
        Sign("sign2", "norm2"),
        Flatten("flat", "sign2"),
        Linear("dense", "flat", rng.normal(size=(10, 256))),
    )
    return lower(Network("random", (1, 28, 28), ops, np.full(1, 1 / 255), np.zeros(1))).graph


def build(graphs: Iterable[Graph], board: Board, toolchain: str) -> dict[str, Any]:
    """Sizes, compiler and network of one build: of the first network that fits.

    Raises:
        BnnmcuError: none fits, it does not build, or it is no image for the board.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / board.name
        for graph in graphs:
            try:
                write_project(graph, board, folder, choice=KernelChoice("speed"))
                break
            except DoesNotFitError:
                continue
        else:
            raise DoesNotFitError("no network fits", where=board.name)
        built = build_firmware(folder, toolchain)
        wrong = faults(built.elf, board)
        if wrong:
            raise BnnmcuError("; ".join(wrong), where=board.name)
        return {
            "model": graph.name,
            "compiler": built.version,
            "flash": built.flash_bytes,
            "ram": built.ram_bytes,
        }


@dataclass
class Comparison:
    """Builds against the sizes that were kept; each by board and compiler.

    Attributes:
        same: how many are as they were.
        changed: those with other sizes, of the same compiler.
        unkept: those that no size was kept of.
        unjudged: those whose size was kept of another version of the compiler.
    """

    same: int = 0
    changed: list[str] = field(default_factory=list)
    unkept: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)

    def add(self, name: str, found: dict[str, Any], before: dict[str, Any] | None) -> str:
        """Judge one build; returns what to print beside it."""
        if before is None:
            self.unkept.append(name)
            return "  none kept"
        was = ", ".join(f"{before[figure]:,}" for figure in FIGURES)
        if before["compiler"] != found["compiler"]:
            self.unjudged.append(name)
            return f"  not judged: {was} with {before['compiler']}"
        if before != found:
            self.changed.append(name)
            return f"  was {was}"
        self.same += 1
        return ""

    def faults(self) -> list[str]:
        """What ``--check`` fails for."""
        found = []
        if self.changed:
            found.append(f"SIZES CHANGED: {', '.join(self.changed)}; if that is meant: --update")
        if self.unkept:
            found.append(f"NO SIZE KEPT: {', '.join(self.unkept)}; keep it: --update")
        if not self.same and not self.changed:
            found.append("NOTHING WAS COMPARED")
        return found


def keep(sizes: dict[str, Any]) -> None:
    """Write the sizes of the boards that there are."""
    there = {board.name for board in all_boards()}
    text = json.dumps({name: sizes[name] for name in sorted(sizes) if name in there}, indent=2)
    KEPT.write_text(text + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Build a network for every board.")
    parser.add_argument("--update", action="store_true", help="keep the sizes of this version")
    parser.add_argument("--check", action="store_true", help="fail where sizes differ")
    parser.add_argument("boards", nargs="*", metavar="BOARD", help="these boards alone")
    arguments = parser.parse_args()
    programs = {"gcc": shutil.which(GCC), "zig": zig_command()}
    tools = [name for name, there in programs.items() if there]
    missing = [name for name in programs if name not in tools]
    if missing and arguments.check:
        print(f"FAILED: {' and '.join(missing)} not installed; --check needs both compilers")
        return 1
    if not tools:
        print("SKIPPED: neither arm-none-eabi-gcc nor zig is installed; nothing was built")
        return 0
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    graphs = (to_graph(read_model(MODEL)), random_network())
    boards = [load_board(name) for name in arguments.boards] or list(all_boards())
    with_zig, failed, comparison = zig_boards(), [], Comparison()
    print(f"{'board':18} {'core':11} {'network':8} {'toolchain':14} {'flash':>9} {'RAM':>9}")
    for board in boards:
        for tool in tools:
            if tool == "zig" and board.name not in with_zig:
                continue
            try:
                found = build(graphs, board, tool)
            except BnnmcuError as error:
                print(f"{board.name:18} {board.core:11} {tool}: FAILED: {error}", flush=True)
                failed.append(f"{board.name} ({tool})")
                continue
            compiler = f"{tool} {found['compiler']}"
            before = kept.get(board.name, {}).get(tool)
            note = comparison.add(f"{board.name} ({tool})", found, before)
            print(
                f"{board.name:18} {board.core:11} {found['model']:8} {compiler:14} "
                f"{found['flash']:9,} {found['ram']:9,}{note}",
                flush=True,
            )
            kept.setdefault(board.name, {})[tool] = found
            if arguments.update:
                # At once: a run takes minutes, and what is done need not be done again.
                keep(kept)
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        return 1
    if arguments.update:
        return 0
    if comparison.unjudged:
        print(f"NOT JUDGED, another compiler's were kept: {', '.join(comparison.unjudged)}")
    faults_found = comparison.faults() if arguments.check else []
    for fault in faults_found:
        print(fault)
    return 1 if faults_found else 0


if __name__ == "__main__":
    sys.exit(main())
