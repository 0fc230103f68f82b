"""The float model: its values and gradients against other ways to compute them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.errors import ModelFileError, UsageError
from bnnmcu.network import (
    Add,
    Affine,
    AvgPool,
    Clamp,
    Conv,
    Decide,
    Flatten,
    Linear,
    MaxPool,
    Network,
    Op,
    Pad,
    PRelu,
    Sign,
)
from bnnmcu.network.execute import run
from bnnmcu.nn.config import PaperConfig

torch = pytest.importorskip("torch", reason="the float model needs torch")
import torch.nn.functional as F  # noqa: E402

from bnnmcu.attack.float import FloatModel, load_float_model  # noqa: E402
from bnnmcu.attack.float.linear import DrawnStep  # noqa: E402
from bnnmcu.attack.float.pointwise import SignStep  # noqa: E402
from bnnmcu.attack.float.tiles import SignTiles, suits  # noqa: E402
from bnnmcu.attack.model import Draws  # noqa: E402
from bnnmcu.modelfile import read_model, write_model  # noqa: E402
from bnnmcu.nn.paper import PaperNet, build  # noqa: E402
from bnnmcu.nn.training import save_net  # noqa: E402


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(
    *ops: Op, shape: tuple[int, int, int] = (2, 9, 8), offset: float = 0.0, scale: float = 1 / 255
) -> Network:
    channels = shape[0]
    return Network("N", shape, ops, np.full(channels, scale), np.full(channels, offset))


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def chances(*shape: int) -> np.ndarray:
    return np.random.default_rng([7, *shape]).uniform(size=shape)


def signs(*shape: int) -> np.ndarray:
    return np.where(numbers(*shape, seed=3) > 0, 1.0, -1.0)


NETWORKS = {
    "pools, PReLU, bias, offset": network(
        Conv("a", "input", numbers(6, 2, 3, 2), numbers(6), (1, 2), (1, 0, 2, 1)),
        PRelu("b", "a", numbers(6)),
        MaxPool("c", "b", (2, 2), (1, 1), (1, 0, 0, 1), (2, 1)),
        Clamp("d", "c", -0.5, 1.5),
        AvgPool("e", "d", (3, 2), (2, 1), (1, 1, 0, 0), 5),
        Flatten("f", "e"),
        Linear("g", "f", numbers(4, 96), numbers(4)),
        offset=-0.3,
        scale=0.01,
    ),
    "groups, dilation, residual, pad": network(
        Conv("a", "input", numbers(4, 1, 2, 3), None, (2, 1), (0, 0, 0, 0), (2, 1), 2),
        Sign("b", "a"),
        Pad("c", "b", (1, 0, 1, 2), -1.0),
        Conv("d", "c", signs(4, 2, 3, 3), None, (1, 1), groups=2),
        Conv("e", "a", numbers(4, 4, 1, 1)),
        Add("f", "d", "e"),
        Affine("g", "f", numbers(4), numbers(4)),
        Sign("h", "g", 0),
        AvgPool("i", "h", (4, 6), (4, 6)),
        Flatten("j", "i"),
        Linear("k", "j", numbers(3, 4)),
    ),
    "decision and pooled signs": network(
        Conv("a", "input", numbers(5, 2, 4, 3)),
        Decide("b", "a", (Clamp("x", "a", 0, math.inf), Affine("y", "a", numbers(5), numbers(5)))),
        MaxPool("c", "b", (2, 3), (2, 3)),
        Flatten("d", "c"),
        Linear("e", "d", numbers(3, 5 * 3 * 2)),
    ),
    "drawn, twice, in groups, dense": network(
        Conv("a", "input", numbers(4, 2, 3, 3)),
        Sign("b", "a"),
        Conv("c", "b", chances(6, 2, 2, 2), numbers(6), groups=2, drawn=True),
        Sign("d", "c"),
        Conv("e", "d", chances(4, 3, 3, 2), groups=2, padding=(1, 0, 0, 1), drawn=True),
        Clamp("f", "e", 0.0, math.inf),
        Flatten("g", "f"),
        Linear("h", "g", chances(5, 4 * 5 * 5), numbers(5), drawn=True),
    ),
    "drawn beside what decides": network(
        Conv("a", "input", numbers(3, 2, 9, 8)),
        Conv("b", "a", chances(3, 3, 1, 1), drawn=True),
        Flatten("c", "a"),
        Linear("d", "c", numbers(4, 3)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_those_of_the_network(name: str) -> None:
    net = NETWORKS[name]
    model = FloatModel(net)
    height, width = net.input_shape[1:]
    images = np.random.default_rng(5).integers(0, 256, (7, height, width, 2), dtype=np.uint8)
    draws = model.sample(3, generator()) if model.stochastic else None
    x = torch.from_numpy(images).float() / 255.0
    with torch.no_grad():
        logits = model(x, draws).numpy()
    assert logits.shape == (3 if draws else 1, 7, net.classes)
    for index, found in enumerate(logits):
        drawn = None
        if draws:
            kinds = {op.name: op for op in net.ops}
            drawn = {
                key: weights[index].numpy().astype(np.float64).reshape(kinds[key].weights.shape)  # type: ignore[attr-defined]
                for key, weights in draws.weights.items()
            }
        np.testing.assert_allclose(found, run(net, images, drawn=drawn), rtol=1e-4, atol=1e-4)


def paper_net(kind: str, filters: int, dataset: str, ste: Any) -> PaperNet:
    """Untrained, but with statistics that its activations have."""
    net = build(PaperConfig(kind, filters, dataset, ste, bn_momentum=0.999), seed=2)
    height, width, channels = net.config.input_shape
    with torch.no_grad():
        net(torch.rand(20, channels, height, width, generator=generator(3)))
    return net.eval()


PAPER = [
    ("A", 8, "mnist", "identity"),
    ("B", 16, "mnist", "clipped"),
    ("C", 16, "cifar10", "identity"),
    ("S", 16, "mnist", "identity"),
    ("S", 16, "cifar10", "clipped"),
]


@pytest.mark.parametrize(("kind", "filters", "dataset", "ste"), PAPER)
def test_the_papers_networks_and_their_gradients(
    tmp_path: Path, kind: str, filters: int, dataset: str, ste: Any
) -> None:
    net = paper_net(kind, filters, dataset, ste)
    path = tmp_path / "net.pt"
    save_net(path, net)
    model = load_float_model(path)
    draws = None
    if kind == "S":
        draws = model.sample(2, generator())
        assert not torch.equal(*draws.weights["conv3"])
        # Certain to be what the second draw is.
        with torch.no_grad():
            net.conv3.weight.copy_(3.0 * draws.weights["conv3"][1])  # type: ignore[operator,union-attr]
    height, width, channels = net.config.input_shape
    x = torch.rand(6, height, width, channels, generator=generator(4))
    theirs, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    wanted, found = net(theirs.permute(0, 3, 1, 2)), model(ours, draws, ste)[-1]
    scale = float(wanted.detach().abs().max())
    assert scale > 0
    assert float((wanted - found).detach().abs().max()) < 1e-4 * scale
    # So small that the module's clipping of gradients to 1 does nothing.
    weight = 1e-4 * torch.randn(found.shape, generator=generator(5)) / scale
    (wanted_gradient,) = torch.autograd.grad((weight * wanted).sum(), theirs)
    (gradient,) = torch.autograd.grad((weight * found).sum(), ours)
    size = float(wanted_gradient.abs().max())
    assert size > 0
    assert float((wanted_gradient - gradient).abs().max()) < 1e-3 * size


TILES = [
    # Channels in and out, kernel, stride, padding (top, left, bottom, right), height and width.
    (64, 128, (6, 6), (2, 2), (0, 0, 0, 0), (14, 14)),
    (16, 32, (6, 6), (2, 2), (0, 0, 0, 0), (16, 16)),
    (24, 16, (3, 3), (1, 1), (1, 1, 1, 1), (16, 11)),
    (16, 17, (5, 4), (2, 1), (2, 0, 1, 3), (13, 9)),
    (16, 16, (5, 3), (1, 2), (0, 0, 0, 0), (8, 21)),
]


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "stride", "padding", "size"), TILES)
def test_tiles_are_exact(
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    size: tuple[int, int],
) -> None:
    weights = signs(outputs, inputs, *kernel)
    op = Conv("c", "input", weights, stride=stride, padding=padding)
    x = torch.from_numpy(signs(3, inputs, *size)).float()
    # The greatest sums there are: the image holds a filter, and its opposite.
    corner = torch.from_numpy(weights[0]).float()
    x[0, :, : kernel[0], : kernel[1]] = corner
    x[1, :, -kernel[0] :, -kernel[1] :] = -corner
    top, left, bottom, right = padding
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    wanted = F.conv2d(
        F.pad(theirs, (left, right, top, bottom)), torch.from_numpy(weights).float(), stride=stride
    )
    assert suits(op, tuple(wanted.shape[2:]))
    sums = SignTiles(op, tuple(wanted.shape[2:]))(ours)
    assert torch.equal(sums, wanted)
    weight = torch.randn(sums.shape, generator=generator())
    (gradient,) = torch.autograd.grad((weight * sums).sum(), ours)
    (wanted_gradient,) = torch.autograd.grad((weight * wanted).sum(), theirs)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": numbers(32, 16, 3, 3)},
        {"weights": chances(32, 16, 3, 3), "drawn": True},
        {"weights": signs(32, 8, 3, 3), "groups": 2},
        {"dilation": (2, 2)},
        {"weights": signs(32, 4, 3, 3)},
        {"weights": signs(32, 1024, 3, 3)},
        {"weights": signs(32, 16, 1, 1)},
    ],
)
def test_tiles_are_refused_where_they_would_be_wrong_or_slow(changed: dict[str, Any]) -> None:
    assert suits(Conv("c", "input", signs(32, 16, 3, 3)), (12, 12))
    assert not suits(Conv("c", "input", **{"weights": signs(32, 16, 3, 3)} | changed), (12, 12))


@pytest.mark.parametrize(
    ("estimator", "wanted"),
    [
        ("identity", lambda y: np.ones_like(y)),
        ("clipped", lambda y: (np.abs(y) <= 1).astype(float)),
        ("tanh", lambda y: 1 - np.tanh(y) ** 2),
    ],
)
def test_factors_of_the_estimators(estimator: Any, wanted: Any) -> None:
    values = np.array([-3.0, -1.0, -0.4, -0.0, 0.0, 0.7, 1.0, 1.01])
    for zero in (-1, 0, 1):
        y = torch.tensor(values, requires_grad=True)
        bits = SignStep(Sign("s", "input", zero))(y, estimator)
        np.testing.assert_array_equal(bits.detach(), np.where(values == 0, zero, np.sign(values)))
        (gradient,) = torch.autograd.grad(bits.sum(), y)
        np.testing.assert_allclose(gradient, wanted(values), atol=1e-12)


def test_among_equal_signs_the_largest_input_gets_the_gradient() -> None:
    net = network(
        Sign("s", "input"),
        MaxPool("p", "s", (2, 2), (2, 2)),
        Flatten("f", "p"),
        Linear("l", "f", np.ones((1, 1))),
        shape=(1, 2, 2),
        scale=0.02,
        offset=-2.0,
    )
    x = torch.tensor([[[[0.6], [0.7]], [[0.9], [0.1]]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(FloatModel(net)(x, None, "identity").sum(), x)
    assert gradient.flatten().tolist() == pytest.approx([0, 0, 5.1, 0])


def test_draws_have_their_probabilities() -> None:
    shares = np.array([0.0, 1.0, 0.5, 0.03, 0.9, 2**-16, 1 - 2**-16])
    step = DrawnStep(Conv("c", "input", np.tile(shares, (400, 1))[..., None, None], drawn=True))
    first = step.sample(50, generator())
    assert first.shape == (50, 400, 7, 1, 1)
    assert set(first.unique().tolist()) == {-1.0, 1.0}
    found = (first > 0).double().mean((0, 1)).flatten().numpy()
    assert found[0] == 0.0
    assert found[1] == 1.0
    np.testing.assert_allclose(found, shares, atol=5 * math.sqrt(0.25 / 20_000))
    assert torch.equal(first, step.sample(50, generator()))
    assert not torch.equal(first, step.sample(50, generator(2)))
    # No two draws are the same, and none is another one's neighbour.
    flat = first[:, :, 2].flatten(1).double()
    assert float((flat @ flat.t() / 400 - torch.eye(50)).abs().max()) < 0.35


def test_what_it_refuses(tmp_path: Path) -> None:
    model = FloatModel(NETWORKS["drawn beside what decides"])
    x = torch.zeros(1, 9, 8, 2)
    with pytest.raises(UsageError, match="give draws"):
        model(x)
    with pytest.raises(UsageError, match="images of shape"):
        model(x[..., :1], Draws({}, 1))
    with pytest.raises(UsageError, match="at least one"):
        model.sample(0, generator())
    with pytest.raises(UsageError, match="cannot draw what a device draws"):
        model.draws_of_seeds(np.zeros(1, np.uint64))
    with pytest.raises(UsageError, match="unknown estimator"):
        FloatModel(NETWORKS["drawn beside what decides"], "steep")  # type: ignore[arg-type]
    path = tmp_path / "a.pt"
    save_net(path, build(PaperConfig("A", 4), seed=1))
    whole = read_model(path)
    for tensors, said in (
        ({k: v for k, v in whole.tensors.items() if k != "conv2.weight"}, "is missing"),
        ({**whole.tensors, "dense.weight": whole.tensors["dense.weight"][:3]}, "of shape"),
        ({**whole.tensors, "more": whole.tensors["dense.weight"]}, "does not have: more"),
    ):
        write_model(path, whole.manifest, tensors)
        with pytest.raises(ModelFileError, match=said):
            load_float_model(path)
