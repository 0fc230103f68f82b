"""Every kernel for convolutions of signs, forced one at a time, against the reference."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from itertools import islice, product
from pathlib import Path

import pytest
from many_models import Program
from needs import need_emulator, need_toolchain
from qemu_rig import board_differences
from random_bits import random_bits
from twin_check import differences, inputs

from bnnmcu import reference
from bnnmcu.backend.choice import Goal
from bnnmcu.backend.costs import Reserve, reserve
from bnnmcu.backend.plan import KernelChoice, Plan, make_plan
from bnnmcu.errors import MissingDependencyError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.toolchain.native import host_compiler

_OPTIONS = (
    "classes/4",
    "classes/5",
    "classes/6",
    "classes/7",
    "class_steps/4",
    "class_steps/5",
    "class_steps/6",
    "class_steps/7",
)
_COUNT = 40


def _need_compiler() -> None:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))


def _with(option: str, first: int, count: int) -> tuple[list[Graph], KernelChoice]:
    """Random networks that have an option, and the choice that takes it."""
    choice = KernelChoice(force={"*": option})
    graphs: list[Graph] = []
    for seed in range(first, first + 20 * count):
        graph = random_bits(seed)
        if any(step.option == option for step in make_plan(graph, choice).steps):
            graphs.append(graph)
        if len(graphs) == count:
            return graphs, choice
    raise AssertionError(f"{option} is hardly ever offered")


@pytest.mark.parametrize("option", _OPTIONS)
def test_forced_kernels_are_the_reference(option: str, tmp_path: Path) -> None:
    _need_compiler()
    graphs, choice = _with(option, 1000 * _OPTIONS.index(option), _COUNT)
    assert differences(graphs, tmp_path / "twins", choice) == []
    shutil.rmtree(tmp_path / "twins", ignore_errors=True)


def _sanitized(graphs: Sequence[Graph], choice: KernelChoice, folder: Path) -> Program:
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    return Program(graphs, folder, compiler, flags, choice)


@pytest.mark.parametrize("option", ["classes/6", "class_steps/4"])
def test_sanitizers_find_nothing(option: str, tmp_path: Path) -> None:
    graphs, choice = _with(option, 9000, 12)
    program = _sanitized(graphs, choice, tmp_path)
    requests, expected = b"", b""
    for index, graph in enumerate(graphs):
        images, seeds = inputs(graph)
        requests += program.infer(index, images, seeds[:, 0])
        expected += reference.run(graph, images, seeds[:, :1]).tobytes()
    assert program.run(requests) == expected


@pytest.mark.parametrize(
    ("option", "core", "toolchain"),
    [
        ("classes/6", "cortex-m4f", "gcc"),
        ("class_steps/6", "cortex-m4f", "gcc"),
        ("classes/7", "cortex-m4f", "gcc"),
        ("class_steps/7", "cortex-m4f", "zig"),
        ("classes/5", "cortex-m4f", "zig"),
        ("class_steps/5", "cortex-m4f", "zig"),
        ("classes/4", "cortex-m3", "gcc"),
        ("class_steps/4", "cortex-m3", "zig"),
        ("bits", "cortex-m4f", "zig"),
        ("bits", "cortex-m3", "gcc"),
    ],
)
def test_assembly_is_the_reference(option: str, core: str, toolchain: str, tmp_path: Path) -> None:
    need_emulator("qemu")
    need_toolchain(toolchain)
    graphs, choice = _with(option, 20_000, 25)
    assert board_differences(graphs, tmp_path / "board", core, toolchain, choice) == []


def test_an_unknown_kernel_is_refused() -> None:
    graph = random_bits(1)
    with pytest.raises(UsageError, match="conv has no kernel 'fft'"):
        make_plan(graph, KernelChoice(force={"conv": "fft"}))


def _bytes(plan: Plan) -> int:
    return sum(s.estimate.flash + 4 * s.estimate.words for s in plan.steps)


def test_choices_take_what_they_are_for() -> None:
    """Speed never takes more cycles than size, and size never more bytes than speed."""
    taken: Counter[str] = Counter()
    for seed in range(40):
        graph = random_bits(seed)
        fast, small = (make_plan(graph, KernelChoice(goal)) for goal in ("speed", "size"))
        costs = [sum(s.estimate.cycles for s in plan.steps) for plan in (fast, small)]
        assert costs[0] <= costs[1]
        assert _bytes(small) <= _bytes(fast), seed
        taken.update(step.option.partition("/")[0] for step in fast.steps)
    assert taken["classes"]
    assert taken["bits"]


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m4f"])
@pytest.mark.parametrize("goal", ["speed", "balanced"])
def test_a_board_is_fitted_wherever_the_smallest_plan_fits(goal: Goal, core: str) -> None:
    """Over a grid of boards between what the smallest and what the fastest plan needs."""
    tight = 0
    large = (g for g in map(random_bits, range(400)) if g.nodes[1].weights.size > 20_000)
    for graph in islice(large, 2):
        spare = reserve(core)

        def needs(plan: Plan, spare: Reserve = spare) -> tuple[int, int]:
            flash = spare.flash + sum(s.estimate.flash for s in plan.steps)
            return flash, spare.ram + 4 * plan.arena_words

        free = needs(make_plan(graph, KernelChoice(goal, core=core)))
        least = needs(make_plan(graph, KernelChoice("size", core=core)))
        for share in product((0.0, 0.1, 0.4, 1.0), repeat=2):
            board = [
                round(low + part * max(0, high - low))
                for low, high, part in zip(least, free, share, strict=True)
            ]
            choice = KernelChoice(goal, core=core, flash=board[0], ram=board[1])
            found = needs(make_plan(graph, choice))
            assert found[0] <= board[0], (graph.name, board)
            assert found[1] <= board[1], (graph.name, board)
            tight += found != free
    # What is balanced may be the smallest already; what is fast never is.
    assert tight > 5 or goal == "balanced", "no board was too small for the fastest plan"
