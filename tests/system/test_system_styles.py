"""Networks in the usual styles, from a live module to an emulated board, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from needs import need_emulator, need_toolchain

from bnnmcu import reference
from bnnmcu.backend.project import load_project
from bnnmcu.data import Dataset
from bnnmcu.network import execute
from bnnmcu.passes import lower
from bnnmcu.target import TargetOptions, open_target
from bnnmcu.toolchain.native import NativeTwin
from bnnmcu.verify import Verification, verify

if TYPE_CHECKING:
    from bnnmcu.graph import Graph

torch = pytest.importorskip("torch", reason="torch is not installed")

from styles import STYLES, Style, pictures  # noqa: E402

import bnnmcu  # noqa: E402

_IMAGES = 20
#: Layers with signs on both sides, by style; first layers on pixels are not among them.
_BINARY_LAYERS = {"xnor": 2, "bireal": 3, "ste-mlp": 1, "separable": 6, "keyword-spotter": 3}


def _noise(shape: tuple[int, int, int], count: int = _IMAGES) -> Dataset:
    rng = np.random.default_rng(sum(shape))
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Dataset("noise", images, np.zeros(count, dtype=np.int64))


def _on_board(folder: Path, data: Dataset, emulator: str, toolchain: str) -> Verification:
    project = load_project(folder)
    options = TargetOptions(emulate=emulator, toolchain=toolchain)
    with open_target(project, options, lambda line: None) as target:
        return verify(project.graph, target.device, data, target=target.label)


def _tensor(images: npt.NDArray[np.uint8], like: Any) -> Any:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return pixels.reshape(len(images), *like.shape[1:])


@pytest.mark.parametrize(("emulator", "toolchain"), [("qemu", "gcc"), ("unicorn", "zig")])
@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_exact_on_the_board(
    tmp_path: Path, style: str, emulator: str, toolchain: str
) -> None:
    need_emulator(emulator)
    need_toolchain(toolchain)
    made: Style = STYLES[style]()
    before = {k: v.clone() for k, v in made.module.state_dict().items()}
    exported = bnnmcu.export(
        made.module, made.example, board="nucleo_f446re", output=tmp_path / "p", name=style
    )
    assert all(torch.equal(v, before[k]) for k, v in made.module.state_dict().items())
    data = _noise(made.image_shape)
    result = _on_board(tmp_path / "p", data, emulator, toolchain)
    assert "(emulated)" in result.target
    assert result.exact, result.differences
    assert result.logits == _IMAGES * exported.lowering.graph.classes


def _binary_layers(graph: Graph) -> int:
    return sum(type(node).__name__ == "BinaryConv" for node in graph.nodes)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_computes_what_torch_does(style: str) -> None:
    made: Style = STYLES[style]()
    lowering = lower(bnnmcu.trace(made.module, made.example, name=style))
    graph = lowering.graph
    # A style whose binary layers were missed would still be exact, and slow.
    assert _binary_layers(graph) == _BINARY_LAYERS[style]
    images = pictures(made.image_shape, 100)
    with torch.no_grad():
        expected = made.module(_tensor(images, made.example)).numpy()
    network = execute.run(lowering.network, images)
    integers = reference.run(graph, images)[:, 0]
    assert np.array_equal(NativeTwin(graph).run(images)[:, 0], integers)
    # The float network is the module, but for float32 signs on the edge.
    # A final log_softmax, which the compiler leaves out, only moves all logits alike.
    network = network - network.max(axis=1, keepdims=True)
    expected = expected - expected.max(axis=1, keepdims=True)
    same = np.isclose(network, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert same.all(axis=1).mean() > 0.9
    # Quantised first layers move a few signs; a wrong layer would leave labels to chance.
    agree = (integers.argmax(axis=1) == expected.argmax(axis=1)).mean()
    assert agree >= 0.9, agree


def test_a_brevitas_network_is_exact_on_the_board(tmp_path: Path) -> None:
    from brevitas_net import need_brevitas, trained_and_exported

    need_brevitas()
    need_emulator("unicorn")
    from bnnmcu.backend.project import write_project
    from bnnmcu.boards import load_board
    from bnnmcu.compiler import read_source

    path, module, (channels, height, width) = trained_and_exported(tmp_path)
    lowering = lower(read_source(path).network)
    assert _binary_layers(lowering.graph) >= 2
    write_project(lowering.graph, load_board("nucleo_f446re"), tmp_path / "p")
    data = _noise((height, width, channels))
    result = _on_board(tmp_path / "p", data, "unicorn", "zig")
    assert result.exact, result.differences
    with torch.no_grad():
        pixels = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
        expected = module(pixels)
    expected = getattr(expected, "value", expected).detach().numpy()
    integers = reference.run(lowering.graph, data.images)[:, 0]
    assert (integers.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.9


def test_a_library_of_a_live_module(tmp_path: Path) -> None:
    made = STYLES["ste-mlp"]()
    exported = bnnmcu.export(
        made.module, made.example, format="library", output=tmp_path / "lib", prefix="mlp"
    )
    assert (tmp_path / "lib" / "src" / "bnn_mlp_predict.c").is_file()
    assert exported.plan.graph is exported.lowering.graph
    with pytest.raises(bnnmcu.errors.UsageError, match="firmware is for a board"):
        bnnmcu.export(made.module, made.example, output=tmp_path / "x")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_saved_module_is_the_same_network(tmp_path: Path, suffix: str) -> None:
    from bnnmcu.compiler import compile_file
    from bnnmcu.graphfile import graph_sha256

    made = STYLES["bireal"]()
    path = tmp_path / f"net{suffix}"
    network = bnnmcu.save(made.module, made.example, path, mean=0.5, std=0.25)
    again = compile_file(path)
    assert graph_sha256(again.graph) == graph_sha256(lower(network).graph)
    assert np.allclose(again.network.input_offset, -2.0)
