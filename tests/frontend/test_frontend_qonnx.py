"""Brevitas trains and exports; what is read computes what Brevitas computes."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bnnmcu.frontend.qonnx import read_qonnx
from bnnmcu.network import Conv, Linear, Network, Sign
from bnnmcu.network.execute import run
from tests.support import brevitas_net
from tests.support.brevitas_net import MEAN, STD, need_brevitas
from tests.support.onnx_models import reference

BOTH = pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])


@pytest.fixture(scope="module")
def module() -> Any:
    need_brevitas()
    return brevitas_net.trained()


def _floats(images: Any, mean: Any = 0.0, std: Any = 1.0) -> Any:
    import torch

    column = [np.reshape(part, (-1, 1, 1)) for part in (mean, std)]
    return torch.from_numpy((images.transpose(0, 3, 1, 2) / 255 - column[0]) / column[1])


def _torch(module: Any, x: Any) -> Any:
    """The module's own answer, in float64, so that no rounding decides a sign."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return copy.deepcopy(module).double()(x).numpy()


@pytest.fixture(scope="module", params=[False, True], ids=["torchscript", "dynamo"])
def exported(
    request: pytest.FixtureRequest, module: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, bool]:
    """The trained network's file, by each of torch's two exporters."""
    path = tmp_path_factory.mktemp("qonnx") / "shapes.onnx"
    brevitas_net.export(module, path, brevitas_net.INPUT_SHAPE, dynamo=request.param)
    return path, request.param


def test_a_trained_network_is_read_as_brevitas_computes_it(
    exported: tuple[Path, bool], module: Any
) -> None:
    path, _ = exported
    network = read_qonnx(path, mean=MEAN, std=STD)
    images, labels = brevitas_net.shape_images(100, seed=77)
    logits = run(network, images)
    x = _floats(images, MEAN, STD)
    np.testing.assert_allclose(logits, _torch(module, x), rtol=0, atol=1e-6)
    # It has learned something: equal answers of an untrained network would prove less.
    assert np.mean(logits.argmax(axis=1) == labels) > 0.7
    # By ONNX's reference, in float32: the same but for rare signs near zero.
    theirs = np.concatenate([reference(path, image[np.newaxis].numpy()) for image in x.float()])
    assert np.mean(np.abs(theirs - logits).max(axis=1) < 1e-3) >= 0.97


def test_names_and_weights(exported: tuple[Path, bool]) -> None:
    path, dynamo = exported
    network = read_qonnx(path)
    assert network.name == "shapes"
    assert network.input_shape == (1, 14, 14)
    names = [op.name for op in network.ops]
    last = "flatten.view" if dynamo else "flatten.Flatten"
    assert names == ["conv1", "bn1", "sign1", "pool", "conv2", "bn2", "sign2", last, "fc", "bn3"]
    for op in network.ops:
        if isinstance(op, Conv | Linear):
            size = np.abs(op.weights.reshape(len(op.weights), -1))
            # ±a in every filter, and one a for each where the scale is per channel.
            assert (size == size[:, :1]).all()
            assert (len(np.unique(size)) > 1) == (op.name == "conv2")
        if isinstance(op, Sign):
            assert op.zero == 1


