"""The paper's networks as integer graphs, against the float modules they came from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bnnmcu import reference
from bnnmcu.compiler import to_graph
from bnnmcu.errors import ModelFileError, UnsupportedModelError, UsageError
from bnnmcu.graph import ALWAYS, GE, LE, NEVER, Graph, StochasticConv, Threshold
from bnnmcu.graphfile import graph_sha256
from bnnmcu.lfsr import level_probability
from bnnmcu.modelfile import ModelFile, read_model
from bnnmcu.nn.config import PaperConfig
from bnnmcu.passes import Quantization

torch = pytest.importorskip("torch", reason="torch is not installed")

from bnnmcu.nn.layers import BinaryConv2d  # noqa: E402
from bnnmcu.nn.paper import PaperNet, build  # noqa: E402
from bnnmcu.nn.training import load_net, save_net  # noqa: E402

_IMAGES = 5
Array = npt.NDArray[Any]


def _images(config: PaperConfig, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    height, width, channels = config.input_shape
    # Coarse patches and noise: filters see contrast, as in pictures.
    coarse = rng.random((_IMAGES, height // 4, width // 4, channels)).repeat(4, 1).repeat(4, 2)
    noise = rng.random((_IMAGES, height, width, channels))
    images = (255 * (0.8 * coarse + 0.2 * noise)).astype(np.uint8)
    images[0] = 0
    images[1, :, : config.input_shape[1] // 2] = 255
    return images


def _tensor(images: Array, dtype: Any) -> Any:
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype).div(255.0)


def _net(kind: str, filters: int, dataset: str, seed: int = 0, scale: float = 0.05) -> PaperNet:
    """A network whose statistics look trained: odd means, dead channels, channels that tie."""
    config = PaperConfig(kind, filters, dataset, bn_momentum=0.9)
    net = build(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        net.conv1.weight[0] = -net.conv1.weight[0].abs()  # never above zero: dead
        net.conv1.weight[1] = 0
        if kind != "A":
            net.conv2.weight[0, 0, :3] = 0  # sign(0)
            net.conv2.weight[1, 0, 2:] = -0.0
        if kind in ("C", "S"):
            net.scale2.value.fill_(scale)
            net.scale3.value.fill_(-1.7 * scale)
        net.train()
        for i in range(2):
            net(_tensor(_images(config, seed + 10 + i), torch.float32))
        net.eval()
        for norm in [m for name, m in net.named_children() if name.startswith("norm")]:
            norm.bias += torch.randn(norm.bias.shape, generator=generator) * 0.3
            norm.running_var *= torch.rand(norm.bias.shape, generator=generator) + 0.5
        if kind != "A":
            net.norm2.running_mean[0] = 0
            net.norm2.running_var[0] = 3e-24
            net.norm2.bias[:2] = torch.tensor([-0.1, 0.0])
    return net


def _make_tie(net: PaperNet, images: Array) -> tuple[int, int]:
    """Put one threshold of norm3 exactly on a sum that occurs; returns channel and sum.

    The sum is a power of two, so that no rounding, of any precision, is involved.
    """
    sums = _values(to_graph(_file(net)), images, 0)["conv2"]
    for power in (8, 16, 4, 2, 32, 64):
        channels = np.flatnonzero((sums == power).any(axis=(0, 1, 2)))
        if channels.size:
            break
    channel = int(channels[0])
    with torch.no_grad():
        net.norm3.running_mean[channel] = net.scale2(torch.tensor(1.0)) * power
        net.norm3.bias[channel] = 0
    return channel, power


def _file(net: PaperNet) -> ModelFile:
    manifest = {"architecture": "paper", "network": net.config.to_dict()}
    tensors = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    return ModelFile(Path("mine.pt"), manifest, tensors)


def _values(graph: Graph, images: Array, seed: int) -> dict[str, Array]:
    seen: dict[str, Array] = {}
    seeds = np.full((len(images), 1), seed, dtype=np.uint64)
    reference.run(graph, images, seeds, on_value=lambda n, v: seen.__setitem__(n, v))
    return seen


def _nchw(value: Array) -> Array:
    return value.transpose(0, 3, 1, 2)


def _signs(bits: Array) -> Any:
    return torch.from_numpy(_nchw(bits).astype(np.float32) * 2 - 1)


def _integer_first_layer(net: PaperNet, graph: Graph) -> Array:
    """The first layer's weights as the graph has them, in float64 (O, I, KH, KW)."""
    weights = net.conv1.weight.detach().double().numpy()
    largest = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
    unit = np.where(largest > 0, largest, 1) / 8191
    integers = graph.nodes[0].weights.transpose(0, 3, 1, 2)  # type: ignore[attr-defined]
    rounded = integers * unit.reshape(-1, 1, 1, 1)
    assert (np.abs(rounded - weights) <= 0.5001 * unit.reshape(-1, 1, 1, 1)).all()
    return np.asarray(rounded)


