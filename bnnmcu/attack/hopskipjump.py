"""HopSkipJump on labels (Chen, Jordan & Wainwright, 2020), L2, by ART's implementation.

The search itself is the Adversarial Robustness Toolbox's.  Around it stands
what a board and a network that draws its weights need: images are rounded to
pixel levels before they are asked about, every label is counted and the search
ends at the budget, the nearest image that ever fooled the network is kept, and
where that may have been luck, it is confirmed by more queries and pushed
further past the boundary until they agree.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import Crafted, HopSkipJumpConfig
from bnnmcu.attack.lockstep import Ask, in_lockstep
from bnnmcu.attack.query import QueryOracle
from bnnmcu.errors import MissingDependencyError, UsageError

__all__ = ["hopskipjump"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

# Noise that is tried before other images are, and all starts in all.
_NOISE_FIRST = 3
_STARTS = 50
# Places on the way from the boundary to the full overshoot.
_PUSHES = 6
# ART is told whether an image fools the network; with two classes it takes another road.
_ART_CLASSES = 3


class _SpentError(Exception):
    """The search has asked all it may."""


@dataclass(eq=False)
class _Image:
    """One image's search.

    Attributes:
        ask: labels of images, int64 (N,), for uint8 (N, H, W, C).
        clean: uint8, shape (H, W, C).
        wanted: the label to leave or, targeted, to reach.
        allowed: queries that are left to the search.
        nearest: the image nearest to the clean one that fooled the network, and is another.
        distance: of it, L2 in pixel levels.
    """

    ask: Ask
    clean: Images
    wanted: int
    targeted: bool
    allowed: int
    nearest: Images | None = None
    distance: float = field(default=float("inf"))

    def fooled(self, images: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Whether each image fools the network; float images (N, H, W, C) in [0, 1]."""
        if len(images) > self.allowed:
            raise _SpentError
        self.allowed -= len(images)
        scaled = np.nan_to_num(np.asarray(images, dtype=np.float64)) * 255.0
        pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        labels = self.ask(pixels)
        hits: npt.NDArray[np.bool_] = (labels == self.wanted) == self.targeted
        far = self._distances(pixels)
        # A draw that is wrong about the clean image makes it no adversarial one.
        far[~hits | (far == 0)] = np.inf
        best = int(far.argmin())
        if far[best] < self.distance:
            self.nearest, self.distance = pixels[best], float(far[best])
        return hits

    def _distances(self, pixels: Images) -> npt.NDArray[np.float64]:
        change = pixels.astype(np.float64) - self.clean
        far: npt.NDArray[np.float64] = np.sqrt((change**2).sum((1, 2, 3)))
        return far


def _load_art() -> tuple[Any, Any]:
    try:
        from art.attacks.evasion.hop_skip_jump import HopSkipJump
        from art.estimators.classification.blackbox import BlackBoxClassifierNeuralNetwork
    except ImportError as error:
        raise MissingDependencyError(
            "HopSkipJump needs the Adversarial Robustness Toolbox",
            hint="pip install 'bnnmcu[blackbox]'",
        ) from error
    logging.getLogger("art").setLevel(logging.ERROR)
    return HopSkipJump, BlackBoxClassifierNeuralNetwork


def _starts(search: _Image, others: Images) -> Iterator[npt.NDArray[np.float64]]:
    """Images that may fool the network already: noise as published, then what else there is."""
    for _ in range(_NOISE_FIRST):
        yield np.random.uniform(size=search.clean.shape)
    yield from others / 255.0
    yield 1.0 - search.clean / 255.0
    for _ in range(_STARTS):
        yield np.random.uniform(size=search.clean.shape)


