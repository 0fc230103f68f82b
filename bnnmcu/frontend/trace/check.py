"""Compares a trace with the module, operation by operation: a misread layer is noticed.

Three steps, each of which must agree: the module and torch's graph of it, in
the module's own precision; the graph in float64 and every operation of the
network, given the graph's own values; the graph and the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree

from bnnmcu.errors import UnsupportedModelError
from bnnmcu.frontend.trace.draws import Bits, Draw
from bnnmcu.frontend.trace.entry import Entry
from bnnmcu.frontend.trace.tracer import execute
from bnnmcu.frontend.trace.values import Value
from bnnmcu.network.execute import evaluate, to_float
from bnnmcu.network.model import Network
from bnnmcu.network.ops import INPUT, Conv, Floats, Linear, Op, Sign

__all__ = ["Checked", "verify"]

_SEED = 2011
#: Largest difference, relative to the largest value, between torch and torch.
_SINGLE = 1e-4
#: ... and in float64, where only the order of sums differs.
_DOUBLE = 1e-9
#: A value this close to zero, relative to the largest, may fall on either side of it.
_TIE = 1e-6
_HINT = "this is a mistake of bnnmcu, not yours: please report it, with the layer's code"


@dataclass(frozen=True)
class Checked:
    """A network and all that it was made from.

    Attributes:
        module: in eval mode.
        graph: torch's graph of it.
        known: what every node is.
        nodes: operation to the node of the same value, where there is one.
        draws: operation that draws its weights to its node.
        answer, logits: the nodes of the module's answer and of the logits.
    """

    network: Network
    module: nn.Module
    graph: Any
    entry: Entry
    known: Mapping[Any, Any]
    nodes: Mapping[str, Any]
    draws: Mapping[str, Any]
    answer: Any
    logits: Any


def _wide(item: Any) -> Any:
    """Floats as float64."""
    if isinstance(item, torch.Tensor):
        return item.double() if item.is_floating_point() else item
    return torch.float64 if item == torch.float32 else item


def _varies(value: Any) -> bool:
    """Whether a node depends on the input, or on a draw."""
    if isinstance(value, tuple | list):
        return any(_varies(item) for item in value)
    return isinstance(value, Value | Draw)


def _single(value: Any) -> torch.Tensor:
    """The tensor that a node is about: batch norm returns its statistics too."""
    tensor: torch.Tensor = value[0] if isinstance(value, tuple | list) else value
    return tensor


def _interpret(c: Checked, image: torch.Tensor, *, double: bool) -> dict[Any, Any]:
    """Values of all nodes that vary, for one input of the network.

    Args:
        double: compute them in float64; what is constant keeps the module's precision.
    """
    start = image.reshape(c.entry.shape)
    values: dict[Any, Any] = {c.entry.node: _wide(start) if double else start}

    def look(node: Any) -> Any:
        return values[node] if node in values else c.known[node]

    for node in c.graph.nodes:
        if node in values or not _varies(c.known.get(node)):
            continue
        given = torch.fx.map_arg((node.args, node.kwargs), look)
        values[node] = execute(node, *(_pytree.tree_map(_wide, given) if double else given))
    return values


def _far(one: Floats, other: Floats, room: float) -> Any:
    """Where two arrays differ by more than room, relative to the largest value."""
    size = max(1e-30, float(np.abs(other).max(initial=0.0)))
    return ~(np.abs(one - other) <= room * size)


def _near_zero(array: Floats) -> Any:
    return np.abs(array) <= _TIE * max(1e-30, float(np.abs(array).max()))


def _check_graph(c: Checked, image: torch.Tensor) -> None:
    """The module's answer and the graph's.

    Raises:
        UnsupportedModelError: they differ.
    """
    answers = []
    # Weights are drawn alike after the same seed, unless a generator of its own draws them.
    if c.draws and any("generator" in str(node.target) for node in c.graph.nodes):
        return
    with torch.no_grad():
        torch.manual_seed(_SEED)
        answers.append(c.module(c.entry.backwards(image).clone()))
        torch.manual_seed(_SEED)
        answers.append(_single(_interpret(c, image, double=False)[c.answer]))
    one, other = (v.detach().double().numpy().reshape(-1) for v in answers)
    if one.shape != other.shape or _far(one, other, _SINGLE).any():
        raise UnsupportedModelError(
            "torch's graph of it does not reproduce the module, so its forward is not the "
            "same for every input or at every call",
            where=type(c.module).__name__,
            hint="let forward depend on nothing but its input, parameters and buffers",
        )


def _network_order(value: Any, array: Floats) -> Floats:
    """A value of torch's as the network orders it, flat."""
    value = value[0] if isinstance(value, tuple) else value
    if not isinstance(value, Value):
        return array.reshape(-1)
    if value.axes is not None:
        array = array.transpose(np.argsort(value.axes))
    flat = array.reshape(-1)
    if value.order is not None:
        moved = np.empty_like(flat)
        moved[value.order] = flat
        flat = moved
    return flat


