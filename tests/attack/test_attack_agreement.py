"""The integer network against the float one: nothing invented, nothing missed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnnmcu.agreement import Agreement, Case, LayerAgreement, agreement
from bnnmcu.attack.config import FgsmConfig, PgdConfig
from bnnmcu.compiler import compile_file
from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, UnsupportedModelError
from bnnmcu.graph import ALWAYS, GE, LE, Threshold
from bnnmcu.network import (
    Affine,
    Clamp,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Network,
    Op,
    Sign,
    execute,
)
from bnnmcu.passes import Lowering, Quantization, lower

SHAPE = (2, 6, 5)


def _network(*ops: Op, shape: tuple[int, int, int] = SHAPE) -> Network:
    channels = shape[0]
    return Network("net", shape, ops, np.full(channels, 1 / 255), np.zeros(channels))


def _exact(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """First-layer weights that 14 bits hold exactly, whatever the filter's scale."""
    weights = rng.integers(-8191, 8192, shape) / 8192.0
    weights.reshape(len(weights), -1)[:, 0] = 8191 / 8192.0
    return weights


def _dense(rng: np.random.Generator, *shape: int) -> np.ndarray:
    weights = rng.integers(-32_767, 32_768, shape) / 32_768.0
    weights.reshape(-1)[0] = 32_767 / 32_768.0
    return weights


def _signs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape)


def _norm(rng: np.random.Generator, name: str, source: str, channels: int) -> Affine:
    # Offsets off any sum: a tie would be decided by the last bit of a float.
    return Affine(name, source, rng.choice([-0.7, 0.9], channels), rng.normal(size=channels))


def _pooled(rng: np.random.Generator, *, drawn: bool = False) -> Network:
    """Convolution, pool, batch norm, sign, binary or drawn convolution, ReLU, dense."""
    hidden = rng.random((6, 5, 2, 2)) if drawn else _signs(rng, 6, 5, 2, 2)
    return _network(
        Conv("features.0", "input", _exact(rng, 5, 2, 3, 2), padding=(1, 0, 1, 1)),
        MaxPool("features.1", "features.0", (2, 2), (1, 1)),
        _norm(rng, "features.2", "features.1", 5),
        Sign("features.3", "features.2"),
        Conv("features.4", "features.3", hidden, padding=(0, 1, 1, 0), drawn=drawn),
        Clamp("relu", "features.4", 0.0, np.inf),
        Flatten("flat", "relu"),
        Linear("fc", "flat", _dense(rng, 4, 6 * 5 * 4)),
    )


def _mlp(rng: np.random.Generator) -> Network:
    """Everything flattened from the first layer on; some bits never change."""
    offset = rng.normal(size=9)
    offset[[2, 5]] = 1e6, -1e6
    return _network(
        Flatten("flat", "input"),
        Linear("fc1", "flat", _exact(rng, 9, 60)),
        Affine("bn1", "fc1", rng.choice([-0.7, 0.9], 9), offset),
        Sign("sign1", "bn1"),
        Linear("fc2", "sign1", _signs(rng, 7, 9)),
        _norm(rng, "bn2", "fc2", 7),
        Sign("sign2", "bn2"),
        Linear("fc3", "sign2", _dense(rng, 3, 7)),
    )


def _flattened_signs(rng: np.random.Generator) -> Network:
    """Signs of flattened maps, which the graph has as maps."""
    return _network(
        Conv("conv", "input", _exact(rng, 4, 2, 3, 3)),
        Flatten("flat", "conv"),
        Affine("bn", "flat", np.repeat(rng.choice([-0.7, 0.9], 4), 12), np.full(48, 0.3)),
        Sign("sign", "bn"),
        Linear("fc", "sign", _dense(rng, 5, 48)),
    )


NETWORKS = {
    "pooled": _pooled,
    "drawn": lambda rng: _pooled(rng, drawn=True),
    "mlp": _mlp,
    "flattened signs": _flattened_signs,
}


def _data(lowering: Lowering, count: int = 40) -> Dataset:
    rng = np.random.default_rng(3)
    graph = lowering.graph
    images = rng.integers(0, 256, (count, *graph.input_shape)).astype(np.uint8)
    return Dataset("noise", images, rng.integers(0, graph.classes, count))


def _layer(case: Case, name: str) -> LayerAgreement:
    return next(layer for layer in case.layers if layer.layer == name)


