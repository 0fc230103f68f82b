"""The MLPerf Tiny server's share of a project: probabilities need the scale of the logits.

The firmware has integers only.  A logit that is *d* below the largest one
weighs ``exp(-d * logit_scale)``, which is ``2^-y`` with *y* in fixed point;
here the factor between *d* and *y* is chosen so that nothing overflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bnnmcu.backend.emit import render
from bnnmcu.graph import Graph

__all__ = ["Softmax", "mlperf_header", "softmax"]

#: Weights below 2^-24 of the largest are nothing in six decimals.
_REACH = 24
#: Bits of a distance after the shift, and of the fraction of y.
_DISTANCE_BITS, _FRACTION_BITS = 30, 20


@dataclass(frozen=True)
class Softmax:
    """The exponent of a weight: ``y = ((d >> down) * scale) >> shift``, in steps of 2^-20.

    Attributes:
        down, shift: bits, 0 to 63.
        limit: a weight is 0 where ``d >> down`` is larger; at most 2^30.
        scale: below 2^32.
    """

    down: int
    limit: int
    scale: int
    shift: int


def softmax(logit_scale: float) -> Softmax:
    """The constants for a scale of the logits, which is positive and finite."""
    # In bits: 2^-step is the weight of a logit that is one below the largest. As mantissa and
    # exponent, since scales reach from the smallest to the largest float.
    mantissa, exponent = math.frexp(logit_scale)
    mantissa *= math.log2(math.e)
    # The distance at which a weight becomes nothing is about 2^reach.
    reach = math.log2(_REACH) - math.log2(mantissa) - exponent
    down = min(63, max(0, math.ceil(reach) - _DISTANCE_BITS))
    exponent += down
    if reach < 0:
        # Two logits that differ at all differ by more than can be told.
        return Softmax(0, 0, 0, 0)
    limit = min(1 << _DISTANCE_BITS, int(2.0 ** min(reach - down, 62.0)))
    shift = min(63, 32 - _FRACTION_BITS - math.frexp(mantissa)[1] - exponent)
    scale = min((1 << 32) - 1, round(math.ldexp(mantissa, exponent + _FRACTION_BITS + shift)))
    return Softmax(down, limit, scale, shift)


def mlperf_header(graph: Graph) -> bytes:
    """``bnn_mlperf_model.h`` of a network."""
    template = "project/bnn_mlperf_model.h.j2"
    return render(template, graph=graph, softmax=softmax(graph.logit_scale))
