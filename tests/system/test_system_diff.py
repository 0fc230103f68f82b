"""Where executions part: nothing to find in sound networks, the right place in damaged ones."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from needs import need_digits, need_emulator
from random_dags import random_dag
from random_networks import random_network
from small_network import IMAGES, changed, small_network

import bnnmcu
from bnnmcu import reference
from bnnmcu.backend.project import load_project, write_project
from bnnmcu.boards import load_board
from bnnmcu.compare import diff
from bnnmcu.compare.draws import float_draws
from bnnmcu.compare.floats import FloatComparison
from bnnmcu.compare.live import compare_module
from bnnmcu.errors import MismatchFoundError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.network import Network
from bnnmcu.network.execute import run
from bnnmcu.network.file import save_network
from bnnmcu.passes import Lowering, Quantization, lower
from bnnmcu.toolchain.native import NativeTwin

MODELS = Path(__file__).resolve().parents[2] / "examples" / "models"


@pytest.fixture(scope="module")
def small() -> Lowering:
    return lower(small_network())


@pytest.fixture
def project(small: Lowering, tmp_path: Path) -> Path:
    write_project(small.graph, load_board("nucleo_f446re"), tmp_path / "project")
    return tmp_path / "project"


def _floats(lowering: Lowering, images: Any, seed: int = 7) -> FloatComparison:
    """The float stage alone, without compiling any C."""
    comparison = FloatComparison(lowering)
    for index, image in enumerate(images):
        values: dict[str, Any] = {}
        reference.run(
            lowering.graph,
            image[np.newaxis],
            np.array([[seed]], dtype=np.uint64),
            on_value=lambda name, value, values=values: values.__setitem__(name, value[0]),
        )
        drawn = float_draws(lowering, seed)
        comparison.add(image, values, drawn, index=index, seed=seed)
    return comparison


@pytest.mark.parametrize("seed", range(12))
def test_native_trace_has_every_value_of_the_reference(seed: int) -> None:
    graph: Graph = random_dag(seed)
    image = np.random.default_rng(seed).integers(0, 256, graph.input_shape, dtype=np.uint8)
    expected: dict[str, Any] = {}
    reference.run(
        graph,
        image[np.newaxis],
        np.array([[9]], dtype=np.uint64),
        on_value=lambda name, value: expected.__setitem__(name, value[0]),
    )
    traced = NativeTwin(graph).trace(image, 9)
    assert graph.nodes[-1].name in traced
    for name, value in traced.items():
        np.testing.assert_array_equal(value, expected[name].reshape(value.shape), err_msg=name)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("seed", range(0, 60, 4))
def test_rounding_is_never_taken_for_a_mistake(seed: int, exact: bool) -> None:
    lowering = lower(random_network(seed, exact=exact))
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, *lowering.graph.input_shape), dtype=np.uint8)
    stage = _floats(lowering, images).stage()
    assert stage.compared > 0
    assert stage.unexplained == 0, stage.first_unexplained


@pytest.mark.parametrize(
    "options",
    [
        Quantization(first_layer_bits=8),
        Quantization(first_layer="calibrated", first_layer_bits=8),
        Quantization(dead_channels=False),
    ],
    ids=["8 bits", "calibrated", "dead channels"],
)
def test_options_are_rounding_too(options: Quantization) -> None:
    lowering = lower(small_network(), options, calibration=IMAGES)
    assert _floats(lowering, IMAGES).stage().unexplained == 0


def test_a_sound_network_is_exact(small: Lowering) -> None:
    result = diff(small, IMAGES)
    assert [(s.left, s.right) for s in result.stages] == [
        ("float network", "integer graph"),
        ("integer graph", "native twin"),
    ]
    assert result.exact
    result.raise_if_different()
    assert all(stage.compared > 1000 for stage in result.stages)
    assert result.labels["integer graph"] == result.labels["native twin"]
    assert len(result.labels["float network"]) == len(IMAGES)
    assert {layer.layer for layer in result.layers} >= {"first", "sign1", "sign2", "head"}


def test_drawn_weights_are_the_same_everywhere() -> None:
    lowering = lower(small_network(drawn=True))
    one, other = (diff(lowering, IMAGES[:2], seed=seed) for seed in (1, 2))
    assert one.exact
    assert other.exact
    assert one.seeds != other.seeds
    # What the float network draws is what the reference draws: nothing differs but rounding.
    assert one.logit_change is not None
    assert one.logit_change < 0.01


# Channel 2 of the first layer is constant and gone: channels behind it have moved in the graph.
@pytest.mark.parametrize(
    ("layer", "field", "channel", "factor", "named"),
    [
        ("norm1", "scale", 4, -1.0, "sign1"),
        ("norm1", "offset", 5, 40.0, "sign1"),
        ("norm2", "scale", 1, -1.0, "sign2"),
        ("norm2", "offset", 3, -50.0, "sign2"),
        ("first", "weights", 3, -1.0, "first"),
        ("second", "weights", 0, -1.0, "sign2"),
        ("head", "weights", 2, 1.5, "head"),
    ],
)
def test_a_changed_parameter_of_the_float_network_is_found(
    small: Lowering, layer: str, field: str, channel: int, factor: float, named: str
) -> None:
    damaged = replace(small, network=changed(small.network, layer, field, channel, factor))
    comparison = _floats(damaged, IMAGES)
    at = comparison.stage().first_unexplained
    assert at is not None
    assert (at.layer, at.channel) == (named, channel)
    # One layer is at fault, not those behind it.
    assert [item.layer for item in comparison.layers() if item.unexplained] == [named]


def _with_threshold(graph: Graph, name: str, channel: int, value: int) -> Graph:
    nodes = []
    for node in graph.nodes:
        if node.name == name:
            values = node.value.copy()  # type: ignore[attr-defined]
            values[channel] = value
            node = replace(node, value=values)  # type: ignore[call-arg]
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def test_a_changed_threshold_of_the_graph_is_found(small: Lowering) -> None:
    damaged = replace(small, graph=_with_threshold(small.graph, "sign1", 3, 0))
    result = diff(damaged, IMAGES)
    at = result.stages[0].first_unexplained
    assert at is not None
    # Graph channel 3 is channel 4 of the network, whose constant channel 2 is gone.
    assert (at.layer, at.node, at.channel) == ("sign1", "sign1", 4)
    assert result.stages[1].differing == 0
    with pytest.raises(MismatchFoundError, match="sign1, channel 4"):
        result.raise_if_different()


def _edit(project: Path, table: str, at: int, text: str) -> None:
    """Replace one number of a table in a project's C."""
    path = project / "src" / "bnn_model.c"
    source = path.read_text()
    start = source.index(f"{table}[")
    body = source.index("{", start)
    numbers = list(re.finditer(r"[^\s,{}]+(?=,)", source[body : source.index("};", body)]))
    span = numbers[at].span()
    path.write_text(source[: body + span[0]] + text + source[body + span[1] :])


