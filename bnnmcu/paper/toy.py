"""The AND problem: networks so small that their whole surface can be drawn (figures 3 and 4).

The paper (appendix B) reproduces a toy of Papernot et al. (2016, "The limitations
of deep learning in adversarial settings"): learn the logical AND of two inputs
within [0, 1], where an input above one half is true.  The network has two hidden
layers of logistic units and one logistic output; in the quantised form the
second hidden layer, which touches neither input nor output, has weights and
activations of -1 and +1 and a straight-through estimator (identity, the
gradient clipped to +-1: see :mod:`bnnmcu.nn.functional`).  Adam, 1,000 epochs,
learning rate 0.1.

Papernot et al. train on samples of the four cases of the function, and so does
this.  Ours, since neither text says: each epoch is one step on the four cases,
there are biases, and initial weights are uniform within +-1/sqrt(inputs).  A
network is judged on 1,000 points drawn uniformly from the square.

Needs torch to train, and numpy alone for the surfaces.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.data import Dataset
from bnnmcu.errors import MissingDependencyError, StoreError, UsageError
from bnnmcu.paper.jobs import Measured, Value, canonical

__all__ = ["CASES", "Surface", "ToyJob", "ToyNet", "toy_points", "train_toy"]

Array = npt.NDArray[np.float64]

_POINTS = 1000
_DATA_SEED = 1234
# A pixel of 128 is the first above one half.
_TRUE = 128
_MAX_HIDDEN = 64
# Two inputs and their AND.
_CASES = ((0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
#: How many cases the AND has, which is what a network is trained on.
CASES = len(_CASES)


def toy_points() -> Dataset:
    """What a toy is judged on: 1,000 drawn points, as images of two pixels, with the AND.

    Pixels are levels of 1/255, uniform; one above one half is true.
    """
    levels = np.random.default_rng(_DATA_SEED).integers(0, 256, (_POINTS, 1, 2, 1), dtype=np.uint8)
    first, second = levels[:, 0, 0, 0] >= _TRUE, levels[:, 0, 1, 0] >= _TRUE
    labels = np.logical_and(first, second).astype(np.int64)
    return Dataset("AND of two inputs, 1,000 drawn points", levels, labels)


@dataclass(frozen=True)
class ToyJob:
    """One network of the toy; has of a :class:`bnnmcu.paper.jobs.Job` what a record needs.

    Attributes:
        hidden: units of each of the two hidden layers.
        quantized: whether the second one is of -1 and +1.
        seed: of the initial weights.
        epochs: steps of Adam on the four cases.

    Raises:
        UsageError: a number out of range.
    """

    hidden: int
    quantized: bool
    seed: int = 1
    epochs: int = 1000
    measure: str = field(default="toy", init=False)

    def __post_init__(self) -> None:
        if not 1 <= self.hidden <= _MAX_HIDDEN or self.epochs < 1 or not 0 <= self.seed < 2**31:
            raise UsageError(
                f"toy of {self.hidden} units, {self.epochs} epochs, seed {self.seed}: out of range"
            )

    @property
    def name(self) -> str:
        """``AND2``, or ``AND2 binarized``."""
        return f"AND{self.hidden}" + (" binarized" if self.quantized else "")

    @property
    def key(self) -> str:
        """A name for files."""
        return f"{self.name.replace(' ', '-')}-{self.seed}"

    def what(self) -> dict[str, Any]:
        """As of a :class:`bnnmcu.paper.jobs.Job`: all that the weights depend on."""
        form = "binarized" if self.quantized else "full-precision"
        made: dict[str, Any] = json.loads(
            canonical(
                {
                    "model": {
                        "name": self.name,
                        "kind": "AND",
                        "filters": self.hidden,
                        "regimen": "clean",
                        "recipe": "paper",
                        "seed": self.seed,
                        "dataset": "and",
                        "form": form,
                    },
                    "recipe": "paper",
                    "training": {
                        "optimizer": "Adam",
                        "learning_rate": 0.1,
                        "epochs": self.epochs,
                        "batch_size": CASES,
                        "units": "logistic",
                        "ste": "identity",
                        "seed": self.seed,
                    },
                    "measure": self.measure,
                    "settings": {"protocol": 1},
                }
            )
        )
        return made

    def id(self, data_name: str, data_sha256: str) -> str:
        """The job's number, as of a :class:`bnnmcu.paper.jobs.Job`."""
        text = canonical({**self.what(), "data": {"name": data_name, "sha256": data_sha256}})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def id_on(self, points: Dataset) -> str:
        """:meth:`id` on :func:`toy_points`."""
        return self.id(points.name, points.sha256())


@dataclass(frozen=True, eq=False)
class Surface:
    """What a network says of points (N, 2).

    Attributes:
        output: probability of "true", float64 (N,).
        slope: the forward derivative by both inputs, float64 (N, 2).  Through a
            quantised layer it is the straight-through one, which training and
            attacks follow; the true one is 0 wherever there is one.
    """

    output: Array
    slope: Array


