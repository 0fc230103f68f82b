"""A campaign: clean images and attacks, crafted on the twin and judged by an oracle.

Everything random derives from the run's seed and its place in the run
(:mod:`bnnmcu.attack.seeds`), images are crafted in fixed chunks, and what the
store holds is neither crafted nor asked again.  A run that was killed and
started again therefore ends with the same images, seeds and answers as one
that was not (crafting is float arithmetic: on the same machine and torch).

torch is imported when the first image is crafted, and not before.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.arrivals import arrivals
from bnnmcu.attack.config import (
    CLEAN,
    AttackConfig,
    BlackBoxConfig,
    CampaignConfig,
)
from bnnmcu.attack.config.gradient import GradientConfig
from bnnmcu.attack.crafting import Crafter, Crafting, Made, fingerprint
from bnnmcu.attack.oracle import Oracle, TakenBack, takes_seeds
from bnnmcu.attack.pairs import Chunk, chunks_of, places_of
from bnnmcu.attack.seeds import evaluation_seeds
from bnnmcu.data import Dataset
from bnnmcu.errors import StoreError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256, save_graph_bytes
from bnnmcu.link.stats import LinkStats
from bnnmcu.store import Example, Store
from bnnmcu.store.pending import Pending

if TYPE_CHECKING:
    from bnnmcu.attack.model import GradientModel

__all__ = ["CLEAN", "Campaign", "Progress", "campaign_identity", "model_identity"]

Report = Callable[["Progress"], None]


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        attack, levels: the case.
        stage: ``craft`` or ``ask``.
        done, total: examples of this stage; what an earlier session did counts.
        board: who is asked; the oracle's name.
        link: the link's counters since the session began; None where there is no link.
    """

    attack: str
    levels: int
    stage: Literal["craft", "ask"]
    done: int
    total: int
    board: str = ""
    link: LinkStats | None = None


def model_identity(graph: Graph) -> dict[str, Any]:
    """What must agree of the network that answers, as plain JSON values."""
    return {
        "name": graph.name,
        "sha256": graph_sha256(graph).hex(),
        # Covers what crafting depends on too: surrogates and the logits' scale.
        "graph_file_sha256": hashlib.sha256(save_graph_bytes(graph)).hexdigest(),
        "stochastic": bool(graph.stochastic),
        "logit_scale": graph.logit_scale,
    }


def campaign_identity(
    config: CampaignConfig,
    graph: Graph,
    dataset: Dataset,
    oracle: Oracle,
    models: Mapping[str, GradientModel] | None = None,
) -> dict[str, Any]:
    """All that must agree for results to belong together, as plain JSON values.

    Args:
        models: others that gradients are taken of, by name; only those that an
            attack names count.

    Raises:
        UsageError: an attack names a model that is not there.
    """
    given = models or {}
    used = sorted({attack.model for attack in config.attacks if attack.model})
    for name in used:
        if name not in given:
            raise UsageError(
                f"an attack takes the gradients of {name!r}, and there is no such model",
                hint=f"there is {', '.join(sorted(given))}" if given else "name no model",
            )
    return {
        "config": config.to_dict(),
        "model": model_identity(graph),
        "models": {name: fingerprint(given[name]) for name in used},
        "data": {"name": dataset.name, "images": len(dataset), "sha256": dataset.sha256()},
        "oracle": {"name": oracle.name, "label": oracle.label},
    }


