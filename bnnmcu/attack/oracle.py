"""Who answers: one interface for the reference, the native twin, a float model and a board.

An oracle says honestly what it is (:attr:`Oracle.label`), and gives its
answers one image at a time and in order, so that each can be stored as it
arrives.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from bnnmcu import reference
from bnnmcu.errors import UsageError
from bnnmcu.graph import Graph
from bnnmcu.link.stats import LinkStats
from bnnmcu.toolchain.native import NativeTwin

if TYPE_CHECKING:
    from bnnmcu.attack.model import Draws, GradientModel

__all__ = [
    "Answer",
    "DeviceOracle",
    "Farm",
    "FloatOracle",
    "InferenceDevice",
    "NativeOracle",
    "Oracle",
    "OracleLabel",
    "ReferenceOracle",
    "TakenBack",
    "takes_seeds",
]

#: ``hardware`` is a real chip; ``emulated`` runs the firmware without one;
#: ``native`` and ``reference`` run no firmware at all; ``float`` is no integer network.
OracleLabel = Literal["hardware", "emulated", "native", "reference", "float"]

# Images given to the native twin or the reference in one call: few enough that
# answers flow, so that little is lost when a run is killed.
_IMAGES_AT_ONCE = 16
# Of a float logit's unit, and what a device's integers could not hold either.
_FLOAT_UNITS = 2.0**16
_LARGEST = 2.0**52


@dataclass(frozen=True, eq=False)
class Answer:
    """What an oracle said about one image.

    Attributes:
        logits: int64, shape (D, classes).
        ticks: uint32, shape (D,), in the device's counter; None without a device.
        polluted: a count is too high, since bytes were received meanwhile.
        seconds: from sending the request to having the reply; None without a device.
        attempts: transmissions that the request needed, 1 if none was lost.
        board: which of several boards; None where the oracle is one.
    """

    logits: npt.NDArray[np.int64]
    ticks: npt.NDArray[np.uint32] | None = None
    polluted: bool = False
    seconds: float | None = None
    attempts: int = 1
    board: str | None = None


@dataclass(frozen=True)
class TakenBack:
    """A board was caught with a wrong answer: what it said counts no more.

    Attributes:
        board: which.
        reason: in words.
        images: indices, of the images asked about, whose answers are taken back.
    """

    board: str
    reason: str
    images: frozenset[int] = frozenset()


@runtime_checkable
class Farm(Protocol):
    """An oracle of several boards, whose answers come in any order."""

    def arrivals(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Generator[tuple[int, Answer] | TakenBack, None, None]:
        """Indices and answers as they come; what was taken back comes again."""


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

    @property
    def seeded(self) -> bool:
        """Whether the seeds decide the draws; a board in field mode only counts them."""

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """One answer for every image, in order.

        Args:
            images: uint8, shape (N, H, W, C).
            seeds: uint64, shape (N, D).
        """


def takes_seeds(oracle: Oracle) -> bool:
    """Whether the seeds decide the draws; yes where an oracle does not say."""
    return bool(getattr(oracle, "seeded", True))


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
    seeded = True

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
    seeded = True

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


class FloatOracle:
    """A float model, held beside the integer networks made from it.

    A seed decides the draws of torch's generator, which are not what a device
    draws for it.  Answers are integers as everywhere: logits in units of
    2**-16, rounded.

    Args:
        model: :class:`bnnmcu.attack.float.FloatModel`, or any other.
    """

    label: OracleLabel = "float"
    stats: LinkStats | None = None
    seeded = True

    def __init__(self, model: GradientModel) -> None:
        self._model = model
        self.name = f"float model of {model.name}"

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """See :class:`Oracle`.

        Raises:
            UsageError: a logit is not finite, or too large for any integer network.
        """
        import torch

        _check(images, seeds)
        model = self._model
        for index, (image, row) in enumerate(zip(images, seeds, strict=True)):
            x = torch.from_numpy(image[np.newaxis]).to(model.device).float() / 255.0
            with torch.no_grad():
                wide = model(x, self._draws(row) if model.stochastic else None)[:, 0].double()
            values = wide.cpu().numpy() * _FLOAT_UNITS
            # A NaN is not below any bound.
            if not np.all(np.abs(values) < _LARGEST):
                raise UsageError(
                    f"image {index}: a logit is not finite, or above {_LARGEST / _FLOAT_UNITS:g}",
                    where=self.name,
                )
            whole = np.rint(values).astype(np.int64)
            yield Answer(whole if model.stochastic else whole.repeat(len(row), axis=0))

    def _draws(self, seeds: npt.NDArray[np.uint64]) -> Draws:
        import torch

        from bnnmcu.attack.model import Draws

        each = [self._model.sample(1, torch.Generator().manual_seed(int(one))) for one in seeds]
        weights = {name: torch.cat([one.weights[name] for one in each]) for name in each[0].weights}
        return Draws(weights, len(seeds))


class InferenceDevice(Protocol):
    """As much of :class:`bnnmcu.link.device.Device` as attacks need."""

    @property
    def info(self) -> Any:
        """What the device said of itself; ``board`` and, where it is there, ``field`` are read."""

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
        # In field mode a board draws for itself, and of the seeds only the number counts.
        self.seeded = not getattr(device.info, "field", False)

    def logits(
        self, images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
    ) -> Iterator[Answer]:
        """See :class:`Oracle`; the next image travels while the device computes this one."""
        _check(images, seeds)
        yield from self.answers(zip(images, seeds, strict=True))

    def answers(
        self, requests: Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]]
    ) -> Iterator[Answer]:
        """The same for images with their seeds that are drawn as the board can take them."""
        each = ((image, [int(seed) for seed in row]) for image, row in requests)
        for reply in self._device.infer_many(each):
            yield Answer(reply.logits, reply.ticks, reply.polluted, reply.seconds, reply.attempts)

    @property
    def stats(self) -> LinkStats:
        """The link's counters as they are now; the copy does not change."""
        return self._device.stats.snapshot()
