"""The differentiable twin: bit for bit the reference, with the surrogate's gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from random_dags import random_dag

from bnnmcu import reference
from bnnmcu.data import Dataset
from bnnmcu.errors import UnsupportedModelError, UsageError
from bnnmcu.graph import (
    ALWAYS,
    GE,
    INPUT,
    LE,
    Affine,
    BinaryConv,
    Dense,
    Graph,
    IntegerConv,
    Relu,
    StochasticConv,
    Surrogate,
    Threshold,
    infer,
)
from bnnmcu.lfsr import level_probability

torch = pytest.importorskip("torch", reason="the twin needs torch")

from bnnmcu.attack.config import Estimator  # noqa: E402
from bnnmcu.attack.twin import IntegerTwin  # noqa: E402

ESTIMATORS: tuple[Estimator, ...] = ("identity", "clipped", "tanh")


def _as_input(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32) / np.float32(255))


def _assert_equal_to_reference(graph: Graph, images: np.ndarray, seeds: np.ndarray) -> None:
    """With gradients asked for and not: the two go different ways."""
    expected = reference.run(graph, images, np.repeat(seeds[np.newaxis], len(images), 0))
    twin = IntegerTwin(graph)
    draws = twin.draws_of_seeds(seeds) if graph.stochastic else None
    for wanted in (False, True):
        logits = twin.integer_logits(_as_input(images).requires_grad_(wanted), draws)
        given = logits.detach().numpy().astype(np.int64)
        count = len(seeds) if graph.stochastic else 1
        np.testing.assert_array_equal(given, expected.transpose(1, 0, 2)[:count])


@pytest.mark.parametrize("kinds", ["", "b", "s", "bs", "sb", "ss", "sbs"])
@pytest.mark.parametrize("padded", [True, False])
def test_forward_is_the_reference(
    random_graph: Callable[..., Graph], kinds: str, padded: bool
) -> None:
    for seed in range(3):
        graph = random_graph(seed, kinds=kinds, padded=padded, bits=8 + 3 * seed)
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (4, *graph.input_shape)).astype(np.uint8)
        images[0], images[1] = 0, 255
        _assert_equal_to_reference(graph, images, np.array([0, 7, 2**64 - 1], dtype=np.uint64))


@pytest.mark.parametrize("shape", [(32, 32, 3), (7, 11, 2)])
def test_forward_of_other_shapes(
    random_graph: Callable[..., Graph], shape: tuple[int, int, int]
) -> None:
    graph = random_graph(1, shape, "bs", channels=33)
    images = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype(np.uint8)
    _assert_equal_to_reference(graph, images, np.array([3, 4], dtype=np.uint64))


@pytest.mark.parametrize("kind", ["B", "S"])
def test_forward_of_trained_networks(
    trained: dict[str, Graph], blob_data: Dataset, kind: str
) -> None:
    _assert_equal_to_reference(trained[kind], blob_data.images, np.arange(3, dtype=np.uint64))


def test_sums_beyond_float32_are_exact() -> None:
    """Two sums that differ by one above 2**24 fall on the two sides of a threshold."""
    weights = np.full((1, 3, 3, 64), 8191, dtype=np.int16)
    weights[0, 0, 0, 0] = 1
    conv = IntegerConv("conv", INPUT, weights, bits=14)
    top = 255 * int(weights.astype(np.int64).sum())
    assert top > 2**26
    nodes = (
        conv,
        Threshold("sign", "conv", np.array([top], np.int32), np.array([GE], np.uint8)),
    )
    one = BinaryConv("one", "sign", np.ones((1, 1, 1, 1), np.uint8))
    dense = Dense("dense", "relu", np.array([[1]], np.int16))
    graph = Graph("edge", (3, 3, 64), (*nodes, one, Relu("relu", "one"), dense))
    images = np.full((2, 3, 3, 64), 255, dtype=np.uint8)
    images[1, 0, 0, 0] = 254
    logits = IntegerTwin(graph).integer_logits(_as_input(images))
    assert logits.flatten().tolist() == [1.0, 0.0]
    assert reference.run(graph, images).flatten().tolist() == [1, 0]


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_forward_of_every_operation(first: int) -> None:
    """Random graphs with branches; refused are those alone whose logits need more bits."""
    refused = 0
    for seed in range(first, first + 50):
        graph = random_dag(seed)
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (2, *graph.input_shape)).astype(np.uint8)
        try:
            _assert_equal_to_reference(graph, images, np.array([0, 9], dtype=np.uint64))
        except UnsupportedModelError:
            logits = infer(graph)[graph.nodes[-1].name]
            # Partial sums are bounded by magnitudes: they reach further than the results.
            assert 4 * max(-logits.low, logits.high) >= 2**53
            refused += 1
    assert refused < 15


def test_logits_beyond_float64_are_refused() -> None:
    bias = np.array([0, 2**53], dtype=np.int64)
    dense = Dense("fc.out", INPUT, np.ones((2, 4), np.int16), bias)
    with pytest.raises(UnsupportedModelError, match=r"fc\.out.*float64"):
        IntegerTwin(Graph("big", (2, 2, 1), (dense,)))
    small = Graph("big", (2, 2, 1), (Dense("fc", INPUT, dense.weights, bias - 2000),))
    image = np.full((1, 2, 2, 1), 255, dtype=np.uint8)
    assert IntegerTwin(small).integer_logits(_as_input(image)).tolist() == [
        [[1020.0 - 2000, 2.0**53 - 980]]
    ]


def test_affine_products_beyond_float64_are_exact() -> None:
    """(2**31 - 1) x is 2**31 x less x, so x must be added for the floor to reach x."""
    top = 4 * 255 * 32_767
    assert top * 2**31 > 2**53
    nodes = (
        IntegerConv("conv", INPUT, np.full((2, 1, 1, 4), 32_767, np.int16), bits=16),
        Affine("scale", "conv", np.array([2**31 - 1] * 2, np.int32), np.array([top, top - 1]), 31),
    )
    graph = Graph("wide", (1, 1, 4), nodes)
    image = np.full((1, 1, 1, 4), 255, dtype=np.uint8)
    given = IntegerTwin(graph).integer_logits(_as_input(image))
    assert given.flatten().tolist() == [top, top - 1]
    assert reference.run(graph, image).flatten().tolist() == [top, top - 1]


def test_pixels_between_levels_are_rounded(trained: dict[str, Graph], blob_data: Dataset) -> None:
    twin = IntegerTwin(trained["B"])
    x = _as_input(blob_data.images[:5])
    off = (x + torch.full_like(x, 0.4 / 255)).clamp(0, 1)
    assert torch.equal(twin(x), twin(off))


def test_forward_scales_the_logits(trained: dict[str, Graph], blob_data: Dataset) -> None:
    twin = IntegerTwin(trained["B"])
    x = _as_input(blob_data.images[:2])
    assert torch.equal(twin(x), twin.integer_logits(x) * trained["B"].logit_scale)


def test_sampled_weights_have_the_graphs_probabilities(random_graph: Callable[..., Graph]) -> None:
    """Every level of every width, within five standard deviations; 0 and 1 exactly."""
    for planes in (2, 4, 8):
        levels = np.arange(1 << planes, dtype=np.uint8).repeat(8).reshape(-1, 1, 1, 8)
        graph = random_graph(0, kinds="s", padded=False, channels=8)
        node = StochasticConv("conv1", "sign1", levels, planes=planes)
        dense = Dense("dense", "relu", np.ones((2, 7 * 4 * len(levels)), np.int16))
        graph = replace(graph, nodes=(*graph.nodes[:2], node, graph.nodes[3], dense))
        draws = IntegerTwin(graph).sample(2000, torch.Generator().manual_seed(1))
        weights = draws.weights["conv1"]
        assert set(weights.unique().tolist()) == {-1.0, 1.0}
        share = ((weights + 1) / 2).mean(dim=(0, 2, 3, 4)).numpy()
        wanted = level_probability(levels[:, 0, 0, 0], planes)
        deviation = np.sqrt(wanted * (1 - wanted) / 16_000)
        assert np.all(np.abs(share - wanted) <= 5 * deviation)
        # Neighbouring weights must not share a random number.
        half = weights[:, len(levels) // 2 - 1, :, 0, 0].numpy()
        correlation = np.corrcoef(half.T)[np.triu_indices(8, 1)]
        assert np.abs(correlation).max() < 0.12


def test_sampling_depends_on_its_generator_alone(trained: dict[str, Graph]) -> None:
    twin = IntegerTwin(trained["S"])
    first = twin.sample(2, torch.Generator().manual_seed(3)).weights["conv3"]
    torch.manual_seed(99)
    torch.rand(7)
    again = twin.sample(2, torch.Generator().manual_seed(3)).weights["conv3"]
    other = twin.sample(2, torch.Generator().manual_seed(4)).weights["conv3"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


SURROGATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "identity": lambda y: y,
    "clipped": lambda y: np.clip(y, -1, 1),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("rectified", [True, False])
def test_threshold_gradient_is_the_surrogates_slope(estimator: Estimator, rectified: bool) -> None:
    """Against central differences of the surrogate, at the integer sums themselves."""
    slope, offset = np.array([0.3, -0.2, 0.7]), np.array([0.11, 0.53, -0.47])
    sign = Threshold(
        "sign",
        "conv",
        np.zeros(3, np.int32),
        np.array([GE, LE, GE], np.uint8),
        Surrogate(slope, offset, rectified),
    )
    conv = IntegerConv("conv", INPUT, np.array([1, 1, -1], np.int16).reshape(3, 1, 1, 1), bits=8)
    one = BinaryConv("one", "sign", np.ones((1, 1, 1, 3), np.uint8))
    graph = Graph(
        "slope", (1, 5, 1), (conv, sign, one, Dense("dense", "one", np.ones((1, 5), np.int16)))
    )
    pixels = np.array([0, 1, 2, 3, 9], dtype=np.float64)
    x = torch.tensor(pixels / 255).view(1, 1, 5, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(IntegerTwin(graph, estimator).integer_logits(x).sum(), x)

    def total(level: np.ndarray) -> np.ndarray:
        sums = np.stack([level, level, -level], axis=-1)
        y = slope * (np.maximum(sums, 0) if rectified else sums) + offset
        return SURROGATES[estimator](y).sum(-1)

    # At sum 0 a ReLU has two slopes; ours is the one to the left, zero.
    inner = pixels > 0
    step = 1e-6
    wanted = 255 * (total(pixels + step) - total(pixels - step)) / (2 * step)
    np.testing.assert_allclose(gradient.flatten().numpy()[inner], wanted[inner], rtol=2e-4)


def test_constant_bits_have_no_gradient(random_graph: Callable[..., Graph]) -> None:
    graph = random_graph(0, kinds="b")
    sign = graph.nodes[1]
    assert isinstance(sign, Threshold)
    constant = replace(sign, kind=np.full_like(sign.kind, ALWAYS))
    graph = replace(graph, nodes=(graph.nodes[0], constant, *graph.nodes[2:]))
    x = torch.full((1, *graph.input_shape), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(IntegerTwin(graph)(x).sum(), x)
    assert not gradient.any()


@pytest.mark.parametrize("shape", [(4, 4, 1), (5, 3, 1), (5, 3, 2)])
def test_one_column_of_a_strided_convolution(shape: tuple[int, int, int]) -> None:
    """torch sums wrongly here if one channel's strides look as if channels came last."""
    rng = np.random.default_rng(1)
    weights = rng.integers(-100, 101, (40, 3, 3, shape[2])).astype(np.int16)
    conv = IntegerConv("conv", INPUT, weights, (1, 2), bits=8)
    size = conv.output_shape(shape)
    dense = Dense("dense", "conv", rng.integers(-9, 10, (3, int(np.prod(size)))).astype(np.int16))
    images = rng.integers(0, 256, (3, *shape)).astype(np.uint8)
    seeds = np.zeros(1, dtype=np.uint64)
    _assert_equal_to_reference(Graph("column", shape, (conv, dense)), images, seeds)