def _compare_bits(name: str, bits: Array, exact: Any, single: Any, size: Any, eps: float) -> Array:
    """Bits against float64 (equal but for its own last bits) and float32 (but for its ties).

    Args:
        exact, single: what the sign is taken of, in float64 and in float32.
        size: magnitude of the terms that make up the value, for rounding errors.
        eps: relative rounding error of float32 that this layer may add up to.

    Returns:
        images (N,) whose bits all agree with float32.
    """
    got = _nchw(bits).astype(bool)
    exact, single, size = exact.numpy(), single.numpy(), size.numpy()
    other = got != (exact >= 0)
    assert (np.abs(exact[other]) <= 1e-12 * size[other]).all(), f"{name}: not a float64 tie"
    other = got != (single >= 0)
    assert (np.abs(exact[other]) <= eps * size[other]).all(), f"{name}: not a float32 tie"
    assert other.mean() < 0.01, f"{name}: ties are too common to prove anything"
    assert 0.05 < got.mean() < 0.95, f"{name}: bits are constant, which proves nothing"
    return ~other.any(axis=(1, 2, 3))


def _size(norm: Any, value: Any) -> Any:
    """|slope * value| + |mean / deviation| + |shift|: what rounding errors are relative to."""
    deviation = (norm.running_var + norm.eps).sqrt()
    terms = norm.running_mean.abs() / deviation + norm.bias.abs() + 1e-30
    return (value.abs() / deviation.view(-1, 1, 1)) + terms.view(-1, 1, 1)


_CASES = [
    (kind, filters, dataset, 0.05)
    for kind in "BCS"
    for dataset in ("mnist", "cifar10")
    for filters in (4, 7, 33)
]
# A learned scale may become negative; B has none.
_CASES += [(kind, 7, dataset, -0.3) for kind in "CS" for dataset in ("mnist", "cifar10")]


@pytest.mark.parametrize(("kind", "filters", "dataset", "scale"), _CASES)
def test_graph_is_the_float_network(kind: str, filters: int, dataset: str, scale: float) -> None:
    net = _net(kind, filters, dataset, seed=filters, scale=scale)
    images = _images(net.config)
    graph = to_graph(_file(net))
    values = _values(graph, images, 77)

    # The float twin of the integer network: rounded first layer, drawn weights put in.
    with torch.no_grad():
        twin = copy.deepcopy(net)
        twin.conv1.weight.copy_(torch.from_numpy(_integer_first_layer(net, graph)))
        if kind == "S":
            (node,) = graph.stochastic
            words = reference.sampled_words(graph, np.array([77], dtype=np.uint64))
            drawn = reference.sampled_weights(node, words[node.name])[0]
            fixed = BinaryConv2d(drawn.shape[3], drawn.shape[0], 5)
            fixed.weight.copy_(_signs(drawn))
            twin.conv3 = fixed
        wide = copy.deepcopy(twin).double()
        wide.conv1.weight.copy_(torch.from_numpy(_integer_first_layer(net, graph)))

        # conv1 to sign2.
        sums = [torch.relu(n.conv1(_tensor(images, n.conv1.weight.dtype))) for n in (wide, twin)]
        # 64 or 192 products, all of one sign at worst.
        absolute = copy.deepcopy(wide.conv1)
        absolute.weight.abs_()
        size = _size(wide.norm2, absolute(_tensor(images, torch.float64)))
        same = _compare_bits(
            "sign2", values["sign2"], wide.norm2(sums[0]), twin.norm2(sums[1]), size, 2e-5
        )

        # conv2 to sign3, from the graph's own bits: the sums are integers, exact in float32.
        bits = _signs(values["sign2"])
        plain = twin.conv2(bits)
        assert np.array_equal(plain.numpy(), _nchw(values["conv2"]))
        scaled = [
            wide.scale2(torch.relu(plain.double())),
            twin.scale2(torch.relu(plain)),
        ]
        same &= _compare_bits(
            "sign3",
            values["sign3"],
            wide.norm3(scaled[0]),
            twin.norm3(scaled[1]),
            _size(wide.norm3, scaled[0]),
            1e-6,
        )

        # conv3 to logits.
        sums3 = twin.conv3(_signs(values["sign3"]))
        assert np.array_equal(sums3.numpy(), _nchw(values["conv3"]))
        assert np.array_equal(torch.relu(sums3).numpy(), _nchw(values["relu3"]))
        logits = wide.dense(wide.scale3(torch.relu(sums3.double())).flatten(1)).numpy()
        integer = values["dense"] * graph.logit_scale
        # Each dense weight is off by at most half a unit.
        reach = 0.5 * graph.logit_scale * values["relu3"].reshape(_IMAGES, -1).sum(axis=1)
        assert (np.abs(integer - logits) <= reach[:, np.newaxis] * (1 + 1e-6) + 1e-9).all()

        # End to end in float32, for images without a tie on the way.
        whole = twin(_tensor(images, torch.float32)).numpy()
    assert same.sum() >= _IMAGES // 2
    room = reach + 1e-4 * (1 + np.abs(whole).max(axis=1))
    assert (np.abs(integer - whole)[same] <= room[same, np.newaxis]).all()
    ordered = np.sort(whole, axis=1)
    clear = same & (ordered[:, -1] - ordered[:, -2] > 2 * room)
    assert clear.any()
    assert np.array_equal(values["dense"].argmax(axis=1)[clear], whole.argmax(axis=1)[clear])


