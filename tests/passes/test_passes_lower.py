"""Float networks and their integer graphs, over random networks of all operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from random_networks import random_network

from bnnmcu import reference
from bnnmcu.graph import infer
from bnnmcu.network import Decide, Network, execute
from bnnmcu.passes import PASSES, Lowering, Quantization, lower

_NETWORKS = 60
_IMAGES = 6
Array = npt.NDArray[Any]


def _images(network: Network, seed: int) -> npt.NDArray[np.uint8]:
    channels, height, width = network.input_shape
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (_IMAGES, height, width, channels), dtype=np.uint8)
    images[0] = 0
    images[1] = 255
    return images


def _float_values(network: Network, images: Array) -> dict[str, Array]:
    values: dict[str, Array] = {}
    execute.run(network, images, on_value=lambda k, v: values.__setitem__(k, v))
    return values


def _graph_values(lowering: Lowering, images: Array) -> dict[str, Array]:
    values: dict[str, Array] = {}
    kinds = infer(lowering.graph)

    def keep(name: str, value: Array) -> None:
        values[name] = 2 * value.astype(np.int64) - 1 if kinds[name].kind == "bit" else value

    reference.run(lowering.graph, images, on_value=keep)
    return values


def _differences(lowering: Lowering, images: Array) -> list[tuple[str, float, float]]:
    """For each tap: its operation, the largest error, and the largest float value.

    For signs the error is the largest float value whose bit is the other one.
    """
    floats, integers = _float_values(lowering.network, images), _graph_values(lowering, images)
    specs = infer(lowering.graph)
    by_name = {op.name: op for op in lowering.network.ops}
    found = []
    for tap in lowering.taps:
        got = integers[tap.node].reshape(len(images), *specs[tap.node].shape)
        expected = tap.arranged(floats[tap.op], specs[tap.node].shape)
        if tap.scale is None:
            wrong = expected != got
            source = floats[by_name[tap.op].source]
            error = float(wrong.any())
            if source.size == expected.size * source.shape[1] // len(tap.channels):
                blamed = tap.arranged(source, specs[tap.node].shape)
                error = float(np.abs(blamed[wrong]).max(initial=0.0))
            found.append((tap.op, error, float(np.abs(source).max())))
        else:
            error = np.abs(tap.scale * got + tap.offset - expected)
            found.append((tap.op, float(error.max()), float(np.abs(expected).max())))
    return found


@pytest.mark.parametrize("seed", range(_NETWORKS))
def test_exact_networks_have_the_same_bits(seed: int) -> None:
    network = random_network(seed, exact=True)
    lowering = lower(network)
    images = _images(network, seed)
    # The reference point is float64, whose own rounding moves a value by this much at most.
    for name, error, reach in _differences(lowering, images):
        assert error <= 1e-9 * max(reach, 1.0) or name == lowering.taps[-1].op, name
    logits = execute.run(network, images)
    integers = reference.run(lowering.graph, images)[:, 0]
    largest = np.abs(logits).max()
    assert np.abs(integers * lowering.graph.logit_scale - logits).max() <= 1e-4 * largest + 1e-9


@pytest.mark.parametrize("seed", range(_NETWORKS))
def test_any_network_is_close(seed: int) -> None:
    network = random_network(seed, exact=False)
    lowering = lower(network)
    images = _images(network, seed)
    floats, integers = _float_values(network, images), _graph_values(lowering, images)
    specs, flipped = infer(lowering.graph), False
    for tap in lowering.taps:
        got = integers[tap.node].reshape(len(images), *specs[tap.node].shape)
        expected = tap.arranged(floats[tap.op], specs[tap.node].shape)
        if tap.scale is None:
            flipped = flipped or bool((expected != got).any())
        elif not flipped:
            # Before the first bit that fell on the other side, only rounding differs.
            reach = max(float(np.abs(expected).max()), 1e-3)
            assert np.abs(tap.scale * got + tap.offset - expected).max() < 2e-3 * reach, tap.op


def test_what_the_random_networks_cover() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(_NETWORKS):
        for exact in (False, True):
            network = random_network(seed, exact=exact)
            lowering = lower(network)
            kinds.update(type(op).__name__ for op in network.ops)
            kinds.update(f"graph {type(node).__name__}" for node in lowering.graph.nodes)
            kinds.update(s.name for s in lowering.snapshots if s.changes)
    missing = {
        *("Conv", "Linear", "Affine", "Sign", "Clamp", "PRelu", "MaxPool", "AvgPool"),
        *("Add", "Flatten", "Pad"),
        *(f"graph {n}" for n in ("IntegerConv", "BinaryConv", "Threshold", "Affine", "Clamp")),
        *(f"graph {n}" for n in ("Add", "MaxPool", "SumPool", "Dense", "Relu")),
        *(name for name in PASSES if name != "read"),
    } - kinds.keys()
    assert not missing


@pytest.mark.parametrize("seed", range(0, _NETWORKS, 2))
@pytest.mark.parametrize("exact", [False, True])
def test_passes_on_floats_change_nothing(seed: int, exact: bool) -> None:
    network = random_network(seed, exact=exact)
    images = _images(network, seed)
    expected = execute.run(network, images)
    for snapshot in lower(network).snapshots:
        if snapshot.network is not None:
            # Merged factors round differently; a sign on the edge may fall either way.
            logits = execute.run(snapshot.network, images)
            agree = np.isclose(logits, expected, rtol=1e-6, atol=1e-6).all(axis=1)
            assert agree.mean() >= 0.8, snapshot.name
    decided = lower(network).after("fold-signs").network
    assert decided is not None
    assert any(isinstance(op, Decide) for op in decided.ops)


@pytest.mark.parametrize("seed", range(_NETWORKS))
def test_passes_on_integers_change_no_logit(seed: int) -> None:
    network = random_network(seed, exact=seed % 2 == 0)
    images = _images(network, seed)
    graphs = [s.graph for s in lower(network).snapshots if s.graph is not None]
    assert len(graphs) == 3
    expected = reference.run(graphs[0], images)
    for graph in graphs[1:]:
        assert np.array_equal(reference.run(graph, images), expected)
    assert len(lower(network, Quantization(dead_channels=False)).snapshots) == len(PASSES) - 1
