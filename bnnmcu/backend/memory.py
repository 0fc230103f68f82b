"""Flash and RAM of a firmware before it is compiled, and whether a board has them.

Tables, arena and protocol buffers are known exactly.  Code and the few small
variables of the server are not: for them stand allowances, above what gcc and
zig make of the shipped networks; a test holds them against the linked ELF.  The
linker script has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bnnmcu.backend.plan import Plan
from bnnmcu.boards import Board, ring_bytes
from bnnmcu.errors import DoesNotFitError

__all__ = ["CODE_BYTES", "STACK_BYTES", "Memory", "check_fits", "estimate", "largest_request"]

#: Allowance for code, vectors and small constants.
CODE_BYTES = 18 * 1024
#: Allowance for the variables of server and driver.
_VARIABLE_BYTES = 512
#: Reserved for the stack; `bnnmcu bench` reports how much of it was used.
STACK_BYTES = 2048

# The sizes that firmware_templates/app/bnn_protocol.h derives from the model.
_FRAME_OVERHEAD = 10
_MOST_SEEDS = 20
_REPLY_BUDGET = 2048
_TEXT_MAX = 31
_HELLO_FIXED = 64
_FAULT_BYTES = 56


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose, and what the board has."""

    tables: int
    code: int
    arena: int
    buffers: int
    variables: int
    stack: int
    board_flash: int
    board_ram: int

    @property
    def flash(self) -> int:
        """Flash in all."""
        return self.tables + self.code

    @property
    def ram(self) -> int:
        """RAM in all."""
        return self.arena + self.buffers + self.variables + self.stack

    @property
    def fits(self) -> bool:
        """Whether the board has that much."""
        return self.flash <= self.board_flash and self.ram <= self.board_ram

    def to_dict(self) -> dict[str, Any]:
        """For manifests and ``--json``."""
        return asdict(self) | {"flash": self.flash, "ram": self.ram, "fits": self.fits}


def _input_bytes(plan: Plan) -> int:
    height, width, channels = plan.graph.input_shape
    return height * width * channels


def _max_seeds(plan: Plan) -> int:
    draw = 4 + plan.graph.classes * plan.logit_bytes
    return max(1, min(_MOST_SEEDS, (_REPLY_BUDGET - 4) // draw))


def largest_request(plan: Plan) -> int:
    """Bytes on the wire of the largest request frame, both delimiters included, at worst."""
    body = _request_max(plan) + _FRAME_OVERHEAD
    return body + body // 254 + 3


def _request_max(plan: Plan) -> int:
    return max(2 + _input_bytes(plan) + 8 * _max_seeds(plan), 15)


def _reply_max(plan: Plan) -> int:
    layers = len(plan.steps)
    return max(
        4 + _max_seeds(plan) * (4 + plan.graph.classes * plan.logit_bytes),
        _HELLO_FIXED + 2 * (1 + _TEXT_MAX) + layers * (5 + _TEXT_MAX),
        4 + 4 * layers,
        _FAULT_BYTES,
    )


def _words(size: int) -> int:
    return -(-size // 4) * 4


def estimate(plan: Plan, board: Board) -> Memory:
    """What the firmware of a plan takes on a board."""
    request = _words(_request_max(plan) + _FRAME_OVERHEAD)
    reply = _words(2 + _reply_max(plan) + _FRAME_OVERHEAD)
    ring = ring_bytes(largest_request(plan))
    return Memory(
        tables=plan.flash_bytes,
        code=CODE_BYTES,
        arena=4 * plan.arena_words,
        buffers=request + reply + ring,
        variables=_VARIABLE_BYTES + 4 * len(plan.steps),
        stack=STACK_BYTES,
        board_flash=board.flash.size,
        board_ram=board.ram.size,
    )


def _advice(plan: Plan, wanted: Board, boards: Sequence[Board]) -> str:
    boards = [board for board in boards if board.name != wanted.name]
    fitting = [board.name for board in boards if estimate(plan, board).fits]
    if fitting:
        return f"it fits {', '.join(fitting)}: choose with --board"
    drawn = sum(step.sampled_words * 4 for step in plan.steps)
    if plan.planes > 2:
        # Fewer planes may make it fit where it was wanted.
        smaller = [
            board.name
            for board in (wanted, *boards)
            if plan.flash_bytes - (plan.planes - 2) * drawn + CODE_BYTES <= board.flash.size
            and estimate(plan, board).ram <= board.ram.size
        ]
        if smaller:
            return (
                f"with --planes 2 it fits {', '.join(smaller)} "
                "(fewer planes also change the randomness: measure again)"
            )
    return "no known board has that much: train a network with fewer filters"


def check_fits(plan: Plan, board: Board, boards: Sequence[Board]) -> Memory:
    """The memory of a plan on a board.

    Args:
        boards: among which to look for one that fits instead.

    Raises:
        DoesNotFitError: with the figures, the largest layer, and what would fit.
    """
    memory = estimate(plan, board)
    if memory.fits:
        return memory
    over = []
    if memory.flash > memory.board_flash:
        largest = max(plan.steps, key=lambda step: step.flash_bytes)
        over.append(
            f"flash {memory.flash:,} of {memory.board_flash:,} bytes "
            f"(largest: {largest.name}, {largest.flash_bytes:,} bytes)"
        )
    if memory.ram > memory.board_ram:
        largest = max(plan.steps, key=lambda step: step.ram_bytes)
        over.append(
            f"RAM {memory.ram:,} of {memory.board_ram:,} bytes "
            f"(largest: {largest.name}, {largest.ram_bytes:,} bytes)"
        )
    raise DoesNotFitError(
        f"{plan.graph.name} does not fit {board.name}: {'; '.join(over)}",
        hint=_advice(plan, board, boards),
    )
