"""Random torch modules, traced and compiled: labels agree with torch, or a float tie says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bnnmcu import reference
from bnnmcu.network import MaxPool, Network, Sign, execute
from bnnmcu.passes import lower

torch = pytest.importorskip("torch", reason="torch is not installed")

from random_networks import random_network  # noqa: E402
from torch_networks import to_module  # noqa: E402

import bnnmcu  # noqa: E402

_MODULES = 24
_IMAGES = 40
#: float32 sums of this many terms are off by less than this share of the largest value.
_FLOAT32 = 2e-5
#: int16 weights of the last layer.
_LOGITS = 2e-4


def _images(network: Network, seed: int) -> npt.NDArray[np.uint8]:
    channels, height, width = network.input_shape
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (_IMAGES, height, width, channels), dtype=np.uint8)


def _signs_on_the_edge(network: Network, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Images for which some sign is taken of a value that float32 cannot tell from zero."""
    values: dict[str, Any] = {}
    edge = []
    for image in images:
        execute.run(network, image[np.newaxis], on_value=lambda k, v: values.__setitem__(k, v))
        close = False
        for op in network.ops:
            if isinstance(op, Sign):
                value = values[op.source]
                close |= bool(np.abs(value).min() <= _FLOAT32 * np.abs(value).max())
        edge.append(close)
    return np.array(edge)


@pytest.mark.parametrize("seed", range(_MODULES))
def test_labels_agree_or_a_tie_explains_it(seed: int) -> None:
    network = random_network(1000 + seed, exact=True, symmetric=True)
    module = to_module(network, seed)
    channels, height, width = network.input_shape
    mean = float(-network.input_offset[0] / network.input_scale[0] / 255)
    std = float(1 / 255 / network.input_scale[0])
    example = torch.zeros(1, channels, height, width)
    traced = bnnmcu.trace(module, example, name=network.name, mean=mean, std=std)
    assert sum(isinstance(op, Sign) for op in traced.ops) == sum(
        isinstance(op, Sign) for op in network.ops
    )
    assert sum(isinstance(op, MaxPool) for op in traced.ops) == sum(
        isinstance(op, MaxPool) for op in network.ops
    )
    images = _images(network, seed)
    lowering = lower(traced)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        floats = module((pixels / 255 - mean) / std).numpy()
    integers = reference.run(lowering.graph, images)[:, 0] * lowering.graph.logit_scale
    differ = floats.argmax(axis=1) != integers.argmax(axis=1)
    ordered = np.sort(floats, axis=1)
    near = ordered[:, -1] - ordered[:, -2] <= _LOGITS * np.abs(floats).max()
    edge = _signs_on_the_edge(traced, images)
    unexplained = differ & ~near & ~edge
    assert not unexplained.any(), np.flatnonzero(unexplained)
    # Without an edge even the logits agree, to the width of the last layer's weights.
    plain = ~edge
    error = np.abs(floats - integers)[plain]
    assert error.size == 0 or error.max() <= _LOGITS * np.abs(floats).max() + 1e-6
