"""Adversaries who know, or choose, the seed that will judge an image.

With the seed a network that draws its weights is deterministic: every image is
attacked alone, on its own drawn weights, in every step and in every choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from bnnmcu.attack.config import AttackConfig, Crafted
from bnnmcu.attack.craft import craft
from bnnmcu.attack.gradient import Objective, generator_of, join
from bnnmcu.attack.model import GradientModel
from bnnmcu.errors import UsageError

__all__ = ["choose_seed", "craft_knowing", "seed_text"]

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Seeds = npt.NDArray[np.uint64]

# Candidate seeds whose weights are held at a time.
_AT_ONCE = 16


def seed_text(seed: int) -> str:
    """As results files write seeds: 16 hexadecimal digits."""
    return f"{seed:016x}"


def choose_seed(
    model: GradientModel, image: Images, label: int, target: int | None, candidates: Seeds
) -> int:
    """The seed that fools the network the most before anything is changed.

    Args:
        image: uint8, shape (1, H, W, C).
        label: to leave; or ``target``, to reach.
        candidates: uint64, shape (D,).

    Returns:
        One of the candidates: that of the largest margin, of equals the first.
    """
    objective = Objective(
        model=model,
        step_draws=1,
        labels=torch.tensor([label if target is None else target], device=model.device),
        targeted=target is not None,
        generator=generator_of(0),
    )
    x = torch.from_numpy(image).to(model.device).float() / 255.0
    parts = [candidates[k : k + _AT_ONCE] for k in range(0, len(candidates), _AT_ONCE)]
    margins = [
        objective.margins(x, model.draws_of_seeds(part))[:, 0].cpu().numpy() for part in parts
    ]
    return int(candidates[int(np.concatenate(margins).argmax())])


def craft_knowing(
    model: GradientModel,
    attack: AttackConfig,
    images: Images,
    labels: Labels,
    targets: Labels | None,
    *,
    seeds: Sequence[Seeds],
    crafting: Sequence[int],
) -> Crafted:
    """One adversarial example for every image, each against weights of its own.

    Args:
        model: the network that will answer; it draws its weights.
        images, labels, targets: as for :func:`bnnmcu.attack.craft.craft`.
        seeds: of each image, the one that will judge it, or those to choose from.
        crafting: of each image, the seed of whatever else the attack draws.

    Returns:
        Of each image, ``seeds`` in the details says with which one it is judged.

    Raises:
        UsageError: the model draws nothing, or not what a device draws.
    """
    if not model.stochastic:
        raise UsageError(f"{model.name} draws no weights: its seeds say nothing")
    made = []
    for i, own in enumerate(seeds):
        one = slice(i, i + 1)
        target = None if targets is None else int(targets[i])
        seed = int(own[0])
        if attack.adversary == "seed-chosen":
            seed = choose_seed(model, images[one], int(labels[i]), target, own)
        crafted = craft(
            model,
            attack,
            images[one],
            labels[one],
            crafting[i],
            targets=None if targets is None else targets[one],
            draws=model.draws_of_seeds(np.array([seed], dtype=np.uint64)),
        )
        known = dict(crafted.details[0] if crafted.details else {}, seeds=[seed_text(seed)])
        made.append(replace(crafted, details=(known,)))
    return join(made)