def _search(search: _Image, attack: HopSkipJumpConfig, others: Images) -> None:
    """ART's attack on one image, until the budget is spent."""
    attack_class, classifier_class = _load_art()
    start = next((one for one in _starts(search, others) if search.fooled(one[None])[0]), None)
    if start is None:
        return
    # Labels as ART sees them: 1 fools the network, 0 does not.  It first asks for
    # the clean image and the start, of which both are known.
    known = [0, 1]

    def predict(images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if known:
            hits = np.full(len(images), known.pop(0))
        else:
            hits = search.fooled(images).astype(np.int64)
        one_hot: npt.NDArray[np.float32] = np.eye(_ART_CLASSES, dtype=np.float32)[hits]
        return one_hot

    shape = search.clean.shape
    classifier = classifier_class(
        predict, input_shape=shape, nb_classes=_ART_CLASSES, clip_values=(0.0, 1.0)
    )
    art = attack_class(
        classifier,
        batch_size=1 << 20,
        targeted=False,
        norm=2,
        max_iter=1 << 20,
        init_eval=attack.first_batch,
        max_eval=1 << 20,
        verbose=False,
    )
    # By this ART places its probes, too: theta * sqrt(pixels) of the distance.
    art.theta = attack.probe / float(np.sqrt(np.prod(shape)))
    clean = (search.clean / 255.0).astype(np.float32)[None]
    art.generate(clean, y=np.zeros(1, dtype=np.int64), x_adv_init=start.astype(np.float32)[None])


def _confirmed(search: _Image, attack: HopSkipJumpConfig) -> bool:
    """Push the image on until all queries agree; else to where most did."""
    assert search.nearest is not None
    change = search.nearest / 255.0 - search.clean / 255.0
    best, most = search.nearest, -1
    for factor in np.linspace(1.0, attack.overshoot, _PUSHES if attack.overshoot > 1 else 1):
        pixels = np.clip(np.rint(255.0 * (search.clean / 255.0 + factor * change)), 0, 255)
        image = pixels.astype(np.uint8)
        # Not by fooled(): what is nearest does not change any more.
        labels = search.ask(np.repeat(image[None], attack.confirm, 0))
        hits = int(((labels == search.wanted) == search.targeted).sum())
        if hits > most:
            best, most = image, hits
        if most == attack.confirm:
            break
    search.nearest = best
    return most == attack.confirm


def hopskipjump(
    query: QueryOracle,
    images: Images,
    labels: Labels,
    *,
    attack: HopSkipJumpConfig,
    seed: int,
    targets: Labels | None = None,
) -> Crafted:
    """Craft one adversarial example for every image; all of them are asked about together.

    An image for which none was found comes back as it is.

    Args:
        query: answers; its budget is what ends the search.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,): the true ones, which the examples shall leave.
        attack: sizes of the search, confirmation and overshoot.
        seed: of the search, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach instead.

    Raises:
        MissingDependencyError: ART is not installed.
        UsageError: the oracle has no limit, or one that confirmation alone would pass.
        LinkError: the oracle failed.
    """
    if query.budget is None:
        raise UsageError("HopSkipJump ends with its budget: give the oracle one")
    _load_art()
    confirm = attack.confirm if query.stochastic else 0
    kept = confirm * (_PUSHES if attack.overshoot > 1 else 1)
    if kept >= query.left(0):
        raise UsageError(
            f"confirming takes {kept * query.draws} of a budget of {query.budget} inferences",
            hint="raise the budget, or lower 'confirm' or 'votes'",
        )
    begun = query.queries.copy()
    searches: dict[int, _Image] = {}
    found = np.zeros(len(images), dtype=bool)

    def body(i: int) -> Callable[[Ask], None]:
        def run(ask: Ask) -> None:
            wanted = int(labels[i] if targets is None else targets[i])
            search = _Image(ask, images[i], wanted, targets is not None, query.left(i) - kept)
            searches[i] = search
            others = images[labels == wanted if targets is not None else labels != wanted]
            try:
                with np.errstate(all="ignore"):
                    _search(search, attack, others)
            except _SpentError:
                pass
            if search.nearest is not None:
                found[i] = _confirmed(search, attack) if confirm else True

        return run

    def answer(questions: Any) -> list[Labels]:
        sizes = [len(asked) for _, asked in questions]
        index = np.repeat([i for i, _ in questions], sizes)
        together = query.labels(np.concatenate([asked for _, asked in questions]), index)
        return np.split(together, np.cumsum(sizes)[:-1])

    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, 2**32, len(images)).tolist()
    in_lockstep([body(i) for i in range(len(images))], answer, seeds)
    nearest = [searches[i].nearest for i in range(len(images))]
    made = [images[i] if one is None else one for i, one in enumerate(nearest)]
    spent = query.queries - begun
    details = tuple({"queries": int(spent[i]), "found": bool(found[i])} for i in range(len(images)))
    return Crafted(np.stack(made), np.zeros(len(images)), details=details)
