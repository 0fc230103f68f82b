"""The twin's gradients, operation by operation, against the integer network's own changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bnnmcu import network as floats
from bnnmcu import reference
from bnnmcu.errors import UsageError
from bnnmcu.graph import (
    GE,
    INPUT,
    LE,
    Add,
    Affine,
    Clamp,
    Dense,
    Graph,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    SumPool,
    Surrogate,
    TensorSpec,
    Threshold,
    infer_node,
)
from bnnmcu.passes import lower

torch = pytest.importorskip("torch", reason="the twin needs torch")

from bnnmcu.attack.config import Estimator, FgsmConfig  # noqa: E402
from bnnmcu.attack.fgsm import fgsm  # noqa: E402
from bnnmcu.attack.twin import IntegerTwin  # noqa: E402

ESTIMATORS: tuple[Estimator, ...] = ("identity", "clipped", "tanh")


def _as_input(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32) / np.float32(255))


def _steps_of_one_pixel(graph: Graph, image: np.ndarray) -> np.ndarray:
    """How the first logit changes with each pixel, downwards and upwards: shape (2, H, W, C)."""
    size = image.size
    each = np.eye(size, dtype=np.int64).reshape(size, *image.shape)
    around = np.stack([image - each, np.broadcast_to(image, each.shape), image + each])
    flat = around.reshape(-1, *image.shape)
    assert flat.min() >= 0
    assert flat.max() <= 255
    logits = reference.run(graph, flat.astype(np.uint8))[:, 0, 0].reshape(3, size)
    return np.diff(logits, axis=0).reshape(2, *image.shape)


def _gradient(graph: Graph, image: np.ndarray) -> np.ndarray:
    """Of the first logit, by pixel levels."""
    x = _as_input(image[np.newaxis]).double().requires_grad_()
    (gradient,) = torch.autograd.grad(IntegerTwin(graph).integer_logits(x)[0, 0, 0], x)
    return np.asarray(gradient[0].numpy() / 255)


def _weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(-100, 101, shape).astype(np.int16)


def _vector(rng: np.random.Generator, channels: int = 4) -> np.ndarray:
    return rng.choice([-7, -3, 2, 5], channels).astype(np.int32)


PAD = (1, 0, 2, 1)
BODIES: dict[str, Callable[[np.random.Generator], tuple[Node, ...]]] = {
    "grouped": lambda r: (IntegerConv("b", "a", _weights(r, 6, 2, 3, 2), groups=2),),
    "depthwise": lambda r: (IntegerConv("b", "a", _weights(r, 8, 3, 1, 1), (2, 1), PAD, groups=4),),
    "dilated": lambda r: (IntegerConv("b", "a", _weights(r, 3, 3, 2, 4), (1, 2), PAD, (2, 3)),),
    "far padding": lambda r: (
        IntegerConv("b", "a", _weights(r, 2, 1, 1, 4), (3, 1), (5, 0, 1, 9)),
    ),
    "sum pool": lambda r: (SumPool("b", "a", (3, 2), (2, 1), PAD),),
    "affine": lambda r: (Affine("b", "a", _vector(r), _vector(r).astype(np.int64)),),
    "branch": lambda r: (
        Affine("left", "a", _vector(r), np.zeros(4, np.int64)),
        IntegerConv("right", "a", _weights(r, 4, 1, 1, 4)),
        Add("b", "left", "right"),
    ),
    "twice": lambda r: (Add("b", "a", "a"),),
    "relu": lambda r: (Relu("b", "a"),),
    "clamp": lambda r: (Clamp("b", "a", -3000, 2000),),
    "kink": lambda r: (Affine("b", "a", _vector(r), _vector(r).astype(np.int64), 0, _vector(r)),),
    "max pool": lambda r: (MaxPool("b", "a", (3, 2), (2, 1), PAD),),
    "min pool": lambda r: (
        MaxPool("b", "a", (2, 2), (1, 2), (1, 1, 1, 1), (2, 1), np.array([0, 1, 1, 0], np.uint8)),
    ),
}
LINEAR = ("grouped", "depthwise", "dilated", "far padding", "sum pool", "affine", "branch", "twice")


@pytest.mark.parametrize("kind", BODIES)
def test_gradient_is_the_change_of_one_level(kind: str) -> None:
    """Exactly so for what is linear; elsewhere where a level up and one down do the same."""
    rng = np.random.default_rng(5)
    fill = np.array([30, 200], np.uint8)
    first = IntegerConv("a", INPUT, _weights(rng, 4, 2, 2, 2), (1, 1), PAD, bits=14, fill=fill)
    nodes: tuple[Node, ...] = (first, *BODIES[kind](rng))
    graph = _with_dense(nodes, (5, 6, 2), rng)
    image = rng.integers(1, 255, (5, 6, 2))
    down, up = _steps_of_one_pixel(graph, image)
    smooth = down == up
    assert smooth.all() if kind in LINEAR else smooth.mean() > 0.5
    assert np.abs(down[smooth]).max() > 0
    np.testing.assert_array_equal(_gradient(graph, image)[smooth], down[smooth])


def _with_dense(
    nodes: tuple[Node, ...], shape: tuple[int, int, int], rng: np.random.Generator
) -> Graph:
    """A graph of nodes and a random dense layer with a bias."""
    specs = {INPUT: TensorSpec(shape, "u8", 0, 255)}
    for node in nodes:
        specs[node.name] = infer_node(node, specs)
    bias = rng.integers(-9, 10, 3)
    dense = Dense("dense", nodes[-1].name, _weights(rng, 3, specs[nodes[-1].name].size), bias)
    return Graph("g", shape, (*nodes, dense))


def test_shifts_pass_the_gradient_of_the_quotient() -> None:
    mul, neg = np.array([3, -5], np.int32), np.array([7, 11], np.int32)
    nodes = (
        IntegerConv("conv", INPUT, np.array([2, -1], np.int16).reshape(2, 1, 1, 1), bits=8),
        Affine("scale", "conv", mul, np.array([1, 2], np.int64), 4, neg),
        Dense("dense", "scale", np.array([[100, 1000]], np.int16)),
    )
    # The second channel is below zero: its factor is neg.
    wanted = 100 * 3 / 16 * 2 + 1000 * 11 / 16 * -1
    given = _gradient(Graph("shift", (1, 1, 1), nodes), np.array([[[9]]]))
    np.testing.assert_allclose(given, wanted)


@pytest.mark.parametrize("minimum", [False, True])
def test_pooled_bits_send_the_gradient_to_the_largest_value(minimum: bool) -> None:
    """Among equal bits to the one whose float value is largest, as sign(max_pool(y)) would."""
    slope, offset = np.array([-0.5 if minimum else 0.5]), np.array([0.25])
    sign = Threshold(
        "sign",
        "conv",
        np.zeros(1, np.int32),
        np.array([LE if minimum else GE], np.uint8),
        Surrogate(slope, offset, False),
    )
    pool = MaxPool("pool", "sign", (1, 3), (1, 3), minimum=np.array([minimum], np.uint8))
    nodes = (
        IntegerConv("conv", INPUT, np.ones((1, 1, 1, 1), np.int16), bits=2),
        sign,
        pool,
        Dense("dense", "pool", np.array([[1, 10]], np.int16)),
    )
    graph = Graph("ties", (1, 6, 1), nodes)
    image = np.array([4, 9, 7, 8, 2, 3]).reshape(1, 6, 1)
    x = _as_input(image[np.newaxis]).requires_grad_()
    twin = IntegerTwin(graph, "identity")
    logits = twin.integer_logits(x)
    assert (
        logits.detach().numpy().tolist()
        == reference.run(graph, image[None].astype(np.uint8)).tolist()
    )
    (gradient,) = torch.autograd.grad(logits[0, 0, 0], x)
    expected = np.zeros(6)
    # Of y: the largest where the bit is that of the maximum, the smallest where of the minimum.
    expected[[1, 3]] = slope[0] * np.array([1, 10])
    np.testing.assert_allclose(gradient.flatten().numpy() / 255, expected)


def test_thresholds_on_pixels() -> None:
    """sign(p / 255 - 0.5): the surrogate's slope, by the pixel's level."""
    surrogate = Surrogate(np.array([1 / 255]), np.array([-0.5]), False)
    sign = Threshold("sign", INPUT, np.array([128], np.int32), np.array([GE], np.uint8), surrogate)
    graph = Graph("p", (1, 3, 1), (sign, Dense("dense", "sign", np.array([[1, 2, 4]], np.int16))))
    image = np.array([127, 128, 3]).reshape(1, 3, 1)
    assert reference.run(graph, image[None].astype(np.uint8)).item() == -1 + 2 - 4
    x = _as_input(image[np.newaxis]).requires_grad_()
    for estimator in ESTIMATORS:
        logits = IntegerTwin(graph, estimator).integer_logits(x)
        assert logits.item() == -3
        (gradient,) = torch.autograd.grad(logits.sum(), x)
        y = image.reshape(-1) / 255 - 0.5
        factor = {"identity": y * 0 + 1, "clipped": y * 0 + 1, "tanh": 1 - np.tanh(y) ** 2}
        wanted = factor[estimator] * np.array([1, 2, 4])
        np.testing.assert_allclose(gradient.flatten().numpy(), wanted, rtol=1e-5)


def test_one_class_cannot_be_attacked() -> None:
    graph = Graph("one", (1, 1, 1), (Dense("dense", INPUT, np.ones((1, 1), np.int16)),))
    image = np.zeros((1, 1, 1, 1), np.uint8)
    with pytest.raises(UsageError, match="one class"):
        fgsm(
            IntegerTwin(graph),
            image,
            np.zeros(1, np.int64),
            attack=FgsmConfig(epsilon=0.1),
            seed=1,
        )


class _Sign(torch.autograd.Function):
    """sign with the straight-through estimator."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return gradient


