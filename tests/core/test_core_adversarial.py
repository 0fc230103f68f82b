"""Adversarial training, and training with the first layer rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.data import Dataset
from bnnmcu.errors import ModelFileError, UsageError
from bnnmcu.nn.config import STE, PaperConfig

torch = pytest.importorskip("torch", reason="torch is not installed")

from bnnmcu.backend.project import load_project  # noqa: E402
from bnnmcu.compiler import compile_file  # noqa: E402
from bnnmcu.graph import IntegerConv  # noqa: E402
from bnnmcu.modelfile import read_model  # noqa: E402
from bnnmcu.nn.adversarial import (  # noqa: E402
    AdversarialConfig,
    adversarial_batch,
    fgsm_epsilons,
)
from bnnmcu.nn.frozen import FrozenNet  # noqa: E402
from bnnmcu.nn.paper import PaperNet, build  # noqa: E402
from bnnmcu.nn.quantize import quantize_filters  # noqa: E402
from bnnmcu.nn.training import (  # noqa: E402
    EpochReport,
    TrainingConfig,
    load_net,
    save_net,
    train,
)
from bnnmcu.passes import Quantization  # noqa: E402
from bnnmcu.passes.lower.fold import quantize_per_channel  # noqa: E402


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _bars(count: int = 96, seed: int = 0) -> Dataset:
    """Ten bright bars with noise: learnt in seconds, and then easily hidden."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    images = rng.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 + 2 * label : 5 + 2 * label, 4:24] = 230
    return Dataset("bars", images, labels.astype(np.int64))


def _pixels(count: int = 16, seed: int = 0) -> Any:
    images = torch.from_numpy(_bars(count, seed).images)
    return images.permute(0, 3, 1, 2).float().div(255.0)


def _warm(config: PaperConfig, seed: int = 1) -> PaperNet:
    """A network with statistics of its own, scales far from one, and rounded or real weights."""
    net = build(config, seed)
    net.set_generator(torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(seed)
    shape = (32, config.input_shape[2], *config.input_shape[:2])
    with torch.no_grad():
        for _ in range(60):
            net(torch.rand(shape, generator=generator))
        for name, parameter in net.named_parameters():
            if name.startswith(("scale", "norm")):
                parameter += 0.3 * torch.rand(parameter.shape, generator=generator)
    net.eval()
    return net


def _answers(call: Any, net: PaperNet, x: Any) -> tuple[Any, Any]:
    """Logits, and the gradient of one class by the pixels, from the same draws."""
    net.set_generator(torch.Generator().manual_seed(7))
    x = x.clone().requires_grad_()
    logits = call(x)
    (gradient,) = torch.autograd.grad(logits[:, 3].sum(), x)
    return logits.detach(), gradient


@pytest.mark.parametrize("kind", ["A", "B", "C", "S"])
@pytest.mark.parametrize("ste", ["identity", "clipped"])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_what_attacks_see_is_the_network_in_evaluation(kind: str, ste: STE, dataset: str) -> None:
    config = PaperConfig(kind, 6, dataset, ste)
    net = _warm(config)
    net.conv1.bits = 8
    channels = config.input_shape[2]
    x = torch.rand((5, channels, *config.input_shape[:2]), generator=torch.Generator())
    logits, gradient = _answers(net, net, x)
    seen, slope = _answers(FrozenNet(net), net, x)
    assert gradient.abs().max() > 0
    assert torch.allclose(seen, logits, rtol=1e-4, atol=1e-5)
    assert torch.allclose(slope, gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))
    if kind == "S":
        again = FrozenNet(net)
        assert not torch.equal(again(x), again(x)), "every pass has a draw of its own"


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_examples_keep_to_the_paper_and_leave_the_network_alone(method: Any) -> None:
    net = _warm(PaperConfig("S", 6))
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    x, config = _pixels(), AdversarialConfig(method, iterations=7, epsilon=0.05)
    made = adversarial_batch(net, x, config, torch.Generator().manual_seed(1))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert made.shape == x.shape
    assert not made.requires_grad
    assert 0 <= made.min() <= made.max() <= 1
    moved = (made - x).abs().amax((1, 2, 3))
    if method == "fgsm":
        # The largest move of each example is its own epsilon.
        wanted = fgsm_epsilons(len(x), config, torch.Generator().manual_seed(1))
        assert torch.allclose(moved, wanted, atol=1e-6)
    else:
        assert 0.04 < moved.min() <= moved.max() <= 0.05 + 1e-6
        # A random start: without a step none of the pixels would lie on the ball.
        assert ((made - x).abs() < 0.045).float().mean() > 0.05


