"""Predicted flash and RAM against what the linker makes of it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from needs import need_toolchain
from random_dags import random_dag

from bnnmcu.backend import memory
from bnnmcu.backend.code_sizes import Section, link, measured, read_table
from bnnmcu.backend.memory import Memory, check_fits, estimate, predict
from bnnmcu.backend.plan import Plan, make_plan
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import CORES, all_boards, load_board
from bnnmcu.errors import BnnmcuError, DoesNotFitError
from bnnmcu.toolchain.compiler import build_firmware

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "code_sizes.py"
#: None of them was a probe: those are below benchmarks/code_sizes.py's CANDIDATES.
UNSEEN = (1002, 1005, 1011)


def _by(plan: Plan, board: str, toolchain: str) -> Memory:
    found = predict(plan, load_board(board))
    return next(m for m in found if m.toolchain == toolchain)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """``benchmarks/code_sizes.py`` as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        return importlib.import_module("code_sizes")


def test_the_table_is_of_these_sources(script: ModuleType) -> None:
    """After a change of the C sources or flags, sizes must be measured again."""
    assert read_table()["sources_sha256"] == script.digest(), (
        "C sources or flags have changed: run benchmarks/code_sizes.py"
    )


def test_probes_are_not_what_is_tested(script: ModuleType) -> None:
    assert min(UNSEEN) >= script.CANDIDATES


@pytest.mark.parametrize(
    ("seed", "board", "toolchain"),
    [
        *((seed, "nucleo_f446re", name) for seed in UNSEEN for name in ("gcc", "zig")),
        # One board of each other core.
        *(
            (UNSEEN[0], next(b.name for b in all_boards() if b.core == core), "gcc")
            for core in CORES
        ),
    ],
)
def test_prediction_is_what_the_linker_reports(
    tmp_path: Path, seed: int, board: str, toolchain: str
) -> None:
    need_toolchain(toolchain)
    plan, _ = write_project(random_dag(seed), load_board(board), tmp_path)
    predicted = _by(plan, board, toolchain)
    if predicted.stand_in:
        pytest.skip(f"no code was measured for the core of {board}")
    built = build_firmware(tmp_path, toolchain)
    if built.version != predicted.compiler:
        pytest.skip(f"measured with {toolchain} {predicted.compiler}; this is {built.version}")
    assert built.flash_bytes == pytest.approx(predicted.flash, rel=0.01)
    assert abs(built.flash_bytes - predicted.flash) <= 200
    assert built.ram_bytes == predicted.ram
    assert predicted.unmeasured == ()


def test_a_board_of_the_user_is_predicted_by_its_relative(tmp_path: Path) -> None:
    need_toolchain("gcc")
    source = load_board("nucleo_f446re").source
    text = source.replace('name = "nucleo_f446re"', 'name = "a_board_with_a_longer_name"')
    text = text.replace('aliases = ["nucleo_f446"]', "aliases = []")
    text = text.replace("irq = 38", "irq = 71").replace("0x40004400", "0x40011400")
    text = text.replace('bus = "apb1"', 'bus = "apb2"').replace("enable_bit = 17", "enable_bit = 5")
    (tmp_path / "own.toml").write_text(text)
    board = load_board(str(tmp_path / "own.toml"))
    plan, _ = write_project(random_dag(UNSEEN[0]), board, tmp_path / "p")
    predicted = next(m for m in predict(plan, board) if m.toolchain == "gcc")
    built = build_firmware(tmp_path / "p", "gcc")
    if built.version != predicted.compiler:
        pytest.skip(f"measured with gcc {predicted.compiler}; this is {built.version}")
    assert built.flash_bytes == pytest.approx(predicted.flash, rel=0.01)
    assert built.ram_bytes == predicted.ram


def test_unmeasured_cores_and_kernels_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    board = load_board("nucleo_f446re")
    plan = make_plan(random_dag(UNSEEN[0]))
    kernel = plan.steps[0].kernel
    known = _by(plan, board.name, "gcc")
    sizes = measured(board)
    fewer = tuple(
        replace(one, steps={k: v for k, v in one.steps.items() if k != kernel}) for one in sizes
    )
    monkeypatch.setattr(memory, "measured", lambda _: fewer)
    assert _by(plan, board.name, "gcc").unmeasured == (kernel,)
    assert known.unmeasured == ()
    monkeypatch.setattr(memory, "measured", lambda _: ())
    with pytest.raises(BnnmcuError, match="cortex-m4f"):
        estimate(plan, board)


def test_what_fits_with_one_compiler_is_not_refused() -> None:
    board = load_board("nucleo_f446re")
    plan = make_plan(random_dag(UNSEEN[0]))
    small, large = sorted(predict(plan, board), key=lambda m: m.flash)
    between = replace(board, flash=replace(board.flash, size=large.flash - 1))
    chosen = check_fits(plan, between, ())
    assert (chosen.toolchain, chosen.flash, chosen.fits) == (small.toolchain, small.flash, True)
    assert [(m.toolchain, m.fits) for m in chosen.others] == [(large.toolchain, False)]
    assert check_fits(plan, board, ()).toolchain == large.toolchain
    none = replace(board, flash=replace(board.flash, size=small.flash - 1))
    with pytest.raises(DoesNotFitError, match=f"{small.flash:,} of {small.flash - 1:,}"):
        check_fits(plan, none, ())


def test_the_manifest_has_every_compiler(tmp_path: Path) -> None:
    board = load_board("nucleo_f446re")
    plan, chosen = write_project(random_dag(UNSEEN[0]), board, tmp_path)
    project = load_project(tmp_path)
    for expected in predict(plan, board):
        found = project.predicted(expected.toolchain)
        assert found == {
            "compiler": f"{expected.toolchain} {expected.compiler}",
            "flash": expected.flash,
            "ram": expected.ram,
        }
    assert project.predicted("platformio") == project.predicted("gcc")
    keys = {"tables", "code", "arena", "buffers", "variables", "stack", "board_flash", "board_ram"}
    stored = project.manifest["memory"]
    assert keys | {"flash", "ram", "fits"} <= stored.keys()
    assert stored["flash"] == stored["tables"] + stored["code"] == chosen.flash


def test_linking_on_paper() -> None:
    units = {
        "b.c": (
            Section(".vectors", 100, 4, (), ("start",)),
            Section(".text.unused", 1000, 4, ("unused",), ("far",)),
            Section(".text.start", 6, 2, ("start",), ("b.c:help", "table", "__aeabi_x", "gone")),
            Section(".text.help", 3, 2, ("b.c:help",), ("start",)),
        ),
        "a.c": (
            Section(".rodata.table", 5, 1, ("table",)),
            Section(".data.value", 2, 2, ("value",)),
            Section(".bss.far", 64, 4, ("far",)),
        ),
    }
    image = link(units, {"__aeabi_x": {"__aeabi_x": 10, "shared": 4}})
    assert image.sizes == {
        "vectors": 104, "text": 32, "rodata": 8, "data": 0, "bss": 0, "checksum": 0,
    }  # fmt: skip
    assert image.unknown == ("gone",)
    assert (image.flash, image.ram) == (144, 0)