def test_gradient_of_a_residual_network_is_that_of_torch() -> None:
    """Compiled from floats: a stream beside signs, pooled sums, a ReLU, and a mean at the end."""
    rng = np.random.default_rng(11)
    stem = np.clip(rng.normal(size=(5, 2, 3, 3)), -2, 2)
    second, third = (rng.choice([-1.0, 1.0], shape) for shape in ((5, 5, 3, 3), (7, 5, 2, 2)))
    lines = {
        name: (rng.choice([-0.6, 0.8], size) * rng.random(size), rng.normal(size=size) / 3)
        for name, size in (("n1", 5), ("n0", 5), ("n2", 5), ("n3", 5), ("n4", 7))
    }
    dense = rng.normal(size=(4, 7))

    def line(name: str, source: str) -> floats.Affine:
        return floats.Affine(name, source, *lines[name])

    ops = (
        floats.Conv("stem", "input", stem, padding=(1, 1, 1, 1)),
        line("n1", "stem"),
        floats.Sign("s1", "n1"),
        floats.Conv("second", "s1", second, padding=(1, 1, 1, 1)),
        line("n2", "second"),
        line("n0", "stem"),
        floats.Add("stream", "n2", "n0"),
        floats.MaxPool("pool", "stream", (2, 2), (2, 2)),
        line("n3", "pool"),
        floats.Sign("s2", "n3"),
        floats.Conv("third", "s2", third),
        line("n4", "third"),
        floats.Clamp("relu", "n4", 0.0, np.inf),
        floats.AvgPool("mean", "relu", (2, 2), (2, 2)),
        floats.Flatten("flat", "mean"),
        floats.Linear("fc", "flat", dense),
    )
    network = floats.Network("res", (2, 6, 6), ops, np.full(2, 1 / 255), np.zeros(2))
    lowering = lower(network)

    def of(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(array, dtype=np.float64))

    def bent(name: str, x: torch.Tensor) -> torch.Tensor:
        scale, offset = (of(values).view(-1, 1, 1) for values in lines[name])
        return scale * x + offset

    def model(x: torch.Tensor) -> torch.Tensor:
        conv = torch.nn.functional.conv2d
        first = conv(x, of(stem), padding=1)
        signs = _Sign.apply(bent("n1", first))
        stream = bent("n2", conv(signs, of(second), padding=1)) + bent("n0", first)
        pooled = torch.nn.functional.max_pool2d(stream, 2)
        last = torch.relu(bent("n4", conv(_Sign.apply(bent("n3", pooled)), of(third))))
        return last.mean((2, 3)) @ of(dense).T

    kinds = {type(node).__name__ for node in lowering.graph.nodes}
    assert {"Add", "Affine", "MaxPool", "Threshold"} <= kinds
    images = rng.integers(0, 256, (6, 6, 6, 2))
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    x = (of(images) / 255).requires_grad_()
    wanted_logits = model(x.permute(0, 3, 1, 2))
    (wanted,) = torch.autograd.grad((wanted_logits @ weights).sum(), x)
    y = _as_input(images).requires_grad_()
    logits = IntegerTwin(lowering.graph, "identity")(y)[0]
    (given,) = torch.autograd.grad((logits @ weights).sum(), y)
    spread = float(wanted_logits.detach().max() - wanted_logits.detach().min())
    assert float((logits - wanted_logits).detach().abs().max()) < 1e-3 * spread
    scale = float(wanted.abs().max())
    assert scale > 0
    np.testing.assert_allclose(given.numpy() / scale, wanted.numpy() / scale, atol=2e-3)
