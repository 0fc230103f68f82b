"""Who answers: one interface for the reference, the native twin and a board.

An oracle says honestly what it is (:attr:`Oracle.label`), and gives its
answers one image at a time and in order, so that each can be stored as it
arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from bnnmcu import reference
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph
from bnnmcu.link.stats import LinkStats
from bnnmcu.toolchain.native import NativeTwin

__all__ = [
    "Answer",
    "DeviceOracle",
    "InferenceDevice",
    "NativeOracle",
    "Oracle",
    "OracleLabel",
    "ReferenceOracle",
]

#: ``hardware`` is a real chip; ``emulated`` runs the firmware without one;
#: ``native`` and ``reference`` run no firmware at all.
OracleLabel = Literal["hardware", "emulated", "native", "reference"]

# Images given to the native twin or the reference in one call: few enough that
# answers flow, so that little is lost when a run is killed.
_IMAGES_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Answer:
    """What an oracle said about one image.

    Attributes:
        logits: int64, shape (D, classes).
        ticks: uint32, shape (D,), in the device's counter; None without a device.
        polluted: a count is too high, since bytes were received meanwhile.
        seconds: from sending the request to having the reply; None without a device.
        attempts: transmissions that the request needed, 1 if none was lost.
    """

    logits: npt.NDArray[np.int64]
    ticks: npt.NDArray[np.uint32] | None = None
    polluted: bool = False
    seconds: float | None = None
    attempts: int = 1


class Oracle(Protocol):
    """Answers images with integer logits, one draw of the weights for each seed."""

    @property
    def name(self) -> str:
        """Which one, for people; the same when a run is resumed."""

    @property
    def label(self) -> OracleLabel:
        """What kind of thing computes the answers."""

    @property
    def stats(self) -> LinkStats | None:
        """The link's counters as they are now; None where there is no link."""

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """One answer for every image, in order.

        Args:
            images: uint8, shape (N, H, W, C).
            seeds: uint64, shape (N, D).
        """


def _check(images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]) -> None:
    if seeds.ndim != 2 or len(seeds) != len(images) or seeds.shape[1] < 1:
        raise UsageError(f"{len(images)} images, but seeds of shape {seeds.shape}")


class NativeOracle:
    """The generated C, compiled for this machine: thousands of images a second.

    Raises:
        MissingDependencyError: there is no C compiler.
    """

    label: OracleLabel = "native"
    stats: LinkStats | None = None

    def __init__(self, graph: Graph) -> None:
        self._twin = NativeTwin(graph)
        self.name = f"native twin of {graph.name}"

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """See :class:`Oracle`."""
        _check(images, seeds)
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            part = slice(start, start + _IMAGES_AT_ONCE)
            for logits in self._twin.run(images[part], seeds[part]):
                yield Answer(logits)


class ReferenceOracle:
    """The numpy reference: slow, and the specification."""

    label: OracleLabel = "reference"
    stats: LinkStats | None = None

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.name = f"reference of {graph.name}"

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """See :class:`Oracle`."""
        _check(images, seeds)
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            part = slice(start, start + _IMAGES_AT_ONCE)
            for logits in reference.run(self._graph, images[part], seeds[part]):
                yield Answer(logits)


class InferenceDevice(Protocol):
    """As much of :class:`bnnmcu.link.device.Device` as attacks need."""

    @property
    def info(self) -> Any:
        """What the device said of itself; ``board`` is read."""

    @property
    def stats(self) -> LinkStats:
        """What the link had to put up with so far."""

    def infer_many(
        self, requests: Iterable[tuple[npt.NDArray[np.uint8], Sequence[int]]]
    ) -> Iterator[Any]:
        """Inferences in order: ``logits``, ``ticks``, ``polluted``, ``seconds``, ``attempts``."""


class DeviceOracle:
    """A board, real or emulated, behind its serial port.

    Args:
        device: connected, its model already checked against the graph.
        label: ``hardware`` or ``emulated``.
        name: the board's own name if None; must not hold what changes from one
            session to the next (a port), or a run could not be resumed.

    Raises:
        UsageError: another label.
    """

    def __init__(
        self, device: InferenceDevice, *, label: OracleLabel, name: str | None = None
    ) -> None:
        if label not in ("hardware", "emulated"):
            raise UsageError(f"a device is 'hardware' or 'emulated', not {label!r}")
        self._device = device
        self.label: OracleLabel = label
        self.name = name or str(device.info.board)

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """See :class:`Oracle`; the next image travels while the device computes this one."""
        _check(images, seeds)
        requests = (
            (image, [int(seed) for seed in row]) for image, row in zip(images, seeds, strict=True)
        )
        for reply in self._device.infer_many(requests):
            yield Answer(reply.logits, reply.ticks, reply.polluted, reply.seconds, reply.attempts)

    @property
    def stats(self) -> LinkStats:
        """The link's counters as they are now; the copy does not change."""
        return self._device.stats.snapshot()
