"""What kernels promise of their way holds: equal counts, and for constant time equal addresses.

On emulated boards.  Images are black, white, stripes and noise of every brightness; seeds differ
too.  What ``--constant-time`` and ``--constant-count`` give is tested on whole networks, and
each kernel by itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forced import Forced, for_core, forced
from needs import need_toolchain
from qemu_rig import MACHINES
from random_dags import random_dag
from random_first import random_single
from trace_rig import need_tracing, traces

from bnnmcu.backend import schedule as scheduling
from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.kernels.base import Option
from bnnmcu.backend.plan import make_plan
from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import (
    Add,
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
    Threshold,
)

#: Networks of each variant, and images of each network.
_COUNT, _IMAGES = 1, 8
#: Of whole networks.
_MANY = 200
_KINDS: tuple[type[Node], ...] = (
    *(Add, Affine, BinaryConv, Clamp, Dense, IntegerConv, MaxPool, Relu, StochasticConv),
    *(SumPool, Threshold),
)


@pytest.mark.parametrize(
    ("core", "toolchain"),
    [
        ("cortex-m4f", "gcc"),
        ("cortex-m3", "zig"),
        ("cortex-m0", "gcc"),
        ("cortex-m55", "gcc"),
    ],
)
def test_every_kernel_keeps_its_promise(core: str, toolchain: str, tmp_path: Path) -> None:
    need_tracing()
    need_toolchain(toolchain)
    for i, part in enumerate(for_core(forced(_COUNT, 800), core, MACHINES[core].memory)):
        ways = traces(
            [one.graph for one in part],
            tmp_path / str(i),
            core=core,
            toolchain=toolchain,
            choice=[one.choice for one in part],
            images=_IMAGES,
        )
        for one, way in zip(part, ways, strict=True):
            what = f"{one.variant}, {one.graph.name}: {way.parts}"
            assert one.promise == "none" or way.same_count, what
            assert one.promise != "time" or way.same_way, what


def _mixed() -> list[Graph]:
    """Networks in which every kind of node occurs."""
    taken: list[Graph] = []
    missing = set(_KINDS)
    for seed in range(500, 600):
        graph = random_dag(seed)
        if missing & {type(node) for node in graph.nodes}:
            taken.append(graph)
            missing -= {type(node) for node in graph.nodes}
    assert not missing
    return taken


@pytest.mark.parametrize("constant", ["count", "time"])
def test_many_images_go_the_same_way(constant: str, tmp_path: Path) -> None:
    """Two hundred images through every kind of node, with the kernels that are chosen."""
    need_tracing()
    graphs = _mixed()
    choice = KernelChoice("speed", constant)  # type: ignore[arg-type]
    plans = [make_plan(graph, choice) for graph in graphs]
    assert all(plan.promise in ("time", constant) for plan in plans)
    ways = traces(graphs, tmp_path / "trace", choice=choice, images=_MANY)
    for plan, way in zip(plans, ways, strict=True):
        assert len(way.counts) == _MANY
        assert way.same_count, way
        assert plan.promise == "count" or way.same_way, way


def _one(variant: str) -> Forced:
    return next(one for one in forced(1, 800) if one.variant == variant)


def test_broken_promises_are_caught(tmp_path: Path) -> None:
    """Or the tests above would prove nothing: a kernel that stops early, and one that only
    takes as many instructions for every image but reads other rows."""
    need_tracing()
    early, padded = _one("rows-active"), _one("rows")
    assert (early.promise, padded.promise) == ("none", "count")
    ways = traces(
        [early.graph, padded.graph], tmp_path / "trace", choice=[early.choice, padded.choice]
    )
    assert [way.same_count for way in ways] == [False, True]
    assert [way.same_way for way in ways] == [False, False]


#: Functions of bnn_values.c, a line of each, what gives the input away, and whether counts do.
_LEAKS: dict[str, tuple[str, str, bool]] = {
    "bnn_clamp": (
        "out[i] = bnn_select(above, (uint32_t)clamp->high, (uint32_t)raised);",
        "out[i] = (uint32_t)raised;\n"
        "        if (above != 0) {\n"
        "            *(volatile uint32_t *)(out + i) = (uint32_t)clamp->high;\n"
        "        }",
        True,
    ),
    "bnn_add": (
        "out[i] = in[i] + other[i];",
        "out[i] = in[i] + other[i] + (((const volatile uint32_t *)in)[in[i] >> 31] & 0u);",
        False,
    ),
}


def _leaky(name: str, text: str) -> str:
    if name == "bnn_values.c":
        for line, leak, _ in _LEAKS.values():
            assert text.count(line) == 1
            text = text.replace(line, leak)
    return text


def _signed(function: str) -> Graph:
    """Differences of neighbouring pixels, of either sign, through one of the functions."""
    step = np.array([[[[1], [-1]]], [[[-1], [1]]]], dtype=np.int16)
    nodes: list[Node] = [IntegerConv("one", "input", step), IntegerConv("two", "input", step)]
    last = Clamp("last", "one", -3, 3) if function == "bnn_clamp" else Add("last", "one", "two")
    weights = np.ones((2, 40), dtype=np.int16)
    return Graph(function, (4, 6, 1), (*nodes, last, Dense("dense", "last", weights)))


def test_leaks_are_caught(tmp_path: Path) -> None:
    """A branch, and an address that depends on an input: kernels made worse on purpose."""
    need_tracing()
    ways = traces([_signed(function) for function in _LEAKS], tmp_path / "trace", edit=_leaky)
    for way, (function, (_, _, counts)) in zip(ways, _LEAKS.items(), strict=True):
        assert function in str(way.parts)
        assert way.same_count is not counts


def _without_promises(options: tuple[Option, ...]) -> tuple[Option, ...]:
    return tuple(replace(option, constant="none") for option in options)


def test_what_nothing_promises_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not replaced in silence by the plain kernel."""
    graph = random_single(1, drawn=False)
    original = scheduling.options
    broken = graph.nodes[1].name
    monkeypatch.setattr(
        scheduling,
        "options",
        lambda site: (
            _without_promises(original(site)) if site.node.name == broken else original(site)
        ),
    )
    for goal in ("speed", "balanced", "size", "plain"):
        for constant in ("count", "time"):
            with pytest.raises(UnsupportedModelError, match=f"constant {constant}") as error:
                make_plan(graph, KernelChoice(goal, constant))  # type: ignore[arg-type]
            assert error.value.where == broken
            assert error.value.hint


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_promises_what_was_asked(seed: int) -> None:
    graph = random_single(seed, drawn=False)
    plans = {c: make_plan(graph, KernelChoice("speed", c)) for c in ("count", "time")}
    assert plans["time"].promise == "time"
    assert all(step.promise == "time" for step in plans["time"].steps)
    assert plans["count"].promise in ("count", "time")
    for constant, plan in plans.items():
        assert plan.report()["constant"] == {"asked": constant, "holds": plan.promise}


def test_a_forced_kernel_is_told() -> None:
    """What is forced is taken; the plan then says what it lost."""
    one = _one("rows-active")
    plan = make_plan(one.graph, KernelChoice("speed", "time", force={"*": "rows-active"}))
    assert plan.promise == "none"
    assert plan.report()["constant"] == {"asked": "time", "holds": "none"}