@pytest.mark.parametrize("dead_channels", [True, False])
@pytest.mark.parametrize("kind", NETWORKS)
def test_exact_weights_agree_in_everything(kind: str, dead_channels: bool) -> None:
    """No rounding was needed, so any difference would be one of the comparison itself."""
    network = NETWORKS[kind](np.random.default_rng(7))
    lowering = lower(network, Quantization(dead_channels=dead_channels))
    result = agreement(lowering, _data(lowering), draws=3)
    assert result.draws == (3 if kind == "drawn" else 1)
    (case,) = result.cases
    assert case.attack == "clean"
    assert case.answers == 40 * result.draws
    assert case.same_label == 1.0
    assert case.decided_by == 0.0
    assert case.float_error == case.integer_error
    assert case.spread > 0
    assert case.largest_change < 1e-6
    signs = [layer for layer in case.layers if layer.kind == "signs"]
    values = [layer for layer in case.layers if layer.kind == "values"]
    assert {layer.layer for layer in signs} == {
        op.name for op in network.ops if isinstance(op, Sign)
    }
    assert all(layer.differing == 0.0 for layer in signs)
    assert network.ops[-1].name in {layer.layer for layer in values}
    assert all(layer.rms is not None and layer.rms < 1e-6 for layer in values)


def test_removed_channels_are_left_out() -> None:
    network = _mlp(np.random.default_rng(7))
    counts = {}
    for dead_channels in (True, False):
        lowering = lower(network, Quantization(dead_channels=dead_channels))
        (case,) = agreement(lowering, _data(lowering)).cases
        counts[dead_channels] = _layer(case, "sign1").compared
    assert counts == {True: 40 * 7, False: 40 * 9}


def test_a_wrong_threshold_is_seen_where_it_is() -> None:
    """A channel stuck at +1 differs just where the float network gives -1."""
    network = _flattened_signs(np.random.default_rng(7))
    lowering = lower(network)
    data = _data(lowering)
    stuck = []
    for node in lowering.graph.nodes:
        if isinstance(node, Threshold):
            kind = node.kind.copy()
            assert kind[1] in (GE, LE)
            kind[1] = ALWAYS
            node = replace(node, kind=kind)
        stuck.append(node)
    wrong = replace(lowering, graph=replace(lowering.graph, nodes=tuple(stuck)))
    seen: list[np.ndarray] = []
    execute.run(
        network, data.images, on_value=lambda name, v: seen.append(v) if name == "sign" else None
    )
    signs = np.concatenate(seen).reshape(40, 4, 12)
    (case,) = agreement(wrong, data).cases
    assert _layer(case, "sign").differing == (signs[:, 1] < 0).sum() / signs.size
    assert _layer(case, "conv").rms < 1e-6  # type: ignore[operator]
    assert case.largest_change > 0.01


def test_logits_are_measured_by_their_spread() -> None:
    """Logits twice as large change by themselves; labels stay."""
    lowering = lower(_pooled(np.random.default_rng(1)))
    data = _data(lowering)
    graph = lowering.graph
    doubled = replace(lowering, graph=replace(graph, logit_scale=2 * graph.logit_scale))
    logits = execute.run(lowering.network, data.images)
    spread = np.ptp(logits, axis=1).mean()
    (case,) = agreement(doubled, data).cases
    assert case.same_label == 1.0
    np.testing.assert_allclose(case.spread, spread)
    np.testing.assert_allclose(case.mean_change, np.abs(logits).mean() / spread, rtol=1e-5)
    np.testing.assert_allclose(case.largest_change, np.abs(logits).max() / spread, rtol=1e-5)


def test_lost_labels_are_told_with_their_lead() -> None:
    """The integer network's classes in reverse order."""
    lowering = lower(_pooled(np.random.default_rng(1)))
    data = _data(lowering)
    dense = lowering.graph.nodes[-1]
    reverse = replace(dense, weights=dense.weights[::-1])  # type: ignore[attr-defined]
    nodes = (*lowering.graph.nodes[:-1], reverse)
    (case,) = agreement(replace(lowering, graph=replace(lowering.graph, nodes=nodes)), data).cases
    logits = execute.run(lowering.network, data.images)
    label, other = logits.argmax(axis=1), 3 - logits.argmax(axis=1)
    assert case.same_label == 0.0
    assert case.float_error == (label != data.labels).mean()
    assert case.integer_error == (other != data.labels).mean()
    lead = logits[np.arange(40), label] - logits[np.arange(40), other]
    np.testing.assert_allclose(case.decided_by, lead.max() / case.spread)


