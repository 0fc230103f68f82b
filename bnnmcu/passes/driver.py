"""Runs the passes in order, and keeps the network or graph after each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bnnmcu.errors import GraphError, UnsupportedModelError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.network import Network
from bnnmcu.network.ops import INPUT
from bnnmcu.passes.base import NetworkPass, apply_pass
from bnnmcu.passes.dead_channels import DeadChannels
from bnnmcu.passes.drop_noops import DropNoops
from bnnmcu.passes.fold_padding import FoldPadding
from bnnmcu.passes.fold_signs import FoldSigns
from bnnmcu.passes.linear_to_conv import LinearToConv, MoveFlatten
from bnnmcu.passes.lower import Tap, lower_network
from bnnmcu.passes.merge_lines import MergeLines
from bnnmcu.passes.merge_pools import MergePools
from bnnmcu.passes.options import LayerError, Note, Quantization

__all__ = ["PASSES", "Lowering", "Snapshot", "lower"]

_NETWORK_PASSES: tuple[type[NetworkPass], ...] = (
    FoldPadding,
    MoveFlatten,
    LinearToConv,
    DropNoops,
    MergeLines,
    FoldSigns,
)
_READ = ("read", "the float network as it was read")
_QUANTIZE = ("quantize", "integer weights, thresholds and fixed-point streams, with their ranges")
_GRAPH_PASSES = (MergePools, DeadChannels)
#: Names of all passes, in order.
PASSES: tuple[str, ...] = (
    _READ[0],
    *(step.name for step in _NETWORK_PASSES),
    _QUANTIZE[0],
    *(step.name for step in _GRAPH_PASSES),
)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a pass left behind: a float network, or an integer graph.

    Attributes:
        name, text: of the pass.
        changes: rewrites it made.
    """

    name: str
    text: str
    network: Network | None
    graph: Graph | None
    changes: int


@dataclass(frozen=True, eq=False)
class Lowering:
    """A compiled network.

    Attributes:
        graph: the integer graph.
        network: the float network it was made from.
        snapshots: one for each pass that ran, in order.
        notes: what the user should know.
        errors: what quantisation lost, layer by layer.
        taps: where values of the float network are found in the graph.
    """

    graph: Graph
    network: Network
    snapshots: tuple[Snapshot, ...]
    notes: tuple[Note, ...]
    errors: tuple[LayerError, ...]
    taps: tuple[Tap, ...]

    def after(self, name: str) -> Snapshot:
        """What a pass left behind.

        Raises:
            UsageError: there is no such pass, or it was switched off.
        """
        for snapshot in self.snapshots:
            if snapshot.name == name:
                return snapshot
        raise UsageError(
            f"no pass {name!r} ran",
            where="--after",
            hint=f"use one of {', '.join(s.name for s in self.snapshots)}",
        )


def _merged_pools(graph: Graph, taps: list[Tap]) -> tuple[Graph, list[Tap], int]:
    changes = 0
    while node := next((n for n in graph.nodes if MergePools.match(n, graph)), None):
        graph, moved = MergePools.transform(node, graph)
        changes += 1
        kept = []
        for tap in taps:
            target = moved.get(tap.node, tap.node)
            if target is not None:
                kept.append(replace(tap, node=target))
        taps = kept
    return graph, taps, changes


def _sliced(tap: Tap, keep: npt.NDArray[np.bool_]) -> Tap:
    return replace(
        tap,
        scale=None if tap.scale is None else tap.scale[keep],
        offset=None if tap.offset is None else tap.offset[keep],
        channels=tap.channels[keep],
    )


def _without_dead(graph: Graph, taps: list[Tap]) -> tuple[Graph, list[Tap], int]:
    changes = 0
    while node := next((n for n in graph.nodes if DeadChannels.match(n, graph)), None):
        shifted = _shifted_reader(graph, node.name)
        graph, masks = DeadChannels.transform(node, graph)
        changes += 1
        taps = [
            _sliced(tap, masks[tap.node]) if tap.node in masks else tap
            for tap in taps
            # The reader's own sums have lost a constant.
            if tap.node != shifted or tap.scale is None
        ]
    return graph, taps, changes


def _shifted_reader(graph: Graph, name: str) -> str | None:
    """The convolution whose sums lose a constant with a threshold's dead channels."""
    readers = [n for n in graph.nodes if name in n.sources]
    while readers and type(readers[0]).__name__ == "MaxPool":
        readers = [n for n in graph.nodes if readers[0].name in n.sources]
    return readers[0].name if readers and type(readers[0]).__name__ != "Dense" else None


def lower(
    network: Network,
    options: Quantization | None = None,
    *,
    calibration: npt.NDArray[np.uint8] | None = None,
) -> Lowering:
    """Compile a float network to an integer graph.

    Args:
        options: None for the defaults.
        calibration: images (N, H, W, C) for a calibrated first layer.

    Raises:
        UnsupportedModelError: a layer cannot be expressed; names it, and the nearest rewrite.
        UsageError: calibration without images, or with images of another shape.
    """
    options = Quantization() if options is None else options
    if not isinstance(options, Quantization):
        raise UsageError(
            f"the options are a {type(options).__name__}", hint="pass Quantization(...), or None"
        )
    if calibration is not None:
        _check_images(network, calibration)
    try:
        # What leaves float64 is found by its value, and refused with the layer's name.
        with np.errstate(all="ignore"):
            return _lowered(network, options, calibration)
    except GraphError as error:
        raise UnsupportedModelError(error.what, where=error.where, hint=error.hint) from error


def _check_images(network: Network, images: npt.NDArray[np.uint8]) -> None:
    channels, height, width = network.input_shape
    array = isinstance(images, np.ndarray)
    if not array or images.dtype != np.uint8 or images.shape[1:] != (height, width, channels):
        seen = f"{images.dtype} {images.shape}" if array else f"a {type(images).__name__}"
        raise UsageError(
            f"calibration images are {seen}, "
            f"{network.name} takes a numpy array, uint8 (N, {height}, {width}, {channels})"
        )


def _lowered(
    network: Network, options: Quantization, calibration: npt.NDArray[np.uint8] | None
) -> Lowering:
    snapshots = [Snapshot(*_READ, network, None, 0)]
    current = network
    for step in _NETWORK_PASSES:
        current, changes = apply_pass(step, current)
        snapshots.append(Snapshot(step.name, step.text, current, None, changes))
    graph, builder = lower_network(current, options, calibration)
    # Passes make operations of their own, which nobody knows by name.
    known = {op.name for op in network.ops}
    builder.taps = [tap for tap in builder.taps if tap.op in known or tap.op == INPUT]
    snapshots.append(Snapshot(*_QUANTIZE, None, graph, len(graph.nodes)))
    graph, taps, changes = _merged_pools(graph, builder.taps)
    snapshots.append(Snapshot(MergePools.name, MergePools.text, None, graph, changes))
    if options.dead_channels:
        graph, taps, changes = _without_dead(graph, taps)
        snapshots.append(Snapshot(DeadChannels.name, DeadChannels.text, None, graph, changes))
    return Lowering(
        graph,
        network,
        tuple(snapshots),
        tuple(builder.notes),
        tuple(builder.errors),
        tuple(taps),
    )
