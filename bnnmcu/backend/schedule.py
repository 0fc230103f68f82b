"""In what order a graph's nodes run, and which of them one kernel computes together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bnnmcu.backend.kernels import options, plain_option
from bnnmcu.backend.kernels.base import Kernel, Option, Site
from bnnmcu.backend.kernels.dense import copy_logits
from bnnmcu.graph import (
    Conv,
    Dense,
    Graph,
    Node,
    Relu,
    StochasticConv,
    TensorSpec,
    Threshold,
)

__all__ = ["Task", "schedule"]


@dataclass(frozen=True, eq=False)
class Task:
    """A step before it has memory.

    Attributes:
        name: unique; that of its first node, or one with a colon, as no node's can hold.
        nodes: names of the nodes that it computes; the last one's value is its result.
        sources: names of the values that it reads.
        value: name of its result.
        option: the kernel that computes it, and its work.
        options: all that could, the plain one first.
        drawn: whether its result depends on drawn weights.
    """

    name: str
    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    value: str
    option: Option
    options: tuple[Option, ...]
    drawn: bool

    @property
    def kernel(self) -> Kernel:
        """The call."""
        return self.option.kernel

    def taking(self, option: Option) -> Task:
        """The same step by another kernel."""
        return replace(self, option=option)


def _groups(graph: Graph) -> list[tuple[Node, Threshold | Relu | None]]:
    """Every node, a convolution with the threshold or ReLU that is its only reader."""
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for source in node.sources:
            readers.setdefault(source, []).append(node)
    tails: dict[str, Threshold | Relu] = {}
    for node in graph.nodes:
        reader = readers.get(node.name, [])
        if isinstance(node, Conv) and len(reader) == 1 and isinstance(reader[0], Threshold | Relu):
            tails[node.name] = reader[0]
    merged = {tail.name for tail in tails.values()}
    return [(node, tails.get(node.name)) for node in graph.nodes if node.name not in merged]


def schedule(graph: Graph, specs: dict[str, TensorSpec]) -> list[Task]:
    """All steps, in the order in which they run, each with its plain kernel.

    What depends on drawn weights comes last, otherwise in the graph's order: a
    further draw of the same image runs only that part.

    Raises:
        UnsupportedModelError: no kernel is known for a node.
    """
    tasks: list[Task] = []
    drawn: set[str] = set()
    for head, tail in _groups(graph):
        value = tail.name if tail else head.name
        site = Site(head, tail, tuple(specs[name] for name in head.sources), specs[value])
        depends = isinstance(head, StochasticConv) or not drawn.isdisjoint(head.sources)
        if depends:
            drawn.add(value)
        nodes = (head.name, tail.name) if tail else (head.name,)
        found = options(site)
        tasks.append(Task(head.name, nodes, head.sources, value, found[0], found, depends))
    last = graph.nodes[-1]
    # The logits come last even if only layers that nobody reads are drawn.
    tasks.sort(key=lambda task: task.drawn or task.value == last.name)
    if not isinstance(last, Dense):
        name = f"{last.name}:logits"
        copy = plain_option(copy_logits(specs[last.name]), specs[last.name])
        tasks.append(Task(name, (), (last.name,), name, copy, (copy,), last.name in drawn))
    return tasks