@dataclass(frozen=True, eq=False)
class ToyNet:
    """A trained network: three layers of weights (O, I) and biases (O,), float64."""

    quantized: bool
    weights: tuple[Array, Array, Array]
    biases: tuple[Array, Array, Array]

    def surface(self, points: Array) -> Surface:
        """Output and forward derivative at points (N, 2) (Papernot et al., 2016, equation 5)."""
        first = _logistic(points @ self.weights[0].T + self.biases[0])
        by_input = (first * (1 - first))[:, :, None] * self.weights[0]
        if self.quantized:
            signs = _sign(self.weights[1])
            second = _sign(first @ signs.T + self.biases[1])
            # The estimator lets the gradient pass, clipped to +-1: on its way back it has
            # been through the output, and is clipped there.
            inner = signs
            bend = np.ones_like(second)
        else:
            second = _logistic(first @ self.weights[1].T + self.biases[1])
            inner = self.weights[1]
            bend = second * (1 - second)
        output = _logistic(second @ self.weights[2].T + self.biases[2])[:, 0]
        back = (output * (1 - output))[:, None] * self.weights[2]
        if self.quantized:
            back = np.clip(back, -1.0, 1.0)
        slope = np.einsum("no,oi,nid->nd", back * bend, inner, by_input)
        return Surface(output, slope)

    def values(self) -> dict[str, Value]:
        """The weights as a record holds them, row by row."""
        values: dict[str, Value] = {}
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            values[f"weight{index}"] = [float(one) for one in weight.ravel()]
            values[f"bias{index}"] = [float(one) for one in bias]
        return values

    def sha256(self) -> str:
        """Fingerprint of the weights, in hex: the record's ``model_sha256``."""
        digest = hashlib.sha256()
        for one in (*self.weights, *self.biases):
            digest.update(one.astype("<f8").tobytes())
        return digest.hexdigest()

    @classmethod
    def from_values(
        cls, values: Mapping[str, Value], hidden: int, *, quantized: bool, where: str
    ) -> ToyNet:
        """The network of a record.

        Raises:
            StoreError: the record does not hold the weights of such a network.
        """

        def take(name: str, *shape: int) -> Array:
            found = values.get(name)
            if not isinstance(found, list) or len(found) != math.prod(shape):
                raise StoreError(
                    f"{name} of the toy is no list of {math.prod(shape)} numbers",
                    where=where,
                    hint="measure it again: bnnmcu paper figure3 figure4",
                )
            return np.array(found, dtype=np.float64).reshape(shape)

        shapes = ((hidden, 2), (hidden, hidden), (1, hidden))
        weights = [take(f"weight{index}", *shape) for index, shape in enumerate(shapes, 1)]
        biases = [take(f"bias{index}", shape[0]) for index, shape in enumerate(shapes, 1)]
        return cls(
            quantized, (weights[0], weights[1], weights[2]), (biases[0], biases[1], biases[2])
        )


def train_toy(job: ToyJob) -> tuple[ToyNet, Measured]:
    """Train one network from scratch; reproducible on one version of torch.

    Returns:
        the network, and its record's values: weights, ``cases`` (of the four, how
        many are right), ``accuracy`` on :func:`toy_points` (a share), ``loss``
        (mean cross-entropy of the four cases), ``slope_low`` and ``slope_high``
        (the forward derivative's range by the second input, on the points).

    Raises:
        MissingDependencyError: torch is missing.
    """
    try:
        import torch
        from torch.nn import functional

        from bnnmcu.nn.functional import binarize
    except ImportError as error:
        raise MissingDependencyError(
            "training the AND toy needs torch", hint="pip install 'bnnmcu[train]'"
        ) from error
    before = sum(os.times()[:2])
    torch.set_num_threads(1)
    cases = np.array(_CASES)
    x, y = torch.from_numpy(cases[:, :2].copy()), torch.from_numpy(cases[:, 2].copy())
    generator = torch.Generator().manual_seed(job.seed)
    weights: list[torch.Tensor] = []
    biases: list[torch.Tensor] = []
    for outputs, inputs in ((job.hidden, 2), (job.hidden, job.hidden), (1, job.hidden)):
        for kept, shape in ((weights, (outputs, inputs)), (biases, (outputs,))):
            start = torch.rand(shape, generator=generator, dtype=torch.float64)
            kept.append(((2 * start - 1) / math.sqrt(inputs)).requires_grad_())
    optimizer = torch.optim.Adam([*weights, *biases], lr=0.1)

    def logits() -> torch.Tensor:
        value = torch.sigmoid(x @ weights[0].T + biases[0])
        if job.quantized:
            inner = value @ binarize(weights[1], "identity").T + biases[1]
            value = binarize(inner, "identity")
        else:
            value = torch.sigmoid(value @ weights[1].T + biases[1])
        result: torch.Tensor = (value @ weights[2].T + biases[2])[:, 0]
        return result

    for _ in range(job.epochs):
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(logits(), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        loss = float(functional.binary_cross_entropy_with_logits(logits(), y))
    kept_weights = [one.detach().numpy().copy() for one in weights]
    kept_biases = [one.detach().numpy().copy() for one in biases]
    net = ToyNet(
        job.quantized,
        (kept_weights[0], kept_weights[1], kept_weights[2]),
        (kept_biases[0], kept_biases[1], kept_biases[2]),
    )
    data = toy_points()
    surface = net.surface(data.images.reshape(_POINTS, 2) / 255.0)
    right = (surface.output >= 0.5) == (data.labels == 1)
    learned = (net.surface(cases[:, :2]).output >= 0.5) == (cases[:, 2] == 1)
    values: dict[str, Value] = {
        "cases": int(learned.sum()),
        "accuracy": float(right.mean()),
        "loss": loss,
        "slope_low": float(surface.slope[:, 1].min()),
        "slope_high": float(surface.slope[:, 1].max()),
        **net.values(),
    }
    return net, Measured(values, sum(os.times()[:2]) - before, None)


def _logistic(value: Array) -> Array:
    # exp of a large number overflows; tanh does not.
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * value))
    return result


def _sign(value: Array) -> Array:
    result: Array = np.where(value >= 0, 1.0, -1.0)
    return result
