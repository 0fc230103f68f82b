"""From a graph to what is emitted: kernels, constants, and a static arena.

A plan has one :class:`Step` for each call of a kernel.  All memory is placed
here, so that flash and RAM are known before anything is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bnnmcu.backend.arena import Placed, Request, place
from bnnmcu.backend.choice import (
    DEFAULT_CHOICE,
    Alternative,
    KernelChoice,
    allowed,
    arena_limit,
    fitted_in_flash,
    fitting,
    is_for,
    weakest,
)
from bnnmcu.backend.costs import Estimate, estimate
from bnnmcu.backend.kernels.base import Constant, Fields, Kernel
from bnnmcu.backend.kernels.dense import logit_bytes
from bnnmcu.backend.naming import Tables, short_labels
from bnnmcu.backend.schedule import Task, schedule
from bnnmcu.errors import UnsupportedModelError
from bnnmcu.graph import INPUT, Graph, TensorSpec, infer

__all__ = [
    "DEFAULT_CHOICE",
    "Alternative",
    "Constant",
    "KernelChoice",
    "Placed",
    "Plan",
    "Step",
    "make_plan",
]

_MAX_STEPS = 255
#: How often the room for a task is lowered until the arena fits.
_ROUNDS = 6
# Kernels count words in 32 bits, and addresses have no more.
_MAX_ARENA_WORDS = 1 << 30


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a kernel.

    Attributes:
        name: unique; that of its first node in the graph, or one with a colon.
        label: unique too, at most 31 bytes: what the device calls it.
        nodes: names of the graph's nodes that it computes; its result is the last one's value.
        call: the kernel with its parameters.
        constants: tables in flash.
        sources: buffers it reads, None for the image.
        reads: the kinds of the values in them.
        result, scratch: buffers it writes; the result may be one of the sources.
        drawn: whether its result depends on drawn weights.
        logits: whether its result is the network's.
        ram_bytes: bytes of the arena that are in use while it runs.
        option: name of the kernel among the alternatives.
        alternatives: every kernel that could compute it with what it would cost, the
            chosen one too, the plain one first.
    """

    name: str
    label: str
    nodes: tuple[str, ...]
    call: Kernel
    constants: tuple[Constant, ...]
    sources: tuple[Placed | None, ...]
    reads: tuple[str, ...]
    result: Placed
    scratch: Placed | None
    drawn: bool
    logits: bool
    ram_bytes: int
    option: str
    alternatives: tuple[Alternative, ...]

    @property
    def estimate(self) -> Estimate:
        """What it should cost."""
        return next(a.estimate for a in self.alternatives if a.name == self.option)

    @property
    def promise(self) -> Literal["none", "count", "time"]:
        """What no input changes: the number of instructions, or branches and addresses too."""
        return next(a.option.constant for a in self.alternatives if a.name == self.option)

    @property
    def kernel(self) -> str:
        """The C function."""
        return self.call.function

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return self.call.macs

    @property
    def planes(self) -> int:
        """k, if its weights are drawn, else 0."""
        return self.call.planes

    @property
    def sampled_words(self) -> int:
        """Words of weights drawn for each inference."""
        return self.call.sampled_words

    @property
    def shape(self) -> Fields | None:
        """Fields of ``bnn_shape_t``; None for kernels without windows."""
        shape = self.call.fields.get("shape")
        return None if shape is None or isinstance(shape, int | str) else shape

    @property
    def flash_bytes(self) -> int:
        """Bytes of its tables; one that an earlier step has too is counted there."""
        return sum(constant.flash_bytes for constant in self.constants)

    def report(self) -> list[dict[str, Any]]:
        """What each kernel would cost, for manifests and ``--json``; the chosen one is marked."""
        return [
            {
                "option": a.name,
                "chosen": a.name == self.option,
                "instructions": a.estimate.instructions,
                "cycles": a.estimate.cycles,
                "flash": a.estimate.flash,
                "ram": 4 * a.estimate.words,
                "constant": a.option.constant,
            }
            for a in self.alternatives
        ]

    def constant(self, role: str) -> Constant | None:
        """The table of that role, if there is one."""
        return next((c for c in self.constants if c.role == role), None)