@pytest.mark.parametrize(
    ("table", "at", "text", "node", "channel"),
    [
        ("bnn_layer0_threshold", 1, "0", "sign1", 1),
        ("bnn_layer1_threshold", 4, "40", "sign2", 4),
        # Nine words a filter: word 27 is the first of filter 3.
        ("bnn_layer1_weights", 27, "0x00000000u", "sign2", 3),
        ("bnn_layer2_weights", 185, "32000", "head", 1),
    ],
)
def test_a_changed_number_in_the_c_is_found(
    small: Lowering, project: Path, table: str, at: int, text: str, node: str, channel: int
) -> None:
    assert diff(small, IMAGES, project=project).exact
    _edit(project, table, at, text)
    result = diff(small, IMAGES, project=project)
    assert result.stages[0].unexplained == 0
    stage = result.stages[1]
    assert stage.first is not None
    assert (stage.first.node, stage.first.channel) == (node, channel)
    assert "src/bnn_model.c" in stage.note
    with pytest.raises(MismatchFoundError, match=f"{node}, channel {channel}"):
        result.raise_if_different()


def test_a_project_with_another_graph_is_found(small: Lowering, tmp_path: Path) -> None:
    damaged = _with_threshold(small.graph, "sign2", 2, 30)
    write_project(damaged, load_board("nucleo_f446re"), tmp_path / "other")
    stage = diff(small, IMAGES, project=tmp_path / "other").stages[1]
    assert stage.first is not None
    assert (stage.first.node, stage.first.channel) == ("sign2", 2)
    assert "sign2: 1 of 5 value differ, first in channel 2" in stage.note


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (small_network(drawn=True), "first: weights has another shape"),
        (random_network(1, exact=True), "they have other layers"),
    ],
    ids=["channels", "layers"],
)
def test_a_project_of_another_network_is_refused(
    small: Lowering, tmp_path: Path, other: Network, said: str
) -> None:
    write_project(lower(other).graph, load_board("nucleo_f446re"), tmp_path / "other")
    with pytest.raises(UsageError, match=said):
        diff(small, IMAGES, project=tmp_path / "other")


