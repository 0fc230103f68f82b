"""The value of a network's operation, as the integer graph has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnnmcu.graph import TensorSpec
from bnnmcu.network.ops import Floats
from bnnmcu.passes.lower.chain import Chain, Step

__all__ = ["Value"]


@dataclass(frozen=True, eq=False)
class Value:
    """``chain`` of what the graph node ``node`` gives.

    Attributes:
        op: the network's operation it is the value of.
        node: name of the graph node, or the image's.
        spec: of that node; bits count as -1 and +1.
        chain: still to be computed.
    """

    op: str
    node: str
    spec: TensorSpec
    chain: Chain

    def then(self, op: str, step: Step) -> Value:
        """With another step to be computed."""
        chain = self.chain.then(step)
        if self.spec.kind == "bit":
            # Whatever happens to two values, a line through both results says as much.
            chain = chain.on_signs()
        return Value(op, self.node, self.spec, chain)

    @property
    def uniform(self) -> float | None:
        """The float value of one unit, if it is that times the node's integers."""
        line = self.chain.line
        if line is None or np.any(line[1] != 0) or np.any(line[0] != line[0][0]):
            return None
        return float(line[0][0])

    def bounds(self) -> tuple[Floats, Floats]:
        """Smallest and largest float value of each channel, (C,)."""
        return self.chain.bounds(*self.spec.bounds)
