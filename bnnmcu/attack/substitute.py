"""A substitute trained on an oracle's labels (Papernot, McDaniel, Goodfellow et al., 2017).

A small network learns the oracle's labels of a few images.  Each round then
moves every image it has by ``step`` along the sign of the gradient of its own
label's probability, asks for the labels of the new images, and trains on all.
Adversarial images of the substitute are given to the oracle: they transfer, or
they do not.  The network, its training and the sizes are those of Galloway,
Taylor & Moussa (2018): 784-200-200-10 with biases, Adam, batches of 128.

``as-published`` is their code, which writes the new images over every other one
of the set instead of behind it, one after the other, so that half of the
originals are lost, some under labels that were another image's; and which
starts from the data's labels instead of the oracle's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import Crafted, Estimator, FgsmConfig, PgdConfig, SubstituteConfig
from bnnmcu.attack.query import QueryOracle
from bnnmcu.errors import MissingDependencyError, UsageError

try:
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    from bnnmcu.attack.fgsm import fgsm
    from bnnmcu.attack.gradient import generator_of
    from bnnmcu.attack.model import Draws
    from bnnmcu.attack.pgd import pgd
except ImportError as error:
    raise MissingDependencyError(
        "a substitute model needs torch", hint="pip install 'bnnmcu[attack]'"
    ) from error

__all__ = ["Substitute", "Trained", "substitute", "train_substitute"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_HIDDEN = 200
_BATCH = 128
_RATE = 1e-3


class Substitute(nn.Module):
    """The attacker's own network; a :class:`bnnmcu.attack.model.GradientModel`.

    Args:
        shape: (H, W, C) of the images.
        classes: how many labels.
        generator: of the initial weights: uniform, up to 1 / sqrt(inputs).
    """

    name = "substitute"
    stochastic = False
    device = torch.device("cpu")

    def __init__(
        self, shape: tuple[int, int, int], classes: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.input_shape = shape
        self.classes = classes
        sizes = (int(np.prod(shape)), _HIDDEN, _HIDDEN, classes)
        self.layers = nn.ModuleList()
        for inputs, outputs in pairwise(sizes):
            layer = nn.Linear(inputs, outputs)
            for values in (layer.weight, layer.bias):
                nn.init.uniform_(values, -(inputs**-0.5), inputs**-0.5, generator=generator)
            self.layers.append(layer)

    def require_gradients(self) -> None:
        """There always are some."""

    def sample(self, count: int, generator: torch.Generator) -> Draws:
        """Nothing is drawn."""
        return Draws({}, count)

    def draws_of_seeds(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        """Nothing is drawn.

        Raises:
            UsageError: always; no device runs this network.
        """
        raise UsageError("a substitute has no device seeds")

    def forward(
        self, x: Tensor, draws: Draws | None = None, estimator: Estimator | None = None
    ) -> Tensor:
        """Logits, shape (1, N, classes), of x float32 (N, H, W, C) in [0, 1]."""
        value = x.flatten(1)
        for layer in self.layers[:-1]:
            value = F.relu(layer(value))
        logits: Tensor = self.layers[-1](value)
        return logits[None]


@dataclass(frozen=True, eq=False)
class Trained:
    """A substitute, and what it cost.

    Attributes:
        model: trained.
        agreement: share of the last new images whose label it gave as the oracle
            did, before it was trained on them; of the first ones if none are new.
        queries: inferences of the oracle.
    """

    model: Substitute
    agreement: float
    queries: int


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in torch depend on the number of threads, and results must not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _as_input(images: Images) -> Tensor:
    return torch.from_numpy(images).float() / 255.0


def _fit(
    model: Substitute,
    optimizer: torch.optim.Adam,
    images: Images,
    labels: Labels,
    epochs: int,
    generator: torch.Generator,
) -> None:
    x, y = _as_input(images), torch.from_numpy(labels)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x), _BATCH):
            batch = order[start : start + _BATCH]
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(x[batch])[0], y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _directions(model: Substitute, images: Images, labels: Labels) -> npt.NDArray[np.float32]:
    """Sign of the gradient of each label's probability, -1, 0 or 1, of the images' shape."""
    x = _as_input(images).requires_grad_()
    # The probability grows where its logarithm does, which does not vanish as it does.
    chosen = F.log_softmax(model(x)[0], -1).gather(1, torch.from_numpy(labels)[:, None])
    (gradient,) = torch.autograd.grad(chosen.sum(), x)
    signs: npt.NDArray[np.float32] = gradient.sign().numpy()
    return signs


def _moved(images: Images, signs: npt.NDArray[np.float32], step: float) -> Images:
    moved: Images = np.clip(np.rint(images + 255.0 * step * signs), 0, 255).astype(np.uint8)
    return moved


def _augmented(model: Substitute, images: Images, labels: Labels, step: float) -> Images:
    """The images, and behind them each one moved."""
    return np.concatenate([images, _moved(images, _directions(model, images, labels), step)])


def _augmented_as_published(
    model: Substitute, images: Images, labels: Labels, step: float
) -> Images:
    """Twice the images, with every other one overwritten in the published order."""
    signs = _directions(model, images, labels)
    twice = np.concatenate([images, images])
    for i in range(len(images)):
        # twice[i] may have been overwritten already.
        twice[2 * i] = _moved(twice[i], signs[i], step)
    return twice


def train_substitute(
    query: QueryOracle,
    attack: SubstituteConfig,
    training: tuple[Images, Labels],
    seed: int,
) -> Trained:
    """Train a substitute; all queries are charged to the first budget.

    Args:
        query: gives labels.
        attack: how much of everything.
        training: images uint8 (N, H, W, C), and their true labels, int64 (N,),
            which only ``as-published`` looks at.
        seed: of weights and order, 0 .. 2**63 - 1.

    Raises:
        UsageError: other than ``attack.held_out`` images.
        QueryBudgetError: the budget does not suffice.
        LinkError: the oracle failed.
    """
    images, given = training
    if len(images) != attack.held_out:
        raise UsageError(f"{len(images)} images to train on, not {attack.held_out}")
    before = int(query.queries[0])

    def ask(pixels: Images) -> Labels:
        return query.labels(pixels, np.zeros(len(pixels), dtype=np.int64))

    generator = generator_of(seed)
    height, width, channels = images.shape[1:]
    model = Substitute((height, width, channels), query.classes, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=_RATE)
    published = attack.variant == "as-published"
    labels = given.astype(np.int64) if published else ask(images)
    agreement = 0.0
    with _one_thread():
        for rounds_done in range(attack.rounds):
            if rounds_done:
                count = len(images)
                augment = _augmented_as_published if published else _augmented
                images = augment(model, images, labels, attack.step)
                # As published, the first half keeps its labels, whatever it now shows.
                labels = np.concatenate([labels, ask(images[count:])])
            newest = slice(len(images) // 2 if rounds_done else 0, None)
            with torch.no_grad():
                own = model(_as_input(images[newest]))[0].argmax(-1).numpy()
            agreement = float((own == labels[newest]).mean())
            _fit(model, optimizer, images, labels, attack.epochs, generator)
    model.requires_grad_(False)
    return Trained(model, agreement, int(query.queries[0]) - before)


def substitute(
    query: QueryOracle,
    images: Images,
    labels: Labels,
    *,
    attack: SubstituteConfig,
    seed: int,
    training: tuple[Images, Labels],
    targets: Labels | None = None,
) -> Crafted:
    """Train a substitute, and craft one adversarial example for every image on it.

    The details of every image tell the queries of the whole training: no image
    costs any more, and none can be had for less.

    Args:
        query: gives labels.
        images: uint8, shape (N, H, W, C); none of them is asked about.
        labels: int64, shape (N,): the true ones, which the examples shall leave.
        attack: training, and the attack on the substitute.
        seed: of everything random, 0 .. 2**63 - 1; fixes the result.
        training: images and labels held out.
        targets: labels to reach instead.

    Raises:
        UsageError: other training images than ``attack`` says.
        QueryBudgetError: the budget does not suffice for training.
        LinkError: the oracle failed.
    """
    trained = train_substitute(query, attack, training, seed)
    with _one_thread():
        if attack.gradient == "fgsm":
            step = FgsmConfig(
                epsilon=attack.epsilon, eot_draws=1, estimator="identity", label=attack.label
            )
            crafted = fgsm(trained.model, images, labels, attack=step, seed=seed, targets=targets)
        else:
            steps = PgdConfig(epsilon=attack.epsilon, eot_draws=1, estimator="identity")
            crafted = pgd(trained.model, images, labels, attack=steps, seed=seed, targets=targets)
        with torch.no_grad():
            own = trained.model(_as_input(crafted.images))[0].argmax(-1).numpy()
    fooled = own != labels if targets is None else own == targets
    told = {
        "queries": trained.queries,
        "queries_shared": True,
        "agreement": trained.agreement,
    }
    return replace(
        crafted, details=tuple({**told, "substitute_fooled": bool(one)} for one in fooled)
    )
