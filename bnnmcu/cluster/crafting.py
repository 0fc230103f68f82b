"""Chunks of adversarial images, made by a cluster's workers.

A shard of a campaign is a chunk of a case: the same images, seeds and batch on
whichever worker, one torch thread each.  What a lost worker had begun is begun
again elsewhere, and nothing else.

Which worker makes a chunk changes nothing as long as all have the same processor
class, torch and numpy: :meth:`bnnmcu.cluster.engine.Engine.check_alike`.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnnmcu.attack.config import AttackConfig, BlackBoxConfig, CampaignConfig
from bnnmcu.attack.crafting import Crafter, Made
from bnnmcu.attack.oracle import NativeOracle, Oracle, ReferenceOracle
from bnnmcu.attack.pairs import Chunk
from bnnmcu.cluster.engine import Engine
from bnnmcu.data import Dataset
from bnnmcu.graph import Graph

if TYPE_CHECKING:
    from bnnmcu.attack.model import GradientModel

__all__ = ["ClusterCrafter"]

# Of later cases, so that no worker waits while boards are asked about this one.
_AHEAD = 2_000
_ANYWHERE = ("native", "reference")


@dataclass(frozen=True, eq=False)
class _Material:
    """All that a worker needs to make any chunk of a campaign.

    Attributes:
        key: names it among others.
        config, graph, dataset, models, device: as of :class:`Crafter`.
        oracle: who is asked by attacks with queries: ``native`` or ``reference``; or nobody.
    """

    key: str
    config: CampaignConfig
    graph: Graph
    dataset: Dataset
    models: Mapping[str, GradientModel]
    device: str
    oracle: str


# Of this process, a worker: the crafter of the campaign that it works for.
_crafters: dict[str, Crafter] = {}


def _craft(material: _Material, attack: AttackConfig, chunk: Chunk) -> Made:
    """Runs in a worker."""
    import torch

    torch.set_num_threads(1)
    crafter = _crafters.get(material.key)
    if crafter is None:
        # One campaign at a time: twins are large.
        _crafters.clear()
        crafter = _crafters[material.key] = Crafter(
            material.config,
            material.graph,
            material.dataset,
            _oracle(material),
            material.models,
            workers=1,
            device=material.device,
        )
    return crafter.make(attack, chunk)


def _oracle(material: _Material) -> Oracle:
    if material.oracle == "native":
        return NativeOracle(material.graph)
    # Attacks by gradients never ask.
    return ReferenceOracle(material.graph)


class ClusterCrafter:
    """Makes a campaign's chunks on a cluster; see :class:`bnnmcu.attack.crafting.Crafting`.

    Args:
        engine: an open cluster with at least one worker that crafts.
        config, graph, dataset, models, device: as of :class:`Crafter`.
        oracle: whom attacks by queries ask.  A board is asked from here; the native
            twin and the reference are what they are on any machine, and run in the worker.
    """

    _numbers = itertools.count()

    def __init__(
        self,
        engine: Engine,
        config: CampaignConfig,
        graph: Graph,
        dataset: Dataset,
        oracle: Oracle,
        models: Mapping[str, GradientModel],
        *,
        device: str,
    ) -> None:
        self._engine = engine
        self._anywhere = oracle.label in _ANYWHERE
        self._here = Crafter(config, graph, dataset, oracle, models, workers=1, device=device)
        self._name = f"{graph.name}-{next(self._numbers)}"
        self._material = _Material(self._name, config, graph, dataset, models, device, oracle.label)
        self._sent: Any = None
        self._futures: dict[tuple[str, int, int], Any] = {}
        #: That workers took for what they made, one thread each.
        self.seconds = 0.0

    def prepare(self, work: Sequence[tuple[AttackConfig, Sequence[Chunk]]]) -> None:
        """Have the cluster begin, the first cases first."""
        for attack, chunks in work:
            if not self._spread(attack):
                continue
            for chunk in chunks:
                if len(self._futures) >= _AHEAD:
                    return
                self._submit(attack, chunk)

    def _spread(self, attack: AttackConfig) -> bool:
        return self._anywhere or not isinstance(attack, BlackBoxConfig)

    def _submit(self, attack: AttackConfig, chunk: Chunk) -> Any:
        key = (attack.case, attack.levels, chunk.number)
        if key not in self._futures:
            if self._sent is None:
                self._engine.check_alike()
                self._sent = self._engine.share(self._material)
            self._futures[key] = self._engine.submit(
                _craft,
                self._sent,
                attack,
                chunk,
                name=f"craft-{attack.case}",
                craft=True,
            )
        return self._futures[key]

    def made(self, attack: AttackConfig, chunks: Sequence[Chunk]) -> Generator[Made, None, None]:
        """The chunks of an attack, as workers finish them.

        Raises:
            ClusterError: the cluster is gone, or a chunk ends every worker that has it.
            BnnmcuError: as crafting the chunk here.
        """
        if not self._spread(attack):
            yield from self._here.made(attack, chunks)
            return
        futures = {self._submit(attack, chunk): chunk for chunk in chunks}
        try:
            for future in self._engine.as_completed(list(futures)):
                chunk = futures[future]
                made = self._engine.result(
                    future, f"{attack.case}, chunk {chunk.number} ({len(chunk.places)} images)"
                )
                del self._futures[attack.case, attack.levels, chunk.number]
                future.release()
                self.seconds += made.seconds
                yield made
        finally:
            left = [one for one in futures if not one.done()]
            if left:
                self.close()

    def close(self) -> None:
        """Have nothing more made."""
        with suppress(Exception):
            self._engine.cancel(list(self._futures.values()))
        self._futures.clear()
