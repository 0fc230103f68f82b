"""Any attack by its configuration; torch is imported when a twin is made, and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import AttackConfig, Crafted, FgsmConfig
from bnnmcu.errors import MissingDependencyError
from bnnmcu.graph import Graph

if TYPE_CHECKING:
    from bnnmcu.attack.twin import IntegerTwin

__all__ = ["craft", "make_twin"]


def make_twin(graph: Graph) -> IntegerTwin:
    """The network that attacks take gradients of.

    Raises:
        MissingDependencyError: torch is missing.
        UnsupportedModelError: a logit could exceed what float64 holds exactly.
    """
    try:
        from bnnmcu.attack.twin import IntegerTwin
    except ImportError as error:
        raise MissingDependencyError(
            "crafting adversarial images needs torch", hint="pip install 'bnnmcu[attack]'"
        ) from error
    return IntegerTwin(graph)


def craft(
    twin: IntegerTwin,
    attack: AttackConfig,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    seed: int,
) -> Crafted:
    """One adversarial example for every image.

    Args:
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,), the true ones.
        seed: of starts and draws, 0 .. 2**63 - 1; fixes the result.

    Raises:
        UsageError: arguments out of range or of the wrong shape.
        UnsupportedModelError: the graph gives no gradients.
    """
    from bnnmcu.attack.fgsm import fgsm
    from bnnmcu.attack.pgd import pgd

    if isinstance(attack, FgsmConfig):
        return fgsm(twin, images, labels, attack=attack, seed=seed)
    return pgd(twin, images, labels, attack=attack, seed=seed)
