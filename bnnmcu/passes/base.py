"""What a pass is: a match and a transform, on a float network or on an integer graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol

from bnnmcu.network import Network, shapes
from bnnmcu.network.model import Shape
from bnnmcu.network.ops import INPUT, Add, Op

__all__ = ["NetworkPass", "Rewrite", "View", "apply_pass"]

#: Of the names that passes make up: leaves room for a number behind it.
_LONGEST = 190


@dataclass(frozen=True, eq=False)
class View:
    """A network as passes look at it."""

    network: Network

    @cached_property
    def by_name(self) -> dict[str, Op]:
        """Operations by name."""
        return {op.name: op for op in self.network.ops}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """(C, H, W) of every value."""
        return shapes(self.network)

    @cached_property
    def _readers(self) -> dict[str, list[Op]]:
        readers: dict[str, list[Op]] = {op.name: [] for op in self.network.ops}
        readers[INPUT] = []
        for op in self.network.ops:
            for source in op.sources:
                readers[source].append(op)
        return readers

    def readers(self, name: str) -> list[Op]:
        """Operations that take a value; twice if they take it twice."""
        return self._readers[name]

    def fresh(self, name: str, what: str) -> str:
        """A name for an operation made from that called ``name``, which no other has."""
        stem = name[: _LONGEST - len(what)]
        candidate, count = f"{stem}{what}", 2
        while candidate in self.by_name:
            candidate, count = f"{stem}{what}{count}", count + 1
        return candidate

    def producer(self, op: Op) -> Op | None:
        """The operation whose value ``op`` takes, if no other reads it."""
        source = self.by_name.get(op.source)
        last = self.network.ops[-1].name
        if source is None or len(self.readers(source.name)) != 1 or source.name == last:
            return None
        return source


@dataclass(frozen=True)
class Rewrite:
    """What a transform changes.

    Attributes:
        replace: operations by name, and what stands in their place (nothing: removed).
        rename: names of values that readers now take from elsewhere.
    """

    replace: dict[str, tuple[Op, ...]]
    rename: dict[str, str]


class NetworkPass(Protocol):
    """Rewrites a float network, one match at a time, until nothing matches.

    ``text`` says what it does; it must not change what the network computes.
    """

    name: ClassVar[str]
    text: ClassVar[str]

    @staticmethod
    def match(op: Op, view: View) -> bool:
        """Whether the pass has something to do at ``op``."""

    @staticmethod
    def transform(op: Op, view: View) -> Rewrite:
        """What it does there."""


def _renamed(op: Op, rename: dict[str, str]) -> Op:
    changes = {}
    if op.source in rename:
        changes["source"] = rename[op.source]
    if isinstance(op, Add) and op.other in rename:
        changes["other"] = rename[op.other]
    return replace(op, **changes) if changes else op


def _rewritten(network: Network, rewrite: Rewrite) -> Network:
    ops: list[Op] = []
    for op in network.ops:
        ops += [_renamed(new, rewrite.rename) for new in rewrite.replace.get(op.name, (op,))]
    return replace(network, ops=tuple(ops))


def apply_pass(step: type[NetworkPass], network: Network) -> tuple[Network, int]:
    """Apply a pass until it finds nothing more to do.

    Returns:
        the network, and the number of rewrites.
    """
    changes, at = 0, 0
    view = View(network)
    while at < len(view.network.ops):
        op = view.network.ops[at]
        if step.match(op, view):
            view = View(_rewritten(view.network, step.transform(op, view)))
            changes += 1
            # What came before may match now.
            at = 0
        else:
            at += 1
    return view.network, changes
