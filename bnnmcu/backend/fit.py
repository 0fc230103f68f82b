"""One network on many boards: what fits, and what it would take and cost there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bnnmcu.backend.choice import KernelChoice
from bnnmcu.backend.costs import table_of
from bnnmcu.backend.memory import Memory, estimate
from bnnmcu.backend.plan import Plan, make_plan
from bnnmcu.boards import Board
from bnnmcu.errors import DoesNotFitError
from bnnmcu.graph import Graph

__all__ = ["Fit", "check_any", "fit_boards", "plan_for"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A network on a board.

    Attributes:
        board: which.
        plan: with the kernels that were chosen for it.
        memory: by the compiler that needs most and still fits.
        gave_way: layers that got another kernel than on a board with more memory.
    """

    board: Board
    plan: Plan
    memory: Memory
    gave_way: tuple[str, ...]

    @property
    def costs_of(self) -> str:
        """The core whose kernels were counted: another one where this board's was not."""
        return table_of(self.board.core)

    @property
    def fits(self) -> bool:
        """Whether the board has that much."""
        return self.memory.fits

    @property
    def why_not(self) -> str:
        """What is too large; empty if nothing is."""
        memory = self.memory
        parts = []
        if not self.fits and memory.flash > memory.board_flash:
            parts.append(f"flash {memory.flash:,} of {memory.board_flash:,} bytes")
        if not self.fits and memory.ram > memory.board_ram:
            parts.append(f"RAM {memory.ram:,} of {memory.board_ram:,} bytes")
        return "; ".join(parts)

    @property
    def instructions(self) -> int:
        """Of one inference, estimated by the core's cost model."""
        return sum(step.estimate.instructions for step in self.plan.steps)

    @property
    def milliseconds(self) -> float:
        """Of one inference, modelled at the clock that the firmware runs at."""
        cycles = sum(step.estimate.cycles for step in self.plan.steps)
        return 1000 * cycles / self.board.clock_hz


def plan_for(graph: Graph, board: Board, choice: KernelChoice) -> Plan:
    """The plan that 'export' makes for a board."""
    return make_plan(
        graph, replace(choice, core=board.core, flash=board.usable_flash, ram=board.ram.size)
    )


def fit_boards(
    graph: Graph,
    boards: Sequence[Board],
    choice: KernelChoice,
    *,
    progress: Callable[[str], None] | None = None,
) -> list[Fit]:
    """What a network would take of each board: those that it fits first, the smallest first.

    Args:
        boards: at least one.
        choice: how kernels are chosen; core, flash and RAM are each board's.
        progress: is told which board comes next.

    Raises:
        BnnmcuError: no compiler was measured for a board's core.
        UsageError: a layer has no kernel of the kind that is asked for.
    """
    return sorted(
        _fits(graph, boards, choice, progress or (lambda text: None)),
        key=lambda one: (not one.fits, one.board.flash.size, one.board.ram.size, one.board.name),
    )


def _fits(
    graph: Graph, boards: Sequence[Board], choice: KernelChoice, progress: Callable[[str], None]
) -> Iterator[Fit]:
    free: dict[str, Plan] = {}
    for number, board in enumerate(boards, start=1):
        progress(f"board {number} of {len(boards)}: {board.name}")
        plan = plan_for(graph, board, choice)
        if board.core not in free:
            free[board.core] = make_plan(
                graph, replace(choice, core=board.core, flash=None, ram=None)
            )
        gave_way = tuple(
            step.name
            for step, wanted in zip(plan.steps, free[board.core].steps, strict=True)
            if step.option != wanted.option
        )
        yield Fit(board, plan, estimate(plan, board), gave_way)


def check_any(name: str, found: Sequence[Fit]) -> None:
    """Raise a DoesNotFitError where a network fits none of the boards."""
    if not any(one.fits for one in found):
        closest = min(found, key=lambda one: one.memory.flash)
        raise DoesNotFitError(
            f"{name} fits none of {len(found)} board{'s' * (len(found) != 1)}",
            where=closest.board.name,
            hint=f"it needs {closest.why_not}; train a network with fewer filters, "
            "or try --optimize size",
        )
