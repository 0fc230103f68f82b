"""Replays whose seeds are not known, that are stopped, or of a network that does not suit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_network import IMAGES, small_network

from bnnmcu.attack.campaign import Campaign, campaign_identity
from bnnmcu.attack.config import CampaignConfig
from bnnmcu.attack.metrics import summarize
from bnnmcu.attack.oracle import ReferenceOracle
from bnnmcu.attack.replay import Replay, Replayed, replay_identity
from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, LinkError, StoreError, UsageError
from bnnmcu.graph import INPUT, Dense, Graph
from bnnmcu.passes import lower
from bnnmcu.store import Store
from bnnmcu.store.compare import content_rows

_DATA = Dataset("six", IMAGES, np.array([0, 1, 2, 3, 0, 1]))
_DRAWS = 3


class _Keeps(ReferenceOracle):
    """Draws as it likes, as a board in field mode does."""

    seeded = False


class _Stops(ReferenceOracle):
    """Gives up after four answers."""

    def logits(self, images: Any, seeds: Any) -> Iterator[Any]:
        yield from islice(super().logits(images, seeds), 4)


@pytest.fixture(scope="module")
def graphs() -> dict[bool, Graph]:
    """The small network with drawn weights, and without."""
    return {drawn: lower(small_network(drawn=drawn)).graph for drawn in (True, False)}


def _run(path: Path, graph: Graph, oracle: ReferenceOracle) -> Path:
    config = CampaignConfig(attacks=(), draws=_DRAWS, seed=4)
    with Store.open(path, campaign_identity(config, graph, _DATA, oracle)) as store:
        Campaign(config, graph, _DATA, oracle, store).run()
    return path


def _replay(source: Path, path: Path, graph: Graph, oracle: ReferenceOracle) -> Replayed:
    with (
        Store.read(source) as before,
        Store.open(path, replay_identity(before, graph, oracle)) as store,
    ):
        replay = Replay(before, graph, oracle, store)
        replay.run()
        assert summarize(store).complete
        return replay.found()


@pytest.mark.parametrize(
    ("first", "second", "oracle", "answers", "anew", "compared"),
    [
        (True, True, ReferenceOracle, 18, 0, 18),
        (True, True, _Keeps, 18, 6, 0),  # its seeds were never told
        (False, True, ReferenceOracle, 18, 6, 6),  # it drew nothing; the first seed is the same
        (True, False, ReferenceOracle, 6, 0, 6),
    ],
)
def test_seeds_are_the_stored_ones_where_there_are_any(
    graphs: dict[bool, Graph],
    tmp_path: Path,
    first: bool,
    second: bool,
    oracle: type[ReferenceOracle],
    answers: int,
    anew: int,
    compared: int,
) -> None:
    source = _run(tmp_path / "source.sqlite", graphs[first], oracle(graphs[first]))
    graph = graphs[second]
    found = _replay(source, tmp_path / "replay.sqlite", graph, ReferenceOracle(graph))
    assert (found.images, found.answers) == (6, answers)
    assert (found.drawn_anew, found.compared) == (anew, compared)
    assert found.same_network is (first == second)
    if found.same_network:
        assert found.equal == compared
        assert found.first_difference is None
    assert found.agrees


def test_a_stopped_replay_goes_on(graphs: dict[bool, Graph], tmp_path: Path) -> None:
    graph = graphs[True]
    source = _run(tmp_path / "source.sqlite", graph, ReferenceOracle(graph))
    path = tmp_path / "replay.sqlite"
    with pytest.raises(LinkError, match="4 answers to 6 images"):
        _replay(source, path, graph, _Stops(graph))
    with Store.read(path) as store:
        assert len(store.judged()) == 4
    found = _replay(source, path, graph, ReferenceOracle(graph))
    assert (found.images, found.equal) == (6, 18)
    assert list(content_rows(path)) == list(content_rows(source))


def test_what_cannot_be_replayed(graphs: dict[bool, Graph], tmp_path: Path) -> None:
    graph = graphs[True]
    oracle = ReferenceOracle(graph)
    source = _run(tmp_path / "source.sqlite", graph, oracle)
    with Store.read(source) as before:
        with pytest.raises(UsageError, match="no case 'pgd'"):
            replay_identity(before, graph, oracle, ["pgd"])
        identity = replay_identity(before, graph, oracle)
        other = {**identity, "replay": {**identity["replay"], "content_sha256": "0" * 64}}
        with (
            Store.open(tmp_path / "other.sqlite", other) as store,
            pytest.raises(StoreError, match="another run"),
        ):
            Replay(before, graph, oracle, store)
    nodes = (Dense("dense", INPUT, np.ones((4, 16), np.int16)),)
    small = Graph("other", (4, 4, 1), nodes, logit_scale=1.0)
    with pytest.raises(DataError, match="takes 16 bytes"):
        _replay(source, tmp_path / "small.sqlite", small, ReferenceOracle(small))
