"""Any attack by its configuration; torch is imported when a model is made, and not before."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import AttackConfig, Crafted
from bnnmcu.attack.interrupts import held_interrupts
from bnnmcu.errors import MissingDependencyError, UsageError
from bnnmcu.graph import Graph

if TYPE_CHECKING:
    from bnnmcu.attack.model import Draws, GradientModel
    from bnnmcu.attack.query import QueryOracle
    from bnnmcu.attack.twin import IntegerTwin

__all__ = ["craft", "craft_queries", "make_twin"]

# Kind to module and function; a function is only imported to be called.
_BY_GRADIENTS = {
    "fgsm": ("fgsm", "fgsm"),
    "pgd": ("pgd", "pgd"),
    "pgd-l2": ("pgd_l2", "pgd_l2"),
    "apgd": ("apgd", "apgd"),
    "cw": ("cw", "cw"),
    "jsma": ("jsma", "jsma"),
}


def make_twin(graph: Graph, device: str = "cpu") -> IntegerTwin:
    """The network that attacks take gradients of.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for whichever there is.

    Raises:
        MissingDependencyError: torch is missing.
        UnsupportedModelError: a logit could exceed what float64 holds exactly.
        UsageError: there is no such device.
    """
    try:
        with held_interrupts():
            from bnnmcu.attack.device import choose_device
            from bnnmcu.attack.twin import IntegerTwin
    except ImportError as error:
        raise MissingDependencyError(
            "crafting adversarial images needs torch", hint="pip install 'bnnmcu[attack]'"
        ) from error
    return IntegerTwin(graph).to(choose_device(device))


def craft(
    model: GradientModel,
    attack: AttackConfig,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    seed: int,
    *,
    targets: npt.NDArray[np.int64] | None = None,
    draws: Draws | None = None,
) -> Crafted:
    """One adversarial example for every image, by gradients.

    Args:
        model: whose gradients are followed.
        images: uint8, shape (N, H, W, C).
        labels: int64, shape (N,), the true ones.
        seed: of starts and draws, 0 .. 2**63 - 1; fixes the result.
        targets: labels to reach, int64 (N,); None to leave the true ones.
        draws: the weights to attack, where they are known.

    Raises:
        UsageError: arguments out of range or of the wrong shape, or an attack by queries.
        UnsupportedModelError: the graph gives no gradients.
    """
    if attack.kind not in _BY_GRADIENTS:
        raise UsageError(f"{attack.kind} follows no gradients: it asks an oracle")
    module, name = _BY_GRADIENTS[attack.kind]
    run: Callable[..., Any] = getattr(import_module(f"bnnmcu.attack.{module}"), name)
    made = run(model, images, labels, attack=attack, seed=seed, targets=targets, draws=draws)
    assert isinstance(made, Crafted)
    return made


def craft_queries(
    query: QueryOracle,
    attack: AttackConfig,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    seed: int,
    *,
    targets: npt.NDArray[np.int64] | None = None,
    training: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None = None,
) -> Crafted:
    """One adversarial example for every image, by asking an oracle; see :func:`craft`.

    Args:
        query: who is asked; the k-th image has the k-th budget.
        training: images and labels held out, for an attack that trains on some.
    """
    from bnnmcu.attack import blackbox

    if training is None:
        return blackbox.craft_queries(query, attack, images, labels, targets, seed)
    return blackbox.craft_queries(query, attack, images, labels, targets, seed, training=training)
