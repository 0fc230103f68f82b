"""A small float network, and any network as Foolbox and ART want it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bnnmcu.attack.config import Estimator
from bnnmcu.attack.model import Draws, GradientModel

Array = npt.NDArray[Any]


class SmallNet:
    """A float convolutional network for 28 x 28 x 1 and ten classes; it does not round."""

    name = "small float network"
    classes = 10
    input_shape = (28, 28, 1)
    stochastic = False
    device = torch.device("cpu")

    def __init__(self, images: Array, labels: Array) -> None:
        """Train for a second on uint8 (N, 28, 28, 1) and their labels."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 8, 5, stride=2),
                nn.ReLU(),
                nn.Conv2d(8, 16, 5, stride=2),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(16 * 16, 10),
            )
            self._train(images, labels)
        self.layers.requires_grad_(False).eval()

    def _train(self, images: Array, labels: Array) -> None:
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
        y = torch.from_numpy(labels)
        optimizer = torch.optim.Adam(self.layers.parameters(), 5e-3)
        for _ in range(4):
            for batch in torch.randperm(len(x)).split(50):
                loss = nn.functional.cross_entropy(self.layers(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def require_gradients(self) -> None:
        """It always has them."""

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """Nothing is drawn."""
        return Draws({}, count)

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """Nothing is drawn."""
        return Draws({}, len(seeds))

    def __call__(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits (1, N, 10) of x (N, 28, 28, 1)."""
        return self.layers(x.permute(0, 3, 1, 2)).double().unsqueeze(0)


class ForPeers(nn.Module):
    """A deterministic network as a plain module: float32 (N, H, W, C) in [0, 1] to (N, classes)."""

    def __init__(
        self, model: GradientModel, estimator: Estimator, *, softmax: bool = False
    ) -> None:
        super().__init__()
        self.model, self.estimator, self.softmax = model, estimator, softmax
        # ART asks a module for the device of its parameters.
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x, None, self.estimator)[0]
        # ART computes in float32; a softmax must not lose more than that.
        return logits.softmax(-1) if self.softmax else logits


def rounded(images: Tensor | Array) -> npt.NDArray[np.uint8]:
    """What a peer made, on the pixel grid."""
    values = images.detach().numpy() if isinstance(images, Tensor) else images
    return np.rint(values * 255.0).astype(np.uint8)


def as_x(images: npt.NDArray[np.uint8]) -> Tensor:
    """Images as networks take them."""
    return torch.from_numpy(images).float() / 255.0


def answers(model: GradientModel, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Labels of a deterministic network, int64 (N,)."""
    with torch.no_grad():
        return model(as_x(images))[0].argmax(-1).numpy()


def foolbox_model(module: nn.Module) -> Any:
    """A module as Foolbox wants it."""
    import foolbox

    return foolbox.PyTorchModel(module.eval(), bounds=(0.0, 1.0), device="cpu")


def art_classifier(module: nn.Module, shape: tuple[int, ...], classes: int) -> Any:
    """A module as ART wants it."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=module,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
