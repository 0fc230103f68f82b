"""Fashion-MNIST: the residual network of own_network.py on clothes instead of digits.

    apt-get install dataset-fashion-mnist      # Debian; or give a folder of the four IDX files
    python examples/fashion_mnist.py
    bnnmcu evaluate fashion.safetensors --data /usr/share/datasets/fashion-mnist

The files are those of https://github.com/zalandoresearch/fashion-mnist (MIT licence).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from own_network import MEAN, STD, OwnNet

import bnnmcu
from bnnmcu.compiler import read_source
from bnnmcu.data import Dataset, load_dataset
from bnnmcu.errors import DataError
from bnnmcu.evaluate import evaluate
from bnnmcu.passes import lower

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def tensors(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images (N, 1, 28, 28), and labels."""
    pixels = torch.tensor(data.images).permute(0, 3, 1, 2).float() / 255
    return (pixels - MEAN) / STD, torch.tensor(data.labels)


def main() -> None:
    """Train, store, and measure the float and the integer network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the four IDX files")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=60_000, help="of the training set")
    options = parser.parse_args()
    try:
        train, test = (load_dataset(f"{options.data}:{part}") for part in ("train", "test"))
    except DataError as error:
        sys.exit(
            f"no Fashion-MNIST in {options.data}: {error.what}\n"
            "  next: apt-get install dataset-fashion-mnist, or --data FOLDER with the IDX files"
        )
    torch.manual_seed(1)
    inputs, labels = tensors(train)
    inputs, labels = inputs[: options.images], labels[: options.images]
    net = OwnNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for epoch in range(options.epochs):
        net.train()
        for batch in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        print(f"epoch {epoch + 1} of {options.epochs}")
    net.eval()
    test_inputs, test_labels = tensors(test)
    with torch.no_grad():
        parts = [net(part).argmax(dim=1) for part in test_inputs.split(1000)]
    wrong = (torch.cat(parts) != test_labels).float().mean()
    bnnmcu.save(
        net, torch.zeros(1, 1, 28, 28), "fashion.safetensors", name="fashion", mean=MEAN, std=STD
    )
    graph = lower(read_source(Path("fashion.safetensors")).network).graph
    found = evaluate(graph, test)
    print(f"{100 * wrong:.2f} % of {len(test):,} test images are wrong by the float network")
    print(f"{100 * found.error:.2f} % by the integer network, as the board computes it")
    print("next: bnnmcu export fashion.safetensors --board nucleo_f446 -o fashion")


if __name__ == "__main__":
    main()