@pytest.mark.parametrize("kind", ["B", "C"])
@pytest.mark.parametrize("scale", [0.05, -0.3])
def test_a_sum_on_the_threshold_gives_one(kind: str, scale: float) -> None:
    """Also where float32, which rounds on the way, says otherwise."""
    net = _net(kind, 7, "mnist", scale=scale)
    images = _images(net.config)
    channel, power = _make_tie(net, images)
    values = _values(to_graph(_file(net)), images, 0)
    sums, bits = values["conv2"][..., channel], values["sign3"][..., channel]
    assert bits[sums == power].all()
    assert (sums == power).any()
    # The neighbours of the sum lie on either side: the threshold is that sum and no other.
    rising = kind == "B" or scale > 0
    rectified = np.maximum(sums, 0)
    assert np.array_equal(bits == 1, rectified >= power if rising else rectified <= power)


def test_a_negative_scale_turns_the_comparison_round() -> None:
    kinds = {}
    for scale in (0.05, -0.05):
        graph = to_graph(_file(_net("C", 7, "mnist", scale=scale)))
        sign3 = next(n for n in graph.nodes if n.name == "sign3")
        assert isinstance(sign3, Threshold)
        kinds[scale] = set(sign3.kind.tolist())
    assert GE in kinds[0.05]
    assert LE not in kinds[0.05]
    assert LE in kinds[-0.05]
    assert GE not in kinds[-0.05]


def test_dead_channels_are_constant_and_a_tie_gives_one() -> None:
    graph = to_graph(_file(_net("B", 4, "mnist")))
    sign2 = graph.nodes[1]
    assert isinstance(sign2, Threshold)
    assert sign2.kind[:2].tolist() == [NEVER, ALWAYS if _zero_is_one() else NEVER]


def _zero_is_one() -> bool:
    """Channel 1 has zero weights, shift 0: its bit is the sign of -mean / deviation."""
    net = _net("B", 4, "mnist")
    return float(net.norm2.running_mean[1]) <= 0


@pytest.mark.parametrize("planes", [2, 4, 8])
def test_stochastic_levels(planes: int) -> None:
    net = _net("S", 4, "mnist")
    with torch.no_grad():
        net.conv3.weight[0, 0] = 1.5
        net.conv3.weight[0, 1] = -1.5
        net.conv3.weight[0, 2] = 0.0
    (node,) = to_graph(_file(net), Quantization(planes=planes, generator="taus88")).stochastic
    assert isinstance(node, StochasticConv)
    assert node.planes == planes
    p = ((net.conv3.weight.detach().double() + 1) / 2).clamp(0, 1).numpy().transpose(0, 2, 3, 1)
    got = level_probability(node.weights, planes)
    # Levels are 2^-k apart, but for the gap of two around one half.
    assert np.abs(got - p).max() <= 1.0 / (1 << planes) + 1e-12
    assert (got[0, :, :, 0] == 1).all()
    assert (got[0, :, :, 1] == 0).all()
    assert (got[0, :, :, 2] == 0.5 + 1 / (1 << planes)).all()


@pytest.mark.parametrize("bits", [8, 12, 14])
def test_more_bits_are_closer_to_the_float_network(bits: int) -> None:
    net = _net("B", 7, "mnist")
    graph = to_graph(_file(net), Quantization(first_layer_bits=bits))
    images = _images(net.config, 3)
    with torch.no_grad():
        value = net.norm2(torch.relu(net.conv1(_tensor(images, torch.float32)))).numpy()
    share = (_nchw(_values(graph, images, 0)["sign2"]).astype(bool) != (value >= 0)).mean()
    assert share < {8: 0.05, 12: 0.005, 14: 0.002}[bits]


