"""Holds a board against the specification: logits and drawn weights, bit for bit.

A board in field mode tells no drawn weights and no seeds; with its key, the seeds
are computed from the counter in its answers, and every logit is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.data import Dataset
from bnnmcu.errors import MismatchFoundError, UsageError
from bnnmcu.evaluate import draw_seeds
from bnnmcu.field import DeviceKey
from bnnmcu.graph import Graph
from bnnmcu.link.device import Device, Inference
from bnnmcu.reference import argmax, run, sampled_words

__all__ = ["Difference", "Verification", "verify"]

# The reference runs ahead of the board by this many images.
_CHUNK = 50
# Differences listed in a report; all are counted.
_MOST_LISTED = 10


@dataclass(frozen=True)
class Difference:
    """One answer that is not the reference's."""

    image: int
    seed: int
    expected: tuple[int, ...]
    answered: tuple[int, ...]


@dataclass(frozen=True)
class Verification:
    """What was compared and what differed.

    Attributes:
        logits: logits compared; ``differing_logits`` of them differed.
        draws: for how many seeds the drawn weights were compared.
        drawn_words: words of drawn weights compared.
        flash_crc: CRC-32 of the firmware in flash, found as it was recorded, computed before
            and after; None where the build recorded none.
        correct: share of right labels, mean over draws: a sanity check; None without labels.
        counters: of a board in field mode, the first and the last value of its counter; else None.
        repeated: of its values, those that did not come after the one before.
        differences: the first few differing answers.
    """

    model: str
    target: str
    data: str
    images: int
    seeds: int
    logits: int
    differing_logits: int
    draws: int
    drawn_words: int
    differing_words: int
    flash_crc: int | None
    correct: float | None
    differences: tuple[Difference, ...]
    counters: tuple[int, int] | None = None
    repeated: int = 0

    @property
    def exact(self) -> bool:
        """Whether nothing differed."""
        return self.differing_logits == 0 and self.differing_words == 0 and not self.repeated

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self) | {"exact": self.exact}

    def raise_if_different(self) -> None:
        """Raises MismatchFoundError, so that scripts see exit code 1."""
        if self.repeated:
            raise MismatchFoundError(
                f"the board's counter went back or stood still {self.repeated} times: seeds come "
                "again",
                where=self.target,
                hint="take it out of service, and report it with 'verify --json'",
            )
        if self.counters is not None and not self.exact:
            raise MismatchFoundError(
                f"{self.differing_logits} of {self.logits} logits differ from those of this key",
                where=self.target,
                hint="name the key file that this board's firmware was exported with; if it is "
                "this one, flash the project again",
            )
        if not self.exact:
            raise MismatchFoundError(
                f"{self.differing_logits} of {self.logits} logits and {self.differing_words} of "
                f"{self.drawn_words} words of drawn weights differ from the reference",
                where=self.target,
                hint="flash the project again; if it stays, report it with 'verify --json'",
            )


def _requests(
    images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]
) -> Iterator[tuple[npt.NDArray[np.uint8], list[int]]]:
    for image, row in zip(images, seeds, strict=True):
        yield image, [int(seed) for seed in row]


def verify(
    graph: Graph,
    device: Device,
    data: Dataset,
    *,
    seeds: int = 5,
    draws: int = 5,
    seed: int = 1,
    target: str = "",
    key: DeviceKey | None = None,
    progress: Callable[[int], object] | None = None,
) -> Verification:
    """Compare every logit of every image and seed, and the drawn weights.

    Args:
        seeds: for each image; 1 is used where nothing is drawn.
        draws: seeds whose drawn weights are read back from the board and compared.
        seed: of the run; decides all others.
        key: of a board in field mode, which chooses the seeds and tells no drawn weights.

    Raises:
        UsageError: a board in field mode without its key, or a key and another board.
        DataError: the images have another shape than the network takes.
        LinkError: the board stopped answering.
        DeviceMismatchError: its flash is not what was built.
    """
    data.check_suits(graph.name, graph.input_shape, graph.classes)
    _check_key(device, key)
    if key is None:
        device.check_image()
    if not graph.stochastic or key is not None:
        seeds, draws = seeds if key is not None else 1, 0
    differing = right = 0
    listed: list[Difference] = []
    counted: list[int] = []
    for start in range(0, len(data), _CHUNK):
        images = data.images[start : start + _CHUNK]
        chosen = draw_seeds(seed, start, len(images), seeds)
        answers: Iterable[Inference] = device.infer_many(_requests(images, chosen))
        if key is not None:
            answers = list(answers)
            counters = np.stack([_counters(answer) for answer in answers])
            counted += [int(value) for value in counters.flat]
            chosen = key.seeds(counters)
        expected = run(graph, images, chosen)
        for i, answer in enumerate(answers):
            unequal = answer.logits != expected[i]
            differing += int(unequal.sum())
            for d in np.flatnonzero(unequal.any(axis=1)):
                if len(listed) < _MOST_LISTED:
                    listed.append(
                        Difference(
                            start + i,
                            int(chosen[i, d]),
                            tuple(expected[i, d].tolist()),
                            tuple(answer.logits[d].tolist()),
                        )
                    )
            right += int((argmax(answer.logits) == data.labels[start + i]).sum())
            if progress:
                progress(1)
    words, differing_words = _compare_draws(graph, device, seed, draws, progress)
    # Again: flash that fades or is overwritten does so while it works.
    image = device.check_image() if key is None else None
    total = len(data) * seeds
    return Verification(
        model=graph.name,
        target=target,
        data=data.name,
        images=len(data),
        seeds=seeds,
        logits=total * graph.classes,
        differing_logits=differing,
        draws=draws,
        drawn_words=words,
        differing_words=differing_words,
        flash_crc=image.found if image is not None and image.size else None,
        correct=right / total if data.labelled else None,
        differences=tuple(listed),
        counters=(counted[0], counted[-1]) if counted else None,
        repeated=sum(later <= before for before, later in pairwise(counted)),
    )


def _check_key(device: Device, key: DeviceKey | None) -> None:
    if device.info.field and key is None:
        raise UsageError(
            "the board is in field mode: it chooses the seeds, and only the owner of its key "
            "can compute its answers again",
            where=device.name,
            hint="add --device-key FILE, the file that its firmware was exported with",
        )
    if key is not None and not device.info.field:
        raise UsageError(
            "the board is in evaluation mode, which has no key",
            where=device.name,
            hint="leave out --device-key",
        )


def _counters(answer: Inference) -> npt.NDArray[np.uint64]:
    assert answer.counters is not None, "a board in field mode tells its counter"
    return answer.counters


def _compare_draws(
    graph: Graph,
    device: Device,
    seed: int,
    draws: int,
    progress: Callable[[int], object] | None,
) -> tuple[int, int]:
    """Words of drawn weights compared, and how many differed."""
    if not draws:
        return 0, 0
    # Paired by order: the device may have shortened a name.
    layers = [index for index, layer in enumerate(device.info.layers) if layer.sampled_words]
    chosen = draw_seeds(seed, 0, draws, 1)[:, 0]
    expected = sampled_words(graph, chosen)
    words = differing = 0
    for i, value in enumerate(chosen):
        for layer, drawn in zip(layers, expected.values(), strict=True):
            answered = device.sample(layer, int(value), drawn.shape[1])
            words += answered.size
            differing += int((answered != drawn[i]).sum())
        if progress:
            progress(1)
    return words, differing
