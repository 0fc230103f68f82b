"""Kernels for cores without DSP instructions, forced one at a time, against the reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from count_rig import build_counter, count_instructions
from many_models import Program
from needs import need_emulator, need_toolchain
from qemu_rig import board_differences
from random_bits import random_bits
from random_first import random_first, random_single
from twin_check import differences, inputs

from bnnmcu import reference
from bnnmcu.backend.plan import KernelChoice, make_plan
from bnnmcu.errors import MissingDependencyError
from bnnmcu.graph import GE, BinaryConv, Dense, Graph, IntegerConv, Threshold
from bnnmcu.toolchain.native import host_compiler

_COUNT = 12
_IMAGES = 20


def _any_first(seed: int) -> Graph:
    """Windows of stride 2, and of all strides from 1 to 3."""
    return random_first(seed, fir=seed % 2 == 0)


_GRAPHS: dict[str, Callable[[int], Graph]] = {
    "toom": _any_first,
    **dict.fromkeys([f"class_offsets/{n}" for n in (5, 6, 7)], random_bits),
    "classes/6": random_bits,
    "class_steps/5": random_bits,
    "bits": random_bits,
    "smlad": _any_first,
    "rows": lambda seed: random_single(seed, drawn=False),
    "masked": lambda seed: random_single(seed, drawn=False),
    "drawn-single": lambda seed: random_single(seed, drawn=True),
}
_NEW = ("toom", "class_offsets/5", "class_offsets/6", "class_offsets/7")


def _graphs(option: str, first: int, count: int) -> tuple[list[Graph], KernelChoice]:
    """Random networks that have an option, and the choice that takes it."""
    choice = KernelChoice(force={"*": option})
    found: list[Graph] = []
    for seed in range(first, first + 20 * count):
        graph = _GRAPHS[option](seed)
        if any(step.option == option for step in make_plan(graph, choice).steps):
            found.append(graph)
        if len(found) == count:
            return found, choice
    raise AssertionError(f"{option} is hardly ever offered")


@pytest.mark.parametrize("option", _NEW)
def test_forced_kernels_are_the_reference(option: str, tmp_path: Path) -> None:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    graphs, choice = _graphs(option, 0, _COUNT)
    assert differences(graphs, tmp_path / "twins", choice) == []
    shutil.rmtree(tmp_path / "twins", ignore_errors=True)


@pytest.mark.parametrize("option", ["toom", "class_offsets/6"])
def test_sanitizers_find_nothing(option: str, tmp_path: Path) -> None:
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    graphs, choice = _graphs(option, 700, 5)
    program = Program(graphs, tmp_path, compiler, flags, choice)
    requests, expected = b"", b""
    for index, graph in enumerate(graphs):
        images, seeds = inputs(graph)
        requests += program.infer(index, images, seeds[:, 0])
        expected += reference.run(graph, images, seeds[:, :1]).tobytes()
    assert program.run(requests) == expected


@pytest.mark.parametrize(
    ("option", "core", "toolchain"),
    [
        *((option, "cortex-m0", "gcc") for option in _GRAPHS),
        ("toom", "cortex-m0", "zig"),
        ("class_offsets/6", "cortex-m0", "zig"),
        ("class_steps/5", "cortex-m0", "zig"),
        ("rows", "cortex-m0", "zig"),
        ("toom", "cortex-m3", "gcc"),
        ("class_offsets/7", "cortex-m3", "gcc"),
        ("class_steps/5", "cortex-m3", "gcc"),
        ("toom", "cortex-m3", "zig"),
    ],
)
def test_assembly_is_the_reference(option: str, core: str, toolchain: str, tmp_path: Path) -> None:
    need_emulator("qemu")
    need_toolchain(toolchain)
    graphs, choice = _graphs(option, 20_000, 6)
    assert board_differences(graphs, tmp_path / "board", core, toolchain, choice) == []


@pytest.mark.parametrize("option", ["toom", "class_offsets/6", "rows"])
def test_the_count_is_the_same_for_every_image(option: str, tmp_path: Path) -> None:
    """On a Cortex-M0, where compilers branch more readily."""
    need_emulator("qemu")
    need_toolchain("gcc")
    graphs, choice = _graphs(option, 100, 4)
    graph = max(graphs, key=lambda g: max(step.macs for step in make_plan(g, choice).steps))
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (_IMAGES, *graph.input_shape))
    scale = np.linspace(0, 3, _IMAGES).reshape(-1, 1, 1, 1)
    images = np.clip(noise * scale, 0, 255).astype(np.uint8)
    elf = build_counter(graph, choice, images, tmp_path / "count", "cortex-m0")
    counts = count_instructions(elf)
    assert len(counts) == _IMAGES
    assert len(set(counts)) == 1, f"{min(counts)} to {max(counts)}"


@pytest.mark.parametrize(
    ("core", "first", "second"),
    [
        ("cortex-m0", "toom", "class_offsets"),
        ("cortex-m3", "toom", "classes"),
        ("cortex-m4f", "fir", "classes"),
    ],
)
def test_a_core_gets_its_own_kernels(core: str, first: str, second: str) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(-99, 100, (32, 8, 8, 1)).astype(np.int16)
    signs = rng.integers(0, 2, (32, 3, 3, 32), dtype=np.uint8)
    limits, kinds = np.zeros(32, np.int32), np.full(32, GE, np.uint8)
    nodes = (
        IntegerConv("first", "input", pixels, stride=(2, 2), padding=(3, 3, 3, 3)),
        Threshold("bits", "first", limits, kinds),
        BinaryConv("second", "bits", signs),
        Threshold("more", "second", limits, kinds),
        Dense("dense", "more", np.ones((2, 6 * 6 * 32), np.int16)),
    )
    graph = Graph("both", (16, 16, 1), nodes)
    plan = make_plan(graph, KernelChoice("speed", core=core))
    taken = [step.option.partition("/")[0] for step in plan.steps[:2]]
    assert taken == [first, second]


def test_sums_that_could_leave_int32_are_declined() -> None:
    """Sums are made 4 times as large as they are."""
    for weight, offered in ((300, True), (700, False)):
        weights = np.full((2, 8, 8, 60), weight, dtype=np.int16)
        conv = IntegerConv("conv", "input", weights, stride=(2, 2))
        dense = Dense("dense", "conv", np.ones((1, 2), np.int16))
        graph = Graph("large", (8, 8, 60), (conv, dense))
        choice = KernelChoice(core="cortex-m0")
        names = {a.name for a in make_plan(graph, choice).steps[0].alternatives}
        assert ("toom" in names) is offered
        assert "smlad" in names
