"""Every kernel for convolutions of signs, forced one at a time, against the reference."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from many_models import Program
from needs import need_emulator, need_toolchain
from qemu_rig import board_differences
from random_bits import random_bits
from twin_check import differences, inputs

from bnnmcu import reference
from bnnmcu.backend.plan import KernelChoice, make_plan
from bnnmcu.errors import MissingDependencyError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.toolchain.native import host_compiler

_OPTIONS = (
    "classes/4",
    "classes/5",
    "classes/6",
    "class_steps/4",
    "class_steps/5",
    "class_steps/6",
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


def test_choices_take_what_they_are_for() -> None:
    """Speed never takes more cycles than size, and size never more bytes than speed."""
    taken: Counter[str] = Counter()
    for seed in range(40):
        graph = random_bits(seed)
        fast, small = (make_plan(graph, KernelChoice(goal)) for goal in ("speed", "size"))
        costs = [sum(s.estimate.cycles for s in plan.steps) for plan in (fast, small)]
        sizes = [sum(s.estimate.flash for s in plan.steps) for plan in (fast, small)]
        assert costs[0] <= costs[1]
        assert sizes[0] >= sizes[1] or costs[0] < costs[1]
        taken.update(step.option.partition("/")[0] for step in fast.steps)
    assert taken["classes"]
    assert taken["bits"]


def test_a_board_is_fitted_where_possible() -> None:
    graph = next(g for g in map(random_bits, range(200)) if g.nodes[1].weights.size > 20_000)
    free = make_plan(graph, KernelChoice("speed"))
    small = make_plan(graph, KernelChoice("speed", flash=1, ram=1))
    assert sum(s.estimate.flash for s in small.steps) <= sum(s.estimate.flash for s in free.steps)
    assert small.arena_words <= free.arena_words