def test_draws_are_the_same_on_both_sides() -> None:
    """Another seed gives other float logits, and the integer ones follow."""
    lowering = lower(_pooled(np.random.default_rng(1), drawn=True))
    data = _data(lowering)
    spreads = set()
    for seed in (1, 2, 3):
        (case,) = agreement(lowering, data, draws=2, seed=seed).cases
        assert case.largest_change < 1e-6
        spreads.add(case.spread)
    assert len(spreads) == 3


def test_drawn_layers_that_nothing_reads() -> None:
    """They are not in the graph, and their weights make no difference."""
    network = _pooled(np.random.default_rng(1), drawn=True)
    weights = np.full((3, 5, 1, 1), 0.5)
    unread = Conv("unread", "features.3", weights, drawn=True)
    ops = (*network.ops[:4], unread, *network.ops[4:])
    lowering = lower(_network(*ops))
    assert len(lowering.graph.stochastic) == 1
    plain = lower(network)
    data = _data(plain)
    assert agreement(lowering, data).cases == agreement(plain, data).cases


def test_float_signs_of_zero_differ() -> None:
    """torch.sign(0) is 0, which no bit is."""
    network = _network(
        Conv("conv", "input", np.ones((2, 1, 1, 1)), np.array([0.0, -1.0])),
        Sign("sign", "conv", zero=0),
        Flatten("flat", "sign"),
        Linear("fc", "flat", np.array([[1.0, 0.5], [0.25, -1.0]])),
        shape=(1, 1, 1),
    )
    lowering = lower(network)
    images = np.array([0, 1, 254, 255], dtype=np.uint8).reshape(4, 1, 1, 1)
    result = agreement(lowering, Dataset("four", images, np.zeros(4, dtype=np.int64)))
    assert _layer(result.cases[0], "sign").differing == 2 / 8


def test_of_trained_networks(trained_files: dict[str, Path], blob_data: Dataset) -> None:
    """Adversarial images fool both sides, and both agree on them."""
    lowering = compile_file(trained_files["S"])
    attacks = (FgsmConfig(epsilon=0.3, eot_draws=3), PgdConfig(epsilon=0.3, eot_draws=3, steps=5))
    seen: list[tuple[str, int, int]] = []
    result = agreement(
        lowering, blob_data, attacks=attacks, draws=2, progress=lambda *at: seen.append(at)
    )
    clean, fgsm, pgd = result.cases
    assert [case.attack for case in result.cases] == ["clean", "fgsm", "pgd"]
    assert [case.levels for case in result.cases] == [0, 76, 76]
    assert clean.float_error < 0.2
    assert pgd.float_error > clean.float_error + 0.2
    for case in result.cases:
        assert case.answers == 80
        assert case.same_label > 0.9
        assert abs(case.float_error - case.integer_error) <= 1 - case.same_label
    assert [at for at in seen if at[0] == "comparing fgsm 76/255"][-1][1:] == (80, 80)
    assert [at for at in seen if at[0] == "crafting pgd 76/255"][-1][1:] == (40, 40)
    again = agreement(lowering, blob_data, attacks=attacks[:1], draws=2)
    assert again.cases[:2] == (clean, fgsm)
    assert fgsm != clean
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["cases"][0]["layers"][0]["layer"] == "conv1"


def test_refusals() -> None:
    pytest.importorskip("torch", reason="crafting needs torch")
    lowering = lower(_pooled(np.random.default_rng(1)))
    data = _data(lowering)
    with pytest.raises(DataError):
        agreement(lowering, Dataset("thin", data.images[:, :3], data.labels))
    bare = [
        replace(node, surrogate=None) if isinstance(node, Threshold) else node
        for node in lowering.graph.nodes
    ]
    blind = replace(lowering, graph=replace(lowering.graph, nodes=tuple(bare)))
    assert isinstance(agreement(blind, data), Agreement)
    with pytest.raises(UnsupportedModelError, match="surrogate"):
        agreement(blind, data, attacks=[FgsmConfig(epsilon=0.1)])
