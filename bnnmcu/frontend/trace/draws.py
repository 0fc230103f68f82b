"""Weights that are drawn at random in every forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from bnnmcu.errors import UnsupportedModelError

if TYPE_CHECKING:
    from bnnmcu.frontend.trace.tracer import Tracer

__all__ = ["Bits", "Draw", "Uniform", "draw", "signs"]

_HINT = (
    "draw weights with torch.bernoulli(p) or torch.where(torch.rand_like(w) < p, 1.0, -1.0), "
    "or use bnnmcu.nn.StochasticBinaryConv2d"
)
_ROUNDING = 1e-5


class Draw:
    """Something drawn."""


@dataclass(frozen=True, eq=False)
class Uniform(Draw):
    """scale * u + offset, u uniform in [0, 1), for every element."""

    scale: torch.Tensor
    offset: torch.Tensor


@dataclass(frozen=True, eq=False)
class Bits(Draw):
    """``high`` with probability ``p``, else ``low``, for every element.

    Attributes:
        source: which draw it was; results of one draw can be combined.
    """

    p: torch.Tensor
    low: Any
    high: Any
    source: Any


def _refuse(tracer: Tracer, node: Any, what: str) -> UnsupportedModelError:
    return UnsupportedModelError(what, where=tracer.builder.where(node), hint=_HINT)


def _start(tracer: Tracer, node: Any, name: str, inputs: list[Any]) -> Draw:
    """A node that draws."""
    shape = tuple(node.meta["val"].shape)
    if name in ("rand", "rand_like"):
        return Uniform(torch.ones(shape), torch.zeros(shape))
    if name in ("bernoulli", "bernoulli_p"):
        probability = node.args[1] if len(node.args) > 1 else node.kwargs.get("p", inputs[0])
        if isinstance(probability, torch.fx.Node):
            probability = tracer.values[probability]
        p = torch.as_tensor(probability).double().broadcast_to(shape)
        return Bits(p, torch.zeros(shape), torch.ones(shape), node)
    if name == "uniform":
        bounds: list[Any] = [0.0, 1.0]
        bounds[: len(node.args) - 1] = node.args[1:]
        low, high = bounds
        return Uniform(torch.full(shape, high - low), torch.full(shape, float(low)))
    raise _refuse(tracer, node, f"draws random numbers with {name}")


def _compare(node: Any, name: str, one: Any, other: Any) -> Bits | None:
    """uniform < constant and the like."""
    flipped = not isinstance(one, Uniform)
    uniform, constant = (other, one) if flipped else (one, other)
    assert isinstance(uniform, Uniform)
    if isinstance(constant, Draw):
        return None
    bound = torch.as_tensor(constant, dtype=torch.float64) - uniform.offset.double()
    below = (bound / uniform.scale.double()).clamp(0.0, 1.0).nan_to_num(0.0)
    # P(scale * u + offset < constant)
    below = torch.where(uniform.scale > 0, below, 1.0 - below)
    less = name in ("lt", "le") if not flipped else name in ("gt", "ge")
    p = below if less else 1.0 - below
    false = torch.zeros(tuple(node.meta["val"].shape), dtype=torch.bool)
    return Bits(p.broadcast_to(false.shape), false, ~false, node)


def _of_uniform(node: Any, name: str, args: list[Any]) -> Draw | None:
    one, other = (*args, None)[:2]
    if name in ("lt", "le", "gt", "ge"):
        return _compare(node, name, one, other)
    if name in ("sign", "sgn") and isinstance(one, Uniform):
        bits = _compare(node, "gt", one, 0.0)
        assert bits is not None
        low, high = -torch.ones(bits.p.shape), torch.ones(bits.p.shape)
        return Bits(bits.p, low, high, node)
    if isinstance(one, Uniform) and isinstance(other, Draw):
        return None
    if name in ("detach", "clone", "alias", "lift_fresh_copy", "_to_copy") and len(args) == 1:
        return one if isinstance(one, Uniform) else None
    if name == "div" and isinstance(other, Uniform):
        return None
    if name in ("add", "sub", "mul", "div", "neg", "rsub"):
        # All of these are affine: two points tell the line.
        at = []
        for u in (0.0, 1.0):
            values = [a.scale * u + a.offset if isinstance(a, Uniform) else a for a in args]
            at.append(node.target(*values, **node.kwargs))
        return Uniform(at[1] - at[0], at[0])
    return None


_SHAPES = {"view", "reshape", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand",
           "_unsafe_view", "flatten"}  # fmt: skip
_COPIES = {"detach", "clone", "alias", "lift_fresh_copy", "_to_copy", "type_as", "to"}


def _of_bits(node: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    bits = [a for a in args if isinstance(a, Bits)]
    pointwise = torch.Tag.pointwise in node.target.tags or name in _COPIES | {
        "where",
        "masked_fill",
    }
    if len({b.source for b in bits}) != 1 or not (pointwise or name in _SHAPES):
        return None
    low, high = (
        node.target(*(getattr(a, side) if isinstance(a, Bits) else a for a in args), **kwargs)
        for side in ("low", "high")
    )
    if torch.equal(low, high):
        return low
    p = node.target(bits[0].p, *args[1:], **kwargs) if name in _SHAPES else bits[0].p
    # Shapes are a new draw of the same bits: they cannot be combined with the old ones.
    source = node if name in _SHAPES else bits[0].source
    return Bits(torch.as_tensor(p).broadcast_to(low.shape), low, high, source)


def draw(tracer: Tracer, node: Any, inputs: list[Any]) -> Any:
    """What a node without activations is, if something was drawn; None if nothing was.

    Raises:
        UnsupportedModelError: it is drawn in a way that a device cannot follow.
    """
    tags = getattr(node.target, "tags", ())
    name = str(getattr(node.target, "_opname", ""))
    drawn = any(isinstance(v, Draw) for v in inputs)
    if torch.Tag.nondeterministic_seeded in tags and not drawn:
        return _start(tracer, node, name, inputs)
    if not drawn:
        return None

    def known(item: Any) -> Any:
        return tracer.values[item]

    args = list(torch.fx.map_arg(node.args, known))
    kwargs = dict(torch.fx.map_arg(node.kwargs, known))
    if any(isinstance(v, Uniform) for v in inputs):
        result: Any = _of_uniform(node, name, args)
    else:
        result = _of_bits(node, name, args, kwargs)
    if result is None:
        raise _refuse(tracer, node, f"computes {name} of random numbers")
    given = max(_numbers(v) for v in inputs if isinstance(v, Draw))
    if isinstance(result, Draw) and _numbers(result) > given:
        # A device draws every weight for itself: exported so, it would be another network.
        raise _refuse(tracer, node, f"shares one random number among several values ({name})")
    return result


def _numbers(drawn: Draw) -> int:
    """How many random numbers were drawn, or results of theirs there are."""
    assert isinstance(drawn, Uniform | Bits)
    return int((drawn.scale if isinstance(drawn, Uniform) else drawn.p).numel())


def signs(tracer: Tracer, node: Any, bits: Bits) -> tuple[torch.Tensor, torch.Tensor]:
    """(P(+1), scale per output) of drawn weights that are -scale or +scale.

    Raises:
        UnsupportedModelError: they are something else.
    """
    low, high = bits.low.double(), bits.high.double()
    rows = high.abs().reshape(len(high), -1)
    scale = rows.mean(dim=1)
    room = _ROUNDING * scale.clamp(min=1e-30)
    symmetric = ((high + low).abs().reshape(len(high), -1) <= room[:, None]).all()
    even = ((rows - scale[:, None]).abs() <= room[:, None]).all()
    if not symmetric or not even:
        raise _refuse(tracer, node, "draws weights that are not -a and +a with one a per output")
    p = torch.where(high > 0, bits.p.double(), 1.0 - bits.p.double())
    nearest = scale.float().double()
    return p, torch.where((scale - scale.round()).abs() <= room, scale.round(), nearest)
