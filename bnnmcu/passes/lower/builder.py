"""Collects the nodes of an integer graph, with names, ranges, notes and taps."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import GraphError, UnsupportedModelError, UsageError
from bnnmcu.graph import (
    INPUT,
    INT32_MAX,
    Affine,
    BinaryConv,
    Clamp,
    IntegerConv,
    MaxPool,
    Node,
    Relu,
    StochasticConv,
    SumPool,
    TensorSpec,
    Threshold,
)
from bnnmcu.graph.check import infer_node
from bnnmcu.network import Conv, Network
from bnnmcu.network.ops import Floats
from bnnmcu.passes.lower.value import Value
from bnnmcu.passes.options import LayerError, Note, Quantization

__all__ = ["Builder", "Tap", "graph_name"]

_LONGEST = 48
# Calibration images looked at together, to bound the memory that their windows take.
_IMAGES_AT_ONCE = 16
_Any = TypeVar("_Any", bound=Node)


@dataclass(frozen=True, eq=False)
class Tap:
    """Where a value of the float network is found in the graph.

    Attributes:
        op: the network's operation, giving (C, H, W).
        node: the graph's node, giving (H, W, C).
        scale, offset: float = scale * integer + offset, each (C,) of the
            graph, where a bit counts as -1 or +1; None for plain signs.
        channels: int64, for each channel of the node that of the operation.
    """

    op: str
    node: str
    scale: Floats | None
    offset: Floats | None
    channels: npt.NDArray[np.int64]

    def arranged(self, values: Floats, shape: tuple[int, int, int]) -> Floats:
        """Values of the operation in the order of the node.

        Args:
            values: (N, C, H, W), or flattened (N, C * H * W, 1, 1).
            shape: (H, W, C) of the node.

        Returns:
            (N, H, W, C), the channels that the node still has.
        """
        maps = values.reshape(len(values), -1, shape[0], shape[1])
        return np.asarray(maps.transpose(0, 2, 3, 1)[..., self.channels])


def graph_name(name: str) -> str:
    """A layer's qualified name, as a graph can hold it: 1 to 48 plain characters."""
    plain = re.sub(r"[^A-Za-z0-9_.]", "_", name)
    if not plain[0].isalpha() and plain[0] != "_":
        # nn.Sequential counts its layers.
        plain = f"l{plain}"
    if plain == INPUT:
        plain = "input_"
    if len(plain) > _LONGEST:
        # The end of a path says more than its beginning.
        plain = f"_{plain[-_LONGEST + 1 :]}"
    return plain


def _computes(node: Node) -> tuple[object, ...] | None:
    """What an operation of a stream computes, its name apart; None for other operations.

    Several readers of one value have it computed each on its own.
    """
    if not isinstance(node, Affine | Clamp | Relu):
        return None
    fields = (getattr(node, f.name) for f in dataclasses.fields(node) if f.name != "name")
    return type(node), *(x.tobytes() if isinstance(x, np.ndarray) else x for x in fields)


