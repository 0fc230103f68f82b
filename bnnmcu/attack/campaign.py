"""A campaign: clean images and attacks, crafted on the twin and judged by an oracle.

Everything random derives from the run's seed and its place in the run
(:mod:`bnnmcu.attack.seeds`), images are crafted in fixed chunks, and what the
store holds is neither crafted nor asked again.  A run that was killed and
started again therefore ends with the same images, seeds and answers as one
that was not (crafting is float arithmetic: on the same machine and torch).
Chunks are crafted side by side, each on one thread, so the number of workers
changes nothing but the time.

torch is imported when the first image is crafted, and not before.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import AttackConfig, CampaignConfig, Crafted
from bnnmcu.attack.craft import craft, make_twin
from bnnmcu.attack.oracle import Answer, Oracle
from bnnmcu.attack.seeds import crafting_seed, evaluation_seeds
from bnnmcu.data import Dataset
from bnnmcu.errors import LinkError, StoreError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256, save_graph_bytes
from bnnmcu.link.stats import LinkStats
from bnnmcu.store import Example, Store

if TYPE_CHECKING:
    from bnnmcu.attack.twin import IntegerTwin

__all__ = ["CLEAN", "Campaign", "Progress", "campaign_identity"]

#: Name of the case without an attack.
CLEAN = "clean"


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        attack, levels: the case.
        stage: ``craft`` or ``ask``.
        done, total: images of this stage; what an earlier session did counts.
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


def campaign_identity(
    config: CampaignConfig, graph: Graph, dataset: Dataset, oracle: Oracle
) -> dict[str, Any]:
    """All that must agree for results to belong together, as plain JSON values."""
    return {
        "config": config.to_dict(),
        "model": {
            "name": graph.name,
            "sha256": graph_sha256(graph).hex(),
            # Covers what crafting depends on too: surrogates and the logits' scale.
            "graph_file_sha256": hashlib.sha256(save_graph_bytes(graph)).hexdigest(),
            "stochastic": bool(graph.stochastic),
            "logit_scale": graph.logit_scale,
        },
        "data": {"name": dataset.name, "images": len(dataset), "sha256": dataset.sha256()},
        "oracle": {"name": oracle.name, "label": oracle.label},
    }


def _kept(crafted: Crafted, i: int) -> dict[str, Any]:
    return {"estimator_kept": crafted.estimators[i]} if crafted.estimators else {}


def _single_thread() -> None:
    import torch

    torch.set_num_threads(1)


class Campaign:
    """Runs, or finishes, one campaign.

    Args:
        config: which attacks, how many draws, the seed.
        graph: of the network that the oracle runs.
        dataset: images and true labels.
        oracle: answers.
        store: opened with :func:`campaign_identity` of the same arguments.
        workers: chunks crafted at the same time; None for one on each core.

    Raises:
        UsageError: less than one worker.
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
        workers: int | None = None,
    ) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers; at least one is needed")
        dataset.check_suits(graph.name, graph.input_shape, graph.classes)
        store.check(campaign_identity(config, graph, dataset, oracle))
        self._config = config
        self._graph = graph
        self._dataset = dataset
        self._oracle = oracle
        self._store = store
        self._workers = workers or os.cpu_count() or 1
        self._shared_twin: IntegerTwin | None = None
        # Without draws every answer is the same: one is enough.
        self._draws = config.draws if graph.stochastic else 1

    def run(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Do all that is not in the store yet.

        Raises:
            MissingDependencyError: something is to be crafted and torch is missing.
            UnsupportedModelError: the graph gives no gradients.
            LinkError: the oracle failed; what it answered so far is stored.
            StoreError: the store cannot be written any more.
        """
        report = progress or (lambda _: None)
        self._craft(None, report)
        self._ask(CLEAN, 0, report)
        for attack in self._config.attacks:
            self._craft(attack, report)
            self._ask(attack.kind, attack.levels, report)

    def _craft(self, attack: AttackConfig | None, report: Callable[[Progress], None]) -> None:
        name, levels = (attack.kind, attack.levels) if attack else (CLEAN, 0)
        count, size = len(self._dataset), self._config.chunk
        stored = self._store.images(name, levels)
        missing: list[tuple[int, range]] = []
        for chunk, start in enumerate(range(0, count, size)):
            wanted = range(start, min(start + size, count))
            there = stored.intersection(wanted)
            if there and len(there) != len(wanted):
                raise StoreError(
                    f"{name}, {levels} levels: a chunk of images is there in part",
                    where=str(self._store.path),
                    hint="the file was altered: move it away and start a new run",
                )
            if not there:
                missing.append((chunk, wanted))
        done = count - sum(len(wanted) for _, wanted in missing)
        report(self._progress(name, levels, "craft", done, count))
        # Stored as they become ready, in order; the store is this thread's alone.
        with closing(self._crafted(attack, missing)) as chunks:
            for (chunk, wanted), (crafted, seconds) in zip(missing, chunks, strict=True):
                examples = self._examples(attack, chunk, wanted, crafted)
                self._store.add_examples(examples, seconds=seconds)
                done += len(wanted)
                report(self._progress(name, levels, "craft", done, count))

    def _progress(
        self, name: str, levels: int, stage: Literal["craft", "ask"], done: int, total: int
    ) -> Progress:
        return Progress(name, levels, stage, done, total, self._oracle.name, self._oracle.stats)

    def _crafted(
        self, attack: AttackConfig | None, chunks: Sequence[tuple[int, range]]
    ) -> Generator[tuple[Crafted, float | None], None, None]:
        """What becomes of the images of each chunk, and the seconds that it took."""
        if attack is None or not chunks:
            for _, wanted in chunks:
                clean = self._dataset.images[wanted.start : wanted.stop]
                yield Crafted(clean, np.zeros(len(clean))), None
            return
        twin = self._twin()
        pool = ThreadPoolExecutor(min(self._workers, len(chunks)), initializer=_single_thread)
        try:
            futures = [
                pool.submit(self._timed_attack, twin, attack, chunk, wanted)
                for chunk, wanted in chunks
            ]
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _examples(
        self, attack: AttackConfig | None, chunk: int, wanted: range, crafted: Crafted
    ) -> list[Example]:
        clean = self._dataset.images[wanted.start : wanted.stop]
        change = crafted.images.astype(np.int64) - clean
        parameters: dict[str, Any] = {}
        if attack is not None:
            seed = self._crafting_seed(attack, chunk)
            parameters = {"attack": attack.kind, **asdict(attack), "chunk": chunk, "seed": seed}
        return [
            Example(
                attack=attack.kind if attack else CLEAN,
                levels=attack.levels if attack else 0,
                image=index,
                true_label=int(self._dataset.labels[index]),
                pixels=crafted.images[i],
                linf=int(np.abs(change[i]).max()),
                l2=float(np.sqrt((change[i] ** 2).sum()) / 255.0),
                zero_gradients=float(crafted.zero_gradients[i]),
                crafted_by=parameters | _kept(crafted, i),
            )
            for i, index in enumerate(wanted)
        ]

    def _crafting_seed(self, attack: AttackConfig, chunk: int) -> int:
        return crafting_seed(self._config.seed, attack.kind, attack.levels, chunk)

    def _twin(self) -> IntegerTwin:
        if self._shared_twin is None:
            self._shared_twin = make_twin(self._graph)
        return self._shared_twin

    def _timed_attack(
        self, twin: IntegerTwin, attack: AttackConfig, chunk: int, wanted: range
    ) -> tuple[Crafted, float]:
        begun = time.monotonic()
        crafted = self._run_attack(twin, attack, chunk, wanted)
        return crafted, time.monotonic() - begun

    def _run_attack(
        self, twin: IntegerTwin, attack: AttackConfig, chunk: int, wanted: range
    ) -> Crafted:
        part = slice(wanted.start, wanted.stop)
        images, labels = self._dataset.images[part], self._dataset.labels[part]
        return craft(twin, attack, images, labels, self._crafting_seed(attack, chunk))

    def _ask(self, name: str, levels: int, report: Callable[[Progress], None]) -> None:
        count = len(self._dataset)
        todo = self._store.unanswered(name, levels, self._graph.input_shape)
        done = count - len(todo)
        report(self._progress(name, levels, "ask", done, count))
        if not todo:
            return
        images = np.stack([pixels for _, _, pixels in todo])
        seeds = np.stack(
            [
                evaluation_seeds(self._config.seed, name, levels, image, self._draws)
                for _, image, _ in todo
            ]
        )
        try:
            # Closed at once when storing fails, so that the device is not left mid-stream.
            with closing(self._answers(images, seeds)) as answers:
                for (row, _, _), drawn, answer in zip(todo, seeds, answers, strict=True):
                    self._store.add_answer(
                        row,
                        drawn,
                        answer.logits,
                        answer.ticks,
                        answer.polluted,
                        latency_s=answer.seconds,
                        attempts=answer.attempts,
                        board=self._oracle.name,
                    )
                    done += 1
                    report(self._progress(name, levels, "ask", done, count))
        except KeyboardInterrupt:
            # It mostly comes while an answer is written, which then is stored and not yet told of.
            left = self._store.unanswered(name, levels, self._graph.input_shape)
            report(self._progress(name, levels, "ask", count - len(left), count))
            raise

    def _answers(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Generator[Answer, None, None]:
        expected = (self._draws, self._graph.classes)
        given = 0
        for answer in self._oracle.logits(images, seeds):
            if answer.logits.shape != expected:
                raise LinkError(
                    f"logits of shape {answer.logits.shape}, not {expected}",
                    where=self._oracle.name,
                )
            given += 1
            yield answer
        if given != len(images):
            raise LinkError(
                f"{given} answers to {len(images)} images",
                where=self._oracle.name,
                hint="start the run again: it goes on where it stopped",
            )
