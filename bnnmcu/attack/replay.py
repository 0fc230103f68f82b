"""Images of a stored run, shown again: to another board, another network, or the same one.

Nothing is crafted.  The pixels are those of the results file, bit for bit (each
is held against its hash), and so are the seeds, so that the same network must
give the same logits wherever it runs; another one is judged on the same images,
which is a transfer.  The answers go into a results file of their own, whose
identity says what was replayed; a replay that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.campaign import CLEAN, Progress, model_identity
from bnnmcu.attack.oracle import Oracle, takes_seeds
from bnnmcu.attack.seeds import evaluation_seeds
from bnnmcu.errors import DataError, LinkError, StoreError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.graphfile import graph_sha256
from bnnmcu.store import Example, Store
from bnnmcu.store.rows import Stored
from bnnmcu.store.values import UNKNOWN_SEED

__all__ = ["Replay", "Replayed", "chosen_cases", "replay_identity"]

# Images copied, and asked about, at a time: what a kill can cost.
_CHUNK = 50

_Case = tuple[str, int]
_Seeds = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Replayed:
    """What a replay found.

    Attributes:
        images: that were shown.
        answers: draws in all.
        same_network: it is the network that gave the stored answers, bit for
            bit, so that every logit must be the same.
        drawn_anew: images whose stored seeds could not be used: those of a board
            that keeps its seeds, or of a network without draws.
        compared: answers that the stored run has with the same pixels and seed.
        equal: of these, with the same logits, every one of them.
        same_label: of these, with the same label.
        first_difference: where the first other logit is; None if there is none.
    """

    images: int
    answers: int
    same_network: bool
    drawn_anew: int
    compared: int
    equal: int
    same_label: int
    first_difference: str | None

    @property
    def agrees(self) -> bool:
        """Nothing that had to be the same is another."""
        return not self.same_network or self.equal == self.compared

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {"agrees": self.agrees, **asdict(self)}


def replay_identity(
    source: Store, graph: Graph, oracle: Oracle, cases: Iterable[str] = ()
) -> dict[str, Any]:
    """What a replay is of, as plain JSON values.

    Args:
        source: the run whose images are shown.
        graph: the network that the oracle runs.
        cases: names of the cases wanted; none for all.  The clean one always is.

    Raises:
        UsageError: the run has no such case.
        StoreError: it does not say which campaign it is of.
    """
    chosen = chosen_cases(source, cases)
    names = {name for name, _ in chosen}
    identity = source.identity
    try:
        attacks = [one for one in identity["config"]["attacks"] if _name(one) in names]
        if identity["model"]["sha256"] != graph_sha256(graph).hex():
            # To this network they are transfers, and are to be judged as such.
            made_on = str(identity["model"]["name"])
            attacks = [{**one, "model": one.get("model") or made_on} for one in attacks]
        return {
            "config": {**identity["config"], "attacks": attacks},
            "model": model_identity(graph),
            "data": identity["data"],
            "oracle": {"name": oracle.name, "label": oracle.label},
            "replay": {
                "cases": [list(case) for case in chosen],
                "content_sha256": _content(source, chosen),
                "model": identity["model"],
                "oracle": identity["oracle"],
            },
        }
    except (KeyError, TypeError) as error:
        raise StoreError(
            "the file does not say which campaign it is of",
            where=str(source.path),
            hint="name a results file of 'bnnmcu attack'",
        ) from error


class Replay:
    """Shows the images of one run to an oracle.

    Args:
        source: opened for reading.
        graph: the network that the oracle runs.
        oracle: answers.
        store: opened with :func:`replay_identity` of the same arguments.
        cases: see there.

    Raises:
        DataError: the network does not take the images, or lacks one of their classes.
        UsageError: the run has no such case.
        StoreError: the store belongs to another replay.
    """

    def __init__(
        self,
        source: Store,
        graph: Graph,
        oracle: Oracle,
        store: Store,
        *,
        cases: Iterable[str] = (),
    ) -> None:
        names = tuple(cases)
        store.check(replay_identity(source, graph, oracle, names))
        self._source = source
        self._graph = graph
        self._oracle = oracle
        self._store = store
        self._cases = chosen_cases(source, names)

    def run(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Ask all that is not in the store yet.

        Raises:
            DataError: see above.
            LinkError: the oracle failed; what it answered so far is stored.
            StoreError: a value that no campaign writes, or the disk refuses.
        """
        report = progress or (lambda _: None)
        for case in self._cases:
            total = sum(1 for _ in self._source.rows([case]))
            there = self._store.examples(*case)
            missing = (
                one for one in self._source.rows([case]) if (one.image, one.target) not in there
            )
            while chunk := list(islice(missing, _CHUNK)):
                self._store.add_examples([self._example(one) for one in chunk])
            self._ask(case, total, report)

    def _example(self, one: Stored) -> Example:
        size = int(np.prod(self._graph.input_shape))
        classes = self._graph.classes
        if len(one.pixels) != size or max(one.true_label, one.target or 0) >= classes:
            raise DataError(
                f"image {one.image} has {len(one.pixels)} bytes and label {one.true_label}; "
                f"{self._graph.name} takes {size} bytes and knows {classes} classes",
                where=str(self._source.path),
                hint="replay it on a network for the same images",
            )
        return one.example(self._graph.input_shape)

    def _ask(self, case: _Case, total: int, report: Callable[[Progress], None]) -> None:
        todo = self._store.unanswered(*case, self._graph.input_shape)
        waiting = {(one.image, one.target): one.row for one in todo}
        done = total - len(todo)
        oracle = self._oracle

        def tell() -> None:
            report(Progress(*case, "ask", done, total, oracle.name, oracle.stats))

        tell()
        rows = (one for one in self._source.rows([case]) if (one.image, one.target) in waiting)
        while chunk := list(islice(rows, _CHUNK)):
            for one, seeds, answer in self._answers(chunk):
                self._store.add_answer(
                    waiting[one.image, one.target],
                    seeds if takes_seeds(oracle) else None,
                    answer.logits,
                    answer.ticks,
                    answer.polluted,
                    latency_s=answer.seconds,
                    attempts=answer.attempts,
                    board=oracle.name,
                )
                done += 1
                tell()

    def _answers(self, chunk: Sequence[Stored]) -> Iterator[tuple[Stored, _Seeds, Any]]:
        """Images with what was drawn and what was said; those with as many draws together."""
        drawn = [_seeds(one, self._source.identity, self._graph)[0] for one in chunk]
        for count in sorted({len(seeds) for seeds in drawn}):
            which = [i for i, seeds in enumerate(drawn) if len(seeds) == count]
            pixels = [np.frombuffer(chunk[i].pixels, np.uint8) for i in which]
            images = np.stack(pixels).reshape(-1, *self._graph.input_shape)
            given = 0
            # Closed at once when storing fails, so that a device is not left mid-stream.
            with closing(self._asked(images, np.stack([drawn[i] for i in which]))) as answers:
                for i, answer in zip(which, answers, strict=False):
                    given += 1
                    yield chunk[i], drawn[i], answer
            if given != len(which):
                raise LinkError(
                    f"{given} answers to {len(which)} images",
                    where=self._oracle.name,
                    hint="start the replay again: it goes on where it stopped",
                )

    def _asked(self, images: npt.NDArray[np.uint8], seeds: _Seeds) -> Any:
        yield from self._oracle.logits(images, seeds)

    def found(self) -> Replayed:
        """How the answers stand to the stored ones.

        Raises:
            StoreError: a value that no campaign writes.
        """
        before, now = self._source.identity, self._store.identity
        same = before["model"].get("sha256") == now["model"]["sha256"] and (
            (before["oracle"]["label"] == "float") == (now["oracle"]["label"] == "float")
        )
        images = answers = anew = compared = equal = label = 0
        first: str | None = None
        for case in self._cases:
            mine = {(one.image, one.target): one for one in self._store.rows([case])}
            for old in self._source.rows([case]):
                new = mine.get((old.image, old.target))
                if new is None or not new.draws:
                    continue
                images += 1
                answers += len(new.draws)
                anew += _seeds(old, before, self._graph)[1]
                for draw, was in zip(new.draws, old.draws, strict=False):
                    if UNKNOWN_SEED in (draw.seed, was.seed) or draw.seed != was.seed:
                        continue
                    compared += 1
                    label += draw.label == was.label
                    equal += draw.logits == was.logits
                    if draw.logits != was.logits and first is None:
                        first = f"{_place(old)}, seed {draw.seed}: {draw.logits}, not {was.logits}"
        return Replayed(images, answers, same, anew, compared, equal, label, first)