def _products(op: Conv, images: npt.NDArray[np.uint8], fill: Floats | None) -> Floats:
    """Sum over all windows of the products (n, n) of the pixels in them."""
    channels, kernel = op.weights.shape[1], op.weights.shape[2:]
    top, left, bottom, right = op.padding
    pixels = images.transpose(0, 3, 1, 2).astype(np.float64)
    outside = np.zeros(channels) if fill is None else fill
    height, width = pixels.shape[2] + top + bottom, pixels.shape[3] + left + right
    padded = np.empty((len(pixels), channels, height, width))
    padded[:] = outside.reshape(-1, 1, 1)
    padded[:, :, top : height - bottom, left : width - right] = pixels
    extent = tuple((k - 1) * d + 1 for k, d in zip(kernel, op.dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
    view = view[:, :, :: op.stride[0], :: op.stride[1], :: op.dilation[0], :: op.dilation[1]]
    flat = view.transpose(0, 2, 3, 4, 5, 1).reshape(-1, kernel[0] * kernel[1] * channels)
    return np.asarray(flat.T @ flat)


@dataclass
class Builder:
    """State of one lowering.

    Attributes:
        options: what the user chose.
        specs: of all graph values so far.
        network: the float network.
        calibration: images (N, H, W, C), for a calibrated first layer.
        values: of the network's operations.
    """

    options: Quantization
    specs: dict[str, TensorSpec]
    network: Network
    calibration: npt.NDArray[np.uint8] | None = None
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    errors: list[LayerError] = field(default_factory=list)
    taps: list[Tap] = field(default_factory=list)
    logit_scale: float = 1.0
    _by_name: dict[str, Node] = field(default_factory=dict)
    _computed: dict[tuple[object, ...] | None, str] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """A name for a node that no other has."""
        plain = graph_name(name)
        candidate, count = plain, 2
        while candidate in self.specs:
            suffix = f"_{count}"
            candidate = plain[: _LONGEST - len(suffix)] + suffix
            count += 1
        return candidate

    def emit(self, op: str, node: _Any) -> _Any:
        """Append a node, whose name is made unique, or find one that computes the same.

        Args:
            op: the layer it comes from, as the user knows it.

        Raises:
            UnsupportedModelError: a value of it could leave int32.
        """
        same = _computes(node)
        if same in self._computed:
            found: _Any = self._by_name[self._computed[same]]  # type: ignore[assignment]
            return found
        named = dataclasses.replace(node, name=self.unique(node.name))
        try:
            spec = infer_node(named, self.specs)
        except GraphError as error:
            raise UnsupportedModelError(error.what, where=op, hint=error.hint) from error
        if max(-spec.low, spec.high) > INT32_MAX and type(node).__name__ != "Dense":
            raise UnsupportedModelError(
                f"its sums can reach {max(-spec.low, spec.high):,}, beyond 32 bits",
                where=op,
                hint="use fewer bits for its weights, or a smaller layer",
            )
        self.specs[named.name] = spec
        self.nodes.append(named)
        self._by_name[named.name] = named
        if same is not None:
            self._computed[same] = named.name
        return named

    def moments(self, op: Conv, value: Value, fill: Floats | None) -> Floats | None:
        """Second moments (n, n) of the pixels that a filter's n weights meet, (KH, KW, I) order.

        Args:
            fill: the pixels (I,) that padding stands for; None for 0.

        Raises:
            UsageError: calibration was asked for, and no images are given.
        """
        if self.calibration is None or len(self.calibration) == 0:
            raise UsageError(
                "a calibrated first layer needs images",
                where="--first-layer calibrated",
                hint="give --data, or use --first-layer per-channel",
            )
        if value.node != INPUT or op.groups != 1:
            what = "takes groups of channels" if value.node == INPUT else "reads pooled pixels"
            self.note(op.name, f"{what}: scaled per channel, not calibrated")
            return None
        size = int(np.prod(op.weights.shape[1:]))
        total = np.zeros((size, size))
        for start in range(0, len(self.calibration), _IMAGES_AT_ONCE):
            total += _products(op, self.calibration[start : start + _IMAGES_AT_ONCE], fill)
        return total

    def counts_exactly(self, name: str) -> bool:
        """Whether a node's integers are the float network's sums, and not roundings of them."""
        node = self._by_name.get(name)
        if isinstance(node, IntegerConv):
            rounded = {error.layer for error in self.errors if error.bits}
            own = not any(graph_name(layer) == node.name for layer in rounded)
            return own and (node.source == INPUT or self.counts_exactly(node.source))
        if isinstance(node, MaxPool | SumPool | Relu):
            return self.counts_exactly(node.source)
        return node is None or isinstance(node, BinaryConv | StochasticConv | Threshold)

    def parity(self, name: str) -> int | None:
        """Whether all values of a node are even (0) or odd (1); None if they may be either."""
        node = self._by_name.get(name)
        if isinstance(node, MaxPool):
            return self.parity(node.source)
        if isinstance(node, BinaryConv | StochasticConv) and not any(node.padding):
            return int(np.prod(node.weights.shape[1:])) % 2
        return None

    def channel_bounds(self, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Smallest and largest value of each channel of a node, int64 (C,).

        Tighter than the graph's own bounds where filters differ, so that a
        channel that cannot change is seen.
        """
        node = self._by_name.get(name)
        spec = self.specs[name]
        if isinstance(node, MaxPool):
            return self.channel_bounds(node.source)
        if isinstance(node, Relu):
            low, high = self.channel_bounds(node.source)
            return np.maximum(low, 0), np.maximum(high, 0)
        if isinstance(node, IntegerConv):
            least, most = self.specs[node.source].bounds
            least, most = min(least, 0), max(most, 0)
            flat = node.weights.reshape(len(node.weights), -1).astype(np.int64)
            positive, negative = np.maximum(flat, 0).sum(axis=1), np.minimum(flat, 0).sum(axis=1)
            return positive * least + negative * most, positive * most + negative * least
        channels = spec.shape[2]
        return np.full(channels, spec.bounds[0]), np.full(channels, spec.bounds[1])

    def note(self, where: str, text: str) -> None:
        """Say something about a layer, once."""
        note = Note(where, text)
        if note not in self.notes:
            self.notes.append(note)

    def tap(self, value: Value) -> None:
        """Remember where an operation's value is found, if the graph has it as it is."""
        line = value.chain.line
        if line is None:
            return
        channels = np.arange(value.spec.shape[2], dtype=np.int64)
        if value.spec.kind == "bit" and np.all(line[0] == 1) and np.all(line[1] == 0):
            self.taps.append(Tap(value.op, value.node, None, None, channels))
        else:
            self.taps.append(Tap(value.op, value.node, line[0].copy(), line[1].copy(), channels))