def _zoo() -> dict[str, tuple[Any, tuple[int, ...], bool]]:
    """Modules, their input, and whether Brevitas exports them."""
    import brevitas.nn as qnn
    import torch
    from brevitas.inject.enum import ScalingImplType, StatsOp
    from brevitas.quant import (
        Int8WeightPerTensorFloat,
        SignedBinaryActPerTensorConst,
        SignedBinaryWeightPerTensorConst,
    )

    nn = torch.nn

    class PerChannel(SignedBinaryWeightPerTensorConst):  # type: ignore[misc]
        scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS
        scaling_stats_op = StatsOp.AVE
        scaling_per_output_channel = True

    class Learned(SignedBinaryActPerTensorConst):  # type: ignore[misc]
        scaling_impl_type = ScalingImplType.PARAMETER

    def sign(quant: Any = SignedBinaryActPerTensorConst) -> Any:
        return qnn.QuantIdentity(act_quant=quant)

    class BiReal(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = qnn.QuantConv2d(3, 8, 3, stride=2, padding=1, weight_quant=PerChannel)
            self.bn0 = nn.BatchNorm2d(8)
            self.sign = sign()
            self.conv = qnn.QuantConv2d(
                8, 8, 3, padding=1, groups=4, bias=False, weight_quant=PerChannel
            )
            self.bn1 = nn.BatchNorm2d(8)
            self.prelu = nn.PReLU(8)
            self.out = sign(Learned)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.fc = qnn.QuantLinear(8, 4, bias=True, weight_quant=Int8WeightPerTensorFloat)

        def forward(self, x: Any) -> Any:
            x = nn.functional.hardtanh(self.bn0(self.stem(x)))
            x = self.prelu(self.bn1(self.conv(self.sign(x))) + x)
            return nn.functional.log_softmax(self.fc(self.pool(self.out(x)).flatten(1)), 1)

    class Signal(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            binary = SignedBinaryWeightPerTensorConst
            self.a = qnn.QuantConv1d(2, 8, 5, stride=2, padding=2, weight_quant=PerChannel)
            self.bn = nn.BatchNorm1d(8)
            self.sign = sign()
            self.b = qnn.QuantConv1d(8, 8, 3, groups=8, dilation=2, bias=False, weight_quant=binary)
            self.pool = nn.MaxPool1d(2, ceil_mode=True)
            self.fc = qnn.QuantLinear(8, 3, bias=False, weight_quant=binary)

        def forward(self, x: Any) -> Any:
            return self.fc(self.pool(self.b(self.sign(self.bn(self.a(x))))).mean(2))

    class Plain(nn.Module):  # type: ignore[misc]
        """No quantiser at all: signs spelled out in torch."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding="same")
            self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
            self.fc = nn.Linear(8 * 25, 4)

        def forward(self, x: Any) -> Any:
            w = self.conv.weight
            w = torch.where(w >= 0, 1.0, -1.0).to(w) * w.abs().mean((1, 2, 3), keepdim=True)
            x = nn.functional.conv2d(x, w, self.conv.bias, padding=1) * self.scale
            x = torch.where(x >= 0.1, 1.0, -1.0).to(x)
            x = nn.functional.pad(x, (0, 1, 0, 1), value=-1.0)
            x = nn.functional.avg_pool2d(x, 3, 2, 1)
            x = nn.functional.relu6(torch.sign(nn.functional.hardtanh(x) - 0.15) / 2 + 1)
            return self.fc(x.reshape(x.shape[0], -1))

    return {
        "bireal": (BiReal(), (3, 10, 10), True),
        "signal": (Signal(), (2, 37), True),
        "plain": (Plain(), (3, 8, 8), False),
    }


def _export_plain(
    module: Any, path: Path, shape: tuple[int, ...], *, dynamo: bool, batch: int = 1, **more: Any
) -> None:
    import torch

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, (torch.zeros(batch, *shape),), str(path), dynamo=dynamo,
                external_data=False, **more,
            )  # fmt: skip
    finally:
        logging.disable(level)


@pytest.fixture(scope="module")
def zoo() -> Any:
    need_brevitas()
    import torch

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        made = _zoo()
        for module, shape, _ in made.values():
            for _ in range(5):
                module(torch.randn(16, *shape))
            for part in module.modules():
                if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                    # Signs of both kinds, as training leaves them.
                    torch.nn.init.normal_(part.weight)
                    torch.nn.init.normal_(part.bias, std=0.3)
            module.eval()
    return made


@BOTH
@pytest.mark.parametrize("name", ["bireal", "signal", "plain"])
def test_other_styles(name: str, dynamo: bool, zoo: Any, tmp_path: Path) -> None:
    module, shape, quantised = zoo[name]
    path = tmp_path / f"{name}.onnx"
    export = brevitas_net.export if quantised else _export_plain
    export(module, path, shape, dynamo=dynamo)
    mean, std = ([0.5, 0.4], [0.2, 0.3]) if shape[0] == 2 else (0.5, 0.25)
    network: Network = read_qonnx(path, mean=mean, std=std)
    full = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    assert network.input_shape == full
    images = np.random.default_rng(4).integers(0, 256, (40, *full[1:], full[0]), np.uint8)
    x = _floats(images, mean, std).reshape(-1, *shape)
    theirs = _torch(module, x)
    ours = run(network, images)
    if name == "bireal":
        # Brevitas' network ends in log_softmax, which is left out.
        ours = ours - np.log(np.exp(ours).sum(axis=1, keepdims=True))
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@BOTH
def test_a_batch_that_is_not_fixed(dynamo: bool, zoo: Any, tmp_path: Path) -> None:
    """x.reshape(x.shape[0], -1) then becomes a small graph of its own."""
    import torch

    module, shape, _ = zoo["plain"]
    path = tmp_path / "dynamic.onnx"
    if dynamo:
        more: dict[str, Any] = {"dynamic_shapes": {"x": {0: torch.export.Dim("batch")}}}
    else:
        more = {"dynamic_axes": {"x": {0: "batch"}}, "input_names": ["x"]}
    _export_plain(module, path, shape, dynamo=dynamo, batch=3, **more)
    images = np.random.default_rng(4).integers(0, 256, (5, 8, 8, 3), np.uint8)
    theirs = _torch(module, _floats(images))
    np.testing.assert_allclose(run(read_qonnx(path), images), theirs, rtol=0, atol=1e-5)
