"""The study of the generator's state: from a dump of a few weights to the next draw."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.study.inverse import find_seeds
from bnnmcu.attack.study.state import recover_state, redraw
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph, StochasticConv
from bnnmcu.link.device import Device
from bnnmcu.packing import LANES, pack_bits, pack_planes, unpack_bits
from bnnmcu.reference import sampled_words
from bnnmcu.toolchain.native import NativeTwin

__all__ = ["Dump", "StateStudy", "device_dump", "native_dump", "study_state"]

Words = npt.NDArray[np.uint32]
#: Layer, seed and number of words, or all for None, to the drawn words.
Dump = Callable[[str, int, int | None], Words]


@dataclass(frozen=True)
class StateStudy:
    """What a dump of weights gave away.

    Attributes:
        generator: of the network.
        planes: k, bits behind a weight.
        state_bits: size of the state.
        dumped: weights that were dumped to begin with.
        weights: weights, from the first on, that settled the state.
        equations: linear equations that all the dumped ones gave.
        entropy: bits of information in ``weights``.
        seconds: of the linear algebra.
        state: the state words, as 8 hexadecimal digits each.
        predicted: further weights of the same draw that were predicted.
        right: of these, how many the device drew.
        seed: that begins in this state; None if it was not looked for or not found.
        seed_seconds: of the search for it.
        next_weights: weights of the draw of the next seed; 0 if not predicted.
        next_right: of these, how many the device drew.
    """

    generator: str
    planes: int
    state_bits: int
    dumped: int
    weights: int
    equations: int
    entropy: float
    seconds: float
    state: tuple[str, ...]
    predicted: int
    right: int
    seed: int | None = None
    seed_seconds: float | None = None
    next_weights: int = 0
    next_right: int = 0

    @property
    def exact(self) -> bool:
        """Every prediction came true."""
        return self.right == self.predicted and self.next_right == self.next_weights

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``; the seed as 16 hexadecimal digits."""
        seed = None if self.seed is None else f"{self.seed:016x}"
        return asdict(self) | {"seed": seed, "exact": self.exact}


def native_dump(twin: NativeTwin) -> Dump:
    """Weights of the generated C on this machine."""

    def dump(layer: str, seed: int, words: int | None) -> Words:
        return twin.sampled_words(seed)[layer][:words]

    return dump


def device_dump(device: Device) -> Dump:
    """Weights of a board, by SAMPLE."""
    index = {layer.name: i for i, layer in enumerate(device.info.layers)}

    def dump(layer: str, seed: int, words: int | None) -> Words:
        return device.sample(index[layer], seed, words)

    return dump


def _same(left: Words, right: Words, levels: npt.NDArray[np.uint8]) -> int:
    """Equal weights of a layer; lanes without a weight do not count."""
    wrong = int(np.bitwise_count(left ^ right).sum())
    return int(levels.size) - wrong


def study_state(
    graph: Graph,
    dump: Dump,
    secret: int,
    *,
    words: int = 40,
    find_seed: bool = True,
    progress: Callable[[int], object] | None = None,
) -> StateStudy:
    """Recover the state behind a dump, and hold what follows from it against the device.

    Args:
        graph: the network, which is no secret: levels and generator.
        dump: the device.
        secret: the seed of the dump; used to ask the device, and for nothing else.
        words: 32-bit words of the first drawn layer that are dumped.
        find_seed: look for the seed too (up to 2**32 trials), and predict the
            draw of the next one.
        progress: of that search.

    Raises:
        UsageError: no layer draws weights, or too few words.
    """
    if not graph.stochastic:
        raise UsageError(f"{graph.name} draws no weights", hint="use a stochastic network")
    layers = {node.name: pack_planes(node.weights, node.planes) for node in graph.stochastic}
    first = graph.stochastic[0]
    few = dump(first.name, secret, min(words, len(layers[first.name])))
    started = time.monotonic()
    found = recover_state(graph.generator, layers[first.name], few)
    seconds = time.monotonic() - started

    predicted = right = used = 0
    for node in graph.stochastic:
        planes = layers[node.name]
        drawn = redraw(graph.generator, found.state, planes, skip=used)
        used += planes.size
        right += _same(drawn, dump(node.name, secret, None), node.weights)
        predicted += int(node.weights.size)
    # What was dumped to begin with is no prediction; its equations hold by construction.
    given = _weights_in(first, len(few) * LANES)
    result = StateStudy(
        graph.generator,
        first.planes,
        found.bits,
        given,
        _weights_in(first, found.lanes),
        found.equations,
        found.entropy,
        seconds,
        tuple(f"{word:08x}" for word in found.state.tolist()),
        predicted - given,
        right - given,
    )
    return _with_seed(result, graph, dump, found.state, progress) if find_seed else result


def _weights_in(node: StochasticConv, lanes: int) -> int:
    """Weights in the first so many lanes of a layer's words."""
    used = pack_bits(np.ones_like(node.weights)).reshape(-1, 1)
    return int(unpack_bits(used, LANES).reshape(-1)[:lanes].sum())


def _with_seed(
    known: StateStudy,
    graph: Graph,
    dump: Dump,
    state: Words,
    progress: Callable[[int], object] | None,
) -> StateStudy:
    """The seed that begins in a state, and what the next one draws."""
    started = time.monotonic()
    seeds = find_seeds(graph.generator, state, progress=progress)
    seconds = time.monotonic() - started
    if not seeds:
        return replace(known, seed_seconds=seconds)
    following = (seeds[0] + 1) % (1 << 64)
    drawn = sampled_words(graph, np.array([following], dtype=np.uint64))
    right = sum(
        _same(drawn[node.name][0], dump(node.name, following, None), node.weights)
        for node in graph.stochastic
    )
    weights = sum(int(node.weights.size) for node in graph.stochastic)
    return replace(
        known, seed=seeds[0], seed_seconds=seconds, next_weights=weights, next_right=right
    )