def test_logits_beside_the_draws() -> None:
    """Drawn weights that the logits do not depend on: the same logits for every draw."""
    level = np.full((2, 1, 1, 1), 3, np.uint8)
    nodes = (
        Threshold("sign", INPUT, np.array([9], np.int32), np.array([GE], np.uint8)),
        StochasticConv("drawn", "sign", level),
        Dense("dense", "sign", np.array([[1], [2]], np.int16)),
    )
    graph = Graph("beside", (1, 1, 1), nodes)
    image = np.array([[[[9]], [[0]]]], np.uint8).reshape(2, 1, 1, 1)
    _assert_equal_to_reference(graph, image, np.arange(3, dtype=np.uint64))


@pytest.mark.parametrize("ste", ["identity", "clipped"])
@pytest.mark.parametrize("kind", ["B", "C"])
def test_gradient_is_that_of_the_float_network(
    tmp_path: Path, blob_data: Dataset, kind: str, ste: Estimator
) -> None:
    from bnnmcu.compiler import to_graph
    from bnnmcu.modelfile import read_model
    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.paper import build
    from bnnmcu.nn.training import save_net

    net = build(PaperConfig(kind, 6, ste=ste, bn_momentum=0.999), seed=3)
    pixels = _as_input(blob_data.images)
    with torch.no_grad():
        # Weights that the graph's integers hold exactly, so that no bit may differ.
        net.conv1.weight.copy_(torch.round(net.conv1.weight * 2**9) / 2**9)
        net.conv1.weight[:, 0, 0, 0] = 8191 / 2**14
        net.dense.weight.copy_(torch.round(net.dense.weight * 2**10) / 2**10)
        net.dense.weight[0, 0] = 32767 / 2**14
        net.train()
        net(pixels.permute(0, 3, 1, 2))  # batch-norm statistics of real data
    net.eval()
    save_net(tmp_path / "net.pt", net)
    graph = to_graph(read_model(tmp_path / "net.pt"))
    assert all(np.isin(n.kind, (GE, LE)).all() for n in graph.nodes if isinstance(n, Threshold))

    x = pixels[:8].clone().requires_grad_()
    weights = torch.linspace(-1, 1, 10)
    # Training clips gradients to [-1, 1]; a small loss keeps clear of that.
    small = 1e-6
    float_logits = net(x.permute(0, 3, 1, 2))
    (wanted,) = torch.autograd.grad((float_logits @ weights).sum() * small, x)
    logits = IntegerTwin(graph, ste)(x)[0]
    (given,) = torch.autograd.grad((logits.float() @ weights).sum() * small, x)
    np.testing.assert_allclose(
        logits.detach().numpy(), float_logits.detach().numpy(), rtol=1e-4, atol=1e-4
    )
    assert wanted.abs().max() > 0
    scale = float(wanted.abs().max())
    np.testing.assert_allclose(given.numpy() / scale, wanted.numpy() / scale, atol=1e-4)


def test_refusals(random_graph: Callable[..., Graph]) -> None:
    graph = random_graph(0, kinds="s")
    twin = IntegerTwin(graph)
    x = torch.zeros(1, *graph.input_shape)
    with pytest.raises(UsageError, match="give draws"):
        twin(x)
    with pytest.raises(UsageError, match="images of shape"):
        twin(x[0], twin.sample(1, torch.Generator()))
    with pytest.raises(UsageError, match="0 draws"):
        twin.sample(0, torch.Generator())
    with pytest.raises(UsageError, match="unknown estimator"):
        IntegerTwin(graph, "sharp")  # type: ignore[arg-type]
    sign = graph.nodes[1]
    assert isinstance(sign, Threshold)
    bare = replace(graph, nodes=(graph.nodes[0], replace(sign, surrogate=None), *graph.nodes[2:]))
    with pytest.raises(UnsupportedModelError, match="surrogate"):
        IntegerTwin(bare).require_gradients()
