"""Flash and RAM of a firmware before it is compiled, and whether a board has them.

Tables, arena and buffers follow from the plan; code was measured, section by
section, for certain compilers (:mod:`bnnmcu.backend.code_sizes`).  A test holds
the prediction against the linker's figures.  The linker has the last word: other
versions of a compiler make code of a slightly other size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bnnmcu.backend.code_sizes import MODEL_UNIT, Measured, Section, link, measured
from bnnmcu.backend.plan import Plan
from bnnmcu.boards import Board, ring_bytes
from bnnmcu.errors import BnnmcuError, DoesNotFitError

__all__ = ["STACK_BYTES", "Memory", "check_fits", "estimate", "largest_request", "predict"]

#: Reserved for the stack; `bnnmcu build` compares it with a bound where it has one.
STACK_BYTES = 2048
#: For a kernel that code_sizes.json does not have, in bytes; said where it is used.
_UNMEASURED_BYTES = 8192
#: For a watchdog's driver and its feeding, whose code is in no table: bytes of code and of RAM.
_WATCHDOG_BYTES, _WATCHDOG_RAM = 512, 8
#: The same for field mode: its server less the one it stands for, hash, records and driver; of RAM
#: what is not the kept answer.
_FIELD_BYTES, _FIELD_RAM = 1792, 48
#: The core whose code is taken for one that was not measured, and how much more may be
#: needed: a share of code for another instruction set, and bytes of RAM.
_STAND_IN, _CODE_ALLOWANCE, _RAM_ALLOWANCE = "cortex-m4f", 0.5, 128

# The sizes that firmware_templates/app/bnn_protocol.h derives from the model.
_FRAME_OVERHEAD = 10
_MOST_SEEDS = 20
_REPLY_BUDGET = 2048
_TEXT_MAX = 31
_HELLO_FIXED = 64
_HELLO_STATE = 3
_FAULT_BYTES = 56


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose, as one compiler makes them, and what the board has.

    Attributes:
        toolchain: ``"gcc"`` or ``"zig"``.
        compiler: the version whose code was measured.
        tables: weights and thresholds, exact.
        code: everything else in flash: code, descriptions of layers, names, vectors.
        arena, buffers, variables, stack: RAM; buffers are those of requests,
            replies and the receive ring.
        unmeasured: kernels without a measured size, for which an allowance stands.
        stand_in: the core whose code was measured, if it is not the board's: then code
            and variables are allowances, and nothing is refused for them alone.
        others: the same as other compilers make it.
    """

    tables: int
    code: int
    arena: int
    buffers: int
    variables: int
    stack: int
    board_flash: int
    board_ram: int
    toolchain: str
    compiler: str
    unmeasured: tuple[str, ...] = ()
    stand_in: str = ""
    others: tuple[Memory, ...] = ()

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
        """Whether the board has that much; what is an allowance is left to the linker."""
        if self.stand_in:
            exact = self.arena + self.buffers + self.stack
            return self.tables <= self.board_flash and exact <= self.board_ram
        return self.flash <= self.board_flash and self.ram <= self.board_ram

    def by(self, toolchain: str) -> Memory:
        """The same as a certain compiler makes it; as it is where that one was not measured."""
        every = (self, *self.others)
        chosen = next((memory for memory in every if memory.toolchain == toolchain), self)
        others = tuple(replace(memory, others=()) for memory in every if memory is not chosen)
        return replace(chosen, others=others)

    def to_dict(self) -> dict[str, Any]:
        """For manifests and ``--json``."""
        own = asdict(replace(self, others=()))
        del own["others"]
        every = sorted((self, *self.others), key=lambda memory: memory.toolchain)
        return own | {
            "unmeasured": list(self.unmeasured),
            "flash": self.flash,
            "ram": self.ram,
            "fits": self.fits,
            "toolchains": {
                memory.toolchain: {
                    "compiler": memory.compiler,
                    "flash": memory.flash,
                    "ram": memory.ram,
                    "fits": memory.fits,
                }
                # A prediction that a build is compared with, so measured code alone.
                for memory in every
                if not memory.stand_in
            },
        }


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
        _HELLO_FIXED + 2 * (1 + _TEXT_MAX) + layers * (5 + _TEXT_MAX) + _HELLO_STATE,
        4 + 4 * layers,
        _FAULT_BYTES,
    )


