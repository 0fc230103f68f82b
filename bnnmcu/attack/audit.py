"""Successes looked at again, by others than those who claimed them.

A success of an attack is a claim about stored pixels: that these, under these
seeds, have these logits, and lie within the attack's budget around the clean
image.  Nothing of the campaign's own arithmetic is used to check it: pixels and
seeds come from the file, clean images from the data set, answers from the native
twin (compiled afresh) or the reference.  A native twin's own answers are held
against the reference in addition, for a few of them, since that is slow.  And the
seeds must be those that the run's own seed gives: nobody picked lucky draws.

The box needs no check of its own: pixels are stored as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.metrics.audited import Audit, Mismatch
from bnnmcu.attack.metrics.measure import budget_of
from bnnmcu.attack.metrics.planned import Plan, Planned, read_plan
from bnnmcu.attack.metrics.votes import stays_right
from bnnmcu.attack.oracle import NativeOracle, Oracle, ReferenceOracle
from bnnmcu.attack.seeds import candidate_seeds, evaluation_seeds
from bnnmcu.data import Dataset
from bnnmcu.errors import DataError, MissingDependencyError
from bnnmcu.graph import Graph
from bnnmcu.store import Store
from bnnmcu.store.judged import judge
from bnnmcu.store.rows import Stored
from bnnmcu.store.values import UNKNOWN_SEED

__all__ = ["audit_run"]

# Of norms in units of [0, 1]: what float64 sums may differ by.
_CLOSE = 1e-9
#: That a campaign may be told.
_MOST_CANDIDATES = 1000
_AT_ONCE = 64
_BY_REFERENCE = 8
_SHOWN = 20


def audit_run(
    store: Store, graph: Graph, dataset: Dataset, *, answers: Oracle | None = None
) -> Audit:
    """Look at every answer of a run again, those that claim to resist as well.

    Args:
        store: of the run, finished or not.
        graph: of the network that answered.
        dataset: the run's images and labels.
        answers: who computes them again; None for the native twin or, without a
            C compiler, the reference.

    Raises:
        DataError: the data are not the run's.
        StoreError: the file holds what no campaign writes.
    """
    data = store.identity.get("data", {})
    if (data.get("sha256"), data.get("images")) != (dataset.sha256(), len(dataset)):
        raise DataError(
            "these are not the images that the run is of",
            where=dataset.name,
            hint="give the same --data and -n as for the run",
        )
    run_seed = store.identity.get("config", {}).get("seed")
    look = _Look(read_plan(store.path, store.identity), dataset, run_seed)
    answered = [one for one in store.rows() if one.draws]
    successes = [one for one in answered if look.at(one)]
    seeded = [one for one in successes if _is_seeded(one)]
    label = store.identity.get("oracle", {}).get("label")
    name = ""
    if label not in ("hardware", "emulated"):
        for one in answered:
            if not _is_seeded(one):
                look.note(one, "its seeds are unknown, and no board in field mode answered")
    if any(map(_is_seeded, answered)) and (answers is not None or label != "float"):
        first = answers or _judge(graph)
        name = first.name
        # A right answer is a claim, too: that of a network that resists.
        whole = [
            one for one in answered
            if _is_seeded(one) and len(one.pixels) == int(np.prod(graph.input_shape))
        ]  # fmt: skip
        look.recompute(first, whole, graph.input_shape)
        if label == "native" == first.label:
            second = ReferenceOracle(graph)
            some = seeded[:: max(1, -(-len(seeded) // _BY_REFERENCE))]
            look.recompute(second, some, graph.input_shape)
            name += f"; {len(some)} of them by the {second.name}, too"
    return Audit(
        changes=look.changes,
        successes=len(successes),
        recomputed=len(seeded) if name else 0,
        unseeded=len(successes) - len(seeded),
        judge=name,
        mismatches=tuple(islice(look.wrong.values(), _SHOWN)),
        wrong=len(look.wrong),
    )


def _is_seeded(one: Stored) -> bool:
    return all(draw.seed != UNKNOWN_SEED for draw in one.draws)


def _judge(graph: Graph) -> Oracle:
    try:
        return NativeOracle(graph)
    except MissingDependencyError:
        return ReferenceOracle(graph)


class _Look:
    """What was looked at, and what did not hold; one finding an example."""

    def __init__(self, plan: Plan, dataset: Dataset, run_seed: int | None) -> None:
        self.changes = 0
        self.wrong: dict[int, Mismatch] = {}
        self._plan = plan
        self._dataset = dataset
        self._run_seed = run_seed

    def at(self, one: Stored) -> bool:
        """Check what an attack did to the image; gives whether it had success."""
        planned = self._plan.find((one.attack, one.levels))
        clean = self._dataset.images[one.image]
        if one.true_label != self._dataset.labels[one.image]:
            self.note(one, f"its true label is {self._dataset.labels[one.image]} in the data")
        if len(one.pixels) != clean.size:
            self.note(one, f"{len(one.pixels)} pixels, and the data's have {clean.size}")
            return False
        change = np.frombuffer(one.pixels, np.uint8).astype(np.int64) - clean.reshape(-1)
        linf, l2 = int(np.abs(change).max()), float(np.sqrt((change**2).sum()) / 255.0)
        epsilon, norm = budget_of(planned, one.levels)
        if (linf, round(abs(l2 - one.l2) / _CLOSE)) != (one.linf, 0):
            self.note(
                one, f"it is {linf} levels and {l2:.6f} from the clean image, not as stored "
                f"({one.linf} and {one.l2:.6f})"
            )  # fmt: skip
        elif planned.clean and linf:
            self.note(one, "it is a clean image, and not the data's")
        elif norm == "linf" and linf > one.levels:
            self.note(one, f"it is {linf} levels from the clean image, beyond {one.levels}")
        elif norm == "l2" and l2 > epsilon + _CLOSE:
            self.note(one, f"it is {l2:.6f} from the clean image in L2, beyond {epsilon:.6f}")
        elif len(one.draws) != self._draws(planned):
            self.note(
                one, f"it has {len(one.draws)} draws, and the run's are {self._draws(planned)}"
            )
        elif self._picked(one, planned):
            self.note(one, "the seeds of its draws are not those that the run's seed gives")
        if planned.clean:
            return False
        self.changes += 1
        # A target that is reached has left no majority to the true label.
        return not stays_right(judge(one))

    def _draws(self, planned: Planned) -> int:
        """With how many an example is judged."""
        knows = planned.settings.get("adversary") in ("seed-known", "seed-chosen")
        return 1 if knows or not self._plan.stochastic else self._plan.draws

    def _picked(self, one: Stored, planned: Planned) -> bool:
        """Its draws are other ones than the run's seed decides."""
        seeds = [draw.seed for draw in one.draws]
        if UNKNOWN_SEED in seeds:
            return False
        if self._run_seed is None:
            return True
        place = (self._run_seed, one.attack, one.levels, one.image)
        found = [int(seed, 16) for seed in seeds]
        if found == evaluation_seeds(*place, len(found), one.target).tolist():
            return False
        count = planned.settings.get("candidate_seeds")
        if planned.settings.get("adversary") != "seed-chosen" or type(count) is not int:
            return True
        candidates = candidate_seeds(*place, min(count, _MOST_CANDIDATES), one.target)
        return len(found) > 1 or found[0] not in candidates.tolist()

    def recompute(
        self, answers: Oracle, stored: Sequence[Stored], shape: tuple[int, int, int]
    ) -> None:
        """Hold the stored logits of these against other answers."""
        for part in _batches(stored):
            images = np.stack([np.frombuffer(one.pixels, np.uint8).reshape(shape) for one in part])
            found = answers.logits(images, _seeds(part))
            for one, answer in zip(part, found, strict=True):
                told = np.array([draw.logits for draw in one.draws])
                different = (told != answer.logits).any(1)
                if different.any():
                    self.note(
                        one, f"{answers.name} gives other logits for the same pixels and seeds, "
                        f"in {different.sum()} of {len(told)} draws"
                    )  # fmt: skip

    def note(self, one: Stored, what: str) -> None:
        """Of an example, the first finding."""
        self.wrong.setdefault(
            one.row, Mismatch(one.attack, one.levels, one.image, one.target, what)
        )


def _batches(stored: Sequence[Stored]) -> Iterator[list[Stored]]:
    """Few at a time, those of a batch with the same number of draws."""
    for _, alike in groupby(stored, key=lambda one: len(one.draws)):
        while part := list(islice(alike, _AT_ONCE)):
            yield part


def _seeds(part: Sequence[Stored]) -> npt.NDArray[np.uint64]:
    return np.array([[int(draw.seed, 16) for draw in one.draws] for one in part], dtype=np.uint64)
