"""What kernels are expected to cost, against what they do cost on an emulated core."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from needs import need_emulator, need_toolchain
from random_layers import KINDS, random_layers
from step_rig import count_steps

from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.costs import estimate, knows
from bnnmcu.backend.kernels.base import Kernel, Option
from bnnmcu.backend.plan import DEFAULT_CHOICE, make_plan
from bnnmcu.boards import CORES
from bnnmcu.graph import (
    GE,
    LE,
    BinaryConv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    StochasticConv,
    TensorSpec,
    Threshold,
    infer_node,
)

_CORE = "cortex-m4f"
#: Shorter steps decide nothing.
_LEAST = 2_000
_POINTS = Path(__file__).resolve().parents[2] / "benchmarks" / "costs.json"


def _signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 2, shape, dtype=np.uint8)


def _threshold(name: str, source: str, channels: int) -> Threshold:
    kinds = np.where(np.arange(channels) % 2 == 0, GE, LE).astype(np.uint8)
    return Threshold(name, source, np.arange(channels, dtype=np.int32), kinds)


def _ending(shape: tuple[int, int, int], *nodes: Node) -> Graph:
    """A network of these, with a dense layer behind them."""
    last = nodes[-1].name
    specs = {"input": TensorSpec(shape, "u8", 0, 255)}
    for node in nodes:
        specs[node.name] = infer_node(node, specs)
    size = specs[last].size
    return Graph("odd", shape, (*nodes, Dense("dense", last, np.ones((2, size), dtype=np.int16))))


def _first(filters: int, kernel: tuple[int, int], groups: int = 1, **where: object) -> Graph:
    """A first layer on 29 x 23 pixels."""
    rng = np.random.default_rng(filters)
    weights = rng.integers(-9, 10, (filters, *kernel, 1)).astype(np.int16)
    conv = IntegerConv("conv", "input", weights, groups=groups, **where)  # type: ignore[arg-type]
    return _ending((29, 23, groups), conv, _threshold("sign", "conv", filters))


def _second(channels: int, filters: int, kernel: tuple[int, int], **where: object) -> Graph:
    """A binary layer on 13 x 11 bits."""
    rng = np.random.default_rng(filters)
    weights = _signs(rng, filters, *kernel, channels // int(str(where.get("groups", 1))))
    conv = BinaryConv("conv", "bits", weights, **where)  # type: ignore[arg-type]
    first = _threshold("bits", "input", channels)
    return _ending((13, 11, channels), first, conv, _threshold("sign", "conv", filters))


def _drawn() -> Graph:
    levels = np.random.default_rng(3).integers(0, 16, (33, 7, 5, 33), dtype=np.uint8)
    first = _threshold("bits", "input", 33)
    return _ending((13, 11, 33), first, StochasticConv("conv", "bits", levels, stride=(3, 3)))


_ODD = {
    "one filter": lambda: _first(1, (7, 5)),
    "33 filters": lambda: _first(33, (7, 5), stride=(3, 3), padding=(3, 2, 3, 2)),
    "pixels in groups": lambda: _first(6, (3, 3), 3, padding=(1, 1, 1, 1)),
    "one binary filter": lambda: _second(66, 1, (1, 1)),
    "33 binary filters": lambda: _second(33, 33, (7, 5), stride=(3, 3)),
    "binary groups": lambda: _second(33, 66, (5, 7), groups=3, padding=(2, 3, 2, 3)),
    "a filter a channel": lambda: _second(40, 40, (3, 3), groups=40, padding=(1, 1, 1, 1)),
    "drawn": _drawn,
}


def test_estimates_are_near_the_counts(tmp_path: Path) -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    others = [(kind, layer) for kind in KINDS for layer in sorted(set(KINDS[kind]))]
    graphs = [make() for make in _ODD.values()]
    graphs += [random_layers(500 + i, kind, layer) for i, (kind, layer) in enumerate(others)]
    names = [*_ODD, *(f"{layer} on {kind}" for kind, layer in others)]
    far, seen = [], set()
    counts = count_steps(graphs, tmp_path / "steps", _CORE)
    for name, graph, found in zip(names, graphs, counts, strict=True):
        for step, count in zip(make_plan(graph, DEFAULT_CHOICE).steps, found, strict=True):
            if count > _LEAST:
                seen.add(step.option)
                share = step.estimate.instructions / count
                if not 0.6 <= share <= 1.6:
                    far.append(f"{name}, {step.option}: {count:,} times {share:.2f}")
    assert far == []
    assert {"integer", "bits", "lanes", "drawn", "dense", "affine", "threshold"} <= seen
    assert {"max-pool", "sum-pool", "clamp", "add"} <= seen


@pytest.mark.parametrize("core", sorted(CORES))
def test_one_filter_takes_no_plain_kernel(core: str) -> None:
    """The window is gathered for a single filter, which the plain kernel does value by value."""
    step = make_plan(_first(1, (7, 5)), KernelChoice("speed", core=core)).steps[0]
    assert step.option != "integer"
    cycles = {a.name: a.estimate.cycles for a in step.alternatives}
    assert cycles[step.option] <= cycles["smlad"] < cycles["integer"]


@pytest.mark.parametrize("core", sorted(CORES))
def test_every_core_knows_the_plain_kernels(core: str) -> None:
    families = {
        *("integer", "bits", "lanes", "drawn", "dense", "logits"),
        *("max-pool", "sum-pool", "affine", "threshold", "clamp", "add"),
    }
    assert {family for family in families if not knows(family, core)} == set()


def test_the_points_are_those_of_the_files() -> None:
    """Every unit that was met in a measurement has a figure, and the figures fit the points."""
    for core, rows in json.loads(_POINTS.read_text(encoding="utf-8"))["points"].items():
        off = []
        for family, work, count in rows:
            option = Option(family, Kernel(family, 0), work)
            if count > _LEAST:
                off.append(abs(estimate(option, core).instructions / count - 1))
        assert max(off) < 0.4, core
        assert float(np.median(off)) < 0.03, core
