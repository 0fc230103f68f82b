"""Images on their way to the boards of a farm, and back: who is asked about what, and when."""

from __future__ import annotations

import math
import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu import reference
from bnnmcu.attack.oracle import Answer, TakenBack
from bnnmcu.cluster.engine import WORKER_GONE, Engine
from bnnmcu.cluster.feeder import Batch, Replies
from bnnmcu.cluster.settings import BATCHES
from bnnmcu.cluster.shelf import SHELF, PackedProject, Shelf
from bnnmcu.errors import ClusterError
from bnnmcu.graph import Graph
from bnnmcu.link.stats import LinkStats

__all__ = ["Board", "Round", "shelf"]

#: Seconds of work in a batch: long beside the way to the worker, short beside a failure.
BATCH_SECONDS = 4.0
#: Seconds of work in the last batches, by which boards may end one after the other.
LEAST_SECONDS = 1.0
#: Images of a board's first batch, which measures it, and of any.
FIRST, MOST = 3, 256
#: Of a board's answers the first, the last and one of so many are asked again of another one.
SAMPLE = 32
#: Seconds to wait for an answer before looking whether workers are still there.
_LOOK = 5.0


def shelf() -> Shelf:
    """Of the worker that this runs in."""
    from distributed import get_worker

    found = get_worker().plugins[SHELF]
    assert isinstance(found, Shelf)
    return found


def _ask(packed: PackedProject, name: str, batch: Batch) -> Replies:
    """Runs in the worker that owns the board."""
    return shelf().ask(name, packed, batch)


@dataclass
class Board:
    """What is known of a board of the farm.

    Attributes:
        name: what the farm calls it.
        label: of the way to it.
        rate: images a second, measured; None before the first batch.
        busy: batches on their way.
        unchecked: answers since the last one that was checked; None before the first.
        out: why it is not asked any more.
        stats: of its line.
    """

    name: str
    label: str = ""
    rate: float | None = None
    busy: int = 0
    unchecked: int | None = None
    out: str | None = None
    stats: LinkStats = field(default_factory=LinkStats)


@dataclass(frozen=True, eq=False)
class _Check:
    """An answer that another board is to give again."""

    index: int
    board: Board
    logits: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Sent:
    """A batch on its way: first what checks another board's answers, then images of its own."""

    board: Board
    checks: tuple[_Check, ...]
    indices: tuple[int, ...]


