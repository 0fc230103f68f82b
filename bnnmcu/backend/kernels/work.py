"""How much work a plain kernel does, in the units that ``costs/CORE.json`` has figures for.

The units are the loops of ``bnn_kernels.c``, ``bnn_integer.c`` and ``bnn_values.c``: how often
each body runs, which the shapes alone decide.
"""

from __future__ import annotations

from math import prod

from bnnmcu.backend.kernels.base import Kernel, Option
from bnnmcu.graph import (
    BinaryConv,
    Conv,
    Dense,
    MaxPool,
    Node,
    StochasticConv,
    SumPool,
    TensorSpec,
    Threshold,
)
from bnnmcu.packing import words_for

__all__ = ["plain_option"]

_Work = dict[str, float]
#: What the kinds of values are called in the names of functions and units.
_KINDS = {"u8": "pixel", "int": "int", "bit": "bit"}
#: Words that bnn_mismatches counts in one turn of its loops.
_LONG, _SHORT = 16, 8
#: Products that bnn_dot_pixels adds in one turn.
_PRODUCTS = 8


def _taps_inside(node: Conv | MaxPool | SumPool, source: TensorSpec) -> tuple[int, int, int]:
    """Of all windows together: taps inside the input, rows with such taps, and windows that
    have taps in the padding."""
    rows, cols = node.window.taps_inside(source.shape, node.name)
    whole_rows = int((rows == node.window.kernel[0]).sum())
    whole_cols = int((cols == node.window.kernel[1]).sum())
    edges = len(rows) * len(cols) - whole_rows * whole_cols
    inside = int(rows.sum()) * int(cols.sum())
    return inside, int(rows.sum()) * int((cols > 0).sum()), edges


def _stored(kernel: Kernel, out: TensorSpec, sums: int) -> _Work:
    """Where the sums of a convolution go: to words, or to bits that are cleared before."""
    if out.kind != "bit":
        return {"sum": sums}
    words = prod(out.shape[:2]) * words_for(out.shape[2])
    output = kernel.fields["output"]
    flips = not isinstance(output, int | str) and "flip" in output
    return {"bit": sums, "clear": words, "flip": words if flips else 0}


