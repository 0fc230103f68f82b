"""Random networks on emulated Cortex-M boards: every logit, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import qemu_rig
from needs import need_emulator, need_toolchain
from qemu_rig import MACHINES, board_differences
from random_dags import random_dag

from bnnmcu.backend.plan import make_plan
from bnnmcu.graph import Graph

_COUNT = 20


def _sample(first: int) -> list[Graph]:
    """Some networks, then those that call a kernel which none before them did."""
    graphs: list[Graph] = []
    called: set[str] = set()
    for seed in range(first, first + 300):
        graph = random_dag(seed)
        kernels = {step.kernel for step in make_plan(graph).steps}
        if len(graphs) < _COUNT or kernels - called:
            graphs.append(graph)
            called |= kernels
    return graphs


@pytest.mark.parametrize(
    ("core", "toolchain"), [("cortex-m4f", "gcc"), ("cortex-m4f", "zig"), ("cortex-m3", "gcc")]
)
def test_random_graphs(core: str, toolchain: str, tmp_path: Path) -> None:
    need_emulator("qemu")
    need_toolchain(toolchain)
    # Networks of their own for each: none of the other tests has seen them.
    first = 10_000 + 1_000 * [*MACHINES].index(core) + 500 * (toolchain == "zig")
    assert board_differences(_sample(first), tmp_path / "board", core, toolchain) == []


def test_a_difference_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    right = qemu_rig._expected

    def wrong(graph: Graph) -> np.ndarray:
        logits = right(graph)
        if graph.name == "dag7":
            logits[-1, -1, -1] ^= 1
        return logits

    monkeypatch.setattr(qemu_rig, "_expected", wrong)
    graphs = [random_dag(6), random_dag(7), random_dag(8)]
    assert board_differences(graphs, tmp_path / "board", "cortex-m4f", "gcc") == ["dag7"]
