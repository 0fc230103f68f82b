"""Kernels of first layers and of layers with one position, forced, against the reference."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from many_models import Program
from qemu_rig import board_differences
from random_first import random_first, random_single
from trace_rig import need_tracing, traces
from twin_check import differences, inputs

from bnnmcu import reference
from bnnmcu.backend.kernels.first import fir_weights
from bnnmcu.backend.plan import KernelChoice, make_plan
from bnnmcu.errors import MissingDependencyError
from bnnmcu.graph import GE, INPUT, Conv, Dense, Graph, IntegerConv, Threshold
from bnnmcu.lfsr import GENERATORS
from bnnmcu.toolchain.detect import zig_command
from bnnmcu.toolchain.native import NativeTwin, host_compiler

_COUNT = 25
_IMAGES = 200
_OPTIONS: dict[str, Callable[[int], Graph]] = {
    "fir": lambda seed: random_first(seed, fir=True),
    "smlad": lambda seed: random_first(seed, fir=False),
    "rows": lambda seed: random_single(seed, drawn=False),
    "rows-active": lambda seed: random_single(seed, drawn=False),
    "masked": lambda seed: random_single(seed, drawn=False),
    "dense-pairs": lambda seed: random_single(seed, drawn=False),
    "drawn-single": lambda seed: random_single(
        seed, drawn=True, generator=list(GENERATORS)[seed % 3]
    ),
}


def _choice(option: str) -> KernelChoice:
    return KernelChoice(force={"*": option})


def _graphs(option: str, first: int, count: int) -> list[Graph]:
    """Networks that have an option."""
    found: list[Graph] = []
    for seed in range(first, first + 5 * count):
        graph = _OPTIONS[option](seed)
        if any(step.option == option for step in make_plan(graph, _choice(option)).steps):
            found.append(graph)
        if len(found) == count:
            return found
    raise AssertionError(f"{option} is hardly ever offered")


@pytest.mark.parametrize("option", _OPTIONS)
def test_forced_kernels_are_the_reference(option: str, tmp_path: Path) -> None:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    graphs = _graphs(option, 0, _COUNT)
    assert differences(graphs, tmp_path / "twins", _choice(option)) == []
    shutil.rmtree(tmp_path / "twins", ignore_errors=True)


@pytest.mark.parametrize("option", _OPTIONS)
def test_sanitizers_find_nothing(option: str, tmp_path: Path) -> None:
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    graphs = _graphs(option, 700, 8)
    program = Program(graphs, tmp_path, compiler, flags, _choice(option))
    requests, expected = b"", b""
    for index, graph in enumerate(graphs):
        images, seeds = inputs(graph)
        requests += program.infer(index, images, seeds[:, 0])
        expected += reference.run(graph, images, seeds[:, :1]).tobytes()
    assert program.run(requests) == expected


def _need_qemu(toolchain: str = "gcc") -> None:
    if shutil.which("qemu-system-arm") is None:
        pytest.skip("qemu-system-arm is not installed")
    if toolchain == "gcc" and shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed")
    if toolchain == "zig" and zig_command() is None:
        pytest.skip("zig is not installed")


@pytest.mark.parametrize("option", _OPTIONS)
@pytest.mark.parametrize(
    ("core", "toolchain"), [("cortex-m4f", "gcc"), ("cortex-m4f", "zig"), ("cortex-m3", "gcc")]
)
def test_assembly_is_the_reference(option: str, core: str, toolchain: str, tmp_path: Path) -> None:
    _need_qemu(toolchain)
    graphs = _graphs(option, 1300, 6)
    folder = tmp_path / "board"
    assert board_differences(graphs, folder, core, toolchain, _choice(option)) == []


def _weights(graph: Graph) -> int:
    """Of the largest convolution."""
    return max(node.weights.size for node in graph.nodes if isinstance(node, Conv))


#: What is promised of each: an equal count, or the same way through code and data.
_PROMISES = {
    "fir": "time",
    "smlad": "time",
    "masked": "time",
    "rows": "count",
    "dense-pairs": "count",
    "drawn-single": "count",
    "rows-active": "none",
}


def test_promises_hold_for_images_of_every_brightness(tmp_path: Path) -> None:
    """From no to all inputs active; active rows are there to show that it can fail."""
    need_tracing()
    assert _PROMISES.keys() == _OPTIONS.keys()
    graphs = [max(_graphs(option, 100, 8), key=_weights) for option in _PROMISES]
    choices = [_choice(option) for option in _PROMISES]
    ways = traces(graphs, tmp_path / "trace", choice=choices, images=_IMAGES)
    for (option, promise), way in zip(_PROMISES.items(), ways, strict=True):
        assert len(way.counts) == _IMAGES
        assert way.same_count == (promise != "none"), (option, way.parts)
        assert way.same_way or promise != "time", (option, way.parts)


def test_fir_weights_beyond_16_bits_are_declined() -> None:
    weights = np.full((2, 8, 8, 1), 8192, dtype=np.int16)
    assert fir_weights(weights) is None
    assert fir_weights(weights - 1) is not None
    conv = IntegerConv("conv", INPUT, weights, stride=(2, 2), bits=16)
    graph = Graph("wide", (8, 8, 1), (conv, Dense("dense", "conv", np.ones((1, 2), np.int16))))
    names = {a.name for a in make_plan(graph).steps[0].alternatives}
    assert "smlad" in names
    assert "fir" not in names


def test_sums_that_are_too_large_with_their_threshold_are_declined() -> None:
    """In int32 for products in pairs; within 2**30 for the parts of the fast FIR filter."""
    fast, plain = {"fir", "smlad"}, {"smlad"}
    for weight, limit, offered in ((80, 0, fast), (700, 0, plain), (700, 2**31 - 1, set())):
        half = np.full((1, 8, 8, 100), weight, dtype=np.int16)
        weights = np.concatenate([half, -half], axis=-1)
        conv = IntegerConv("conv", INPUT, weights, stride=(2, 2))
        dense = Dense("dense", "sign", np.ones((1, 1), np.int16))
        sign = Threshold("sign", "conv", np.array([limit], np.int32), np.array([GE], np.uint8))
        graph = Graph("large", (8, 8, 200), (conv, sign, dense))
        names = {a.name for a in make_plan(graph).steps[0].alternatives}
        assert names & fast == offered


@pytest.mark.parametrize(("inputs_", "outputs"), [(1, 1), (9, 3)])
def test_dense_in_pairs_takes_the_largest_numbers(inputs_: int, outputs: int) -> None:
    """Sums of one pixel, up to 255 * 128, and beyond 16 bits with one more."""
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(inputs_)
    weights = rng.choice(np.array([-128, 128], np.int16), (inputs_, 1, 1, 1))
    most = rng.choice(np.array([-32768, 32767], np.int16), (outputs, inputs_))
    for factor, offered in ((1, True), (2, False)):
        conv = IntegerConv("conv", INPUT, factor * weights)
        graph = Graph("pairs", (1, 1, 1), (conv, Dense("dense", "conv", most)))
        names = {a.name for a in make_plan(graph).steps[1].alternatives}
        assert ("dense-pairs" in names) is offered
        if offered:
            images = np.array([0, 1, 254, 255], np.uint8).reshape(4, 1, 1, 1)
            twin = NativeTwin(graph, choice=KernelChoice(force={"*": "dense-pairs"}))
            assert np.array_equal(twin.run(images), reference.run(graph, images))