@dataclass(frozen=True, eq=False)
class Plan:
    """A whole network, placed.

    Attributes:
        graph: what it was made from.
        steps: in the order in which they run.
        buffers: everything in the arena, with its life in steps.
        arena_words: size of the arena in 32-bit words.
        logit_bytes: 4 or 8; the width that holds every logit.
        choice: how its kernels were chosen.
    """

    graph: Graph
    steps: tuple[Step, ...]
    buffers: tuple[Placed, ...]
    arena_words: int
    logit_bytes: int
    choice: KernelChoice = DEFAULT_CHOICE

    @property
    def headers(self) -> tuple[str, ...]:
        """The files that declare its kernels, in order of their names."""
        return tuple(sorted({step.call.header for step in self.steps}))

    @property
    def flash_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(step.flash_bytes for step in self.steps)

    @property
    def promise(self) -> Literal["none", "count", "time"]:
        """What all its kernels promise together; never less than its choice asks for, unless
        kernels were forced."""
        return weakest(
            a.option for step in self.steps for a in step.alternatives if a.name == step.option
        )

    def report(self) -> dict[str, Any]:
        """How its kernels were chosen, for manifests."""
        return {
            "choice": self.choice.to_dict(),
            "constant": {"asked": self.choice.constant, "holds": self.promise},
            "steps": {step.name: step.report() for step in self.steps},
        }

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(step.macs for step in self.steps)

    @property
    def first_drawn(self) -> int:
        """Index of the first step whose weights are drawn; the number of steps without any."""
        return _first([step.drawn for step in self.steps])

    @property
    def planes(self) -> int:
        """k of the stochastic layers, 0 without any."""
        return max(step.planes for step in self.steps)


def _first(flags: Sequence[bool]) -> int:
    """Index of the first true one; their number if there is none."""
    return next((i for i, flag in enumerate(flags) if flag), len(flags))


@dataclass
class _Life:
    """A piece of memory while its life is being found out."""

    name: str
    words: int
    first: int
    last: int


def _lives(tasks: Sequence[Task], specs: dict[str, TensorSpec]) -> dict[str, _Life]:
    """The memory of every value; values that take each other's place share one."""
    end = len(tasks) - 1
    redrawn = _first([task.drawn for task in tasks])
    last_read = {name: i for i, task in enumerate(tasks) for name in task.sources}
    # What the redrawn part reads and finds there must outlive it: it runs again and again.
    remade = {task.value for task in tasks[redrawn:]}
    kept = {name for task in tasks[redrawn:] for name in task.sources} - remade
    lives: dict[str, _Life] = {}
    for i, task in enumerate(tasks):
        last = end if i == end or task.value in kept else last_read.get(task.value, i)
        heirs = [
            lives[name]
            for name in task.sources
            if task.kernel.in_place
            and name != INPUT
            and specs[name].kind == "int"
            and last_read[name] == i
            and name not in kept
        ]
        if heirs:
            heirs[0].last = max(last, i)
            lives[task.value] = heirs[0]
        else:
            lives[task.value] = _Life(task.name, task.kernel.result_words, i, last)
    return lives


def _requests(tasks: Sequence[Task], lives: dict[str, _Life]) -> list[Request]:
    """All memory, in the order in which it is first used."""
    requests = []
    for i, task in enumerate(tasks):
        life = lives[task.value]
        if life.first == i:
            requests.append(Request(life.name, life.words, life.first, life.last))
        if task.kernel.scratch_words:
            # A colon, since no layer's name can hold one: "conv1.scratch" could be a layer.
            requests.append(Request(f"{task.name}:scratch", task.kernel.scratch_words, i, i))
    return requests


def _check(graph: Graph, tasks: Sequence[Task]) -> None:
    if len(tasks) > _MAX_STEPS:
        raise UnsupportedModelError(
            f"{len(tasks)} steps; {_MAX_STEPS} are possible",
            where=graph.name,
            hint="make the network shallower",
        )
    planes = {task.kernel.planes for task in tasks if task.kernel.planes}
    if len(planes) > 1:
        raise UnsupportedModelError(
            f"stochastic layers with different bit-planes: {sorted(planes)}",
            where=graph.name,
            hint="use the same number for all of them",
        )


