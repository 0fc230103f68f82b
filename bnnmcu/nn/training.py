"""Training of the paper's networks: Adam, its schedule, checkpoints, exact resume.

Every random choice of an epoch (order of the images, draws of stochastic
weights, adversarial examples) comes from a generator seeded with (seed, epoch).
A run that was killed and resumed therefore ends, on the same machine, with the
same bits as one that was not.

The generator is the CPU's on every device: a GPU trains on the same random
numbers, and differs by the order of its sums alone.  It is no part of what a
training is called: its checkpoints and model files have the same identity.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, ModelFileError, UsageError
from bnnmcu.modelfile import ModelFile, write_model
from bnnmcu.nn.adversarial import adversarial_batch
from bnnmcu.nn.checkpoint import restore_state, save_state
from bnnmcu.nn.config import CLASSES, PaperConfig
from bnnmcu.nn.layers import BatchNormShift
from bnnmcu.nn.paper import PaperNet, build
from bnnmcu.nn.training_config import EpochReport, TrainingConfig

__all__ = [
    "EpochReport",
    "TrainingConfig",
    "error_rate",
    "load_net",
    "provenance",
    "recompute_statistics",
    "save_net",
    "train",
]


# Enough that a mean over them is exact to a percent of a deviation.
_STATISTICS_BATCHES = 100


def _as_input(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (N, H, W, C) to float32 (N, C, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255.0)


def _epoch_seed(seed: int, epoch: int) -> int:
    # Any injective mixture will do; the constant is 2^31 - 1, a prime above any epoch count.
    return (seed * 2_147_483_647 + epoch) % (1 << 63)


def _rate(training: TrainingConfig, done: int, total: int) -> float:
    """Adam's learning rate after so many steps of so many."""
    if training.schedule == "constant":
        return training.learning_rate
    return 0.5 * training.learning_rate * (1 + math.cos(math.pi * done / total))


def _loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy; ``smoothing`` as in :class:`TrainingConfig`."""
    if not smoothing:
        return F.cross_entropy(logits, labels)
    # torch spreads its share over all classes, the true one too.
    share = smoothing * CLASSES / (CLASSES - 1)
    return F.cross_entropy(logits, labels, label_smoothing=share)


def _usable(device: str) -> torch.device:
    if device not in ("cpu", "cuda"):
        raise UsageError(f"device {device!r} is unknown; use cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here", hint="train on the cpu")
    return torch.device(device)


def _exact_sums(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """On a GPU: no rounding of factors to 10 bits, and the same algorithms every time."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def train(
    config: PaperConfig,
    training: TrainingConfig,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[EpochReport], None] | None = None,
    device: str = "cpu",
) -> PaperNet:
    """Train a network from scratch, or go on from a checkpoint.

    Args:
        checkpoint: where the state is kept after each epoch.  If it exists it
            must be of the same configuration, and training continues from it,
            whichever device it was written on.
        progress: called every few steps and at the end of each epoch.
        device: ``cpu`` or ``cuda``: where the sums are done.

    Returns:
        the network, on the CPU, in evaluation mode.

    Raises:
        DataError: the images have another shape than the network takes.
        ModelFileError: the checkpoint is corrupt or of another configuration.
        UsageError: there is no such device.
    """
    data.check_suits(config.name, config.input_shape, CLASSES)
    if training.first_image >= len(data):
        raise DataError(f"no images from {training.first_image} on: {data.name} has {len(data)}")
    place = _usable(device)
    torch.set_num_threads(training.threads)
    net = build(config, training.seed).to(place)
    net.conv1.bits = training.first_bits
    optimizer = torch.optim.Adam(net.parameters(), lr=training.learning_rate)
    identity = {
        "network": config.to_dict(),
        "training": training.to_dict(),
        "data": data.name,
        "data_sha256": data.sha256(),
    }
    first_epoch, spent = 0, 0.0
    if checkpoint is not None and checkpoint.exists():
        first_epoch, known = restore_state(checkpoint, identity, net, optimizer)
        spent = math.nan if known is None else known

    images = torch.from_numpy(data.images[training.first_image :].copy()).permute(0, 3, 1, 2)
    labels = torch.from_numpy(data.labels[training.first_image :].copy())
    if len(labels) < training.batch_size:
        raise DataError(f"{len(labels)} images are less than one batch of {training.batch_size}")
    images, labels = images.to(place), labels.to(place)
    with _exact_sums(place):
        for epoch in range(first_epoch, training.epochs):
            begun = _clock(place)
            _one_epoch(net, optimizer, training, epoch, images, labels, progress)
            spent += _clock(place) - begun
            if checkpoint is not None:
                state = (epoch + 1, None if math.isnan(spent) else spent)
                save_state(checkpoint, identity, state, net, optimizer)
        if training.statistics == "recomputed":
            recompute_statistics(net, training, images)
    net.set_generator(None)
    net.conv1.settle()
    net.eval()
    return net.cpu()


