"""Training of the paper's networks: Adam, cosine decay, checkpoints, exact resume.

Every random choice of an epoch (order of the images, draws of stochastic
weights, adversarial examples) comes from a generator seeded with (seed, epoch).
A run that was killed and resumed therefore ends, on the same machine, with the
same bits as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, ModelFileError, UsageError
from bnnmcu.modelfile import ModelFile, atomic_write, write_model
from bnnmcu.nn.adversarial import AdversarialConfig, adversarial_batch
from bnnmcu.nn.config import CLASSES, PaperConfig
from bnnmcu.nn.paper import PaperNet, build

__all__ = ["EpochReport", "TrainingConfig", "error_rate", "load_net", "save_net", "train"]


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Attributes:
        epochs: passes over the data.
        learning_rate: Adam's, at the start; it falls to zero along a half cosine.
        batch_size: images per step.
        seed: of initial weights, order and draws.
        first_image: images below this index are left out.
        threads: of torch; part of what makes a result reproducible.
        adversarial: examples that join in after some epochs; None for none.
        first_bits: width of the integers that the first layer's weights are
            rounded to in every pass, as an export with so many bits rounds them;
            None for real weights.
    """

    epochs: int = 15
    learning_rate: float = 1e-3
    batch_size: int = 128
    seed: int = 1234
    first_image: int = 0
    threads: int = 1
    adversarial: AdversarialConfig | None = None
    first_bits: int | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.threads < 1:
            raise UsageError("epochs and threads must be at least 1, batch size at least 2")
        if not 0 < self.learning_rate < 1:
            raise UsageError(f"learning rate {self.learning_rate} is not between 0 and 1")
        if self.adversarial is not None and self.adversarial.after >= self.epochs:
            raise UsageError(
                f"adversarial examples after {self.adversarial.after} epochs, but there are only "
                f"{self.epochs}",
                hint="train for more epochs, or begin earlier",
            )
        if self.first_bits is not None and not 8 <= self.first_bits <= 14:
            raise UsageError(f"first layer of {self.first_bits} bits; 8 to 14 are possible")

    def to_dict(self) -> dict[str, Any]:
        """As in a manifest; what a training does without is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did; ``step`` and ``steps`` let a progress bar move within it."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    train_error: float
    seconds: float


def _as_input(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 (N, H, W, C) to float32 (N, C, H, W) in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255.0)


def _epoch_seed(seed: int, epoch: int) -> int:
    # Any injective mixture will do; the constant is 2^31 - 1, a prime above any epoch count.
    return (seed * 2_147_483_647 + epoch) % (1 << 63)


def train(
    config: PaperConfig,
    training: TrainingConfig,
    data: Dataset,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[EpochReport], None] | None = None,
) -> PaperNet:
    """Train a network from scratch, or go on from a checkpoint.

    Args:
        checkpoint: where the state is kept after each epoch.  If it exists it
            must be of the same configuration, and training continues from it.
        progress: called every few steps and at the end of each epoch.

    Raises:
        DataError: the images have another shape than the network takes.
        ModelFileError: the checkpoint is corrupt or of another configuration.
    """
    data.check_suits(config.name, config.input_shape, CLASSES)
    if training.first_image >= len(data):
        raise DataError(f"no images from {training.first_image} on: {data.name} has {len(data)}")
    torch.set_num_threads(training.threads)
    net = build(config, training.seed)
    net.conv1.bits = training.first_bits
    optimizer = torch.optim.Adam(net.parameters(), lr=training.learning_rate)
    identity = {
        "network": config.to_dict(),
        "training": training.to_dict(),
        "data": data.name,
        "data_sha256": data.sha256(),
    }
    first_epoch = 0
    if checkpoint is not None and checkpoint.exists():
        first_epoch = _restore(checkpoint, identity, net, optimizer)

    images = torch.from_numpy(data.images[training.first_image :].copy()).permute(0, 3, 1, 2)
    labels = torch.from_numpy(data.labels[training.first_image :].copy())
    steps = len(labels) // training.batch_size
    if steps == 0:
        raise DataError(f"{len(labels)} images are less than one batch of {training.batch_size}")
    total_steps = steps * training.epochs
    for epoch in range(first_epoch, training.epochs):
        generator = torch.Generator().manual_seed(_epoch_seed(training.seed, epoch))
        net.set_generator(generator)
        net.train()
        adversarial = training.adversarial
        if adversarial is not None and epoch < adversarial.after:
            adversarial = None
        order = torch.randperm(len(labels), generator=generator)
        loss_sum, wrong, started = 0.0, 0, time.monotonic()
        for step in range(steps):
            done = epoch * steps + step
            rate = 0.5 * training.learning_rate * (1 + math.cos(math.pi * done / total_steps))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = order[step * training.batch_size : (step + 1) * training.batch_size]
            x = images[batch].float().div(255.0)
            logits = net(x)
            loss = F.cross_entropy(logits, labels[batch])
            if adversarial is not None:
                crafted = adversarial_batch(net, x, adversarial, generator)
                loss = (loss + F.cross_entropy(net(crafted), labels[batch])) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.item()
            wrong += int((logits.argmax(1) != labels[batch]).sum())
            if progress and (step % 20 == 19 or step == steps - 1):
                seen = (step + 1) * training.batch_size
                progress(
                    EpochReport(
                        epoch + 1,
                        training.epochs,
                        step + 1,
                        steps,
                        loss_sum / (step + 1),
                        wrong / seen,
                        time.monotonic() - started,
                    )
                )
        if not math.isfinite(loss_sum):
            raise ModelFileError(
                f"the loss became {loss_sum} in epoch {epoch + 1}",
                hint="train again with a lower --lr",
            )
        if checkpoint is not None:
            _save_state(checkpoint, identity, epoch + 1, net, optimizer)
    net.set_generator(None)
    net.conv1.settle()
    net.eval()
    return net


def _save_state(
    path: Path, identity: dict[str, Any], epoch: int, net: PaperNet, optimizer: torch.optim.Adam
) -> None:
    import io

    buffer = io.BytesIO()
    torch.save(
        {
            "identity": identity,
            "epoch": epoch,
            "state_dict": net.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        buffer,
    )
    atomic_write(path, buffer.getvalue())


def _restore(
    path: Path, identity: dict[str, Any], net: PaperNet, optimizer: torch.optim.Adam
) -> int:
    hint = f"remove {path} to train from scratch"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["identity"] != identity:
            raise ModelFileError(
                "this checkpoint is of another network, data set or configuration",
                where=str(path),
                hint=hint,
            )
        net.load_state_dict(state["state_dict"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epoch"])
    except ModelFileError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise ModelFileError(
            f"cannot read the checkpoint: {(str(error) or type(error).__name__).splitlines()[0]}",
            where=str(path),
            hint=hint,
        ) from error


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