def _integer(kernel: Kernel, out: TensorSpec, node: Conv, source: TensorSpec) -> Option:
    positions = prod(out.shape[:2])
    filters, kh, kw, inputs = node.weights.shape
    sums, taps = positions * filters, kh * kw * inputs
    kind = _KINDS[source.kind]
    work = {
        "window": positions * node.groups,
        "tap": positions * node.groups * kh * kw,
        f"{kind}-copy": positions * node.groups * taps,
    }
    if source.kind == "u8":
        work["eight"] = sums * (taps // _PRODUCTS)
        work["pixel"] = sums * (taps % _PRODUCTS)
    else:
        work[f"{kind}-mac"] = kernel.macs
    return Option("integer", kernel, {"call": 1.0, **work, **_stored(kernel, out, sums)})


def _signs(kernel: Kernel, out: TensorSpec, node: Conv, source: TensorSpec) -> Option:
    """``bnn_conv_bits`` and ``bnn_conv_drawn``."""
    positions = prod(out.shape[:2])
    filters, kh, kw, inputs = node.weights.shape
    sums, width = positions * filters, words_for(inputs)
    words = kh * kw * width
    inside, rows, edges = _taps_inside(node, source)
    work: _Work = {
        "call": 1.0,
        "window": positions * node.groups,
        "row": rows * node.groups,
        "begin": sums if words >= _LONG else 0,
        "long": sums * (words // _LONG),
        "short": sums * (words % _LONG // _SHORT),
        "word": sums * (words % _SHORT),
        "edge": edges * filters * kh * kw,
        "outside": (positions * kh * kw - inside) * filters * width,
        **_stored(kernel, out, sums),
    }
    # Groups read other bits than whole words, which are shifted; holes are copied tap by tap.
    if node.groups > 1:
        work["shifted"] = inside * node.groups * width
    elif node.dilation[1] > 1:
        work["lone"] = inside
        work["lone-word"] = inside * width
    else:
        work["copy"] = inside * width
    if kernel.planes:
        work["filter"] = filters
        work["draw"] = float(kernel.sampled_words * kernel.planes)
    return Option("drawn" if kernel.planes else "bits", kernel, work)


def _lanes(kernel: Kernel, out: TensorSpec, node: Conv, source: TensorSpec) -> Option:
    planes = kernel.fields["planes"]
    assert isinstance(planes, int)
    positions, width = prod(out.shape[:2]), words_for(source.shape[2])
    inside, rows, _ = _taps_inside(node, source)
    work: _Work = {
        "call": 1.0,
        "window": positions,
        "word": positions * width * planes,
        "row": rows * width,
        "tap": inside * width,
        "step": inside * width * planes,
    }
    if out.kind == "bit":
        work["compare"] = positions * width * planes
    else:
        work["sum"] = out.size
        work["lane"] = out.size * planes
    return Option("lanes", kernel, work)


def _pool(kernel: Kernel, out: TensorSpec, node: MaxPool | SumPool, source: TensorSpec) -> Option:
    inside, rows, _ = _taps_inside(node, source)
    channels, kind = source.shape[2], _KINDS[source.kind]
    most = isinstance(node, MaxPool)
    if most and source.kind == "bit":
        channels, kind = words_for(channels), "word"
    work: _Work = {
        "call": 1.0,
        "window": prod(out.shape[:2]),
        "value": prod(out.shape[:2]) * channels,
        "row": rows * channels,
        kind: inside * channels,
    }
    return Option("max-pool" if most else "sum-pool", kernel, work)


def _dense(kernel: Kernel, node: Dense) -> Option:
    unit = {
        "bnn_dense_pixels": "pixel",
        "bnn_dense_i32": "mac",
        "bnn_dense_i64": "mac64",
        "bnn_dense_bits": "sign",
    }[kernel.function]
    work: _Work = {"call": 1.0, "output": len(node.weights), unit: kernel.macs}
    if unit == "sign":
        positions = kernel.fields["positions"]
        assert isinstance(positions, int)
        work["position"] = len(node.weights) * positions
    return Option("dense", kernel, work)


def _values(
    kernel: Kernel, out: TensorSpec, node: Node | None, source: TensorSpec | None
) -> Option:
    """What is done to single values: a family for each function, a unit for each kind."""
    family = "logits" if node is None else type(node).__name__.lower()
    family = {"relu": "clamp"}.get(family, family)
    unit = "value" if source is None or family in ("clamp", "add") else _KINDS[source.kind]
    work: _Work = {"call": 1.0, unit: out.size}
    if isinstance(node, Threshold):
        work["word"] = prod(out.shape[:2]) * words_for(out.shape[2])
    elif family == "affine":
        work["position"] = prod(out.shape[:2])
    return Option(family, kernel, work)


def plain_option(
    kernel: Kernel, out: TensorSpec, node: Node | None = None, source: TensorSpec | None = None
) -> Option:
    """A plain kernel with the work it is.

    Args:
        kernel: the call.
        out: of its result.
        node: the operation; None for the copy of logits.
        source: of the first value that it reads; wanted where there is a node.
    """
    if node is None or source is None:
        return _values(kernel, out, None, None)
    if isinstance(node, BinaryConv | StochasticConv):
        family = _signs if kernel.struct == "bnn_conv_bits_t" else _lanes
        return family(kernel, out, node, source)
    if isinstance(node, Conv):
        return _integer(kernel, out, node, source)
    if isinstance(node, MaxPool | SumPool):
        return _pool(kernel, out, node, source)
    if isinstance(node, Dense):
        return _dense(kernel, node)
    return _values(kernel, out, node, source)
