"""Many boards as one oracle: balanced, checked against each other, and put out when they fail.

Each board is asked in batches by its worker; how many images a batch has
follows the board's measured speed, so that all end together.  Any board gives
any image the same answer, since the seeds travel with it: who was asked changes
nothing but the time.  A sample of the answers is held against another board, or
against the reference where there is only one.
"""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu import reference
from bnnmcu.attack.oracle import Answer, OracleLabel, TakenBack
from bnnmcu.backend.project import Project
from bnnmcu.cluster.engine import WORKER_GONE, Engine
from bnnmcu.cluster.shelf import SHELF, Batch, Failed, Opened, PackedProject, Replies, Shelf, pack
from bnnmcu.errors import BnnmcuError, ClusterError, LinkError, UsageError
from bnnmcu.link.stats import LinkStats

__all__ = ["FarmOracle"]

#: Seconds of work in a batch: long beside the way to the worker, short beside a failure.
BATCH_SECONDS = 4.0
#: Batches that a board has at most, so that one waits while the other runs.
BATCHES = 2
#: Images of a board's first batch, which measures it, and of any.
FIRST, MOST = 2, 256
#: One of so many answers is asked again of another board; a board's first always is.
SAMPLE = 32
#: Seconds to wait for an answer before looking whether workers are still there.
_LOOK = 5.0


def _shelf() -> Shelf:
    from distributed import get_worker

    found = get_worker().plugins[SHELF]
    assert isinstance(found, Shelf)
    return found


def _open(packed: PackedProject, name: str) -> Opened | Failed:
    """Runs in the worker that owns the board."""
    return _shelf().open(name, packed)


def _ask(packed: PackedProject, name: str, batch: Batch) -> Replies:
    """Runs in the worker that owns the board."""
    return _shelf().ask(name, packed, batch)


@dataclass
class _Board:
    name: str
    label: str = ""
    #: Images a second, measured; None before the first batch.
    rate: float | None = None
    busy: int = 0
    sampled: bool = False
    out: str | None = None
    stats: LinkStats = field(default_factory=LinkStats)


@dataclass(frozen=True, eq=False)
class _Sent:
    """A batch on its way: whose, which images, and whether it checks another board's."""

    board: _Board
    indices: tuple[int, ...]
    checks: _Check | None = None


@dataclass(frozen=True, eq=False)
class _Check:
    index: int
    board: _Board
    logits: npt.NDArray[np.int64]


