"""Forms of S, schedules, smoothed targets and devices; what is at its default changes no bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.data import Dataset
from bnnmcu.errors import ModelFileError, UnsupportedModelError, UsageError
from bnnmcu.frontend.paper import to_network
from bnnmcu.modelfile import read_model
from bnnmcu.network import Conv
from bnnmcu.nn.config import PaperConfig
from bnnmcu.nn.layers import BatchNormShift
from bnnmcu.nn.training_config import AdversarialConfig, TrainingConfig

torch = pytest.importorskip("torch", reason="torch is not installed")

from bnnmcu.nn import training as module  # noqa: E402
from bnnmcu.nn.checkpoint import spent_seconds  # noqa: E402
from bnnmcu.nn.frozen import FrozenNet  # noqa: E402
from bnnmcu.nn.functional import hard_sigmoid  # noqa: E402
from bnnmcu.nn.paper import build  # noqa: E402
from bnnmcu.nn.training import provenance, save_net, train  # noqa: E402


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _noise(count: int = 64) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    return Dataset("noise", images, rng.integers(0, 10, count).astype(np.int64))


def test_a_frozen_layer_stays_as_it_was_and_the_others_learn() -> None:
    config = PaperConfig("S", 3, form="frozen")
    training = TrainingConfig(1, 1e-2, 16, adversarial=AdversarialConfig("fgsm", 0))
    before = build(config, training.seed).state_dict()
    after = train(config, training, _noise()).state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"conv3.weight"}
    # The same start as the form that learns it.
    usual = build(PaperConfig("S", 3), training.seed).state_dict()
    assert all(torch.equal(usual[name], value) for name, value in before.items())
    trained = train(PaperConfig("S", 3), training, _noise()).state_dict()
    assert not torch.equal(trained["conv3.weight"], before["conv3.weight"])


def test_a_shared_draw_is_one_plane_for_all_filters() -> None:
    net = build(PaperConfig("S", 8, form="shared-draw"), seed=1)
    net.set_generator(torch.Generator().manual_seed(0))
    p = hard_sigmoid(net.conv3.weight.detach()).flatten(1)
    draws = torch.stack([net.conv3.quantized().detach().flatten(1) for _ in range(200)])
    # One threshold for all filters of a place: what is more probable is never alone -1.
    order = p.argsort(0)
    sorted_draws = draws.gather(1, order.expand_as(draws))
    assert (sorted_draws.diff(dim=1) >= 0).all()
    # A single weight is as probable as ever: 200 draws, five sigma.
    assert ((draws > 0).double().mean((0, 1)) - p.double().mean(0)).abs().max() < 5 * 0.5 / 14
    # Gradients reach all filters, and an attack in training sees the same kind of draw.
    net(_example(64)).square().sum().backward()
    assert (net.conv3.weight.grad.flatten(1).abs().sum(1) > 0).all()
    drawn = FrozenNet(net)._drawn
    assert drawn is not None
    assert drawn.shared
    usual = build(PaperConfig("S", 8), seed=1)
    usual.set_generator(torch.Generator().manual_seed(0))
    lone = usual.conv3.quantized().detach().flatten(1).gather(0, order)
    assert (lone.diff(dim=0) < 0).any(), "draws of its own give no such order"


def test_what_a_device_cannot_draw_is_not_exported(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    for form, exported in (("frozen", True), ("shared-draw", False)):
        net = build(PaperConfig("S", 2, form=form), seed=1)  # type: ignore[arg-type]
        save_net(path, net)
        model = read_model(path)
        assert model.manifest["network"]["form"] == form
        if exported:
            (conv,) = [op for op in to_network(model).ops if isinstance(op, Conv) and op.drawn]
            wanted = hard_sigmoid(net.conv3.weight.detach().double()).numpy()
            assert np.array_equal(conv.weights, wanted)
        else:
            with pytest.raises(UnsupportedModelError, match="all filters share one draw"):
                to_network(model)


def test_a_traced_module_does_not_share_random_numbers_either() -> None:
    from bnnmcu.frontend.trace import trace

    for form in ("frozen", "shared-draw"):
        net = build(PaperConfig("S", 2, form=form), seed=1).eval()  # type: ignore[arg-type]
        if form == "frozen":
            assert any(getattr(op, "drawn", False) for op in trace(net, _example()).ops)
        else:
            with pytest.raises(UnsupportedModelError, match="shares one random number"):
                trace(net, _example())


def _example(count: int = 1) -> Any:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_schedules(schedule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def seen(self: Any, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", seen)
    train(PaperConfig("B", 2), TrainingConfig(2, 0.01, 16, schedule=schedule), _noise())
    cosine = [0.005 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert rates == pytest.approx(cosine if schedule == "cosine" else [0.01] * 8)


def test_smoothed_targets() -> None:
    """0.9 for the true class and 0.1 / 9 for each other one, as CleverHans clips them."""
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6)
    target = torch.full((6, 10), 0.1 / 9)
    target[torch.arange(6), labels] = 0.9
    wanted = -(target * logits.log_softmax(1)).sum(1).mean()
    assert float(module._loss(logits, labels, 0.1)) == pytest.approx(float(wanted), rel=1e-6)
    training = TrainingConfig(1, 1e-2, 16, label_smoothing=0.1)
    smoothed = train(PaperConfig("C", 2), training, _noise()).state_dict()
    plain = train(PaperConfig("C", 2), TrainingConfig(1, 1e-2, 16), _noise()).state_dict()
    assert not torch.equal(smoothed["dense.weight"], plain["dense.weight"])


def test_adversarial_examples_have_smoothed_targets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    loss = module._loss

    def recorded(logits: Any, labels: Any, smoothing: float) -> Any:
        seen.append(smoothing)
        return loss(logits, labels, smoothing)

    monkeypatch.setattr(module, "_loss", recorded)
    adversarial = AdversarialConfig("fgsm", 1)
    training = TrainingConfig(2, 1e-2, 32, adversarial=adversarial, label_smoothing=0.2)
    train(PaperConfig("B", 2), training, _noise())
    # Two steps an epoch: one loss each in the clean one, two in the other.
    assert seen == [0.2] * (2 + 4)


def test_a_checkpoint_counts_the_seconds_of_all_sittings(tmp_path: Path) -> None:
    checkpoint = tmp_path / "state"
    config, training = PaperConfig("B", 2), TrainingConfig(3, batch_size=32)
    seconds = []

    def stop(report: Any) -> None:
        if report.epoch > len(seconds) + 1:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, training, _noise(), checkpoint=checkpoint, progress=stop)
        seconds.append(spent_seconds(checkpoint))
    assert seconds[0] is not None
    assert seconds[1] is not None
    assert 0 < seconds[0] < seconds[1] < 60
    # A checkpoint of before they were counted goes on, and does not invent any.
    state = torch.load(checkpoint, weights_only=True)
    del state["seconds"]
    torch.save(state, checkpoint)
    train(config, training, _noise(), checkpoint=checkpoint)
    assert spent_seconds(checkpoint) is None


def test_a_manifest_names_its_images() -> None:
    data, training = _noise(), TrainingConfig(first_image=4)
    assert provenance(training, data) == {
        "data": "noise, images 4 to 63",
        "data_name": "noise",
        "data_sha256": data.sha256(),
        **training.to_dict(),
    }


def test_a_gpu_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for device, message in (("cuda", "no CUDA device"), ("tpu", "use cpu or cuda")):
        with pytest.raises(UsageError, match=message):
            train(PaperConfig("B", 2), TrainingConfig(1), _noise(), device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", ["A", "S"])
def test_a_gpu_sees_the_same_random_numbers(kind: str, tmp_path: Path) -> None:
    """The first steps agree but for rounding; a checkpoint goes from one device to the other."""
    config, data, checkpoint = PaperConfig(kind, 4), _noise(32), tmp_path / "state"
    adversarial = AdversarialConfig("pgd", 0, iterations=2)
    training = TrainingConfig(1, 1e-4, 32, adversarial=adversarial)
    nets = [train(config, training, data, device=d).state_dict() for d in ("cpu", "cuda")]
    for name, value in nets[0].items():
        assert torch.allclose(value, nets[1][name], atol=3e-4), name

    def stop(report: Any) -> None:
        if report.epoch == 2:
            raise KeyboardInterrupt

    longer = TrainingConfig(2, 1e-4, 32, adversarial=adversarial)
    with pytest.raises(KeyboardInterrupt):
        train(config, longer, data, checkpoint=checkpoint, progress=stop, device="cuda")
    net = train(config, longer, data, checkpoint=checkpoint)
    assert all(not value.is_cuda for value in net.state_dict().values())


def test_recomputed_statistics_are_those_of_the_images() -> None:
    """And nothing else is changed by them."""
    data = _noise(60)
    config = PaperConfig("B", 4, bn_momentum=0.001)
    lagging = train(config, TrainingConfig(1, 1e-3, 20, 3), data).state_dict()
    net = train(config, TrainingConfig(1, 1e-3, 20, 3, statistics="recomputed"), data)
    found = net.state_dict()
    assert [name for name in found if not torch.equal(found[name], lagging[name])] == [
        name for name in found if "running" in name
    ]
    seen: dict[str, list[torch.Tensor]] = {}
    norms = {name: one for name, one in net.named_modules() if isinstance(one, BatchNormShift)}
    assert len(norms) == 2
    for name, one in norms.items():
        one.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0])
        )
    net.train()
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        net(images)
    for name, close in zip(norms, (1e-4, 0.1), strict=True):
        # Batches of the same size: the mean of their means is the mean of all, exactly where
        # no other norm comes before, whose batches are not alike.
        wanted = seen[name][0].mean((0, 2, 3))
        assert torch.allclose(found[f"{name}.running_mean"], wanted, atol=close)


def test_refusals() -> None:
    for form in ("soft", ["frozen"], None):
        with pytest.raises(ModelFileError, match="unknown form"):
            PaperConfig("S", form=form)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="one of S, not of B"):
        PaperConfig("B", form="frozen")
    for options in (
        {"schedule": "step"},
        {"statistics": "none"},
        {"label_smoothing": 0.5},
        {"label_smoothing": -0.1},
    ):
        with pytest.raises(UsageError):
            TrainingConfig(**options)  # type: ignore[arg-type]


def test_names() -> None:
    assert PaperConfig("S", 64, "cifar10", form="frozen").name == "S64-cifar10-frozen"
    assert PaperConfig("S").name == "S64"


def test_the_command_passes_every_setting_on(tmp_path: Path) -> None:
    """Also the recipe of the published code, typed out."""
    from click.testing import CliRunner

    from bnnmcu.cli.train import command

    data = _noise(40)
    np.savez(tmp_path / "d.npz", images=data.images, labels=data.labels)
    typed = (
        "--model S2 --ste identity --schedule constant --bn-momentum 0.001 --form frozen "
        "--label-smoothing 0.1 --statistics recomputed --epochs 1 --batch-size 20 --seed 3 "
        "--lr 0.01"
    )
    out = tmp_path / "x.safetensors"
    arguments = [*typed.split(), "--data", str(tmp_path / "d.npz"), "-o", str(out)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    config = PaperConfig("S", 2, "mnist", "identity", 0.001, "frozen")
    training = TrainingConfig(
        1, 0.01, 20, 3, schedule="constant", label_smoothing=0.1, statistics="recomputed"
    )
    model = read_model(out)
    named = Dataset("d.npz", data.images, data.labels)
    assert PaperConfig.from_manifest(model.manifest, "") == config
    assert model.manifest["training"] == provenance(training, named)
    wanted = train(config, training, named).state_dict()
    assert all(np.array_equal(model.tensors[name], t.numpy()) for name, t in wanted.items())
