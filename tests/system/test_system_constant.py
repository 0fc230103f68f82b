"""The shipped networks with ``--constant-count`` and ``--constant-time``, on emulated boards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from count_rig import build_counter, count_instructions
from needs import need_digits, need_emulator, need_toolchain
from trace_rig import need_tracing, traces

from bnnmcu.backend.choice import CONSTANCIES, KernelChoice
from bnnmcu.backend.plan import make_plan
from bnnmcu.backend.project import load_project
from bnnmcu.data import load_digits, noise
from bnnmcu.graph import Graph

_MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"
_NAMES = ("b64", "c64", "s64")
_IMAGES = 200
#: Of the whole firmware, and of traces.
_FIRMWARE, _TRACED = 20, 16


@pytest.fixture(scope="module")
def graphs(shipped: Callable[[str], Path]) -> dict[str, Graph]:
    """The integer networks."""
    return {name: load_project(shipped(name)).graph for name in _NAMES}


def _choice(constant: str) -> KernelChoice:
    return KernelChoice("speed", constant)  # type: ignore[arg-type]


def _images(graph: Graph) -> npt.NDArray[np.uint8]:
    """Black, white and noise, half of them digits."""
    digits = load_digits().stratified(_IMAGES // 2).images
    return np.concatenate([noise(graph.input_shape, _IMAGES // 2).images, digits])


@pytest.mark.parametrize("name", _NAMES)
def test_every_image_takes_as_many_instructions(
    name: str, graphs: dict[str, Graph], tmp_path: Path
) -> None:
    need_emulator("qemu")
    need_toolchain("gcc")
    need_digits()
    graph, images = graphs[name], _images(graphs[name])
    choices = {}
    for constant in CONSTANCIES:
        plan = make_plan(graph, _choice(constant))
        assert plan.promise in ("time", constant)
        # Where both take the same kernels, they are the same firmware.
        choices[tuple(step.option for step in plan.steps)] = plan.choice
    for i, choice in enumerate(choices.values()):
        counts = count_instructions(build_counter(graph, choice, images, tmp_path / str(i)))
        assert len(counts) == _IMAGES
        assert len(set(counts)) == 1, f"{min(counts)} to {max(counts)}"


def test_constant_time_goes_the_same_way(graphs: dict[str, Graph], tmp_path: Path) -> None:
    """Every instruction and every address that is read or written."""
    need_tracing()
    networks = list(graphs.values())
    ways = traces(networks, tmp_path / "trace", choice=_choice("time"), images=_TRACED)
    for way in ways:
        assert len(way.counts) == _TRACED
        assert min(way.counts) > 500_000
        assert way.same_way, way.parts


@pytest.mark.parametrize("flag", ["--constant-count", "--constant-time"])
def test_the_firmware_keeps_its_promise(flag: str, cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    need_emulator("qemu")
    need_toolchain("gcc")
    project = tmp_path / "b64"
    done = cli(
        *("export", _MODELS / "b64.pt", "--board", "nucleo_f446", flag, "--json", "-o", project)
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    asked = flag.removeprefix("--constant-")
    promises = {layer["name"]: layer["constant"] for layer in shown["layers"]}
    assert shown["choice"]["constant"] == asked
    assert shown["constant"] == {"asked": asked, "holds": asked}
    assert set(promises.values()) <= {"time", asked}
    manifest = json.loads((project / "manifest.json").read_text())
    assert manifest["kernels"]["constant"] == shown["constant"]
    done = cli(
        *("bench", project, "--emulate", "qemu", "--data", "noise", "-n", str(_FIRMWARE), "--json")
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    total = report["total"]
    assert report["inferences"] == _FIRMWARE
    assert total["least"] == total["most"] == total["instructions"] > 500_000


def test_libraries_say_what_holds(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    library = tmp_path / "library"
    done = cli(
        *("export", _MODELS / "b64.pt", "--format", "library", "--constant-time", "-o", library)
    )
    assert done.returncode == 0, done.stderr
    assert "Constant time" in " ".join(done.stdout.split())
    manifest = json.loads((library / "manifest.json").read_text())
    assert manifest["kernels"]["constant"] == {"asked": "time", "holds": "time"}


def test_only_one_of_them(cli: Any, tmp_path: Path) -> None:
    done = cli(
        *("export", _MODELS / "b64.pt", "--board", "nucleo_f446", "-o", tmp_path / "b64"),
        *("--constant-time", "--constant-count"),
    )
    assert done.returncode == 2
    assert "only one of --constant-count and --constant-time" in done.stderr
