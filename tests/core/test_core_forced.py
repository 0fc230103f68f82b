"""Every kernel that the registry offers, forced one at a time in random networks, bit for bit."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from forced import Forced, for_core, forced, known_families, met_families
from many_models import Program
from needs import need_emulator, need_toolchain
from qemu_rig import MACHINES, board_differences
from twin_check import AT_ONCE, differences, inputs

from bnnmcu import reference
from bnnmcu.backend.folder import runtime_files
from bnnmcu.errors import MissingDependencyError
from bnnmcu.toolchain.native import host_compiler

#: Networks of each variant: on this machine, with sanitizers, on an emulated board.
_HOST, _SANITIZED, _BOARD = 3, 1, 1


def _functions() -> set[str]:
    """The kernels that the runtime declares: they take their parameters or a count first."""
    headers = [n for n in runtime_files() if n.endswith(".h") and "internal" not in n]
    text = "\n".join(runtime_files()[name].decode() for name in headers)
    found = re.findall(r"^void (bnn_\w+)\((?:const bnn_\w+_t \*|uint32_t count, const)", text, re.M)
    return set(found)


def test_nothing_is_left_out() -> None:
    """Every family that has costs and every kernel of the runtime is met."""
    networks = forced(_HOST)
    assert known_families() == met_families(networks)
    used = {step.kernel for one in networks for step in one.plan.steps}
    declared = _functions()
    assert len(declared) > 30
    assert declared - used == set()


def _of_each(count: int, first: int) -> list[Forced]:
    try:
        host_compiler()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return forced(count, first)


def test_forced_kernels_are_the_reference(tmp_path: Path) -> None:
    networks = _of_each(_HOST, 0)
    for start in range(0, len(networks), AT_ONCE):
        part = networks[start : start + AT_ONCE]
        folder = tmp_path / str(start)
        found = differences([n.graph for n in part], folder, [n.choice for n in part])
        assert found == [], [n.variant for n in part if f"{n.graph.name}: " in " ".join(found)]
        shutil.rmtree(folder, ignore_errors=True)


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        pytest.skip("neither gcc nor clang is installed")
    flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    networks = _of_each(_SANITIZED, 300)
    graphs = [one.graph for one in networks]
    program = Program(graphs, tmp_path, compiler, flags, [one.choice for one in networks])
    requests, expected = b"", b""
    for index, graph in enumerate(graphs):
        images, seeds = inputs(graph)
        requests += program.infer(index, images, seeds[:, 0])
        expected += reference.run(graph, images, seeds[:, :1]).tobytes()
    assert program.run(requests) == expected


@pytest.mark.parametrize(
    ("core", "toolchain"),
    [("cortex-m4f", "gcc"), ("cortex-m3", "zig"), ("cortex-m0", "gcc"), ("cortex-m55", "gcc")],
)
def test_forced_kernels_on_boards(core: str, toolchain: str, tmp_path: Path) -> None:
    need_emulator("qemu")
    need_toolchain(toolchain)
    wrong: list[str] = []
    for i, part in enumerate(for_core(forced(_BOARD, 400), core, MACHINES[core].memory)):
        graphs, choices = [one.graph for one in part], [one.choice for one in part]
        names = board_differences(graphs, tmp_path / str(i), core, toolchain, choices)
        wrong += [one.variant for one in part if one.graph.name in names]
    assert wrong == []
