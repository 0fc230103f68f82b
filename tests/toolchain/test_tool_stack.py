"""The bound of the stack: above what is used, and absent where there is none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from needs import need_emulator, need_toolchain
from random_dags import random_dag

from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import Board
from bnnmcu.errors import ToolchainError
from bnnmcu.link.device import Device
from bnnmcu.target import TargetOptions, open_target
from bnnmcu.toolchain import compiler
from bnnmcu.toolchain.compiler import BuildResult, build_firmware
from bnnmcu.toolchain.stack import FLAGS, StackBound, reports_calls, stack_bound

#: Interrupts need not come in the deepest place, nor faults at all; and a path that
#: exists (drawing, say) need not be the one that an inference takes.
SLACK = 300


def _exercise(device: Device, shape: tuple[int, ...]) -> int:
    """Every kind of request, then how many bytes of the stack were never touched."""
    image = np.full(shape, 200, dtype=np.uint8)
    device.infer(image, [1, 2, 3])
    device.counters()
    for i, layer in enumerate(device.info.layers):
        if layer.sampled_words:
            device.sample(i, 7)
    return device.connect().stack_free


@pytest.mark.parametrize("seed", [1002, 1004, 1008, 1015])
@pytest.mark.parametrize("emulator", ["qemu", "unicorn"])
def test_bound_is_above_what_is_used(
    tmp_path: Path, board: Board, seed: int, emulator: str
) -> None:
    need_toolchain("gcc")
    need_emulator(emulator)
    graph = random_dag(seed)
    write_project(graph, board, tmp_path)
    options = TargetOptions(emulate=emulator, toolchain="gcc")
    with open_target(load_project(tmp_path), options, lambda line: None) as target:
        assert target.build is not None
        used = target.build.stack_bytes - _exercise(target.device, graph.input_shape)
        bound = target.build.stack_bound
    assert bound is not None
    assert bound.reasons == ()
    assert bound.bytes is not None
    assert used <= bound.bytes <= used + SLACK
    assert bound.bytes <= target.build.stack_bytes
    assert bound.path[:4] == ("bnn_reset", "main", "bnn_server_run", "bnn_server_poll")


def test_echo_has_a_bound_too_and_keeps_it(
    echo: Callable[[str], BuildResult], tmp_path: Path
) -> None:
    need_toolchain("gcc")
    built = echo("gcc")
    project = built.elf.parents[2]
    shutil.copytree(project, tmp_path / "copy")
    again = build_firmware(tmp_path / "copy", "gcc")
    assert not again.built
    assert again.stack_bound == built.stack_bound
    assert built.stack_bound is not None
    assert StackBound.from_dict(built.stack_bound.to_dict()) == built.stack_bound


def test_zig_reports_no_calls(echo: Callable[[str], BuildResult]) -> None:
    need_toolchain("zig")
    assert echo("zig").stack_bound is None


@pytest.mark.parametrize(
    ("version", "known"), [("12.2.1", True), ("10.3", True), ("9.2.1", False), ("unknown", False)]
)
def test_old_compilers_are_not_asked(version: str, known: bool) -> None:
    assert reports_calls(version) is known


REST = """
void bnn_fault_entry(void); void bnn_fault_entry(void) {}
void bnn_fault_report(void); void bnn_fault_report(void) {}
void bnn_port_uart_isr(void); void bnn_port_uart_isr(void) { volatile char x[40]; x[0] = 0; }
void bnn_reset(void);
__attribute__((section(".vectors"), used)) void (*const vectors[])(void) = {
    bnn_reset, bnn_fault_entry, bnn_port_uart_isr};
int deeper(int n);
"""

CASES = {
    "plain": ("void bnn_reset(void) { volatile char x[80]; x[0] = 1; }", None),
    "recursion": (
        "int deeper(int n) { volatile char x[8]; x[0] = (char)n;"
        " return n ? deeper(n - 1) * x[0] + x[1] : 1; }\n"
        "void bnn_reset(void) { volatile int n = 3; n = deeper(n); }",
        "recursion: deeper > deeper",
    ),
    "pointer": (
        "extern int (*volatile any)(int);\n"
        "void bnn_reset(void) { volatile int n = any(3); (void)n; }",
        "bnn_reset calls through a pointer that may lead anywhere",
    ),
    "address": (
        "static int secret(int n) { return n + 1; }\nextern int (*stored)(int);\n"
        "void bnn_reset(void) { stored = secret; }",
        "the address of secret is taken, and nothing tells who calls it",
    ),
    "unknown": (
        "extern int elsewhere(int n);\n"
        "void bnn_reset(void) { volatile int n = elsewhere(3); (void)n; }",
        "the frame of elsewhere is not known",
    ),
    "dynamic": (
        "void bnn_reset(void) { volatile int n = 3; volatile char x[n]; x[0] = 1; n = x[0]; }",
        "bnn_reset has an array of variable length",
    ),
}


def _objects(folder: Path, board: Board, source: str) -> list[Path]:
    need_toolchain("gcc")
    (folder / "case.c").write_text(REST + source)
    used = compiler._gcc(board)
    if not reports_calls(used.version):
        pytest.skip(f"gcc {used.version} reports no calls")
    flags = [flag for flag in board.compile_flags if flag not in board.machine_flags]
    subprocess.run(
        [*used.command, *used.machine, *flags, *FLAGS, "-c", "case.c", "-o", "case.o"],
        cwd=folder,
        check=True,
    )
    return [folder / "case.o"]


@pytest.mark.parametrize(("source", "reason"), CASES.values(), ids=list(CASES))
def test_what_cannot_be_bounded_is_said(
    tmp_path: Path, board: Board, source: str, reason: str | None
) -> None:
    bound = stack_bound(_objects(tmp_path, board, source), board)
    if reason is None:
        assert bound.reasons == ()
        assert bound.path == ("bnn_reset",)
        assert bound.bytes is not None
        # 80 and 40 bytes of arrays, two frames with room for the FPU's registers.
        assert 80 + 40 + 2 * 108 <= bound.bytes <= 80 + 40 + 2 * 108 + 32
    else:
        assert bound.bytes is None
        assert bound.reasons == (reason,)


def test_a_missing_report_is_said(tmp_path: Path, board: Board) -> None:
    objects = _objects(tmp_path, board, CASES["plain"][0])
    (tmp_path / "case.ci").unlink()
    bound = stack_bound(objects, board)
    assert bound.bytes is None
    assert "case.c was compiled without a report" in bound.reasons


def test_a_stack_that_is_too_small_is_refused(tmp_path: Path, board: Board) -> None:
    need_toolchain("gcc")
    write_project(random_dag(1002), board, tmp_path)
    script = tmp_path / "linker.ld"
    script.write_text(script.read_text().replace("2048", "512"))
    with pytest.raises(
        ToolchainError, match=r"can take [\d,]+ bytes, and 512 are reserved"
    ) as caught:
        build_firmware(tmp_path, "gcc")
    assert "bnn_reset > main" in str(caught.value.hint)
    assert not list((tmp_path / "build" / "gcc").iterdir())
