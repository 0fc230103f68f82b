"""Cases of a network without integers: crafted and judged in float, chunk by chunk.

A campaign stores what a board answers, and A runs on none.  Every chunk is a
file of its own instead, so that a run that was killed goes on; images, targets,
chunks, seeds and rounding to pixels are as in a campaign.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bnnmcu.attack.config import AttackConfig, BlackBoxConfig, CampaignConfig, Crafted
from bnnmcu.attack.craft import craft, craft_queries
from bnnmcu.attack.pairs import Chunk, chunks_of, held_out, places_of
from bnnmcu.attack.query import QueryOracle
from bnnmcu.attack.seeds import crafting_seed
from bnnmcu.data import Dataset
from bnnmcu.errors import StoreError, UsageError
from bnnmcu.modelfile import atomic_write
from bnnmcu.paper.jobs import Report, canonical
from bnnmcu.paper.measure.subject import Subject
from bnnmcu.store import Judged

__all__ = ["FloatRun"]

_CLEAN = ("clean", 0)
_DIGITS = 12
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class _Chunk:
    """What a file holds: the images, what the attack told of each, and its seconds."""

    crafted: Crafted
    seconds: float


class FloatRun:
    """Clean images and attacks of a float model.

    Args:
        subject: A.
        config: as of a campaign; one answer judges an image, since nothing is drawn.
        data: images and true labels.
        folder: of this very run; is made.

    Raises:
        UsageError: the subject is an integer network, or an attack knows of draws.
    """

    def __init__(
        self, subject: Subject, config: CampaignConfig, data: Dataset, folder: Path
    ) -> None:
        if subject.model is None:
            raise UsageError(f"{subject.name} has an integer network: run a campaign")
        for attack in config.attacks:
            if attack.knows_seed or attack.model:
                raise UsageError(f"{attack.case} suits no float model: it knows seeds or another's")
        data.check_suits(subject.name, subject.model.input_shape, subject.classes)
        self._subject = subject
        self._model = subject.model
        self._config = config
        self._data = data
        self._folder = folder
        #: Seconds of chunks that were there before.
        self.earlier = 0.0

    def run(self, report: Report) -> dict[tuple[str, int], list[Judged]]:
        """Every case's answers, clean first.

        Raises:
            StoreError: a file of an earlier sitting is damaged.
        """
        answers = {_CLEAN: self._clean(report)}
        for attack in self._config.attacks:
            answers[attack.case, attack.levels] = self._attacked(attack, report)
        return answers

    def _labels(self, images: Images) -> list[int]:
        import torch

        x = torch.from_numpy(images).to(self._model.device).float() / 255.0
        with torch.no_grad():
            return [int(label) for label in self._model(x)[0].argmax(-1).tolist()]

    def _clean(self, report: Report) -> list[Judged]:
        judged, size = [], self._config.chunk
        for start in range(0, len(self._data), size):
            images = self._data.images[start : start + size]
            for i, label in enumerate(self._labels(images)):
                judged.append(self._judged(_CLEAN, start + i, None, label))
            report("asking clean", len(judged), len(self._data))
        return judged

    def _judged(
        self, case: tuple[str, int], image: int, target: int | None, label: int, **more: Any
    ) -> Judged:
        known: dict[str, Any] = {
            "linf": 0,
            "l2": 0.0,
            "zero_gradients": 0.0,
            "details": {},
            "crafting_s": None,
        }
        known |= more
        return Judged(
            attack=case[0],
            levels=case[1],
            image=image,
            true_label=int(self._data.labels[image]),
            labels=(label,),
            ticks=(),
            target=target,
            latency_s=None,
            seeded=True,
            classes=self._subject.classes,
            **known,
        )

    def _attacked(self, attack: AttackConfig, report: Report) -> list[Judged]:
        places = places_of(attack, self._data, self._subject.classes)
        size = attack.chunk if isinstance(attack, BlackBoxConfig) else self._config.chunk
        judged: list[Judged] = []
        for chunk in chunks_of(places, size):
            made = self._made(attack, chunk)
            labels = self._labels(made.crafted.images)
            change = made.crafted.images.astype(np.int64) - self._data.images[chunk.images]
            for i, place in enumerate(chunk.places):
                judged.append(
                    self._judged(
                        (attack.case, attack.levels),
                        place.image,
                        place.target,
                        labels[i],
                        linf=int(np.abs(change[i]).max()),
                        l2=float(np.sqrt((change[i] ** 2).sum()) / 255.0),
                        zero_gradients=float(made.crafted.zero_gradients[i]),
                        details=dict(made.crafted.details[i]) if made.crafted.details else {},
                        crafting_s=made.seconds / len(chunk.places),
                    )
                )
            report(f"crafting {attack.case} {attack.levels}/255", len(judged), len(places))
        return judged

    def _made(self, attack: AttackConfig, chunk: Chunk) -> _Chunk:
        path = self._folder / f"{self._name(attack)}-{chunk.number}.npz"
        if path.exists():
            made = _read(path, len(chunk.places), self._data.images.shape[1:])
            self.earlier += made.seconds
            return made
        begun = time.process_time()
        crafted = self._crafted(attack, chunk)
        made = _Chunk(crafted, time.process_time() - begun)
        _write(path, made)
        return made

    def _name(self, attack: AttackConfig) -> str:
        """Of an attack's files; another setting has other ones."""
        settings = {"seed": self._config.seed, "chunk": self._config.chunk, **asdict(attack)}
        digest = hashlib.sha256(canonical(settings).encode()).hexdigest()[:_DIGITS]
        return f"{attack.case}-{attack.levels}-{digest}"

    def _crafted(self, attack: AttackConfig, chunk: Chunk) -> Crafted:
        images, labels = self._data.images[chunk.images], self._data.labels[chunk.images]
        seed = crafting_seed(self._config.seed, attack.case, attack.levels, chunk.number)
        if not isinstance(attack, BlackBoxConfig):
            return craft(self._model, attack, images, labels, seed, targets=chunk.targets)
        query = QueryOracle(
            self._subject.oracle,
            images=len(chunk.places),
            classes=self._subject.classes,
            answers=attack.answers,
            seed=seed,
            draws=1,
            seeds=attack.query_seeds,
            budget=attack.budget,
            logit_scale=self._subject.logit_unit,
            stochastic=False,
        )
        kept = slice(len(self._data) - held_out(attack), None)
        training = (self._data.images[kept], self._data.labels[kept]) if held_out(attack) else None
        return craft_queries(
            query, attack, images, labels, seed, targets=chunk.targets, training=training
        )


def _write(path: Path, made: _Chunk) -> None:
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        images=made.crafted.images,
        zero_gradients=made.crafted.zero_gradients,
        details=np.array(json.dumps([_plain(one) for one in made.crafted.details])),
        seconds=np.array(made.seconds),
    )
    atomic_write(path, stream.getvalue())


def _plain(details: Any) -> dict[str, Any]:
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in details.items()
    }


def _read(path: Path, count: int, shape: Sequence[int]) -> _Chunk:
    try:
        with np.load(path, allow_pickle=False) as archive:
            images, zero = archive["images"], archive["zero_gradients"]
            details = json.loads(str(archive["details"]))
            seconds = float(archive["seconds"])
        sound = (
            images.shape == (count, *shape)
            and images.dtype == np.uint8
            and zero.shape == (count,)
            and isinstance(details, list)
            and len(details) in (0, count)
        )
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        sound = False
    if not sound:
        raise StoreError(
            "damaged, or of another run",
            where=str(path),
            hint="delete it: it is crafted again",
        )
    return _Chunk(Crafted(images, zero, details=tuple(details)), seconds)