def test_examples_leave_the_networks_own_label() -> None:
    """Its loss rises, whatever the true label is."""
    net = _warm(PaperConfig("B", 12, ste="identity"))
    x = _pixels(64)
    for config in (AdversarialConfig("fgsm"), AdversarialConfig("pgd", iterations=10)):
        made = adversarial_batch(net, x, config, torch.Generator().manual_seed(3))
        with torch.no_grad():
            own = net(x).argmax(1)
            losses = [torch.nn.functional.cross_entropy(net(y), own) for y in (x, made)]
        assert losses[1] > losses[0] + 0.1


def test_epsilons_have_the_papers_distribution() -> None:
    count, generator = 200_000, torch.Generator().manual_seed(1)
    drawn = fgsm_epsilons(count, AdversarialConfig("fgsm"), generator) * 255
    assert drawn.min() >= 0
    assert 77 < drawn.max() <= 78.001
    # |z| below one sigma: 0.6827 of 0.9545; the mean of a normal's half, cut at two.
    assert float((drawn < 39).float().mean()) == pytest.approx(0.7152, abs=0.005)
    assert float(drawn.mean()) == pytest.approx(39 * 0.7228, rel=0.01)
    published = AdversarialConfig("fgsm", fgsm_scale="published")
    same = fgsm_epsilons(count, published, torch.Generator().manual_seed(1))
    assert torch.allclose(same, drawn, rtol=1e-5)


def _same(left: PaperNet, right: PaperNet) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_adversarial_examples_join_in_after_the_clean_epochs() -> None:
    config = PaperConfig("C", 2)
    late = AdversarialConfig("fgsm", after=2)
    losses: dict[str, list[float]] = {}
    for name, adversarial in (("clean", None), ("late", late)):
        reports: list[EpochReport] = []
        training = TrainingConfig(3, batch_size=16, seed=3, adversarial=adversarial)
        train(config, training, _bars(48), progress=reports.append)
        losses[name] = [report.loss for report in reports]
    assert losses["clean"][:2] == losses["late"][:2]
    assert losses["clean"][2] != losses["late"][2]


class _Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["fgsm", "pgd"])
def test_a_killed_run_ends_with_the_same_bits(method: Any, tmp_path: Path) -> None:
    adversarial = AdversarialConfig(method, after=1, iterations=2)
    training = TrainingConfig(3, batch_size=16, seed=3, adversarial=adversarial, first_bits=9)
    config, data, checkpoint = PaperConfig("S", 2), _bars(48), tmp_path / "state"

    def killed(report: Any) -> None:
        if report.epoch == 3:
            raise _Killed

    whole = train(config, training, data)
    with pytest.raises(_Killed):
        train(config, training, data, checkpoint=checkpoint, progress=killed)
    assert _same(train(config, training, data, checkpoint=checkpoint), whole)
    # A finished run goes no further, and is rounded all the same.
    assert _same(train(config, training, data, checkpoint=checkpoint, progress=killed), whole)
    for other in (
        TrainingConfig(3, batch_size=16, seed=3, first_bits=9),
        TrainingConfig(3, batch_size=16, seed=3, adversarial=adversarial),
        TrainingConfig(3, batch_size=16, seed=3, adversarial=adversarial, first_bits=8),
        TrainingConfig(
            3, batch_size=16, seed=3, first_bits=9,
            adversarial=AdversarialConfig(method, after=1, iterations=3),
        ),
    ):  # fmt: skip
        with pytest.raises(ModelFileError, match="another network, data set or configuration"):
            train(config, other, data, checkpoint=checkpoint)


def test_adversarial_training_helps() -> None:
    """A short training with PGD against its clean twin, both attacked afterwards."""
    x, labels = _pixels(200, seed=9), torch.from_numpy(_bars(200, seed=9).labels)
    pgd = AdversarialConfig("pgd", after=2, epsilon=0.1, step=0.05, iterations=3)
    strong = AdversarialConfig("pgd", epsilon=0.1, step=0.02, iterations=10)
    config = PaperConfig("C", 8, bn_momentum=0.2, ste="identity")
    right = {}
    for name, adversarial in (("clean", None), ("pgd", pgd)):
        net = train(config, TrainingConfig(8, 1e-2, 20, 3, adversarial=adversarial), _bars(400))
        made = adversarial_batch(net, x, strong, torch.Generator().manual_seed(5))
        with torch.no_grad():
            right[name] = [float((net(y).argmax(1) == labels).float().mean()) for y in (x, made)]
    assert min(right["clean"][0], right["pgd"][0]) > 0.95
    assert right["clean"][1] < 0.3
    assert right["pgd"][1] > 0.7


