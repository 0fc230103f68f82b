"""Every kernel at its edges, against the reference: one small network each, one library for all."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from many_models import Library, Program
from random_graphs import random_images

from bnnmcu import reference
from bnnmcu.backend.plan import make_plan
from bnnmcu.errors import MissingDependencyError
from bnnmcu.graph import (
    INPUT,
    INT32_MAX,
    Affine,
    BinaryConv,
    Clamp,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    TensorSpec,
    Threshold,
    infer_node,
)
from bnnmcu.toolchain.native import host_compiler

_IMAGES, _DRAWS = 5, 3
_SEEDS = np.random.default_rng(2).integers(0, 1 << 64, (_IMAGES, _DRAWS), dtype=np.uint64)
_LOWEST = -INT32_MAX - 1

Make = Callable[[np.random.Generator], tuple[tuple[int, int, int], list[Node]]]


def _bits(rng: np.random.Generator, *shape: int) -> Any:
    return rng.integers(0, 2, shape, dtype=np.uint8)


def _weights(rng: np.random.Generator, *shape: int, most: int = 100) -> Any:
    return rng.integers(-most, most + 1, shape).astype(np.int16)


def _kinds(rng: np.random.Generator, channels: int) -> Any:
    """Of thresholds, all of them; the first channel is not a constant."""
    kinds = rng.integers(0, 4, channels).astype(np.uint8)
    kinds[0] %= 2
    return kinds


def _signs(rng: np.random.Generator, channels: int, source: str = INPUT) -> Threshold:
    """Pixels to bits, with every kind of threshold."""
    value = rng.integers(20, 236, channels).astype(np.int32)
    return Threshold("bits", source, value, _kinds(rng, channels))


def _compare(
    rng: np.random.Generator, name: str, source: str, channels: int, reach: int
) -> Threshold:
    """Thresholds around zero, some of them where no sum can be."""
    value = rng.integers(-reach, reach + 1, channels).astype(np.int32)
    far = rng.choice([INT32_MAX, _LOWEST, 10**6, -(10**6)], channels).astype(np.int32)
    value = np.where(rng.random(channels) < 0.2, far, value).astype(np.int32)
    value[0] = 0
    return Threshold(name, source, value, _kinds(rng, channels))


def _grouped(kind: str, inputs: int, groups: int, filters: int, **where: Any) -> Make:
    """A convolution whose groups begin anywhere in a word."""

    def make(rng: np.random.Generator) -> tuple[tuple[int, int, int], list[Node]]:
        channels = inputs * groups
        shape = (filters * groups, 3, 2, inputs)
        common: dict[str, Any] = {"groups": groups, **where}
        if kind == "stochastic":
            levels = rng.integers(0, 16, shape, dtype=np.uint8)
            conv: Node = StochasticConv("conv", "bits", levels, **common)
        elif kind == "binary":
            conv = BinaryConv("conv", "bits", _bits(rng, *shape), **common)
        elif kind == "signs":
            conv = IntegerConv("conv", "bits", _weights(rng, *shape), **common)
        elif kind == "ints":
            conv = IntegerConv("conv", "wide", _weights(rng, *shape), **common)
            wide = Clamp("wide", "one", -99, 99)
            one = Affine("one", INPUT, *_line(rng, channels))
            return (4, 5, channels), [one, wide, conv]
        else:
            fill = rng.integers(0, 256, channels, dtype=np.uint8)
            return (4, 5, channels), [
                IntegerConv("conv", INPUT, _weights(rng, *shape), fill=fill, **common)
            ]
        return (4, 5, channels), [_signs(rng, channels), conv]

    return make


def _line(rng: np.random.Generator, channels: int) -> tuple[Any, Any, int]:
    """mul, add and shift that give mixed signs."""
    mul = rng.integers(-9, 10, channels).astype(np.int32)
    return mul, rng.integers(-900, 900, channels).astype(np.int64), 3


def _lanes(channels: int, kernel: tuple[int, int], tail: str, side: int = 6, **where: Any) -> Make:
    """One filter for each channel."""

    def make(rng: np.random.Generator) -> tuple[tuple[int, int, int], list[Node]]:
        conv = BinaryConv(
            "conv", "bits", _bits(rng, channels, *kernel, 1), groups=channels, **where
        )
        nodes: list[Node] = [_signs(rng, channels), conv]
        if tail == "bits":
            nodes.append(_compare(rng, "after", "conv", channels, 4))
        elif tail == "relu":
            nodes.append(Relu("after", "conv"))
        return (side, side, channels), nodes

    return make


def _pool(name: str, kind: str, channels: int, **more: Any) -> Make:
    def make(rng: np.random.Generator) -> tuple[tuple[int, int, int], list[Node]]:
        nodes: list[Node] = []
        if kind == "bits":
            nodes = [_signs(rng, channels)]
        elif kind == "ints":
            nodes = [Affine("line", INPUT, *_line(rng, channels))]
        source = nodes[-1].name if nodes else INPUT
        if name == "sum":
            nodes.append(SumPool("pool", source, **more))
        else:
            minimum = _bits(rng, channels) if name == "both" else None
            nodes.append(MaxPool("pool", source, minimum=minimum, **more))
        return (5, 6, channels), nodes

    return make


def _affine(
    mul: list[int], add: list[int], shift: int, neg: list[int] | None = None, kind: str = "u8"
) -> Make:
    def make(rng: np.random.Generator) -> tuple[tuple[int, int, int], list[Node]]:
        nodes: list[Node] = []
        channels = len(mul)
        if kind == "bits":
            nodes = [_signs(rng, channels)]
        elif kind == "ints":
            nodes = [Affine("line", INPUT, *_line(rng, channels))]
        source = nodes[-1].name if nodes else INPUT
        slope = None if neg is None else np.array(neg, dtype=np.int32)
        factors, summands = np.array(mul, dtype=np.int32), np.array(add, dtype=np.int64)
        return (3, 3, channels), [*nodes, Affine("x", source, factors, summands, shift, slope)]

    return make


def _dense(kind: str, channels: int, bias: list[int] | None = None, most: int = 100) -> Make:
    def make(rng: np.random.Generator) -> tuple[tuple[int, int, int], list[Node]]:
        nodes: list[Node] = []
        if kind == "bits":
            nodes = [_signs(rng, channels)]
        elif kind == "ints":
            nodes = [Affine("line", INPUT, *_line(rng, channels))]
        source = nodes[-1].name if nodes else INPUT
        weights = _weights(rng, 3, 6 * channels, most=most)
        summands = None if bias is None else np.array(bias, dtype=np.int64)
        return (2, 3, channels), [*nodes, Dense("dense", source, weights, summands)]

    return make


def _simple(*nodes: Node, shape: tuple[int, int, int] = (3, 3, 3)) -> Make:
    return lambda rng: (shape, list(nodes))


def _vector(*values: int) -> Any:
    return np.array(values, dtype=np.int32)


_MOST = (1 << 62) - (1 << 31)  # shifted by 31, the largest int32 still
_EXTREME = 8_421_504  # times 255, and 127: the largest int32
_ENDS = Affine(
    "ends", INPUT, _vector(_EXTREME, -_EXTREME, 1), np.array([127, -127, 0], dtype=np.int64)
)
_ALL_KINDS = np.array([0, 1, 0], dtype=np.uint8)

# Name: the kernel that must be chosen, and the network, to which a dense layer is added.
_CASES: dict[str, tuple[str, Make]] = {
    **{
        f"bits {inputs}x{groups}": ("bnn_conv_bits", _grouped("binary", inputs, groups, 2))
        for inputs, groups in ((1, 3), (3, 11), (5, 13), (16, 4), (31, 3), (32, 2), (33, 2),
                               (40, 3), (64, 1))
    },
    "bits padded": ("bnn_conv_bits", _grouped("binary", 7, 5, 3, padding=(4, 3, 2, 5))),
    "bits dilated": ("bnn_conv_bits", _grouped("binary", 33, 1, 3, padding=(2, 2, 2, 2),
                                               dilation=(2, 3))),
    "bits dilated in groups": ("bnn_conv_bits", _grouped("binary", 9, 4, 1, padding=(3, 0, 1, 4),
                                                         dilation=(3, 4), stride=(2, 1))),
    "drawn in groups": ("bnn_conv_drawn", _grouped("stochastic", 11, 3, 2, padding=(1, 2, 0, 1))),
    "drawn depthwise": ("bnn_conv_drawn", _grouped("stochastic", 1, 34, 1, padding=(5, 0, 0, 3))),
    "drawn dilated": ("bnn_conv_drawn", _grouped("stochastic", 32, 1, 4, dilation=(1, 4))),
    "signs in groups": ("bnn_conv_signs", _grouped("signs", 11, 3, 2, padding=(4, 1, 0, 3))),
    "signs depthwise": ("bnn_conv_signs", _grouped("signs", 1, 34, 2, dilation=(1, 2))),
    "ints in groups": ("bnn_conv_ints", _grouped("ints", 5, 3, 2, padding=(4, 1, 0, 3))),
    "ints dilated": ("bnn_conv_ints", _grouped("ints", 3, 1, 4, padding=(0, 4, 5, 0),
                                               dilation=(4, 3))),
    "pixels filled": ("bnn_conv_pixels", _grouped("pixels", 3, 1, 4, padding=(4, 1, 2, 3))),
    "pixels in groups": ("bnn_conv_pixels", _grouped("pixels", 1, 5, 2, padding=(1, 1, 1, 1),
                                                     dilation=(2, 3))),
    **{
        f"lanes {channels} {tail}": ("bnn_conv_lanes",
                                     _lanes(channels, (3, 3), tail, padding=(1, 1, 1, 1)))
        for channels, tail in ((2, "bits"), (31, "bits"), (32, "sums"), (33, "bits"), (64, "relu"),
                               (70, "bits"))
    },
    "lanes of one tap": ("bnn_conv_lanes", _lanes(5, (1, 1), "bits", stride=(2, 3))),
    "lanes in the padding": ("bnn_conv_lanes", _lanes(34, (3, 2), "bits", padding=(9, 0, 4, 7))),
    "lanes dilated": ("bnn_conv_lanes", _lanes(34, (2, 3), "bits", dilation=(4, 2))),
    "lanes at most": ("bnn_conv_lanes", _lanes(3, (15, 17), "bits", padding=(6, 6, 6, 6))),
    "too many taps for lanes": ("bnn_conv_bits", _lanes(3, (16, 16), "bits", padding=(6, 6, 6, 6))),
    **{
        f"{name} pool of {kind}": (f"bnn_{'sum' if name == 'sum' else 'max'}_pool_{kind}", _pool(
            name, kind, 35, kernel=(3, 2), stride=(2, 3), padding=(2, 1, 2, 0)))
        for name in ("max", "both", "sum") for kind in ("pixels", "ints", "bits")
    },
    "dilated pool of bits": ("bnn_max_pool_bits", _pool("both", "bits", 64, kernel=(2, 3),
                                                        stride=(1, 1), dilation=(3, 2))),
    "sum pool in the padding": ("bnn_sum_pool_bits", _pool("sum", "bits", 5, kernel=(2, 2),
                                                           stride=(1, 1), padding=(4, 4, 4, 4))),
    "affine of pixels": ("bnn_affine_pixels", _affine([7, -7, 0], [-1, 5, -3], 2)),
    "affine of ints": ("bnn_affine_ints", _affine([7, -7, 1], [-1, 5, -3], 3, [-3, 2, 0], "ints")),
    "affine of bits": ("bnn_affine_bits", _affine([7, -7, 1], [-1, 5, -3], 1, [1, 2, 3], "bits")),
    "affine to the ends": ("bnn_affine_pixels", _affine(
        [_EXTREME, -_EXTREME, 1], [127, -127, 0], 0)),
    "affine of 64 bits": ("bnn_affine_pixels", _affine(
        [INT32_MAX, -INT32_MAX, INT32_MAX],
        [(1 << 62) - 255 * INT32_MAX - 1, 255 * INT32_MAX - _MOST, -_MOST], 31)),
    "affine rounds down": ("bnn_affine_ints", _affine([1] * 3, [0, -1, 1], 31, None, "ints")),
    "clamp": ("bnn_clamp", _simple(_ENDS, Clamp("x", "ends", -1000, 77))),
    "clamp to nothing": ("bnn_clamp", _simple(_ENDS, Clamp("x", "ends", _LOWEST, INT32_MAX))),
    "relu": ("bnn_clamp", _simple(_ENDS, Relu("x", "ends"))),
    "threshold at the ends": ("bnn_threshold_ints", _simple(
        _ENDS, Threshold("x", "ends", _vector(INT32_MAX, -INT32_MAX, 255), _ALL_KINDS))),
    "threshold beyond": ("bnn_threshold_pixels", _simple(
        Threshold("x", INPUT, _vector(INT32_MAX, INT32_MAX, _LOWEST), _ALL_KINDS))),
    "threshold of pixels": ("bnn_threshold_pixels", _simple(
        Threshold("x", INPUT, _vector(100, 100, 0), _ALL_KINDS))),
    "smallest of the ends": ("bnn_max_pool_ints", _simple(
        _ENDS, MaxPool("x", "ends", (2, 2), (1, 1), (1, 1, 1, 1), minimum=_ALL_KINDS))),
    "dense on pixels": ("bnn_dense_pixels", _dense("u8", 7, [1 << 40, -(1 << 50), 0])),
    "dense on bits": ("bnn_dense_bits", _dense("bits", 35, [1, -2, 3], most=32_767)),
    "dense on ints": ("bnn_dense_i32", _dense("ints", 3, [-(10**9), 10**9, 0])),
    "wide dense on ints": ("bnn_dense_i64", _dense("ints", 3, [0, 2**63 - 10**9, -(2**40)])),
    "wide by the bias alone": ("bnn_dense_i64", _dense("ints", 1, [INT32_MAX, 0, 0], most=1)),
    "logits": ("bnn_logits", _simple(
        _ENDS, MaxPool("x", "ends", (3, 3), (1, 1), minimum=_ALL_KINDS))),
}  # fmt: skip


def _graph(case: str) -> Graph:
    index = list(_CASES).index(case)
    rng = np.random.default_rng(index)
    shape, nodes = _CASES[case][1](rng)
    if not isinstance(nodes[-1], Dense) and case != "logits":
        # Logits in which no difference of a value can hide.
        specs = {INPUT: TensorSpec(shape, "u8", 0, 255)}
        for node in nodes:
            specs[node.name] = infer_node(node, specs)
        weights = _weights(rng, 4, specs[nodes[-1].name].size, most=32_767)
        nodes = [*nodes, Dense("probe", nodes[-1].name, weights)]
    return Graph(f"k{index}", shape, tuple(nodes))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return Library([_graph(case) for case in _CASES], tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("case", _CASES)
def test_kernel(case: str, library: Library) -> None:
    index = list(_CASES).index(case)
    graph = library.graphs[index]
    assert _CASES[case][0] in [step.kernel for step in make_plan(graph).steps]
    images = random_images(graph, _IMAGES, index)
    expected = reference.run(graph, images, _SEEDS)
    assert np.array_equal(library.run(index, images, _SEEDS), expected)
    if case != "threshold beyond":
        rows = expected.reshape(-1, graph.classes)
        assert len(np.unique(rows, axis=0)) > 1, "the network gives the same for every image"


def test_nothing_beyond_the_edges_is_touched(tmp_path: Path) -> None:
    """Arena and image are heap blocks of the promised size, in a program with sanitizers."""
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    command = [compiler, *flags, "-o", str(tmp_path / "probe"), str(probe)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{compiler} has no sanitizer libraries here")
    program = Program([_graph(case) for case in _CASES], tmp_path, compiler, flags)
    requests, expected = b"", b""
    for index, graph in enumerate(program.graphs):
        images = random_images(graph, _IMAGES, index)
        requests += program.infer(index, images, _SEEDS[:, 0])
        expected += reference.run(graph, images, _SEEDS[:, :1]).tobytes()
    assert program.run(requests) == expected
