"""Black-box attacks and transfer in campaigns: held out images, known seeds, and killed runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blackbox_rig import TAKES_ART, oracle_of, some

from bnnmcu.attack.campaign import Campaign, campaign_identity
from bnnmcu.attack.config import (
    AttackConfig,
    CampaignConfig,
    FgsmConfig,
    HopSkipJumpConfig,
    SquareConfig,
    SubstituteConfig,
)
from bnnmcu.attack.oracle import Answer
from bnnmcu.data import Dataset
from bnnmcu.errors import LinkError
from bnnmcu.graph import Graph
from bnnmcu.store import Judged, Store

pytest.importorskip("torch", reason="the networks are trained")


class Breaking:
    """An oracle whose line fails once it has answered so many images."""

    def __init__(self, graph: Graph, limit: int = 10**9) -> None:
        self._oracle = oracle_of(graph)
        self.name, self.label, self.stats = "breaking", self._oracle.label, None
        self.left = limit

    def logits(self, images: np.ndarray, seeds: np.ndarray) -> Iterator[Answer]:
        for answer in self._oracle.logits(images, seeds):
            if self.left == 0:
                raise LinkError("the cable was pulled")
            self.left -= 1
            yield answer


def judged(
    path: Path,
    graph: Graph,
    data: Dataset,
    attacks: tuple[AttackConfig, ...],
    *,
    limit: int = 10**9,
    models: Any = None,
) -> list[Judged]:
    """One session of a run, and what is stored of its attacks."""
    config, oracle = CampaignConfig(attacks, draws=5), Breaking(graph, limit)
    identity = campaign_identity(config, graph, data, oracle, models)
    with Store.open(path, identity) as store:
        Campaign(config, graph, data, oracle, store, models=models).run()
        return [one for one in store.judged() if one.attack != "clean"]


# Each with the answers after which the line fails: enough for one chunk, not for all.
ATTACKS = [
    (SquareConfig(epsilon=0.4, budget=40, images=10), 230, 10),
    (SubstituteConfig(epsilon=0.4, held_out=28, rounds=2, epochs=3), 90, 12),
    pytest.param(
        HopSkipJumpConfig(budget=60, first_batch=20, images=3, chunk=2), 150, 3, marks=TAKES_ART
    ),
]


@pytest.mark.parametrize(("attack", "limit", "count"), ATTACKS)
def test_a_run_on_a_bad_line_ends_as_one_on_a_good_one(
    trained: dict[str, Graph],
    blob_data: Dataset,
    tmp_path: Path,
    attack: AttackConfig,
    limit: int,
    count: int,
) -> None:
    graph = trained["S"]
    whole = judged(tmp_path / "whole", graph, blob_data, (attack,))
    with pytest.raises(LinkError):
        judged(tmp_path / "parts", graph, blob_data, (attack,), limit=limit)
    parts = judged(tmp_path / "parts", graph, blob_data, (attack,))
    assert len(parts) == len(whole) == count
    for one, other in zip(whole, parts, strict=True):
        assert one == replace(other, crafting_s=one.crafting_s)
        assert one.details["queries"] > 0


def test_square_that_knows_the_seed_fools_the_draw_it_is_judged_with(
    trained: dict[str, Graph], blob_data: Dataset, tmp_path: Path
) -> None:
    attack = SquareConfig(epsilon=0.4, budget=100, adversary="seed-known")
    rows = judged(tmp_path / "run", trained["S"], blob_data, (attack,))
    assert len(rows) == 40
    for one in rows:
        (label,) = one.labels
        assert (label != one.true_label) == one.details["found"]
    assert np.mean([one.details["found"] for one in rows]) > 0.8


def test_images_of_one_network_transfer_to_another(
    trained: dict[str, Graph], blob_data: Dataset, tmp_path: Path
) -> None:
    from bnnmcu.attack.twin import IntegerTwin

    attack = FgsmConfig(epsilon=0.4, model="neighbour", estimator="tanh")
    models = {"neighbour": IntegerTwin(trained["B"])}
    data = some(blob_data, 20)
    rows = judged(tmp_path / "run", trained["S"], data, (attack,), models=models)
    right = np.mean([label == one.true_label for one in rows for label in one.labels])
    # Noise of the same size leaves more than nine in ten right.
    assert right < 0.8
    assert len(rows) == 20
