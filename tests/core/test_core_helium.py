"""Kernels for Helium, forced one at a time: on this machine in C, on a Cortex-M55 with vectors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from many_models import Program
from needs import need_emulator, need_toolchain
from qemu_rig import board_differences
from random_bits import random_bits
from random_first import random_first, random_single
from twin_check import differences, inputs

from bnnmcu import reference
from bnnmcu.backend.kernels.helium_drawn import jump
from bnnmcu.backend.plan import KernelChoice, make_plan
from bnnmcu.errors import MissingDependencyError
from bnnmcu.graph import BinaryConv, Graph
from bnnmcu.lfsr import GENERATORS, RandomWords
from bnnmcu.toolchain.native import host_compiler

_COUNT, _ON_BOARD = 10, 5


def _wide(seed: int) -> Graph:
    """A network whose layer with one position has more channels than a vector has lanes."""
    graph = random_single(seed, drawn=False)
    conv = next(node for node in graph.nodes if isinstance(node, BinaryConv))
    if len(graph.nodes) != 3 or conv.weights[0].size > 600:
        return graph
    rng = np.random.default_rng(seed)
    outputs = int(rng.integers(129, 300))
    weights = rng.integers(0, 2, (outputs, *conv.weights.shape[1:]), dtype=np.uint8)
    last = graph.nodes[-1]
    head = rng.integers(-99, 99, (last.weights.shape[0], outputs), dtype=np.int16)
    nodes = (graph.nodes[0], replace(conv, weights=weights), replace(last, weights=head))
    return replace(graph, nodes=nodes)


_OPTIONS: dict[str, Callable[[int], Graph]] = {
    "classes-mve/4": random_bits,
    "classes-mve/5": random_bits,
    "classes-mve/6": random_bits,
    "vmladav": lambda seed: random_first(seed, fir=bool(seed % 2)),
    "masked-vectors": _wide,
    "drawn-vectors": lambda seed: random_single(
        seed, drawn=True, generator=list(GENERATORS)[seed % 4 % 3]
    ),
}


def _cases(
    first: int, count: int, most_bytes: int = 1 << 30
) -> tuple[list[Graph], list[KernelChoice]]:
    """Networks that have an option, for each, with the choice that takes it."""
    graphs: list[Graph] = []
    choices: list[KernelChoice] = []
    for option, make in _OPTIONS.items():
        choice, seed, found = KernelChoice(force={"*": option}), first, 0
        while found < count:
            assert seed < first + 60 * count, f"{option} is hardly ever offered"
            graph, seed = make(seed), seed + 1
            steps = make_plan(graph, choice).steps
            large = sum(step.estimate.tables for step in steps) > most_bytes
            if not large and any(step.option == option for step in steps):
                graphs.append(graph)
                choices.append(choice)
                found += 1
    return graphs, choices


def test_the_c_is_the_reference(tmp_path: Path) -> None:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    graphs, choices = _cases(0, _COUNT)
    assert differences(graphs, tmp_path / "twins", choices) == []
    shutil.rmtree(tmp_path / "twins", ignore_errors=True)


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    graphs, choices = _cases(3000, 3)
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = Program(graphs, tmp_path, compiler, flags, choices)
    requests, expected = b"", b""
    for index, graph in enumerate(graphs):
        images, seeds = inputs(graph)
        requests += program.infer(index, images, seeds[:, 0])
        expected += reference.run(graph, images, seeds[:, :1]).tobytes()
    assert program.run(requests) == expected


def test_the_vectors_are_the_reference(tmp_path: Path) -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    graphs, choices = _cases(6000, _ON_BOARD, 12_000)
    assert board_differences(graphs, tmp_path / "board", "cortex-m55", "gcc", choices) == []


def test_only_a_core_with_helium_takes_them() -> None:
    families = {option.partition("/")[0] for option in _OPTIONS}
    taken: dict[str, set[str]] = {}
    for core in ("cortex-m55", "cortex-m4f", "cortex-m7", "cortex-m33", "cortex-m3", "cortex-m0"):
        choice = KernelChoice("speed", core=core)
        plans = [
            make_plan(_OPTIONS[option](seed), choice) for option in _OPTIONS for seed in (2, 3)
        ]
        taken[core] = {step.option.partition("/")[0] for plan in plans for step in plan.steps}
    assert taken.pop("cortex-m55") & families
    assert not set.union(*taken.values()) & families


@pytest.mark.parametrize("words", [0, 1, 5, 127, 128, 129, 12_800])
def test_jumps_lead_where_the_generator_comes(words: int) -> None:
    seeds = np.array([1, 77, 1 << 40], dtype=np.uint64)
    slow, fast = (RandomWords("xorshift128", seeds) for _ in range(2))
    for _ in range(words):
        slow.next()
    polynomial, later = jump(words), np.zeros_like(fast.state)
    for i in range(128):
        if polynomial >> i & 1:
            later ^= fast.state
        fast.next()
    assert np.array_equal(later, slow.state)