@pytest.mark.parametrize("bits", [8, 11, 14])
def test_rounding_is_the_compilers(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn((7, 3, 8, 8), generator=generator) * torch.logspace(-6, 3, 7).view(
        -1, 1, 1, 1
    )
    weight[2] = 0.0
    weight.requires_grad_()
    rounded = quantize_filters(weight, bits)
    integers, scale = quantize_per_channel(weight.detach().double().numpy(), bits)
    wanted = integers * scale[:, np.newaxis, np.newaxis, np.newaxis]
    assert np.allclose(rounded.detach().numpy(), wanted, rtol=1e-6, atol=0)
    assert abs(integers).reshape(7, -1).max(1).tolist() == [
        0 if i == 2 else (1 << (bits - 1)) - 1 for i in range(7)
    ]
    # Straight through, and rounding twice is rounding once.
    (gradient,) = torch.autograd.grad((rounded * 3).sum(), weight)
    assert torch.equal(gradient, torch.full_like(weight, 3.0))
    assert torch.allclose(quantize_filters(rounded.detach(), bits), rounded, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bits", [8, 10])
def test_the_exported_first_layer_is_the_trained_one(bits: int, tmp_path: Path) -> None:
    config, checkpoint = PaperConfig("B", 5), tmp_path / "state"
    training = TrainingConfig(2, 3e-3, 16, 3, first_bits=bits)
    net = train(config, training, _bars(48), checkpoint=checkpoint)
    latent = torch.load(checkpoint, weights_only=True)["state_dict"]["conv1.weight"]
    assert not torch.equal(latent, net.conv1.weight), "training kept real weights behind these"

    path = tmp_path / "b5.pt"
    save_net(path, net, training=training.to_dict())
    assert read_model(path).manifest["training"]["first_bits"] == bits
    lowered = compile_file(path, Quantization(first_layer_bits=bits, dead_channels=False))
    node = lowered.graph.nodes[0]
    assert isinstance(node, IntegerConv)
    top = (1 << (bits - 1)) - 1
    wide = latent.double().permute(0, 2, 3, 1).numpy()
    unit = abs(wide).reshape(5, -1).max(1).reshape(-1, 1, 1, 1) / top
    assert np.array_equal(node.weights, np.rint(wide / unit))
    first = next(error for error in lowered.errors if error.layer == "conv1")
    assert first.bits == 0, "nothing was lost in the export"
    # As a loaded network it answers as the trained one did.
    again = load_net(read_model(path))
    x = _pixels()
    with torch.no_grad():
        assert torch.equal(again(x), net(x))


def test_refusals() -> None:
    for options in (
        {"method": "cw"},
        {"method": "pgd", "after": -1},
        {"method": "pgd", "iterations": 0},
        {"method": "pgd", "epsilon": 0.0},
        {"method": "pgd", "step": 1.5},
        {"method": "fgsm", "fgsm_scale": "other"},
    ):
        with pytest.raises(UsageError):
            AdversarialConfig(**options)
    with pytest.raises(UsageError, match="after 10 epochs, but there are only 10"):
        TrainingConfig(10, adversarial=AdversarialConfig("pgd"))
    for bits in (7, 15):
        with pytest.raises(UsageError, match="8 to 14"):
            TrainingConfig(first_bits=bits)


def test_the_command_keeps_all_of_it_in_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnnmcu.cli.main import main

    data, model = _bars(48), tmp_path / "s2.safetensors"
    np.savez(tmp_path / "bars.npz", images=data.images, labels=data.labels)
    common = ["train", "--model", "S2", "--data", str(tmp_path / "bars.npz"), "-o", str(model),
              "--epochs", "2", "--batch-size", "16"]  # fmt: skip

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main([*common, *arguments])
        return int(end.value.code or 0), capsys.readouterr().err

    code, told = run("--pgd-steps", "3")
    assert code == 2
    assert "add --adversarial" in told
    code, told = run("--adversarial", "pgd", "--clean-epochs", "1", "--pgd-steps", "3",
                     "--first-bits", "9")  # fmt: skip
    assert code == 0, told
    kept = read_model(model).manifest["training"]
    assert kept["first_bits"] == 9
    assert kept["adversarial"] == {
        "method": "pgd", "after": 1, "fgsm_scale": "paper", "epsilon": 0.3, "step": 0.01,
        "iterations": 3,
    }  # fmt: skip

    for typed, bits in (((), 9), (("--first-layer-bits", "12"), 12)):
        folder = tmp_path / f"project{bits}"
        with pytest.raises(SystemExit) as end:
            main(["export", str(model), "--board", "nucleo_f446", "-o", str(folder), *typed])
        assert not end.value.code
        assert "trained" in capsys.readouterr().err
        first = load_project(folder).graph.nodes[0]
        assert isinstance(first, IntegerConv)
        assert 2 ** (bits - 2) <= np.abs(first.weights).max() < 2 ** (bits - 1)