def recompute_statistics(net: PaperNet, training: TrainingConfig, images: Tensor) -> None:
    """Set batch normalisation's statistics to their means over training batches.

    Args:
        training: whose seed decides the images and the draws.
        images: uint8, (N, C, H, W), on the network's device.
    """
    generator = torch.Generator().manual_seed(_epoch_seed(training.seed, training.epochs))
    order = torch.randperm(len(images), generator=generator).to(images.device)
    norms = [one for one in net.modules() if isinstance(one, BatchNormShift)]
    usual = [one.momentum for one in norms]
    net.set_generator(generator)
    net.train()
    with torch.no_grad():
        for step in range(min(_STATISTICS_BATCHES, len(images) // training.batch_size)):
            for one in norms:
                one.momentum = 1 / (step + 1)
            batch = order[step * training.batch_size : (step + 1) * training.batch_size]
            net(images[batch].float().div(255.0))
    for one, momentum in zip(norms, usual, strict=True):
        one.momentum = momentum


def _clock(device: torch.device) -> float:
    """Core-seconds of this process; seconds by the clock where a GPU does the work."""
    return time.process_time() if device.type == "cpu" else time.monotonic()


def _one_epoch(
    net: PaperNet,
    optimizer: torch.optim.Adam,
    training: TrainingConfig,
    epoch: int,
    images: Tensor,
    labels: Tensor,
    progress: Callable[[EpochReport], None] | None,
) -> None:
    """All batches of an epoch, which the seed and its number decide."""
    generator = torch.Generator().manual_seed(_epoch_seed(training.seed, epoch))
    net.set_generator(generator)
    net.train()
    adversarial = training.adversarial
    if adversarial is not None and epoch < adversarial.after:
        adversarial = None
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    steps = len(labels) // training.batch_size
    smoothing = training.label_smoothing
    loss_sum, wrong, started = 0.0, 0, time.monotonic()
    for step in range(steps):
        rate = _rate(training, epoch * steps + step, steps * training.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = order[step * training.batch_size : (step + 1) * training.batch_size]
        x = images[batch].float().div(255.0)
        logits = net(x)
        loss = _loss(logits, labels[batch], smoothing)
        if adversarial is not None:
            crafted = adversarial_batch(net, x, adversarial, generator)
            loss = (loss + _loss(net(crafted), labels[batch], smoothing)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.item()
        wrong += int((logits.argmax(1) != labels[batch]).sum())
        if progress and (step % 20 == 19 or step == steps - 1):
            progress(
                EpochReport(
                    epoch + 1,
                    training.epochs,
                    step + 1,
                    steps,
                    loss_sum / (step + 1),
                    wrong / ((step + 1) * training.batch_size),
                    time.monotonic() - started,
                )
            )
    if not math.isfinite(loss_sum):
        raise ModelFileError(
            f"the loss became {loss_sum} in epoch {epoch + 1}",
            hint="train again with a lower --lr",
        )


def error_rate(net: PaperNet, data: Dataset, *, seed: int = 0, batch_size: int = 1000) -> float:
    """Share of wrongly labelled images, one draw of stochastic weights per batch."""
    net.eval()
    net.set_generator(torch.Generator().manual_seed(seed))
    wrong = 0
    with torch.no_grad():
        for start in range(0, len(data), batch_size):
            logits = net(_as_input(data.images[start : start + batch_size]))
            labels = torch.from_numpy(data.labels[start : start + batch_size])
            wrong += int((logits.argmax(1) != labels).sum())
    net.set_generator(None)
    return wrong / len(data)


def provenance(training: TrainingConfig, data: Dataset) -> dict[str, Any]:
    """The ``training`` entry of a manifest: which images, and how."""
    return {
        "data": f"{data.name}, images {training.first_image} to {len(data) - 1}",
        "data_name": data.name,
        "data_sha256": data.sha256(),
        **training.to_dict(),
    }


def save_net(path: Path, net: PaperNet, *, training: dict[str, Any] | None = None) -> None:
    """Write a model file (``.pt`` or ``.safetensors``) with its manifest."""
    manifest = {
        "architecture": "paper",
        "network": net.config.to_dict(),
        "training": training or {},
    }
    write_model(path, manifest, {k: v.contiguous().numpy() for k, v in net.state_dict().items()})


def load_net(model: ModelFile) -> PaperNet:
    """The torch module of a model file, in evaluation mode.

    Raises:
        ModelFileError: the manifest names no network of the paper, or the
            tensors do not fit it.
    """
    config = PaperConfig.from_manifest(model.manifest, str(model.path))
    try:
        net = PaperNet(config)
        net.load_state_dict({name: torch.from_numpy(a) for name, a in model.tensors.items()})
    except RuntimeError as error:
        raise ModelFileError(
            f"tensors do not fit the network: {str(error).splitlines()[-1].strip()}",
            where=str(model.path),
        ) from error
    net.eval()
    return net
