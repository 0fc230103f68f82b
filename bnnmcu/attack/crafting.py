"""Chunks of adversarial images, each made in the same way whenever it is made.

Chunks that follow gradients are made side by side, each on one thread, so the
number of workers changes nothing but the time.  Chunks that ask the oracle are
made one after the other by whoever calls.

torch is imported when the first chunk is made by gradients, and not before.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bnnmcu.attack.config import AttackConfig, BlackBoxConfig, CampaignConfig, Crafted
from bnnmcu.attack.craft import craft, craft_queries, make_twin
from bnnmcu.attack.oracle import Oracle
from bnnmcu.attack.pairs import Chunk, held_out
from bnnmcu.attack.seeds import candidate_seeds, crafting_seed, evaluation_seeds
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph

if TYPE_CHECKING:
    from bnnmcu.attack.model import GradientModel

__all__ = ["Crafter", "Crafting", "Made", "fingerprint"]


def _steps(model: GradientModel) -> Sequence[Any]:
    """Of the network that a model was made of, if it still has it."""
    network = getattr(model, "network", None)
    return getattr(network, "ops", ()) or getattr(getattr(model, "graph", None), "nodes", ())


def fingerprint(model: GradientModel) -> str:
    """SHA-256 of what a model computes: its name, kind, steps and numbers; in hex.

    Raises:
        UsageError: it is no torch module, so its numbers cannot be read.
    """
    state = getattr(model, "state_dict", None)
    if state is None:
        raise UsageError(f"{model.name} is no torch module: what it computes cannot be recorded")
    digest = hashlib.sha256(f"{type(model).__name__}\0{model.name}".encode())
    for step in _steps(model):
        # Arrays are among the numbers; strides, paddings and bounds are not.
        plain = {
            field.name: getattr(step, field.name)
            for field in fields(step)
            if not isinstance(getattr(step, field.name), np.ndarray)
        }
        digest.update(f"\0{type(step).__name__}\0{plain}".encode())
    for name, tensor in state().items():
        numbers = tensor.cpu().contiguous().numpy()
        digest.update(f"\0{name}\0{numbers.dtype}\0{numbers.shape}\0".encode())
        digest.update(numbers.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Made:
    """A chunk's images.

    Attributes:
        chunk: which one.
        crafted: its images.
        seeds: of each image, the seed that it was crafted with.
        seconds: that the whole chunk took.
    """

    chunk: Chunk
    crafted: Crafted
    seeds: Sequence[int]
    seconds: float


class Crafting(Protocol):
    """Who makes chunks: threads of this process, or a cluster."""

    def prepare(self, work: Sequence[tuple[AttackConfig, Sequence[Chunk]]]) -> None:
        """Told once what will be asked for, in that order; may begin with it."""

    def made(self, attack: AttackConfig, chunks: Sequence[Chunk]) -> Generator[Made, None, None]:
        """The chunks of an attack as they become ready, in any order."""


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


class Crafter:
    """Makes the chunks of a campaign.

    Args:
        config: the campaign's; its seed decides everything random.
        graph: of the network that answers.
        dataset: images and true labels.
        oracle: whom attacks by queries ask.
        models: others that gradients are taken of, by name.
        workers: chunks made at the same time.
        device: ``cpu``, ``cuda`` or ``auto``, for the twin of ``graph``.
    """

    def __init__(
        self,
        config: CampaignConfig,
        graph: Graph,
        dataset: Dataset,
        oracle: Oracle,
        models: Mapping[str, GradientModel],
        *,
        workers: int,
        device: str,
    ) -> None:
        self._config = config
        self._graph = graph
        self._dataset = dataset
        self._oracle = oracle
        self._models = models
        self._workers = workers
        self._device = device
        self._twin: GradientModel | None = None

    def prepare(self, work: Sequence[tuple[AttackConfig, Sequence[Chunk]]]) -> None:
        """Nothing to do: chunks are made when they are asked for."""

    def make(self, attack: AttackConfig, chunk: Chunk) -> Made:
        """One chunk, by whoever calls."""
        begun = time.monotonic()
        if isinstance(attack, BlackBoxConfig):
            crafted = self._by_queries(attack, chunk)
        else:
            crafted = self._by_gradients(attack, chunk, self._model(attack))
        seconds = time.monotonic() - begun
        return Made(chunk, crafted, self._crafting_seeds(attack, chunk), seconds)

    def made(self, attack: AttackConfig, chunks: Sequence[Chunk]) -> Generator[Made, None, None]:
        """The chunks of an attack, in order, as they become ready."""
        if isinstance(attack, BlackBoxConfig):
            for chunk in chunks:
                yield self.make(attack, chunk)
            return
        if not chunks:
            return
        self._model(attack)  # once, before threads share it
        pool = ThreadPoolExecutor(min(self._workers, len(chunks)), initializer=_single_thread)
        try:
            for future in [pool.submit(self.make, attack, chunk) for chunk in chunks]:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _knows(self, attack: AttackConfig) -> bool:
        return attack.knows_seed and bool(self._graph.stochastic)

    def _crafting_seeds(self, attack: AttackConfig, chunk: Chunk) -> list[int]:
        """Of each image; the same for all of a chunk that is crafted together."""
        place = (self._config.seed, attack.case, attack.levels, chunk.number)
        alone = self._knows(attack) and not isinstance(attack, BlackBoxConfig)
        return [crafting_seed(*place, i if alone else None) for i in range(len(chunk.places))]

    def _model(self, attack: AttackConfig) -> GradientModel:
        if attack.model:
            return self._models[attack.model]
        if self._twin is None:
            self._twin = make_twin(self._graph, self._device)
        return self._twin

    def _by_gradients(self, attack: AttackConfig, chunk: Chunk, model: GradientModel) -> Crafted:
        images, labels = self._dataset.images[chunk.images], self._dataset.labels[chunk.images]
        seeds = self._crafting_seeds(attack, chunk)
        if self._knows(attack):
            from bnnmcu.attack.adversaries import craft_knowing

            crafted = craft_knowing(
                model,
                attack,
                images,
                labels,
                chunk.targets,
                seeds=self._device_seeds(attack, chunk),
                crafting=seeds,
            )
        else:
            crafted = craft(model, attack, images, labels, seeds[0], targets=chunk.targets)
        return self._with_saturation(attack, model, images, seeds[0], crafted)

    def _device_seeds(self, attack: AttackConfig, chunk: Chunk) -> list[Any]:
        """Of each image the seed that judges it, or those to choose from."""
        seed, case, levels = self._config.seed, attack.case, attack.levels
        if attack.adversary == "seed-chosen":
            count = attack.candidate_seeds
            return [
                candidate_seeds(seed, case, levels, one.image, count, one.target)
                for one in chunk.places
            ]
        return [
            evaluation_seeds(seed, case, levels, one.image, 1, one.target) for one in chunk.places
        ]

    def _with_saturation(
        self, attack: AttackConfig, model: GradientModel, images: Any, seed: int, crafted: Crafted
    ) -> Crafted:
        """The same; details tell if the clean softmax is saturated, and the model repeatable."""
        from bnnmcu.attack.gradient import generator_of, saturated
        from bnnmcu.attack.probe import repeatable

        draws = model.sample(attack.step_draws, generator_of(seed)) if model.stochastic else None
        known = crafted.details or ({},) * len(images)
        told = zip(
            known,
            saturated(model, images, draws).tolist(),
            repeatable(model, images, draws).tolist(),
            strict=True,
        )
        details = (dict(one, saturated=flat, repeatable=same) for one, flat, same in told)
        return replace(crafted, details=tuple(details))

    def _by_queries(self, attack: BlackBoxConfig, chunk: Chunk) -> Crafted:
        from bnnmcu.attack.query import QueryOracle

        images, labels = self._dataset.images[chunk.images], self._dataset.labels[chunk.images]
        seed = self._crafting_seeds(attack, chunk)[0]
        known = None
        if self._knows(attack):
            # One draw: asking it again would give the same answer.
            known = np.stack(self._device_seeds(attack, chunk))
        query = QueryOracle(
            self._oracle,
            images=len(chunk.places),
            classes=self._graph.classes,
            answers=attack.answers,
            seed=seed,
            draws=attack.votes if self._graph.stochastic and known is None else 1,
            seeds="known" if known is not None else attack.query_seeds,
            budget=attack.budget,
            logit_scale=self._graph.logit_scale,
            stochastic=bool(self._graph.stochastic),
            known=known,
        )
        count = held_out(attack)
        training = None
        if count:
            kept = slice(len(self._dataset) - count, None)
            training = (self._dataset.images[kept], self._dataset.labels[kept])
        crafted = craft_queries(
            query, attack, images, labels, seed, targets=chunk.targets, training=training
        )
        if known is None:
            return crafted
        details = crafted.details or ({},) * len(images)
        return replace(
            crafted,
            details=tuple(
                dict(one, seeds=[f"{int(own[0]):016x}"])
                for one, own in zip(details, known, strict=True)
            ),
        )