@dataclass(frozen=True, eq=False)
class _Layout:
    """Tasks with their memory."""

    tasks: list[Task]
    lives: dict[str, _Life]
    buffers: dict[str, Placed]
    arena_words: int

    @classmethod
    def of(cls, tasks: list[Task], specs: dict[str, TensorSpec]) -> _Layout:
        """Everything placed."""
        lives = _lives(tasks, specs)
        buffers, arena_words = place(_requests(tasks, lives))
        return cls(tasks, lives, buffers, arena_words)

    def ram(self, index: int) -> int:
        """Bytes in use while a task runs."""
        return 4 * sum(b.words for b in self.buffers.values() if b.alive(index))


def _choose(
    tasks: list[Task],
    priced: list[tuple[Alternative, ...]],
    specs: dict[str, TensorSpec],
    choice: KernelChoice,
) -> _Layout:
    """Every task with the kernel of the choice, as far as possible within its flash and RAM."""
    possible = [allowed(t.name, p, choice) for t, p in zip(tasks, priced, strict=True)]

    def layout(chosen: Sequence[Alternative]) -> _Layout:
        return _Layout.of([t.taking(a.option) for t, a in zip(tasks, chosen, strict=True)], specs)

    found = layout(fitted_in_flash(possible, choice))
    limit = arena_limit(choice)
    if limit is None or found.arena_words <= limit:
        return found
    # What a task needs besides its scratch hardly depends on the kernel, so RAM is a limit for
    # each task by itself.  Gaps between buffers may ask for a little more: then it is lowered.
    room = limit
    for _ in range(_ROUNDS):
        within = [
            fitting(options, room - found.ram(i) // 4 + task.kernel.scratch_words)
            for i, (task, options) in enumerate(zip(found.tasks, possible, strict=True))
        ]
        tried = layout(fitted_in_flash(within, choice))
        if tried.arena_words <= limit:
            return tried
        room -= max(1, tried.arena_words - limit)
    return tried


def make_plan(graph: Graph, choice: KernelChoice = DEFAULT_CHOICE) -> Plan:
    """Choose kernels and place all memory.

    Args:
        choice: what the kernels are chosen for.

    Raises:
        UnsupportedModelError: too many steps, too much memory for any address,
            stochastic layers with different numbers of bit-planes, or a step for
            which no kernel promises what the choice asks for.
        UsageError: a step is forced to a kernel that it does not have.
    """
    specs = infer(graph)
    tasks = schedule(graph, specs)
    _check(graph, tasks)
    priced = [
        tuple(
            Alternative(option, estimate(option, choice.core))
            for i, option in enumerate(task.options)
            if i == 0 or is_for(option, choice)
        )
        for task in tasks
    ]
    layout = _choose(tasks, priced, specs, choice)
    tasks, lives, buffers = layout.tasks, layout.lives, layout.buffers
    if layout.arena_words > _MAX_ARENA_WORDS:
        raise UnsupportedModelError(
            f"its values take {4 * layout.arena_words:,} bytes; "
            f"{4 * _MAX_ARENA_WORDS:,} are possible",
            where=graph.name,
            hint="use a smaller input, or fewer filters",
        )
    tables = Tables()
    labels = short_labels([task.name for task in tasks])
    steps = tuple(
        Step(
            name=task.name,
            label=label,
            nodes=task.nodes,
            call=task.kernel,
            constants=tables.of(i, task.kernel),
            sources=tuple(
                None if name == INPUT else buffers[lives[name].name] for name in task.sources
            ),
            reads=tuple(specs[name].kind for name in task.sources),
            result=buffers[lives[task.value].name],
            scratch=buffers.get(f"{task.name}:scratch"),
            drawn=task.drawn,
            logits=i == len(tasks) - 1,
            ram_bytes=layout.ram(i),
            option=task.option.name,
            alternatives=priced[i],
        )
        for i, (task, label) in enumerate(zip(tasks, labels, strict=True))
    )
    width = logit_bytes(specs[graph.nodes[-1].name])
    return Plan(graph, steps, tuple(buffers.values()), layout.arena_words, width, choice)
