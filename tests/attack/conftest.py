"""Small networks and data for the attack tests: random graphs, and two that were trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bnnmcu.data import Dataset
from bnnmcu.graph import (
    INPUT,
    BinaryConv,
    Dense,
    Graph,
    IntegerConv,
    Node,
    Relu,
    StochasticConv,
    Surrogate,
    Threshold,
    infer,
)

GraphMaker = Callable[..., Graph]


def _threshold(rng: np.random.Generator, name: str, source: str, channels: int) -> Threshold:
    slope = rng.normal(size=channels) + 0.01
    offset = rng.normal(size=channels)
    return Threshold(
        name,
        source,
        rng.integers(-9, 10, channels).astype(np.int32),
        # All four kinds, constants now and then.
        rng.choice(4, channels, p=[0.4, 0.4, 0.1, 0.1]).astype(np.uint8),
        Surrogate(slope, offset, bool(rng.integers(2))),
    )


@pytest.fixture(scope="session")
def random_graph() -> GraphMaker:
    """A random network: ``kinds`` of hidden layers ("b" binary, "s" stochastic), padded or not."""

    def make(
        seed: int,
        shape: tuple[int, int, int] = (9, 8, 1),
        kinds: str = "bs",
        *,
        padded: bool = True,
        bits: int = 8,
        channels: int = 5,
    ) -> Graph:
        rng = np.random.default_rng(seed)
        limit = (1 << (bits - 1)) - 1
        first = rng.integers(-limit, limit + 1, (channels, 3, 2, shape[2])).astype(np.int16)
        padding = (1, 0, 2, 1) if padded else (0, 0, 0, 0)
        nodes: list[Node] = [IntegerConv("conv0", INPUT, first, (1, 2), padding, bits=bits)]
        for index, kind in enumerate(kinds, 1):
            inputs = nodes[-1].weights.shape[0]  # type: ignore[attr-defined]
            nodes.append(_threshold(rng, f"sign{index}", nodes[-1].name, inputs))
            size = (channels + index, 2, 3 if index == 1 else 1, inputs)
            around = (1, 2, 0, 1) if padded and index == 1 else (0, 0, 0, 0)
            if kind == "s":
                level = rng.integers(0, 16, size).astype(np.uint8)
                nodes.append(StochasticConv(f"conv{index}", nodes[-1].name, level, (1, 1), around))
            else:
                sign = rng.integers(0, 2, size).astype(np.uint8)
                nodes.append(BinaryConv(f"conv{index}", nodes[-1].name, sign, (2, 1), around))
        nodes.append(Relu("relu", nodes[-1].name))
        spec = infer(
            Graph(
                "part",
                shape,
                (*nodes, Dense("end", nodes[0].name, _end(nodes[0], shape))),
            )
        )["relu"]
        dense = rng.integers(-32_000, 32_000, (6, spec.size)).astype(np.int16)
        nodes.append(Dense("dense", "relu", dense))
        return Graph(f"R{seed}", shape, tuple(nodes), logit_scale=1e-5)

    return make


def _end(
    conv: Node, shape: tuple[int, int, int]
) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """Any dense layer: a graph must end in one before its shapes can be inferred."""
    rows, cols, outputs = conv.output_shape(shape)  # type: ignore[attr-defined]
    return np.ones((1, rows * cols * outputs), dtype=np.int16)


def blobs(count: int, seed: int) -> Dataset:
    """Ten classes, each a fixed rough pattern under noise: easy, but not trivially so."""
    patterns = np.random.default_rng(0).integers(0, 2, (10, 7, 7)).repeat(4, 1).repeat(4, 2)
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 10
    values = 40 + 175 * patterns[labels] + rng.normal(0, 40, (count, 28, 28))
    images = np.clip(values, 0, 255).astype(np.uint8)[..., np.newaxis]
    return Dataset("blobs", images, labels)


@pytest.fixture(scope="session")
def trained_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """B8 and S8 trained on blobs, as model files."""
    pytest.importorskip("torch", reason="training needs torch")
    from bnnmcu.nn.config import PaperConfig
    from bnnmcu.nn.training import TrainingConfig, save_net, train

    files = {}
    for kind in ("B", "S"):
        # Small stochastic networks learn only with a high rate.
        net = train(
            PaperConfig(kind, 8, bn_momentum=0.1),
            TrainingConfig(epochs=6, learning_rate=2e-2, batch_size=50, seed=5),
            blobs(1000, 1),
        )
        files[kind] = tmp_path_factory.mktemp("models") / f"{kind}8.pt"
        save_net(files[kind], net)
    return files


@pytest.fixture(scope="session")
def trained(trained_files: dict[str, Path]) -> dict[str, Graph]:
    """B8 and S8 trained on blobs, as integer graphs."""
    from bnnmcu.compiler import compile_file

    return {kind: compile_file(path).graph for kind, path in trained_files.items()}


@pytest.fixture(scope="session")
def blob_data() -> Dataset:
    """Forty images that training has not seen."""
    return blobs(40, 2)