class FarmOracle:
    """See :class:`bnnmcu.attack.oracle.Oracle` and ``Farm``.

    Args:
        engine: an open cluster whose workers own boards.
        project: the firmware that all boards run.
        boards: names; all that there are if None.
        announce: is told what becomes of a board, one line at a time.

    Raises:
        UsageError: some boards are real and others emulated, or of two modes.
        ClusterError: the cluster has no boards.
        LinkError: none of them answers.
    """

    def __init__(
        self,
        engine: Engine,
        project: Project,
        boards: Sequence[str] | None = None,
        *,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        names = list(boards) if boards is not None else engine.boards()
        if not names:
            raise ClusterError(
                "the cluster has no boards",
                where="--cluster",
                hint="bnnmcu worker ADDRESS --farm FILE where they are, or --farm with a local one",
            )
        self._engine = engine
        self._project = project
        self._announce = announce
        self._boards = [_Board(name) for name in names]
        self._packed = engine.share(pack(project))
        opened = self._opened()
        kinds = {(one.emulated, one.seeded) for one in opened}
        if len(kinds) > 1:
            raise UsageError(
                "boards of one run are all real or all emulated, and in one mode",
                where=", ".join(f"{one.name} ({one.label})" for one in self._working()),
                hint="name those to use with --board",
            )
        self.label: OracleLabel = "emulated" if opened[0].emulated else "hardware"
        self.seeded = opened[0].seeded
        #: That of one such board: a run may go on with more of them, or fewer.
        self.name = project.board.name

    @property
    def stats(self) -> LinkStats:
        """Of all lines together."""
        total = LinkStats()
        for board in self._boards:
            for one in fields(LinkStats):
                value = getattr(total, one.name) + getattr(board.stats, one.name)
                setattr(total, one.name, value)
        return total

    @property
    def quarantined(self) -> dict[str, str]:
        """Boards that are out, and why."""
        return {one.name: one.out for one in self._boards if one.out is not None}

    @property
    def rates(self) -> dict[str, float]:
        """Images a second of each board, as last measured."""
        return {one.name: one.rate for one in self._boards if one.rate is not None}

    def _working(self) -> list[_Board]:
        return [one for one in self._boards if one.out is None]

    def _opened(self) -> list[Opened]:
        futures = {
            self._engine.submit(
                _open, self._packed, board.name, name=f"open-{board.name}", board=board.name
            ): board
            for board in self._boards
        }
        opened = []
        for future in self._engine.as_completed(list(futures)):
            board = futures[future]
            try:
                found = self._engine.result(future, f"opening {board.name}")
            except BnnmcuError as error:
                found = Failed(str(error))
            if isinstance(found, Failed):
                self._quarantine(board, found.reason)
            else:
                board.label = found.label
                opened.append(found)
        self._check_any()
        return opened

    def _quarantine(self, board: _Board, reason: str) -> None:
        if board.out is None:
            board.out = reason.split("\n")[0]
            self._announce(f"board {board.name} is out: {board.out}")

    def _check_any(self) -> None:
        if not self._working():
            reasons = "; ".join(f"{name}: {why}" for name, why in self.quarantined.items())
            raise LinkError(
                f"no board is left: {reasons}",
                where=self._project.board.title,
                hint="mend one of them; the same command goes on",
            )

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """See :class:`bnnmcu.attack.oracle.Oracle`: in order.

        Raises:
            LinkError: a board was caught with a wrong answer, which may have been used.
        """
        waiting: dict[int, Answer] = {}
        following = 0
        with closing(self.arrivals(images, seeds)) as arriving:
            for one in arriving:
                if isinstance(one, TakenBack):
                    raise LinkError(
                        f"{one.board} gave a wrong answer: {one.reason}",
                        where=self.name,
                        hint="look at that board; the same command goes on without what it said",
                    )
                waiting[one[0]] = one[1]
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1

    def arrivals(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
        """Indices and answers as they come; see :class:`bnnmcu.attack.oracle.Farm`.

        Raises:
            LinkError: no board is left.
            ClusterError: the scheduler is gone.
        """
        if seeds.ndim != 2 or len(seeds) != len(images):
            raise UsageError(f"{len(images)} images, but seeds of shape {seeds.shape}")
        self._check_any()
        round_ = _Round(self, images, seeds)
        try:
            yield from round_.run()
        finally:
            round_.cancel()


class _Round:
    """Images on their way to the boards of a farm, and back."""

    def __init__(
        self, farm: FarmOracle, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> None:
        self._farm = farm
        self._engine = farm._engine
        self._images, self._seeds = images, seeds
        self._todo: deque[int] = deque(range(len(images)))
        self._checks: deque[_Check] = deque()
        self._sent: dict[Any, _Sent] = {}
        self._ended: queue.Queue[Any] = queue.Queue()
        self._by: dict[int, _Board] = {}
        self._looked = time.monotonic()
        self._missing: dict[str, float] = {}

    def run(self) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
        for board in self._farm._boards:
            board.busy = 0
        while self._todo or self._sent or self._checks:
            if self._checks and len(self._farm._working()) == 1:
                # There is no other board any more.
                check = self._checks.popleft()
                yield from self._judged(check.board, check.index, check.logits)
                continue
            self._fill()
            try:
                future = self._ended.get(timeout=_LOOK)
            except queue.Empty:
                self._look()
                continue
            sent = self._sent.pop(future, None)
            if sent is not None:
                yield from self._received(future, sent)

    def cancel(self) -> None:
        """Nothing more is asked; what is under way ends in its worker."""
        if self._sent:
            self._engine.cancel(list(self._sent))
            self._sent.clear()

    def _fill(self) -> None:
        """Give every board what it can take; the least busy first."""
        working = self._farm._working()
        for depth in range(BATCHES):
            for board in working:
                if board.busy == depth and not self._send(board):
                    break

    def _send(self, board: _Board) -> bool:
        """One batch; gives False where there is nothing left to do for anybody."""
        for check in list(self._checks):
            if check.board is not board:
                self._checks.remove(check)
                self._submit(_Sent(board, (check.index,), check))
                return True
        if not self._todo:
            return bool(self._checks)
        self._submit(_Sent(board, tuple(self._todo.popleft() for _ in range(self._size(board)))))
        return True

    def _size(self, board: _Board) -> int:
        """Images of the next batch: some seconds' worth, and near the end a board's fair share."""
        left, working = len(self._todo), self._farm._working()
        if board.rate is None:
            return min(FIRST, left)
        # Those that are not measured yet are taken to be as fast.
        total = sum(one.rate or board.rate for one in working)
        share = math.ceil(left * board.rate / total / BATCHES)
        return max(1, min(int(board.rate * BATCH_SECONDS), share, MOST, left))

    def _submit(self, sent: _Sent) -> None:
        chosen = list(sent.indices)
        future = self._engine.submit(
            _ask,
            self._farm._packed,
            sent.board.name,
            Batch(self._images[chosen], self._seeds[chosen]),
            name=f"{'check' if sent.checks else 'ask'}-{sent.board.name}",
            board=sent.board.name,
        )
        sent.board.busy += 1
        self._sent[future] = sent
        future.add_done_callback(self._ended.put)

    def _received(
        self, future: Any, sent: _Sent
    ) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
        board = sent.board
        board.busy -= 1
        try:
            replies: Replies = self._engine.result(future, f"asking {board.name}")
        except ClusterError as error:
            self._give_back(sent, 0)
            self._put_out(board, error.what)
            return
        finally:
            future.release()
        board.stats = replies.stats
        if board.out is not None:
            # Caught while this was under way.
            self._give_back(sent, 0)
            return
        if replies.answers and sent.checks is None:
            rate = len(replies.answers) / max(replies.seconds, 1e-6)
            board.rate = rate if board.rate is None else (board.rate + rate) / 2
        if sent.checks is not None and replies.answers:
            yield from self._checked(sent.checks, board, replies.answers[0].logits)
        elif sent.checks is None:
            for index, answer in zip(sent.indices, replies.answers, strict=False):
                yield from self._accepted(board, index, answer)
                if board.out is not None:
                    self._give_back(sent, sent.indices.index(index) + 1)
                    return
        if replies.failed is not None:
            self._give_back(sent, len(replies.answers))
            self._put_out(board, replies.failed)

    def _accepted(
        self, board: _Board, index: int, answer: Answer
    ) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
        self._by[index] = board
        yield index, replace(answer, board=board.name)
        if self._farm.seeded and (not board.sampled or index % SAMPLE == 0):
            board.sampled = True
            if len(self._farm._working()) > 1:
                self._checks.append(_Check(index, board, answer.logits))
            else:
                yield from self._judged(board, index, answer.logits)

    def _checked(
        self, check: _Check, other: _Board, logits: npt.NDArray[np.int64]
    ) -> Generator[TakenBack, None, None]:
        if np.array_equal(check.logits, logits):
            return
        # Two say different things: the reference knows which of them is wrong.
        yield from self._judged(check.board, check.index, check.logits)
        yield from self._judged(other, check.index, logits)

    def _judged(
        self, board: _Board, index: int, logits: npt.NDArray[np.int64]
    ) -> Generator[TakenBack, None, None]:
        """Hold an answer against the reference; a board that is wrong is out."""
        if board.out is not None:
            return
        one = slice(index, index + 1)
        truth = reference.run(self._farm._project.graph, self._images[one], self._seeds[one])[0]
        if np.array_equal(truth, logits):
            return
        self._put_out(
            board, f"its logits for an image are {logits[0].tolist()}, not {truth[0].tolist()}"
        )
        mine = frozenset(index for index, by in self._by.items() if by is board)
        for taken in mine:
            del self._by[taken]
        self._todo.extend(sorted(mine))
        assert board.out is not None
        yield TakenBack(board.name, board.out, mine)

    def _put_out(self, board: _Board, reason: str) -> None:
        self._farm._quarantine(board, reason)
        own = [future for future, sent in self._sent.items() if sent.board is board]
        for future in own:
            self._give_back(self._sent.pop(future), 0)
        if own:
            self._engine.cancel(own)
        self._checks = deque(one for one in self._checks if one.board is not board)
        self._farm._check_any()

    def _give_back(self, sent: _Sent, done: int) -> None:
        """What a board did not answer is for another one."""
        if sent.checks is not None:
            if not done:
                self._checks.append(sent.checks)
            return
        self._todo.extendleft(reversed(sent.indices[done:]))

    def _look(self) -> None:
        """Put out boards whose worker has been away for too long."""
        now = time.monotonic()
        there = set(self._engine.boards())
        for board in self._farm._working():
            if board.name in there:
                self._missing.pop(board.name, None)
            elif now - self._missing.setdefault(board.name, now) > WORKER_GONE:
                self._put_out(board, f"its worker has been gone for {WORKER_GONE:g} s")
