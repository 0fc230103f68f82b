"""Trains the networks that stand for the peers, and stores them as weights.safetensors.

    python benchmarks/peers/train.py FOLDER_WITH_MNIST

A64 is the paper's model A, the 32-bit twin of B64, C64 and S64; the MLP is what
emlearn takes. Both see the images that the shipped networks were trained on
(MNIST training images from 6,000 on), so that the bundled digits are unseen to
all. Weights are rounded to float16 to keep the file small; the rounded ones are
the networks. Minutes on one core; the file is in the repository, so that
`make bench-peers` needs no MNIST.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from bnnmcu.data import FIRST_TRAINING_IMAGE, load_mnist
from bnnmcu.nn.config import PaperConfig
from bnnmcu.nn.training import EpochReport, TrainingConfig, train

WEIGHTS = Path(__file__).with_name("weights.safetensors")
HIDDEN = 64
EPOCHS = 15
BATCH = 128
SEED = 1


def mlp(images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """784-64-10 with ReLU, Adam, learning rate 1e-3 falling along a half cosine."""
    torch.manual_seed(SEED)
    net = torch.nn.Sequential(
        torch.nn.Linear(784, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 10)
    )
    x = torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)
    y = torch.from_numpy(labels)
    steps = len(y) // BATCH
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(y))
        for step in range(steps):
            part = order[step * BATCH : (step + 1) * BATCH]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
            schedule.step()
    tensors = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    return {
        "mlp.0.weight": tensors["0.weight"],
        "mlp.0.bias": tensors["0.bias"],
        "mlp.1.weight": tensors["2.weight"],
        "mlp.1.bias": tensors["2.bias"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the peers' networks.")
    parser.add_argument("mnist", type=Path, help="folder with the original MNIST files")
    parser.add_argument("--checkpoint", type=Path, help="keep A64's state here, to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = load_mnist(arguments.mnist, "train")

    def show(report: EpochReport) -> None:
        if report.step == report.steps:
            print(f"A64 epoch {report.epoch}: error {100 * report.train_error:.2f} %", flush=True)

    training = TrainingConfig(
        epochs=EPOCHS, batch_size=BATCH, seed=SEED, first_image=FIRST_TRAINING_IMAGE
    )
    net = train(PaperConfig("A"), training, data, checkpoint=arguments.checkpoint, progress=show)
    tensors = {f"a64.{name}": value.numpy() for name, value in net.state_dict().items()}
    tensors |= mlp(data.images[FIRST_TRAINING_IMAGE:], data.labels[FIRST_TRAINING_IMAGE:])
    save_file({k: np.ascontiguousarray(v.astype(np.float16)) for k, v in tensors.items()}, WEIGHTS)
    print(f"written to {WEIGHTS.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
