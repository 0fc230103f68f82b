"""Layers and training: estimators, draws, and resuming to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, ModelFileError, UsageError
from bnnmcu.nn.config import STE, PaperConfig

torch = pytest.importorskip("torch", reason="torch is not installed")

from bnnmcu.nn.functional import binarize, hard_sigmoid, sample_sign  # noqa: E402
from bnnmcu.nn.layers import (  # noqa: E402
    BinaryConv2d,
    BinaryLinear,
    SignActivation,
    StochasticBinaryConv2d,
    StochasticBinaryLinear,
)
from bnnmcu.nn.paper import build  # noqa: E402
from bnnmcu.nn.training import EpochReport, TrainingConfig, error_rate, train  # noqa: E402


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _digits(count: int = 96, seed: int = 0) -> Dataset:
    """Ten bright bars with noise: learnable, and tiny."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 + 2 * label : 5 + 2 * label, 4:24] = 230
    return Dataset("bars", images, labels.astype(np.int64))


_VALUES = [-3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 1.0001, 3.0]
_GRADS = [2.0, -2.0, 0.25, 1.0, -0.5, -7.0, 3.0, 1.0, -1.0]


@pytest.mark.parametrize(
    ("ste", "expected"),
    [
        ("identity", [1.0, -1.0, 0.25, 1.0, -0.5, -1.0, 1.0, 1.0, -1.0]),
        ("clipped", [0.0, -1.0, 0.25, 1.0, -0.5, -1.0, 1.0, 0.0, 0.0]),
    ],
)
def test_straight_through_gradients(ste: STE, expected: list[float]) -> None:
    generator = torch.Generator().manual_seed(0)
    for quantise in (binarize, lambda x, ste: sample_sign(x, ste, generator)):
        x = torch.tensor(_VALUES, requires_grad=True)
        y = quantise(x, ste)
        assert set(y.tolist()) <= {-1.0, 1.0}
        y.backward(torch.tensor(_GRADS))
        assert x.grad is not None
        assert x.grad.tolist() == expected
    signs = [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert binarize(torch.tensor(_VALUES), ste).tolist() == signs, "sign(0) is +1"


def test_an_unknown_estimator_is_refused() -> None:
    for make in (
        lambda: SignActivation("soft"),  # type: ignore[arg-type]
        lambda: BinaryLinear(2, 2, "soft"),  # type: ignore[arg-type]
        lambda: BinaryConv2d(2, 2, 1, 1, "soft"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="ste must be one of"):
            make()


def test_stochastic_weights_have_the_right_probability() -> None:
    layer = StochasticBinaryConv2d(1, 9, 1)
    weights = torch.tensor([-2.0, -1.0, -0.9, -0.4, 0.0, 0.3, 0.9, 1.0, 5.0])
    with torch.no_grad():
        layer.weight.copy_(weights.view(9, 1, 1, 1))
    layer.generator = torch.Generator().manual_seed(3)
    draws = torch.stack([layer.quantized().flatten() for _ in range(4000)])
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    p = (draws > 0).double().mean(0)
    wanted = hard_sigmoid(weights.double())
    assert p[[0, 1, 7, 8]].tolist() == [0, 0, 1, 1]
    sigma = (wanted * (1 - wanted) / 4000).sqrt()
    assert ((p - wanted).abs() <= 5 * sigma).all()


@pytest.mark.parametrize("cls", [StochasticBinaryConv2d, StochasticBinaryLinear])
def test_one_draw_is_shared_by_the_batch_and_a_new_one_made_for_each_pass(cls: Any) -> None:
    conv = cls is StochasticBinaryConv2d
    layer = cls(40, 8, 1) if conv else cls(40, 8)
    x = torch.ones(3, 40, 1, 1) if conv else torch.ones(3, 40)
    layer.generator = torch.Generator().manual_seed(0)
    first, second = layer(x), layer(x)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    layer.generator = torch.Generator().manual_seed(0)
    assert torch.equal(layer(x), first)


def test_gradients_reach_the_stochastic_layer() -> None:
    """The paper's own code trained conv3 with no gradient; ours must."""
    net = build(PaperConfig("S", 2), seed=1)
    loss = net(torch.rand(4, 1, 28, 28)).square().sum()
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", ["A", "B", "C", "S"])
def test_initial_weights(kind: str) -> None:
    net = build(PaperConfig(kind, 16), seed=5)
    norms = net.conv1.weight.flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones(16))
    assert torch.allclose(net.dense.weight.norm(dim=1), torch.ones(10))
    for conv in (net.conv2, net.conv3):
        if kind == "A":
            assert torch.allclose(conv.weight.flatten(1).norm(dim=1), torch.ones(32))
        else:
            assert 0.15 < float(conv.weight.detach().std()) < 0.21
    if kind in "CS":
        assert float(net.scale2.value.detach()) == pytest.approx(0.05)
    assert torch.equal(build(PaperConfig(kind, 16), seed=5).conv2.weight, net.conv2.weight)
    assert not torch.equal(build(PaperConfig(kind, 16), seed=6).conv2.weight, net.conv2.weight)


def test_a_seeded_network_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    build(PaperConfig("S", 2), seed=9)
    assert torch.equal(torch.rand(3), expected)


class _Killed(Exception):
    pass


def _state(net: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize(
    "config",
    [
        PaperConfig("S", 2, ste="identity"),
        PaperConfig("C", 3, ste="clipped"),
        PaperConfig("A", 2),
    ],
    ids=lambda c: c.name,
)
def test_a_killed_run_ends_with_the_same_bits(config: PaperConfig, tmp_path: Path) -> None:
    training = TrainingConfig(epochs=3, batch_size=16, learning_rate=3e-3, seed=11)
    data = _digits()
    reports: list[EpochReport] = []
    whole = _state(train(config, training, data, progress=reports.append))
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert all(0 < report.loss < 100 for report in reports)
    assert reports[-1].step == reports[-1].steps == 6

    checkpoint = tmp_path / "state"

    def killed_in(epoch: int) -> Any:
        def progress(report: EpochReport) -> None:
            if report.epoch == epoch:
                raise _Killed

        return progress

    for epoch in (1, 2, 3):
        with pytest.raises(_Killed):
            train(config, training, data, checkpoint=checkpoint, progress=killed_in(epoch))
        # What was lost is the epoch in progress, and nothing before it.
        assert checkpoint.exists() == (epoch > 1)
        torch.rand(5)  # the process does other things in between
    resumed: list[EpochReport] = []
    net = train(config, training, data, checkpoint=checkpoint, progress=resumed.append)
    assert [report.epoch for report in resumed] == [3]
    again = _state(net)
    assert again.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(again[name], value), name
    # A finished run is not trained any further.
    done = train(config, training, data, checkpoint=checkpoint, progress=killed_in(3))
    assert all(torch.equal(value, whole[name]) for name, value in _state(done).items())
    assert not done.training


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state"
    config, training, data = PaperConfig("B", 2), TrainingConfig(1, batch_size=32), _digits()
    train(config, training, data, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    others: list[tuple[PaperConfig, TrainingConfig, Dataset]] = [
        (PaperConfig("C", 2), training, data),
        (PaperConfig("B", 3), training, data),
        (PaperConfig("B", 2, ste="identity"), training, data),
        (config, TrainingConfig(2, batch_size=32), data),
        (config, TrainingConfig(1, batch_size=16), data),
        (config, TrainingConfig(1, batch_size=32, seed=2), data),
        (config, TrainingConfig(1, batch_size=32, learning_rate=0.5), data),
        (config, TrainingConfig(1, batch_size=32, first_image=1), data),
        (config, training, Dataset("other", data.images, data.labels)),
    ]
    for case in others:
        with pytest.raises(ModelFileError, match="another network, data set or configuration"):
            train(*case, checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    checkpoint, ran = tmp_path / "state", tmp_path / "ran"
    config, training, data = PaperConfig("B", 2), TrainingConfig(1, batch_size=32), _digits()
    train(config, training, data, checkpoint=checkpoint)
    whole = checkpoint.read_bytes()
    torch.save({"identity": _Payload(ran)}, tmp_path / "evil")
    torch.save([1, 2], tmp_path / "list")
    evil, listed = (tmp_path / "evil").read_bytes(), (tmp_path / "list").read_bytes()
    for raw in (b"", b"junk", whole[: len(whole) // 2], whole[:-1], evil, listed):
        checkpoint.write_bytes(raw)
        with pytest.raises(ModelFileError, match="cannot read the checkpoint"):
            train(config, training, data, checkpoint=checkpoint)
        assert checkpoint.read_bytes() == raw
    assert not ran.exists(), "a pickle inside a checkpoint was run"


@pytest.mark.parametrize("kind", ["A", "C"])
def test_training_learns(kind: str) -> None:
    net = train(
        PaperConfig(kind, 8, bn_momentum=0.2, ste="identity"),
        TrainingConfig(8, learning_rate=1e-2, batch_size=20, seed=3),
        _digits(400),
    )
    assert error_rate(net, _digits(200, seed=9)) < 0.1  # chance is 0.9


def test_error_rate_is_reproducible_and_leaves_no_generator_behind() -> None:
    net = build(PaperConfig("S", 2), seed=1)
    data = _digits()
    assert error_rate(net, data, seed=4) == error_rate(net, data, seed=4)
    assert net.conv3.generator is None
    rates = {error_rate(net, data, seed=s) for s in range(12)}
    assert len(rates) > 1


def test_refusals(tmp_path: Path) -> None:
    data = _digits()
    for options in (
        {"epochs": 0},
        {"batch_size": 1},
        {"threads": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
    ):
        with pytest.raises(UsageError):
            TrainingConfig(**options)
    for config, training in (
        (PaperConfig("B", 2, "cifar10"), TrainingConfig(1)),
        (PaperConfig("B", 2), TrainingConfig(1, first_image=96)),
        (PaperConfig("B", 2), TrainingConfig(1, batch_size=97)),
    ):
        with pytest.raises(DataError):
            train(config, training, data)


def test_a_diverged_run_is_refused_and_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bnnmcu.nn import training as module

    monkeypatch.setattr(
        module.F, "cross_entropy", lambda logits, labels: logits.sum() * float("nan")
    )
    checkpoint = tmp_path / "state"
    with pytest.raises(ModelFileError, match="the loss became nan in epoch 1"):
        train(PaperConfig("B", 2), TrainingConfig(1, batch_size=32), _digits(),
              checkpoint=checkpoint)  # fmt: skip
    assert not checkpoint.exists()
