"""The networks that are counted: the shipped ones, and two with random weights from a seed.

The number of instructions does not depend on what the weights are, the length of
the class lists hardly does: random weights spread over the classes as trained
ones do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bnnmcu.compiler import to_graph
from bnnmcu.data import Dataset, load_digits, noise
from bnnmcu.graph import BinaryConv, Dense, Graph, IntegerConv, Relu, SumPool, Threshold
from bnnmcu.lfsr import RandomWords
from bnnmcu.modelfile import read_model

__all__ = ["images", "network"]

MODELS = Path(__file__).resolve().parent.parent / "examples" / "models"
SEED = 1


class _Random:
    """Numbers from the project's own generator: the same on every machine, for good."""

    def __init__(self, seed: int) -> None:
        self._words = RandomWords("xorshift128", [seed])

    def bits(self, *shape: int) -> npt.NDArray[np.uint8]:
        """0 and 1, uint8."""
        size = int(np.prod(shape))
        words = self._words.words(-(-size // 32))[:, 0].astype("<u4")
        return np.unpackbits(words.view(np.uint8), bitorder="little")[:size].reshape(shape)

    def integers(self, most: int, *shape: int) -> npt.NDArray[np.int32]:
        """-most to most, int32."""
        words = self._words.words(int(np.prod(shape)))[:, 0].astype(np.int64)
        return (words % (2 * most + 1) - most).astype(np.int32).reshape(shape)

    def sign(self, name: str, source: str, channels: int, most: int) -> Threshold:
        """Thresholds within -most to most, half of them in each direction."""
        return Threshold(name, source, self.integers(most, channels), self.bits(channels))


def paper(k: int) -> Graph:
    """The paper's network of width k, with random weights."""
    random = _Random(SEED)
    weights = random.integers(8191, k, 8, 8, 1).astype(np.int16)
    return Graph(
        f"B{k}-random",
        (28, 28, 1),
        (
            IntegerConv("conv1", "input", weights, (2, 2), (3, 3, 3, 3)),
            random.sign("sign2", "conv1", k, 100_000),
            BinaryConv("conv2", "sign2", random.bits(2 * k, 6, 6, k), (2, 2)),
            random.sign("sign3", "conv2", 2 * k, 30),
            BinaryConv("conv3", "sign3", random.bits(2 * k, 5, 5, 2 * k)),
            Relu("relu3", "conv3"),
            Dense("dense", "relu3", random.integers(32767, 10, 2 * k).astype(np.int16)),
        ),
    )


def padded() -> Graph:
    """A 3x3 binary layer, 64 to 64 channels, on 16x16 positions, padded with zeros."""
    random = _Random(SEED)
    weights = random.integers(127, 64, 1, 1, 1).astype(np.int16)
    return Graph(
        "padded-random",
        (16, 16, 1),
        (
            IntegerConv("input_bits", "input", weights),
            random.sign("sign1", "input_bits", 64, 10_000),
            BinaryConv("conv", "sign1", random.bits(64, 3, 3, 64), padding=(1, 1, 1, 1)),
            random.sign("sign2", "conv", 64, 30),
            SumPool("pool", "sign2", (16, 16), (16, 16)),
            Dense("dense", "pool", random.integers(127, 2, 64).astype(np.int16)),
        ),
    )


def network(name: str) -> Graph:
    """A network by its name in targets.json."""
    if name == "b128-random":
        return paper(128)
    if name == "padded-random":
        return padded()
    return to_graph(read_model(MODELS / f"{name}.pt"))


def images(graph: Graph, count: int) -> Dataset:
    """Digits where the network takes them, else noise."""
    if graph.input_shape == (28, 28, 1):
        return load_digits().stratified(count)
    return noise(graph.input_shape, count)