class Round:
    """Asks a farm about some images.

    Args:
        engine: whose workers own the boards.
        graph: of the network that they run.
        packed: its project, as the engine shares it.
        boards: of the farm, with what is known of them.
        images: uint8, (N, H, W, C).
        seeds: uint64, (N, D).
        put_out: is told of a board that failed; raises where none is left.
        check: whether two boards give the same answer to the same question.
    """

    def __init__(
        self,
        engine: Engine,
        graph: Graph,
        packed: Any,
        boards: Sequence[Board],
        images: npt.NDArray[np.uint8],
        seeds: npt.NDArray[np.uint64],
        *,
        put_out: Callable[[Board, str], None],
        check: bool,
    ) -> None:
        self._engine = engine
        self._graph = graph
        self._packed = packed
        self._boards = boards
        self._images, self._seeds = images, seeds
        self._told_out = put_out
        self._check = check
        self._todo: deque[int] = deque(range(len(images)))
        self._checks: deque[_Check] = deque()
        self._sent: dict[Any, _Sent] = {}
        self._ended: queue.Queue[Any] = queue.Queue()
        self._by: dict[int, Board] = {}
        # Of each board the latest answer that nobody looked at.
        self._last: dict[str, _Check] = {}
        self._missing: dict[str, float] = {}

    def run(self) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
        """Indices and answers as they come."""
        for board in self._boards:
            board.busy = 0
        while self._todo or self._sent or self._checks or self._last:
            yield from self._last_ones()
            if self._checks and len(self._working()) == 1:
                # There is no other board any more.
                check = self._checks.popleft()
                yield from self._judged(check.board, check.index, check.logits)
                continue
            self._fill()
            if not self._sent:
                continue
            try:
                future = self._ended.get(timeout=_LOOK)
            except queue.Empty:
                self._look()
                continue
            sent = self._sent.pop(future, None)
            if sent is not None:
                yield from self._received(future, sent)

    def _last_ones(self) -> Generator[TakenBack, None, None]:
        """Have the latest answer of every board that has nothing more to do given again."""
        if self._todo:
            return
        for check in list(self._last.values()):
            if not check.board.busy:
                yield from self._sampled(check)

    def cancel(self) -> None:
        """Nothing more is asked; what is under way ends in its worker."""
        if self._sent:
            self._engine.cancel(list(self._sent))
            self._sent.clear()

    def _working(self) -> list[Board]:
        return [one for one in self._boards if one.out is None]

    def _fill(self) -> None:
        """Give every board what it can take; the least busy first."""
        working = self._working()
        for depth in range(BATCHES):
            for board in working:
                if board.busy == depth:
                    self._send(board)

    def _send(self, board: Board) -> None:
        """One batch, if there is anything for this board."""
        others = [one for one in self._checks if one.board is not board]
        # A few for everybody, where there are many.
        checks = tuple(others[: math.ceil(len(others) / len(self._working()))])
        indices = tuple(self._todo.popleft() for _ in range(self._size(board, len(checks))))
        if not checks and not indices:
            return
        for check in checks:
            self._checks.remove(check)
        self._submit(_Sent(board, checks, indices))

    def _size(self, board: Board, checks: int) -> int:
        """Images of the next batch: some seconds' worth, and near the end a board's fair share."""
        left = len(self._todo)
        if board.rate is None:
            return min(FIRST, left)
        # Those that are not measured yet are taken to be as fast.
        total = sum(one.rate or board.rate for one in self._working())
        share = math.ceil(left * board.rate / total / BATCHES)
        # Within a batch an image travels while the one before is computed, so that a board
        # idles for a moment between batches: they do not become ever smaller.
        least = int(board.rate * LEAST_SECONDS)
        most = min(int(board.rate * BATCH_SECONDS), MOST) - checks
        return min(max(1, min(most, max(share, least))), left)

    def _submit(self, sent: _Sent) -> None:
        chosen = [one.index for one in sent.checks] + list(sent.indices)
        future = self._engine.submit(
            _ask,
            self._packed,
            sent.board.name,
            Batch(self._images[chosen], self._seeds[chosen]),
            name=f"ask-{sent.board.name}",
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
        if replies.answers:
            rate = len(replies.answers) / max(replies.seconds, 1e-6)
            board.rate = rate if board.rate is None else (board.rate + rate) / 2
        waiting = list(replies.answers)
        done = 0
        for check in sent.checks[: len(waiting)]:
            yield from self._compared(check, board, waiting[done].logits)
            done += 1
            if board.out is not None:
                break
        else:
            for index, answer in zip(sent.indices, waiting[done:], strict=False):
                done += 1
                yield from self._accepted(board, index, answer)
                if board.out is not None:
                    break
        self._give_back(sent, done)
        if replies.failed is not None and board.out is None:
            self._put_out(board, replies.failed)

    def _accepted(
        self, board: Board, index: int, answer: Answer
    ) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
        self._by[index] = board
        yield index, replace(answer, board=board.name)
        if not self._check:
            return
        check = _Check(index, board, answer.logits)
        if board.unchecked is None or board.unchecked + 1 >= SAMPLE:
            yield from self._sampled(check)
        else:
            board.unchecked += 1
            self._last[board.name] = check

    def _sampled(self, check: _Check) -> Generator[TakenBack, None, None]:
        """Have another board give an answer again; the reference, where there is none."""
        check.board.unchecked = 0
        self._last.pop(check.board.name, None)
        if len(self._working()) > 1:
            self._checks.append(check)
        else:
            yield from self._judged(check.board, check.index, check.logits)

    def _compared(
        self, check: _Check, other: Board, logits: npt.NDArray[np.int64]
    ) -> Generator[TakenBack, None, None]:
        if np.array_equal(check.logits, logits):
            return
        # Two say different things: the reference knows which of them is wrong.
        yield from self._judged(check.board, check.index, check.logits)
        yield from self._judged(other, check.index, logits)

    def _judged(
        self, board: Board, index: int, logits: npt.NDArray[np.int64]
    ) -> Generator[TakenBack, None, None]:
        """Hold an answer against the reference; a board that is wrong is out."""
        if board.out is not None:
            return
        one = slice(index, index + 1)
        truth = reference.run(self._graph, self._images[one], self._seeds[one])[0]
        if np.array_equal(truth, logits):
            return
        mine = frozenset(place for place, by in self._by.items() if by is board)
        for place in mine:
            del self._by[place]
        self._todo.extend(sorted(mine))
        wrong = f"its logits for an image are {logits[0].tolist()}, not {truth[0].tolist()}"
        try:
            self._put_out(board, wrong)
        finally:
            # Also where nobody is left to ask: what was wrong must not stay.
            yield TakenBack(board.name, wrong, mine)

    def _put_out(self, board: Board, reason: str) -> None:
        own = [future for future, sent in self._sent.items() if sent.board is board]
        for future in own:
            self._give_back(self._sent.pop(future), 0)
        if own:
            self._engine.cancel(own)
        self._checks = deque(one for one in self._checks if one.board is not board)
        self._last.pop(board.name, None)
        self._told_out(board, reason)

    def _give_back(self, sent: _Sent, done: int) -> None:
        """What a board did not answer is for another one."""
        self._checks.extend(one for one in sent.checks[done:] if one.board.out is None)
        self._todo.extendleft(reversed(sent.indices[max(0, done - len(sent.checks)) :]))

    def _look(self) -> None:
        """Put out boards whose worker has been away for too long."""
        now = time.monotonic()
        there = set(self._engine.boards())
        for board in self._working():
            if board.name in there:
                self._missing.pop(board.name, None)
            elif now - self._missing.setdefault(board.name, now) > WORKER_GONE:
                self._put_out(board, f"its worker has been gone for {WORKER_GONE:g} s")
