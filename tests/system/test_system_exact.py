"""The shipped networks on emulated boards: every logit and every drawn weight, bit for bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from needs import need_digits, need_emulator, need_toolchain

from bnnmcu import reference
from bnnmcu.backend.project import load_project
from bnnmcu.data import load_digits
from bnnmcu.target import TargetOptions, open_target
from bnnmcu.toolchain.native import NativeTwin
from bnnmcu.verify import verify

# CI runs all images; without the variable a fifth or less, to be quick.
FULL = bool(os.environ.get("BNNMCU_FULL"))


@pytest.mark.parametrize(
    ("name", "emulator", "toolchain", "images"),
    [
        ("b64", "qemu", "gcc", 1000 if FULL else 60),
        ("b64", "unicorn", "zig", 1000 if FULL else 100),
        ("c64", "unicorn", "gcc", 200 if FULL else 50),
        ("s64", "qemu", "zig", 200 if FULL else 20),
        ("s64", "unicorn", "gcc", 200 if FULL else 40),
    ],
)
def test_no_logit_differs(
    shipped: Callable[[str], Path], name: str, emulator: str, toolchain: str, images: int
) -> None:
    need_digits()
    need_emulator(emulator)
    need_toolchain(toolchain)
    project = load_project(shipped(name))
    options = TargetOptions(emulate=emulator, toolchain=toolchain)
    with open_target(project, options, lambda line: None) as target:
        result = verify(
            project.graph,
            target.device,
            load_digits().stratified(images),
            seeds=5,
            draws=2,
            target=target.label,
        )
    assert target.emulated
    assert "(emulated)" in target.label
    assert result.exact, result.differences
    stochastic = bool(project.graph.stochastic)
    assert result.logits == images * 10 * (5 if stochastic else 1)
    assert result.drawn_words == (2 * 12_800 if stochastic else 0)
    assert result.correct > 0.9


@pytest.mark.parametrize("emulator", ["qemu", "unicorn"])
def test_drawn_weights_of_100_seeds_agree_everywhere(
    shipped: Callable[[str], Path], emulator: str
) -> None:
    need_emulator(emulator)
    project = load_project(shipped("s64"))
    seeds = np.array([(i * 0x9E3779B97F4A7C15) % 2**64 for i in range(100)], dtype=np.uint64)
    expected = reference.sampled_words(project.graph, seeds)["conv3"]
    twin = NativeTwin(project.graph)
    with open_target(project, TargetOptions(emulate=emulator), lambda line: None) as target:
        layers = [layer.name for layer in target.device.info.layers]
        for seed, words in zip(seeds, expected, strict=True):
            np.testing.assert_array_equal(twin.sampled_words(int(seed))["conv3"], words)
            drawn = target.device.sample(layers.index("conv3"), int(seed))
            np.testing.assert_array_equal(drawn, words)


@pytest.mark.parametrize(("generator", "planes"), [("lfsr113", 2), ("taus88", 7)])
def test_other_generators_and_planes(tmp_path: Path, generator: str, planes: int) -> None:
    need_digits()
    need_emulator("unicorn")
    pytest.importorskip("torch")
    from bnnmcu.backend.project import write_project
    from bnnmcu.boards import load_board
    from bnnmcu.compiler import to_graph
    from bnnmcu.modelfile import read_model
    from bnnmcu.passes import Quantization
    from bnnmcu.resources import model_path

    with model_path("s64.pt") as path:
        graph = to_graph(read_model(path), Quantization(planes=planes, generator=generator))
    write_project(graph, load_board("nucleo_f446re"), tmp_path / "p")
    project = load_project(tmp_path / "p")
    with open_target(project, TargetOptions(emulate="unicorn"), lambda line: None) as target:
        info = target.device.info
        result = verify(project.graph, target.device, load_digits().stratified(10), draws=2)
    assert (info.generator_text, info.planes) == (generator, planes)
    assert result.exact


def test_a_difference_is_found(shipped: Callable[[str], Path]) -> None:
    """A verification that cannot fail would prove nothing."""
    need_digits()
    need_emulator("unicorn")
    project = load_project(shipped("s64"))
    with open_target(project, TargetOptions(emulate="unicorn"), lambda line: None) as target:

        class Flipped:
            """The board, with one bit of one logit and of one drawn word changed."""

            info = target.device.info
            check_image = target.device.check_image

            def infer_many(self, requests):
                for i, answer in enumerate(target.device.infer_many(requests)):
                    if i == 1:
                        answer.logits[0, 3] ^= 1
                    yield answer

            def sample(self, layer, seed, words):
                drawn = target.device.sample(layer, seed, words)
                drawn[-1] ^= 1 << 31
                return drawn

        digits = load_digits().stratified(3)
        result = verify(project.graph, Flipped(), digits, seeds=2, draws=1)
    assert not result.exact
    assert (result.differing_logits, result.differing_words) == (1, 1)
    assert result.differences[0].image == 1


def test_emulators_count_the_same_instructions(
    shipped: Callable[[str], Path], cli, tmp_path: Path
) -> None:
    need_digits()
    need_emulator("qemu")
    need_emulator("unicorn")
    need_toolchain("gcc")
    reports = []
    for emulator in ("qemu", "unicorn"):
        done = cli("bench", shipped("b64"), "--emulate", emulator, "--json", "-n", "1")
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
    one, other = reports
    # QEMU's plugin alone tells functions apart and feeds the cycle model.
    for layer in [*one["layers"], *other["layers"]]:
        del layer["functions"], layer["cycles_modelled"]
    assert one["layers"] == other["layers"]
    assert one["total"]["instructions"] == other["total"]["instructions"] > 1_000_000
    assert one["unit"] == "instructions"
    assert one["emulated"] is True
    assert one["total"]["milliseconds"] is None  # an emulator has no time to report
    assert sum(layer["instructions"] for layer in one["layers"]) == pytest.approx(
        one["total"]["instructions"], rel=1e-3
    )
