"""Every kernel that the registry offers, forced in turn in random networks that can have it.

Nothing is listed by hand: what counts as a variant is what the options of random networks are
called, and, for plain kernels, the C function too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from random_bits import random_bits
from random_dags import random_dag
from random_first import random_first, random_single

from bnnmcu.backend.costs import knows
from bnnmcu.backend.kernels.base import Option
from bnnmcu.backend.plan import KernelChoice, Plan, make_plan
from bnnmcu.backend.schedule import schedule
from bnnmcu.graph import Graph, infer
from bnnmcu.lfsr import GENERATORS

__all__ = ["Forced", "for_core", "forced", "known_families", "met_families"]

#: Seeds of each source that are always tried, so that every variant is met; and the most.
_LEAST, _MOST = 25, 150
_SOURCES: tuple[Callable[[int], Graph], ...] = (
    random_dag,
    random_bits,
    lambda seed: random_first(seed, fir=True),
    lambda seed: random_first(seed, fir=False),
    lambda seed: random_single(seed, drawn=False),
    lambda seed: random_single(seed, drawn=True, generator=list(GENERATORS)[seed % 3]),
)


@dataclass(frozen=True, eq=False)
class Forced:
    """A network with one kernel forced wherever it is offered.

    Attributes:
        graph: the network.
        variant: the kernel: its option's name, or for plain ones the C function.
        choice: takes it.
        promise: what the kernels of the forced option promise, or all of a plain network.
    """

    graph: Graph
    variant: str
    choice: KernelChoice
    promise: str

    @property
    def plan(self) -> Plan:
        """The plan that takes it."""
        return make_plan(self.graph, self.choice)


def known_families() -> set[str]:
    """The families that some core's table of costs has."""
    found: set[str] = set()
    for entry in files("bnnmcu").joinpath("backend", "costs").iterdir():
        if entry.name.endswith(".json"):
            found |= set(json.loads(entry.read_text(encoding="utf-8")).get("families", {}))
    return found


def met_families(networks: Sequence[Forced]) -> set[str]:
    """The families that are taken in some of the networks."""
    return {
        family
        for one in networks
        for family in (step.option.partition("/")[0] for step in one.plan.steps)
    }


def _sites(graph: Graph) -> list[tuple[Option, ...]]:
    """All options of each step, whatever core they are for; the plain one first."""
    return [task.options for task in schedule(graph, infer(graph))]


@cache
def _networks(seed: int) -> tuple[tuple[Graph, list[tuple[Option, ...]]], ...]:
    """A network of each source, with the options of its steps."""
    return tuple((graph, _sites(graph)) for graph in (source(seed) for source in _SOURCES))


def _weakest(promises: Sequence[str]) -> str:
    return min(promises, key=["none", "count", "time"].index)


def _of(graph: Graph, sites: Sequence[tuple[Option, ...]]) -> Iterator[Forced]:
    plain = {options[0].kernel.function for options in sites}
    promise = _weakest([options[0].constant for options in sites])
    for function in sorted(plain):
        yield Forced(graph, function, KernelChoice("plain"), promise)
    offered: dict[str, list[str]] = {}
    for options in sites:
        for option in options[1:]:
            offered.setdefault(option.name, []).append(option.constant)
    for name, promises in offered.items():
        choice = KernelChoice("plain", force={"*": name})
        yield Forced(graph, name, choice, _weakest([promise, *promises]))


def forced(count: int, first: int = 0) -> list[Forced]:
    """Networks in which each variant occurs at least so often.

    A plain network stands in the list once, under one of its functions.

    Args:
        count: of networks for each variant.
        first: where seeds begin.

    Raises:
        AssertionError: a variant is hardly ever offered.
    """
    taken: list[Forced] = []
    times: Counter[str] = Counter()
    for seed in range(first, first + _MOST):
        if seed >= first + _LEAST and min(times.values()) >= count:
            break
        for graph, sites in _networks(seed):
            found = list(_of(graph, sites))
            wanted = [one for one in found if times[one.variant] < count]
            plain = [one for one in wanted if not one.choice.force]
            taken += [*plain[:1], *(one for one in wanted if one.choice.force)]
            times.update(one.variant for one in found if plain or one.choice.force)
            # One that is met but not taken is known all the same.
            times.update({one.variant: 0 for one in found})
    rare = {name: number for name, number in times.items() if number < count}
    assert not rare, f"hardly ever offered: {rare}"
    return taken


def for_core(networks: Sequence[Forced], core: str, memory: str) -> list[list[Forced]]:
    """Those whose forced kernel can be chosen on a core, in parts that fit a board.

    Args:
        memory: of the board, as in ``512K``; half of it is for tables.
    """
    most = int(memory[:-1]) * {"K": 1 << 10, "M": 1 << 20}[memory[-1]] // 2
    parts: list[list[Forced]] = [[]]
    used = 0
    for one in networks:
        if one.choice.force and not knows(one.variant.partition("/")[0], core):
            continue
        used += one.plan.flash_bytes
        if used > most and parts[-1]:
            parts.append([])
            used = one.plan.flash_bytes
        parts[-1].append(one)
    return parts