def _seeds(one: Stored, identity: Mapping[str, Any], graph: Graph) -> tuple[_Seeds, bool]:
    """What an image is to be drawn with, and whether it is drawn anew."""
    stored = [draw.seed for draw in one.draws]
    known = stored and UNKNOWN_SEED not in stored
    if not graph.stochastic:
        return np.array([int(stored[0], 16) if known else 0], np.uint64), False
    if known and identity["model"].get("stochastic"):
        return np.array([int(seed, 16) for seed in stored], np.uint64), False
    config = identity["config"]
    # Who knew the seed was judged with one draw, and is again.
    knew = json.loads(one.crafted_by).get("adversary") in ("seed-known", "seed-chosen")
    draws = 1 if knew else config["draws"]
    place = (one.attack, one.levels, one.image)
    return evaluation_seeds(config["seed"], *place, draws, target=one.target), True


def _place(one: Stored) -> str:
    case = f"{one.attack} {one.levels}/255" if one.levels else one.attack
    target = "" if one.target is None else f" to class {one.target}"
    return f"{case}, image {one.image}{target}"


def _name(attack: Mapping[str, Any]) -> str:
    """Of a case; files from before cases had names say the attack's."""
    return str(attack.get("case") or attack["attack"])


def chosen_cases(source: Store, wanted: Iterable[str]) -> list[tuple[str, int]]:
    """The cases of a run with one of these names, and the clean one; all for no names.

    Raises:
        UsageError: the run has no such case.
    """
    there = source.cases()
    names = list(dict.fromkeys(wanted))
    known = list(dict.fromkeys(name for name, _ in there))
    for name in names:
        if name not in known:
            raise UsageError(
                f"the run has no case {name!r}",
                where=str(source.path),
                hint=f"it has {', '.join(known) or 'none'}",
            )
    return [case for case in there if not names or case[0] in (CLEAN, *names)]


def _content(source: Store, cases: Sequence[_Case]) -> str:
    """SHA-256 over the places, pixels and seeds of what is replayed."""
    digest = hashlib.sha256()
    for one in source.rows(cases):
        seeds = [draw.seed for draw in one.draws]
        place = [one.attack, one.levels, one.image, one.target, one.true_label, one.sha256, seeds]
        digest.update(json.dumps(place).encode() + b"\n")
    return digest.hexdigest()