def _blame(op: Op, worst: float) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the trace does not reproduce the module: {type(op).__name__.lower()} is off by {worst:g}",
        where=op.name,
        hint=_HINT,
    )


def _drawn_weights(c: Checked, op: Conv | Linear, values: Mapping[Any, Any]) -> Floats:
    """The weights that torch drew, as -1 and +1, held against their probabilities."""
    inputs = c.draws[op.name].all_input_nodes
    weight = next(a for a in inputs if isinstance(c.known.get(a), Bits))
    drawn = np.sign(values[weight].double().numpy())
    if drawn.ndim == 2 and drawn.shape != op.weights.shape:
        drawn = drawn.T
    drawn = drawn.reshape(op.weights.shape)
    sure = (op.weights == 0) | (op.weights == 1)
    spread = np.sqrt((op.weights * (1 - op.weights)).sum())
    surplus = abs(((drawn > 0) - op.weights).sum())
    if (drawn[sure] != 2 * op.weights[sure] - 1).any() or surplus > 8 * spread + 1e-6:
        raise _blame(op, float(surplus))
    return np.asarray(drawn)


def _check_network(c: Checked, image: torch.Tensor, *, throughout: bool) -> None:
    """Every operation against the graph's values in float64.

    Args:
        throughout: run the whole network from the image, too.

    Raises:
        UnsupportedModelError: something differs; names the first operation that does.
    """
    torch.manual_seed(_SEED)
    values = _interpret(c, image, double=True)
    start = image.double().numpy().reshape(1, *c.network.input_shape)
    local: dict[str, Floats] = {INPUT: start}
    whole: dict[str, Floats] = {INPUT: start}
    rounded: set[str] = set()
    tie = False
    for op in c.network.ops:
        drawn = None
        if isinstance(op, Conv | Linear) and op.drawn:
            drawn = {op.name: _drawn_weights(c, op, values)}
        mine = evaluate(op, local, drawn)
        if throughout:
            whole[op.name] = evaluate(op, whole, drawn)
        if throughout and isinstance(op, Sign):
            tie |= bool(_near_zero(local[op.source]).any() or _near_zero(whole[op.source]).any())
        node = c.nodes.get(op.name)
        if node is None:
            local[op.name] = mine
            rounded.add(op.name)
            continue
        theirs = _network_order(c.known.get(node), _single(values[node]).double().numpy())
        if theirs.size != mine.size:
            raise _blame(op, float("inf"))
        theirs = theirs.reshape(mine.shape)
        off = _far(mine, theirs, _DOUBLE)
        if isinstance(op, Sign) and op.source in rounded:
            off &= ~_near_zero(local[op.source])
        if off.any():
            raise _blame(op, float(np.abs(mine - theirs).max()))
        local[op.name] = theirs
    # One tie may have gone another way, and changed everything after it.
    last = c.network.ops[-1]
    theirs = _single(values[c.logits]).double().numpy().reshape(-1)
    for result in [local, *([whole] if throughout and not tie else [])]:
        if _far(result[last.name].reshape(-1), theirs, 1e3 * _DOUBLE).any():
            raise _blame(last, float(np.abs(result[last.name].reshape(-1) - theirs).max()))


def verify(c: Checked, example: torch.Tensor) -> None:
    """The self-check, on the example and on random images.

    Raises:
        UnsupportedModelError: the network, torch's graph or the module differ.
    """
    generator = np.random.default_rng(_SEED)
    channels, height, width = c.network.input_shape
    shape = (1, height, width, channels)
    pixels = to_float(c.network, generator.integers(0, 256, shape, dtype=np.uint8))
    noise = torch.from_numpy(pixels[0]).to(example.dtype)
    given = c.entry.forwards(example)
    # Zeros meet what happens at zero, where signs differ from each other.
    for image in (given, noise, torch.zeros_like(given)):
        _check_network(c, image, throughout=image is given)
        _check_graph(c, image)
