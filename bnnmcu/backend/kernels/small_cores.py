"""Fast kernels for cores without DSP instructions: ``bnn_toom.h``, and lists of byte offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.backend.kernels.base import Fields, Kernel, Offer, Option, Site, table, value_words
from bnnmcu.backend.kernels.first import first_tables
from bnnmcu.backend.kernels.geometry import shape_fields
from bnnmcu.graph import IntegerConv, Node, Relu, Threshold
from bnnmcu.packing import LANES, words_for

__all__ = ["OFFERS", "toom", "toom_weights"]

Array = npt.NDArray[Any]

#: Taps of a phase, BNN_TOOM_POINTS, BNN_TOOM_SIDE and BNN_TOOM_WORDS of bnn_toom.h.
_TAPS, _POINTS, _SIDE = 4, 6, 3
_WORDS = _POINTS**2 + LANES * _SIDE**2
_FOUR = 4
#: The values of a polynomial of four coefficients at 0, 1, -1, 2, 1/2 and infinity.
_VALUES = np.array(
    [[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [8, 4, 2, 1], [0, 0, 0, 1]]
)
#: What each of them is divided by, but for a 2 that is left in the sums.
_DIVISORS = (1, 1, 9, 9, 9, 1)
#: 4 sum + bias must be an int32.
_MOST = (1 << 29) - 1


def _modular(values: Array) -> npt.NDArray[np.uint32]:
    """Integers modulo 2^32."""
    return (values.astype(np.int64) & 0xFFFFFFFF).astype(np.uint32)


def toom_weights(weights: Array, stride: tuple[int, int], bias: Array) -> npt.NDArray[np.uint32]:
    """Weights (O, KH, KW, I) and bias (O,) in the order of ``bnn_first_toom``."""
    outputs, kh, kw, channels = weights.shape
    sy, sx = stride
    taps = np.zeros((outputs, _TAPS * sy, _TAPS * sx, channels), dtype=np.int64)
    taps[:, :kh, :kw] = weights
    taps = taps.reshape(outputs, _TAPS, sy, _TAPS, sx, channels)
    # (outputs, column point, row point, channels, row phase, column phase)
    made = np.einsum("it,ju,otpuqc->ojicpq", _VALUES, _VALUES, taps)
    inverse = np.array([pow(d, -1, 1 << 32) for d in _DIVISORS], dtype=np.uint64)
    scale = inverse[:, None] * inverse & np.uint64(0xFFFFFFFF)
    phases = channels * sy * sx
    words = np.zeros((outputs, _POINTS, _POINTS, -(-phases // _FOUR) * _FOUR), dtype=np.uint64)
    words[..., :phases] = _modular(made.reshape(outputs, _POINTS, _POINTS, phases))
    words = words * scale[..., None] & np.uint64(0xFFFFFFFF)
    rows = np.concatenate(
        [words.reshape(outputs, -1).astype(np.uint32), _modular(4 * bias)[:, None]], axis=1
    )
    groups = [rows[first : first + LANES][::-1] for first in range(0, outputs, LANES)]
    return np.concatenate(groups)


def toom(site: Site) -> Iterator[Option]:
    """Pixels and a kernel of three or four taps a phase, in each direction."""
    node, source = site.node, site.sources[0]
    assert isinstance(node, IntegerConv)
    window = node.window
    taps = [-(-k // s) for k, s in zip(window.kernel, window.stride, strict=True)]
    if (
        source.kind != "u8"
        or node.groups != 1
        or window.dilation != (1, 1)
        or not all(_SIDE <= count <= _TAPS for count in taps)
    ):
        return
    tables = first_tables(site, node)
    if tables is None:
        return
    found = {t.role: t for t in tables}
    outputs = len(node.weights)
    bias = found.pop("bias").data.astype(np.int64) if "bias" in found else np.zeros(outputs, int)
    flat = node.weights.astype(np.int64).reshape(outputs, -1)
    low, high = (255 * part.sum(axis=1) for part in (np.minimum(flat, 0), np.maximum(flat, 0)))
    if np.any(low + bias < -_MOST) or np.any(high + bias > _MOST):
        return
    weights = toom_weights(node.weights, window.stride, bias)
    constants = (table("weights", weights), *found.values())
    fields: Fields = {
        "shape": shape_fields(window, source, site.out),
        **{t.role: t.role for t in constants},
        "relu": 1 if isinstance(site.tail, Relu) else 0,
    }
    rows, cols, _ = site.out.shape
    phases = source.shape[2] * window.stride[0] * window.stride[1]
    fours = -(-phases // _FOUR)
    kernel = Kernel(
        function="bnn_first_toom",
        struct="bnn_first_t",
        fields=fields,
        constants=constants,
        result_words=value_words(site.out),
        scratch_words=_WORDS + _POINTS**2 * _FOUR * fours,
        macs=node.macs(source.shape),
        header="bnn_toom.h",
    )
    tiles = -(-rows // _SIDE) * -(-cols // _SIDE)
    bits = isinstance(site.tail, Threshold)
    work = {
        "call": 1.0,
        "phase": float(tiles * phases),
        "four": float(tiles * outputs * fours),
        "bit" if bits else "sum": float(tiles * outputs),
        "put": float(tiles * words_for(outputs)),
    }
    yield Option("toom", kernel, work)


OFFERS: dict[type[Node], tuple[Offer, ...]] = {IntegerConv: (toom,)}
