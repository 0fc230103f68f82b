"""Where the network's input is in torch's graph, and what the graph knows beforehand."""

from __future__ import annotations

from typing import Any

import torch

from bnnmcu.frontend.trace.tracer import execute
from bnnmcu.frontend.trace.values import layout_of

__all__ = ["Entry", "constants", "find_entry"]

_MOVES = ("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "permute", "transpose",
          "flatten", "clone", "contiguous", "_to_copy", "detach", "alias")  # fmt: skip


def constants(program: Any) -> tuple[dict[Any, Any], Any]:
    """Values of all placeholders but one, and that one: the module's input."""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    values: dict[Any, Any] = {}
    user = None
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = specs[node.name]
        if spec.kind.name == "USER_INPUT":
            user = node
        elif spec.target in program.state_dict:
            values[node] = program.state_dict[spec.target].detach()
        else:
            held = program.constants[spec.target]
            values[node] = held.detach() if isinstance(held, torch.Tensor) else held
    return values, user


class Entry:
    """The node that is the network's input.

    That is the module's input, or the node where moving its axes ends: sensor
    data often come as (N, T, C), flat signals as (N, L).  What a board is sent is
    the (C, H, W) that the first layer sees.

    Attributes:
        moves: the nodes from the module's input, which is left out, to the entry.
    """

    def __init__(self, user: Any, moves: tuple[Any, ...]) -> None:
        self.moves = moves
        self.node = moves[-1] if moves else user
        self._user = user
        layout = layout_of(self.shape)
        assert layout is not None
        self.layout = layout

    @property
    def shape(self) -> tuple[int, ...]:
        """Torch's shape of the network's input."""
        return tuple(self.node.meta["val"].shape)

    def forwards(self, given: torch.Tensor) -> torch.Tensor:
        """The network's input of the module's input."""
        for node in self.moves:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda _: given)  # noqa: B023
            given = execute(node, args, kwargs)
        return given

    def backwards(self, image: torch.Tensor) -> torch.Tensor:
        """The module's input of the network's input."""
        shape = tuple(self._user.meta["val"].shape)
        count = torch.arange(image.numel(), dtype=torch.float64).reshape(shape)
        index = self.forwards(count).reshape(-1).long()
        result = torch.empty(image.numel(), dtype=image.dtype)
        result[index] = image.reshape(-1)
        return result.reshape(shape)


def find_entry(user: Any) -> Entry:
    """Follow the module's input while it is only moved."""
    chain = []
    node = user
    while len(node.users) == 1:
        (node,) = node.users
        name = getattr(node.target, "_opname", "")
        if name not in _MOVES or not node.meta["val"].is_floating_point():
            break
        chain.append(node)
    moved = any(n.target._opname in ("permute", "transpose") for n in chain)
    own = layout_of(tuple(user.meta["val"].shape))
    for count in range(len(chain), 0, -1):
        shape = tuple(chain[count - 1].meta["val"].shape)
        layout = layout_of(shape)
        if len(shape) in (3, 4) and layout is not None:
            return Entry(user, tuple(chain[:count]) if moved or layout != own else ())
    return Entry(user, ())
