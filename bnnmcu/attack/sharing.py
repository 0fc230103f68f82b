"""Images crafted once for all boards that run the same network.

Attacks by gradients never ask the board, so what they make for one run is what they
would make for another one that differs in who answers, and in nothing else.
Attacks by queries are made anew for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnnmcu.attack.config import CLEAN, CampaignConfig
from bnnmcu.store import Store

__all__ = ["may_share", "share_crafted"]


def may_share(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs differ in who answers alone."""
    return {**one, "oracle": None} == {**other, "oracle": None}


def share_crafted(
    source: Store, store: Store, config: CampaignConfig, shape: tuple[int, int, int]
) -> int:
    """Put into a run what another one crafted by gradients; gives how many images.

    Only whole cases are taken, and only where the run has nothing of one yet.

    Args:
        source: a run that is :func:`may_share`.
        store: of the run that may profit.
        config: of both.
        shape: of an image, (H, W, C).

    Raises:
        StoreError: a value that no campaign writes, or the disk refuses.
    """
    shared = 0
    gradients = [(one.case, one.levels) for one in config.attacks if one.needs == "gradients"]
    for case in ((CLEAN, 0), *gradients):
        if store.examples(*case):
            continue
        rows = list(source.rows([case]))
        took = [one.crafting_s for one in rows if one.crafting_s is not None]
        store.add_examples(
            [one.example(shape) for one in rows],
            seconds=sum(took) if took else None,
        )
        shared += len(rows)
    return shared