class Campaign:
    """Runs, or finishes, one campaign.

    Args:
        config: which attacks, how many draws, the seed.
        graph: of the network that the oracle runs.
        dataset: images and true labels.
        oracle: answers.
        store: opened with :func:`campaign_identity` of the same arguments.
        models: others that gradients are taken of, by name.
        workers: chunks crafted at the same time; None for one on each core.
        device: ``cpu``, ``cuda`` or ``auto``, where the twin of ``graph`` computes.
        crafter: makes the chunks instead of threads of this process.

    Raises:
        UsageError: less than one worker, a model that is missing or does not suit,
            or an adversary who knows the seeds of a board that keeps them.
        DataError: images of another shape, labels the network does not have, no images.
        StoreError: the store belongs to another run.
    """

    def __init__(
        self,
        config: CampaignConfig,
        graph: Graph,
        dataset: Dataset,
        oracle: Oracle,
        store: Store,
        *,
        models: Mapping[str, GradientModel] | None = None,
        workers: int | None = None,
        device: str = "cpu",
        crafter: Crafting | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers; at least one is needed")
        dataset.check_suits(graph.name, graph.input_shape, graph.classes)
        store.check(campaign_identity(config, graph, dataset, oracle, models))
        self._config = config
        self._graph = graph
        self._dataset = dataset
        self._oracle = oracle
        self._store = store
        self._seeded = takes_seeds(oracle)
        self._places = {
            self._key(attack): places_of(attack, dataset, graph.classes)
            for attack in (None, *config.attacks)
        }
        for attack in config.attacks:
            self._check(attack, models or {})
        self._crafter: Crafting = crafter or Crafter(
            config,
            graph,
            dataset,
            oracle,
            models or {},
            workers=workers or os.cpu_count() or 1,
            device=device,
        )

    def _check(self, attack: AttackConfig, models: Mapping[str, GradientModel]) -> None:
        # What a seed draws is defined for integer networks only.
        known = self._seeded and self._oracle.label != "float"
        if attack.knows_seed and self._graph.stochastic and not known:
            raise UsageError(
                f"{attack.case} knows the seeds of the draws, and {self._oracle.name} draws "
                "for itself",
                hint="use adversary eot, or a board in evaluation mode",
            )
        if isinstance(attack, GradientConfig):
            needed = 4 if attack.targets != "none" else 3
            if any(one.loss == "dlr" for one in attack.settings) and self._graph.classes < needed:
                raise UsageError(
                    f"the DLR loss needs {needed} classes, {self._graph.name} has "
                    f"{self._graph.classes}",
                    where=attack.case,
                    hint="use the loss 'ce' or 'margin'",
                )
        if not attack.model:
            return
        model = models[attack.model]
        shapes = (model.input_shape, model.classes), (self._graph.input_shape, self._graph.classes)
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{attack.model} takes images of {shapes[0][0]} in {shapes[0][1]} classes, "
                f"{self._graph.name} of {shapes[1][0]} in {shapes[1][1]}",
                hint="transfer from a model for the same images",
            )
        if attack.knows_seed and self._graph.stochastic:
            if not model.stochastic:
                raise UsageError(
                    f"{attack.model} draws no weights: {attack.case} knows no seed of it"
                )
            try:
                # Now, and not after hours of other cases.
                model.draws_of_seeds(np.zeros(1, dtype=np.uint64))
            except UsageError as error:
                raise UsageError(error.what, where=attack.case, hint=error.hint) from error

    @staticmethod
    def _key(attack: AttackConfig | None) -> tuple[str, int]:
        """Name and levels of a case."""
        return (attack.case, attack.levels) if attack else (CLEAN, 0)

    def run(self, progress: Report | None = None) -> None:
        """Do all that is not in the store yet.

        Raises:
            MissingDependencyError: something is to be crafted and torch is missing.
            UnsupportedModelError: the graph gives no gradients.
            LinkError: the oracle failed; what it answered so far is stored.
            StoreError: the store cannot be written any more.
        """
        report = progress or (lambda _: None)
        self._crafter.prepare([(one, self._to_craft(one)) for one in self._config.attacks])
        for attack in (None, *self._config.attacks):
            self._craft(attack, report)
            self._ask(attack, report)
        for attack in (None, *self._config.attacks):
            # Nothing, unless answers of a board that was caught later were taken back.
            self._ask(attack, report)

    def _to_craft(self, attack: AttackConfig | None) -> list[Chunk]:
        """Chunks of a case that are not stored."""
        size = attack.chunk if isinstance(attack, BlackBoxConfig) else self._config.chunk
        case = self._key(attack)
        return self._missing(case, chunks_of(self._places[case], size))

    def _craft(self, attack: AttackConfig | None, report: Report) -> None:
        case = self._key(attack)
        total = len(self._places[case])
        missing = self._to_craft(attack)
        done = total - sum(len(chunk.places) for chunk in missing)
        report(self._progress(case, "craft", done, total))
        if attack is None:
            for chunk in missing:
                self._store.add_examples(self._clean(chunk))
                done += len(chunk.places)
                report(self._progress(case, "craft", done, total))
            return
        # Stored as they become ready; the store is this thread's alone.
        with closing(self._crafter.made(attack, missing)) as chunks:
            for made in chunks:
                self._store.add_examples(self._examples(attack, made), seconds=made.seconds)
                done += len(made.chunk.places)
                report(self._progress(case, "craft", done, total))

    def _missing(self, case: tuple[str, int], chunks: Sequence[Chunk]) -> list[Chunk]:
        stored = self._store.examples(*case)
        missing = []
        for chunk in chunks:
            there = sum((place.image, place.target) in stored for place in chunk.places)
            if there and there != len(chunk.places):
                raise StoreError(
                    f"{case[0]}, {case[1]} levels: a chunk of images is there in part",
                    where=str(self._store.path),
                    hint="the file was altered: move it away and start a new run",
                )
            if not there:
                missing.append(chunk)
        return missing

    def _progress(
        self, case: tuple[str, int], stage: Literal["craft", "ask"], done: int, total: int
    ) -> Progress:
        return Progress(*case, stage, done, total, self._oracle.name, self._oracle.stats)

    def _clean(self, chunk: Chunk) -> list[Example]:
        return [
            Example(
                attack=CLEAN,
                levels=0,
                image=index,
                true_label=int(self._dataset.labels[index]),
                pixels=self._dataset.images[index],
            )
            for index in chunk.images
        ]

    def _examples(self, attack: AttackConfig, made: Made) -> list[Example]:
        crafted, indices = made.crafted, made.chunk.images
        change = crafted.images.astype(np.int64) - self._dataset.images[indices]
        parameters = {"attack": attack.kind, **asdict(attack), "chunk": made.chunk.number}
        examples = []
        for i, place in enumerate(made.chunk.places):
            kept = {"estimator_kept": crafted.estimators[i]} if crafted.estimators else {}
            told = _plain(crafted.details[i]) if crafted.details else {}
            examples.append(
                Example(
                    attack=attack.case,
                    levels=attack.levels,
                    image=place.image,
                    target=place.target,
                    true_label=int(self._dataset.labels[place.image]),
                    pixels=crafted.images[i],
                    linf=int(np.abs(change[i]).max()),
                    l2=float(np.sqrt((change[i] ** 2).sum()) / 255.0),
                    zero_gradients=float(crafted.zero_gradients[i]),
                    crafted_by=parameters | {"seed": made.seeds[i]} | kept | told,
                )
            )
        return examples

    def _ask(self, attack: AttackConfig | None, report: Report) -> None:
        case = self._key(attack)
        total = len(self._places[case])
        todo = self._store.unanswered(*case, self._graph.input_shape)
        done = total - len(todo)
        report(self._progress(case, "ask", done, total))
        if not todo:
            return
        images = np.stack([one.pixels for one in todo])
        seeds = np.stack([self._judging_seeds(attack, one) for one in todo])
        try:
            # Closed at once when storing fails, so that the device is not left mid-stream.
            with closing(arrivals(self._oracle, images, seeds, self._graph.classes)) as answers:
                for came in answers:
                    if isinstance(came, TakenBack):
                        # Of earlier cases too: the run asks again about what is missing.
                        self._store.take_back(came.board)
                        done -= len(came.images)
                        continue
                    index, answer = came
                    self._store.add_answer(
                        todo[index].row,
                        seeds[index] if self._seeded else None,
                        answer.logits,
                        answer.ticks,
                        answer.polluted,
                        latency_s=answer.seconds,
                        attempts=answer.attempts,
                        board=answer.board or self._oracle.name,
                    )
                    done += 1
                    report(self._progress(case, "ask", done, total))
        except KeyboardInterrupt:
            # It mostly comes while an answer is written, which then is stored and not yet told of.
            left = self._store.unanswered(*case, self._graph.input_shape)
            report(self._progress(case, "ask", total - len(left), total))
            raise

    def _judging_seeds(self, attack: AttackConfig | None, one: Pending) -> npt.NDArray[np.uint64]:
        """Of an example: fresh ones, or the one that its adversary knew or chose."""
        if attack is None or not attack.knows_seed or not self._graph.stochastic:
            # Without draws every answer is the same: one is enough.
            draws = self._config.draws if self._graph.stochastic else 1
            case = self._key(attack)
            return evaluation_seeds(self._config.seed, *case, one.image, draws, target=one.target)
        try:
            (text,) = one.details["seeds"]
            return np.array([int(text, 16)], dtype=np.uint64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(
                f"image {one.image} ({attack.case}) does not say with which seed it was crafted",
                where=str(self._store.path),
                hint="the file was altered: move it away and start a new run",
            ) from error


def _plain(details: Mapping[str, Any]) -> dict[str, Any]:
    """Without numpy's types, and without numbers that JSON does not know."""
    plain = {}
    for name, value in details.items():
        number = value.item() if isinstance(value, np.generic) else value
        if not isinstance(number, float) or math.isfinite(number):
            plain[name] = number
    return plain
