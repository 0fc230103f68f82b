"""A small Brevitas network, trained in seconds on bright shapes, and exported to QONNX."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

__all__ = ["CLASSES", "INPUT_SHAPE", "MEAN", "STD", "export", "need_brevitas", "shape_images",
           "trained", "trained_and_exported"]  # fmt: skip

#: (C, H, W), and what a pixel p stands for: (p / 255 - MEAN) / STD.
INPUT_SHAPE = (1, 14, 14)
CLASSES = 5
# Zero padding is the whole pixel 51, so that it survives quantisation exactly.
MEAN, STD = 0.2, 0.5


def need_brevitas() -> None:
    """Skip, with the reason, where Brevitas or what it needs to export is missing."""
    for module in ("torch", "onnx", "brevitas", "onnxoptimizer", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def shape_images(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Noisy images of five shapes: bar, column, square, diagonal, cross.

    Returns:
        uint8 (count, 14, 14, 1) and labels 0 to 4.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.integers(0, 110, (count, 14, 14))
    for image, label in zip(images, labels, strict=True):
        row, col = rng.integers(1, 5, 2)
        part = image[row : row + 8, col : col + 8]
        if label in (0, 4):
            part[3:5] += 120
        if label in (1, 4):
            part[:, 3:5] += 120
        if label == 2:
            part[1:7, 1:7] += 120
        if label == 3:
            part[np.arange(8), np.arange(8)] += 120
            part[np.arange(7), np.arange(1, 8)] += 120
    return np.minimum(images, 255).astype(np.uint8)[..., np.newaxis], labels


def _module() -> Any:
    import brevitas.nn as qnn
    import torch
    from brevitas.core.function_wrapper import TensorClamp
    from brevitas.inject.enum import ScalingImplType, StatsOp
    from brevitas.quant import SignedBinaryActPerTensorConst, SignedBinaryWeightPerTensorConst

    class PerChannel(SignedBinaryWeightPerTensorConst):  # type: ignore[misc]
        """XNOR-Net's scale: the mean of |weight|, per output channel."""

        scaling_impl_type = ScalingImplType.STATS
        scaling_stats_op = StatsOp.AVE
        scaling_per_output_channel = True
        # The usual one clamps in place, under the feet of the mean's gradient.
        tensor_clamp_impl = TensorClamp

    def act() -> Any:
        return qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst)

    nn = torch.nn
    binary = SignedBinaryWeightPerTensorConst
    layers = {
        "conv1": qnn.QuantConv2d(1, 16, 3, padding=1, bias=False, weight_quant=binary),
        "bn1": nn.BatchNorm2d(16),
        "sign1": act(),
        "pool": nn.MaxPool2d(2),
        "conv2": qnn.QuantConv2d(16, 24, 3, stride=2, padding=1, weight_quant=PerChannel),
        "bn2": nn.BatchNorm2d(24),
        "sign2": act(),
        "flatten": nn.Flatten(),
        "fc": qnn.QuantLinear(24 * 16, CLASSES, bias=False, weight_quant=binary),
        "bn3": nn.BatchNorm1d(CLASSES),
    }
    return nn.Sequential(OrderedDict(layers))


def trained(steps: int = 100) -> Any:
    """A trained ``torch.nn.Module``, in eval mode; the same at every call on one machine."""
    import torch

    threads = torch.get_num_threads()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        # Layers this small only lose time between threads, most of all on a busy machine.
        torch.set_num_threads(1)
        module = _module()
        images, labels = shape_images(64 * steps, seed=1)
        x = torch.from_numpy((images.transpose(0, 3, 1, 2) / 255.0 - MEAN) / STD).float()
        y = torch.from_numpy(labels)
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        for step in range(steps):
            batch = slice(64 * step, 64 * (step + 1))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()
        torch.set_num_threads(threads)
    return module.eval()


def export(module: Any, path: Path, shape: tuple[int, ...], *, dynamo: bool) -> Path:
    """Write QONNX as Brevitas does; ``dynamo`` chooses torch's newer exporter (the default)."""
    import torch
    from brevitas.export import export_qonnx

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            export_qonnx(module, torch.zeros(1, *shape), export_path=str(path), dynamo=dynamo)
    finally:
        logging.disable(level)
    return path


def trained_and_exported(
    folder: Path, *, dynamo: bool = True
) -> tuple[Path, Any, tuple[int, int, int]]:
    """Train one, export it: the file, the torch module in eval mode, its (C, H, W)."""
    module = trained()
    path = export(module, folder / "brevitas.onnx", INPUT_SHAPE, dynamo=dynamo)
    return path, module, INPUT_SHAPE