def test_both_formats_give_the_same_graph(tmp_path: Path) -> None:
    net = _net("S", 4, "cifar10")
    hashes = set()
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"m{suffix}"
        save_net(path, net, training={"epochs": 1})
        model = read_model(path)
        hashes.add(graph_sha256(to_graph(model)))
        again = load_net(model).state_dict()
        assert all(torch.equal(again[k], v) for k, v in net.state_dict().items())
    assert hashes == {graph_sha256(to_graph(_file(net)))}
    other = to_graph(_file(net), Quantization(planes=5))
    assert graph_sha256(other) not in hashes


def _changed(change: Callable[[dict[str, Any]], Any]) -> ModelFile:
    model = _file(_net("S", 2, "mnist"))
    change(model.tensors)
    return model


_REFUSED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "missing": (lambda t: t.pop("conv3.weight"), "'conv3.weight' is missing"),
    "missing scale": (lambda t: t.pop("scale2.value"), "'scale2.value' is missing"),
    "missing statistics": (lambda t: t.pop("norm2.running_var"), "running_var' is missing"),
    "extra": (lambda t: t.update({"conv9.bias": np.zeros(1)}), "does not have: conv9.bias"),
    "shape": (
        lambda t: t.update({"conv2.weight": np.zeros((4, 2, 5, 5))}),
        "(4, 2, 5, 5), not (4, 2, 6, 6)",
    ),
    "scale vector": (lambda t: t.update({"scale2.value": np.zeros(1)}), "(1,), not ()"),
    "dense shape": (lambda t: t.update({"dense.weight": np.zeros((10, 5))}), "not (10, 4)"),
    "negative variance": (
        lambda t: t.update({"norm3.running_var": -np.ones(4)}),
        "norm3: a batch-norm variance is negative",
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_refused_tensors(case: str) -> None:
    change, words = _REFUSED[case]
    with pytest.raises(ModelFileError) as caught:
        to_graph(_changed(change))
    assert words in str(caught.value)


def test_model_a_is_refused_by_the_name_of_its_layer() -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        to_graph(_file(_net("A", 4, "mnist")))
    assert caught.value.where == "conv2"
    assert caught.value.hint


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"architecture": "resnet", "network": {"kind": "B"}},
        {"architecture": "paper"},
        {"architecture": "paper", "network": "B64"},
        {"architecture": "paper", "network": {}},
        {"architecture": "paper", "network": {"kind": "D"}},
        {"architecture": "paper", "network": {"kind": ["B"]}},
        {"architecture": "paper", "network": {"kind": "B", "filters": "64"}},
        {"architecture": "paper", "network": {"kind": "B", "filters": True}},
        {"architecture": "paper", "network": {"kind": "B", "filters": 0}},
        {"architecture": "paper", "network": {"kind": "B", "filters": 10**9}},
        {"architecture": "paper", "network": {"kind": "B", "dataset": "svhn"}},
        {"architecture": "paper", "network": {"kind": "B", "dataset": []}},
        {"architecture": "paper", "network": {"kind": "B", "ste": "none"}},
        {"architecture": "paper", "network": {"kind": "B", "bn_momentum": 1.0}},
        {"architecture": "paper", "network": {"kind": "B", "extra": 1}},
    ],
)
def test_wrong_manifests(manifest: dict[str, Any]) -> None:
    model = ModelFile(Path("mine.pt"), manifest, _file(_net("B", 2, "mnist")).tensors)
    for read in (to_graph, load_net):
        with pytest.raises(ModelFileError, match=r"mine\.pt"):
            read(model)


def test_nan_weights_are_named(tmp_path: Path) -> None:
    net = _net("B", 2, "mnist")
    with torch.no_grad():
        net.conv2.weight[0, 0, 0, 0] = float("nan")
    for suffix in (".pt", ".safetensors"):
        path = tmp_path / f"m{suffix}"
        save_net(path, net)
        with pytest.raises(ModelFileError, match=r"'conv2\.weight' has 1 NaN"):
            read_model(path)


@pytest.mark.parametrize(
    "options",
    [
        {"first_layer_bits": 7},
        {"first_layer_bits": 15},
        {"planes": 1},
        {"planes": 9},
        {"generator": "rand"},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Quantization(**options)


def test_tensors_that_do_not_fit_are_refused_by_the_torch_side_too() -> None:
    model = _file(_net("B", 2, "mnist"))
    del model.tensors["conv1.weight"]
    with pytest.raises(ModelFileError, match="do not fit"):
        load_net(model)