class _LyingBoard:
    """A device whose answers are off by one in one logit."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def infer(self, image: Any, seeds: list[int]) -> Any:
        logits = reference.run(self.graph, image[np.newaxis])[0]
        logits[0, 2] += 1
        return type("Answer", (), {"logits": logits})()


def test_a_board_that_differs_alone_is_told_apart(small: Lowering) -> None:
    board: Any = _LyingBoard(small.graph)
    result = diff(small, IMAGES[:2], device=board, target="a board")
    stage = result.stages[-1]
    assert (stage.compared, stage.differing) == (8, 2)
    assert stage.first is not None
    assert stage.first.channel == 2
    assert "flash" in stage.note
    assert result.culprit is stage
    with pytest.raises(MismatchFoundError):
        result.raise_if_different()


def test_a_live_module_is_compared(small: Lowering) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Sign(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return torch.where(x >= 0, 1.0, -1.0)

    class Module(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.conv = torch.nn.Conv2d(1, 4, 3)
            self.norm = torch.nn.BatchNorm2d(4)
            self.head = torch.nn.Linear(4 * 36, 3)

        def forward(self, x: Any) -> Any:
            return self.head(Sign.apply(self.norm(self.conv(x))).flatten(1))

    result = bnnmcu.diff(Module(), IMAGES, mean=0.5, std=0.25)
    first = result.stages[0]
    assert (first.left, first.right) == ("torch module", "float network")
    assert first.compared > IMAGES.shape[0] * 3
    assert first.unexplained == 0
    assert result.exact
    assert result.labels["torch module"] == result.labels["float network"]


def test_a_module_that_is_not_its_network_is_found(small: Lowering) -> None:
    values: dict[str, Any] = {}
    other = changed(small.network, "norm2", "scale", 3, 5.0)
    logits = run(other, IMAGES, on_value=lambda name, value: values.__setitem__(name, value))
    stage = compare_module(small.network, IMAGES, logits + 1.0, values)
    assert stage.first_unexplained is not None
    assert (stage.first_unexplained.layer, stage.first_unexplained.channel) == ("norm2", 3)


# The command.


@pytest.fixture
def files(small: Lowering, tmp_path: Path) -> tuple[Path, Path]:
    """The model and one image of it, as files."""
    save_network(tmp_path / "small.safetensors", small.network)
    np.save(tmp_path / "image.npy", IMAGES[0])
    return tmp_path / "small.safetensors", tmp_path / "image.npy"


def test_command_on_one_image(cli, files: tuple[Path, Path]) -> None:
    model, image = files
    done = cli("diff", model, "--image", image, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["exact"]
    assert result["images"] == 1
    noise = cli("diff", model, "--data", "noise", "-n", "3", "--json")
    assert json.loads(noise.stdout)["images"] == 3
    shown = cli("diff", model, "--image", image)
    assert shown.returncode == 0, shown.stderr
    assert "native twin" in shown.stdout
    assert "sign2" in shown.stdout


def test_command_names_the_damage(cli, files: tuple[Path, Path], project: Path) -> None:
    model, image = files
    _edit(project, "bnn_layer1_threshold", 4, "40")
    done = cli("diff", model, project, "--image", image)
    assert done.returncode == 1
    assert "sign2, channel 4" in done.stderr
    alone = cli("diff", project, "--image", image, "--json")
    assert alone.returncode == 1
    printed, _ = json.JSONDecoder().raw_decode(alone.stdout)
    assert printed["stages"][0]["first"]["node"] == "sign2"


def test_command_with_an_emulated_board(cli, files: tuple[Path, Path], project: Path) -> None:
    need_emulator("unicorn")
    model, image = files
    done = cli("diff", model, project, "--image", image, "--emulate", "unicorn", "--json")
    assert done.returncode == 0, done.stderr
    assert [stage["differing"] for stage in json.loads(done.stdout)["stages"][1:]] == [0, 0]
    broken = project.with_name("broken")
    shutil.copytree(project, broken)
    _edit(broken, "bnn_layer2_weights", 185, "32000")
    shutil.rmtree(broken / "build", ignore_errors=True)
    done = cli("diff", model, broken, "--image", image, "--emulate", "unicorn", "--json")
    assert done.returncode == 1
    result, _ = json.JSONDecoder().raw_decode(done.stdout)
    board = result["stages"][-1]
    assert board["first"]["channel"] == 1
    assert "native twin" in board["note"]


def test_command_on_the_shipped_stochastic_network(cli) -> None:
    pytest.importorskip("torch", reason="torch reads the shipped .pt files")
    need_digits()
    done = cli("diff", MODELS / "s64.pt", "-n", "2", "--seed", "3", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["exact"]
    assert result["labels"]["float network"] == result["labels"]["native twin"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["MODEL", "--emulate"], 2, "a board runs a project"),
        (["PROJECT", "PROJECT"], 2, "two projects"),
        (["MODEL", "--image", "WRONG"], 12, "it holds pixels of shape (3, 3)"),
        (["MODEL", "--image", "FLOATS"], 12, "no uint8 pixels"),
        (["MODEL", "--image", "MODEL"], 12, "cannot read it"),
        (["MODEL", "--image", "IMAGE", "--mean", "0.5"], 2, "says itself what its pixels mean"),
        (["MODEL", "--image", "IMAGE", "--mean", "x"], 2, "is no number"),
        (["MODEL", "--image", "IMAGE", "--first-layer-bits", "7"], 2, "not in the range"),
    ],
)
def test_refusals(
    cli, files: tuple[Path, Path], project: Path, arguments: list[str], code: int, said: str
) -> None:
    model, image = files
    np.save(image.with_name("wrong.npy"), np.zeros((3, 3), dtype=np.uint8))
    np.save(image.with_name("floats.npy"), np.zeros((8, 8)))
    names = {
        "MODEL": model,
        "PROJECT": project,
        "IMAGE": image,
        "WRONG": image.with_name("wrong.npy"),
        "FLOATS": image.with_name("floats.npy"),
    }
    done = cli("diff", *(names.get(argument, argument) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert load_project(project).graph.name == "small"