def _words(size: int) -> int:
    return -(-size // 4) * 4


def _variables(plan: Plan) -> dict[str, int]:
    """The variables whose size follows from the plan, by section."""
    return {
        ".bss.arena": 4 * plan.arena_words,
        ".bss.request_words": _words(_request_max(plan) + _FRAME_OVERHEAD),
        ".bss.reply_words": _words(2 + _reply_max(plan) + _FRAME_OVERHEAD),
        ".bss.rx_ring": ring_bytes(largest_request(plan)),
        ".bss.layer_ticks": 4 * len(plan.steps),
    }


def predict(plan: Plan, board: Board) -> tuple[Memory, ...]:
    """What the firmware of a plan takes on a board, for each compiler that was measured.

    For a core that was not measured, another's code stands in, with an allowance.

    Raises:
        BnnmcuError: no compiler was measured at all.
    """
    found = measured(board)
    if found:
        return tuple(_predict(plan, board, sizes) for sizes in found)
    found = measured(replace(board, core=_STAND_IN))
    if not found:
        raise BnnmcuError(f"no code was measured for the core {board.core}", where=board.name)
    return tuple(_allowed(_predict(plan, board, sizes)) for sizes in found)


def _allowed(memory: Memory) -> Memory:
    """A prediction for one core as an allowance for another."""
    return replace(
        memory,
        code=memory.code + round(_CODE_ALLOWANCE * memory.code),
        variables=memory.variables + _RAM_ALLOWANCE,
        stand_in=_STAND_IN,
    )


def _predict(plan: Plan, board: Board, sizes: Measured) -> Memory:
    variables = _variables(plan)
    units = sizes.at(
        {
            "layers": len(plan.steps),
            f"classes_{plan.logit_bytes}": plan.graph.classes,
            "input": _input_bytes(plan),
            "ring": variables[".bss.rx_ring"],
        }
    )
    for rows in units.values():
        rows[:] = [replace(row, size=variables.get(row.name, row.size)) for row in rows]
    image = link(units | {MODEL_UNIT: _model_sections(plan, sizes)}, sizes.externals)
    # A kernel that nobody measured: neither what it takes nor what it needs is known.
    unmeasured = tuple(sorted({s.kernel for s in plan.steps if s.kernel not in sizes.steps}))
    buffers = sum(variables[f".bss.{name}"] for name in ("request_words", "reply_words", "rx_ring"))
    arena = variables[".bss.arena"]
    # The kept answer, and both answers' longer head.
    answer = _FIELD_RAM + _words(_reply_max(plan)) if board.field_mode else 0
    return Memory(
        tables=plan.flash_bytes,
        code=image.flash
        - plan.flash_bytes
        + _UNMEASURED_BYTES * len(unmeasured)
        + (_WATCHDOG_BYTES if board.watchdog else 0)
        + (_FIELD_BYTES if board.field_mode else 0),
        arena=arena,
        buffers=buffers,
        variables=image.ram - buffers - arena + (_WATCHDOG_RAM if board.watchdog else 0) + answer,
        stack=STACK_BYTES,
        board_flash=board.usable_flash,
        board_ram=board.usable_ram,
        toolchain=sizes.toolchain,
        compiler=sizes.version,
        unmeasured=unmeasured,
    )


def _model_sections(plan: Plan, sizes: Measured) -> list[Section]:
    """The sections of the generated source; all of them hang on ``bnn_model``."""
    model = sizes.model
    # The linker keeps equal strings once.
    names = sorted({plan.graph.name, *(step.label for step in plan.steps)})
    parts = [
        ("rodata", _up(len(name) + 1, model.string_align), model.string_align) for name in names
    ]
    needs = set(model.needs) if plan.planes else set()
    code = 0.0
    for step in plan.steps:
        parts += [
            ("rodata", constant.flash_bytes, model.table_align.get(constant.c_type, 4))
            for constant in step.constants
            if not constant.shared
        ]
        own = sizes.steps.get(step.kernel)
        if own is not None:
            parts.append(("rodata", own.constants, 4))
            code += own.code
            needs |= set(own.needs)
    parts.append(("text", round(code), 4))
    symbols = [f"{MODEL_UNIT}:{i}" for i in range(len(parts))]
    needed = {need.format(generator=plan.graph.generator) for need in needs}
    fixed = model.fixed + model.layer * len(plan.steps)
    return [
        Section(".rodata.bnn_model", fixed, 4, ("bnn_model",), (*sorted(needed), *symbols)),
        *(
            Section(f".{region}.", size, align, (symbol,))
            for symbol, (region, size, align) in zip(symbols, parts, strict=True)
        ),
    ]


def _up(size: int, align: int) -> int:
    return -(-size // align) * align


def _advice(plan: Plan, wanted: Board, boards: Sequence[Board]) -> str:
    boards = [board for board in boards if board.name != wanted.name]
    fitting = [board.name for board in boards if estimate(plan, board).fits]
    if fitting:
        return f"it fits {', '.join(fitting)}: choose with --board"
    drawn = sum(step.sampled_words * 4 for step in plan.steps)
    if plan.planes > 2:
        # Fewer planes may make it fit where it was wanted.
        saved = (plan.planes - 2) * drawn
        smaller = [
            board.name
            for board in (wanted, *boards)
            if any(
                memory.flash - saved <= board.usable_flash and memory.ram <= board.usable_ram
                for memory in predict(plan, board)
            )
        ]
        if smaller:
            return (
                f"with --planes 2 it fits {', '.join(smaller)} "
                "(fewer planes also change the randomness: measure again)"
            )
    return "no known board has that much: train a network with fewer filters"


def estimate(plan: Plan, board: Board) -> Memory:
    """The memory of a plan on a board, by the compiler that needs most and still fits.

    Of those that do not fit, the one that needs least stands for them.

    Raises:
        BnnmcuError: no compiler was measured for the board's core.
    """
    predictions = predict(plan, board)
    fitting = [memory for memory in predictions if memory.fits]
    chosen = (max if fitting else min)(
        fitting or predictions, key=lambda memory: (memory.flash, memory.ram)
    )
    return replace(chosen, others=tuple(m for m in predictions if m is not chosen))


def check_fits(plan: Plan, board: Board, boards: Sequence[Board]) -> Memory:
    """The memory of a plan on a board, as :func:`estimate` gives it.

    Args:
        boards: among which to look for one that fits instead.

    Raises:
        DoesNotFitError: with no compiler; with the figures of the one that needs
            least, the largest layer, and what would fit.
        BnnmcuError: no compiler was measured for the board's core.
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
