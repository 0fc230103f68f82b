"""Many boards as one oracle: balanced, checked against each other, and put out when they fail.

Each board is asked in batches by its worker; how many images a batch has
follows the board's measured speed, so that all end together.  Any board gives
any image the same answer, since the seeds travel with it: who was asked changes
nothing but the time.  A sample of the answers is held against another board, or
against the reference where there is only one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.oracle import Answer, OracleLabel, TakenBack
from bnnmcu.backend.project import Project
from bnnmcu.cluster.engine import Engine
from bnnmcu.cluster.round import Board, Round, shelf
from bnnmcu.cluster.shelf import Failed, Opened, PackedProject, pack
from bnnmcu.errors import BnnmcuError, ClusterError, LinkError, UsageError
from bnnmcu.link.stats import LinkStats

__all__ = ["FarmOracle"]


def _open(packed: PackedProject, name: str) -> Opened | Failed:
    """Runs in the worker that owns the board."""
    return shelf().open(name, packed)


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
        there = engine.boards()
        for name in names:
            if name not in there:
                raise ClusterError(
                    f"no worker owns a board {name!r}",
                    where="--board",
                    hint=f"there is {', '.join(there)}" if there else "bnnmcu worker --farm FILE",
                )
        self._engine = engine
        self._project = project
        self._announce = announce
        self._boards = [Board(name) for name in names]
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

    def _working(self) -> list[Board]:
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

    def _quarantine(self, board: Board, reason: str) -> None:
        if board.out is None:
            board.out = reason.split("\n")[0]
            self._announce(f"board {board.name} is out: {board.out}")

    def _put_out(self, board: Board, reason: str) -> None:
        self._quarantine(board, reason)
        self._check_any()

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
        round_ = Round(
            self._engine,
            self._project.graph,
            self._packed,
            self._boards,
            images,
            seeds,
            put_out=self._put_out,
            check=self.seeded,
        )
        try:
            yield from round_.run()
        finally:
            round_.cancel()
