"""Doing what is missing: train, measure, and store each record as soon as it is there."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from bnnmcu import __version__
from bnnmcu.data import Dataset
from bnnmcu.errors import BnnmcuError
from bnnmcu.paper.jobs import Job, Measured
from bnnmcu.paper.measure import run
from bnnmcu.paper.record import Record
from bnnmcu.paper.results import add_record, read_results
from bnnmcu.paper.selection import Task
from bnnmcu.paper.toy import ToyJob, toy_points, train_toy
from bnnmcu.paper.trained import Cache

if TYPE_CHECKING:
    from bnnmcu.cluster.engine import Engine

__all__ = ["Data", "Failure", "Lines", "run_tasks"]


@dataclass(frozen=True, eq=False)
class Data:
    """What a network is trained and judged on.

    Attributes:
        train, test: images with labels.
    """

    train: Dataset
    test: Dataset


@dataclass(frozen=True)
class Failure:
    """A job that could not be done.

    Attributes:
        task: which.
        error: why.
    """

    task: Task
    error: BnnmcuError


class Lines:
    """Is told what is being done; shows nothing."""

    def task(self, number: int, total: int, task: Task) -> None:
        """A job begins."""

    def training(self, task: Task, epoch: int, epochs: int, step: int, steps: int) -> None:
        """A network is trained for it."""

    def note(self, text: str) -> None:
        """Something that is to be known, such as a wait."""

    def measuring(self, task: Task, text: str, done: int, total: int) -> None:
        """It is measured."""

    def done(self, task: Task, record: Record) -> None:
        """Its record is stored."""

    def failed(self, failure: Failure) -> None:
        """It could not be done; the others go on."""


def run_tasks(
    tasks: Sequence[Task],
    *,
    data: Callable[[str], Data],
    cache: Path,
    results: Path,
    device: Literal["cpu", "cuda"],
    workers: int = 1,
    lines: Lines | None = None,
    cluster: Engine | None = None,
) -> list[Failure]:
    """Do the jobs that have no record yet.

    Args:
        data: gives the images of ``mnist`` or ``cifar10``; asked once for each.
        cache: folder of trained networks; what attacks store is in ``work`` below it.
        results: the file; written after every job.
        device: ``cpu`` or ``cuda``.
        workers: chunks crafted side by side.
        cluster: crafts instead of this process, where it can.

    Returns:
        What could not be done.

    Raises:
        StoreError: the results file is unsound.
        DataError: there are no such images.
        OSError: a file cannot be written.
        KeyboardInterrupt: what is stored stays, and the next run goes on from it.
    """
    told = lines or Lines()
    sets: dict[str, tuple[Data, Cache, str]] = {}
    failures: list[Failure] = []
    for number, task in enumerate(tasks, start=1):
        if isinstance(task.job, ToyJob):
            points = toy_points()
            if task.job.id_on(points) not in read_results(results):
                told.task(number, len(tasks), task)
                record = _toy(task, task.job, points)
                add_record(results, record)
                told.done(task, record)
            continue
        name = task.job.trainable.dataset
        if name not in sets:
            images = data(name)
            kept = Cache(cache, images.train, device=device)
            sets[name] = images, kept, images.test.sha256()
        images, models, sha256 = sets[name]
        # Read anew each time: another process may have done it meanwhile.
        if task.job.id(images.test.name, sha256) in read_results(results):
            continue
        told.task(number, len(tasks), task)
        try:
            record = _do(
                task, images, sha256, models, cache / "work", device, workers, told, cluster
            )
        except BnnmcuError as error:
            failures.append(Failure(task, error))
            told.failed(failures[-1])
            continue
        add_record(results, record)
        told.done(task, record)
    return failures


def _do(
    task: Task,
    data: Data,
    sha256: str,
    models: Cache,
    work: Path,
    device: Literal["cpu", "cuda"],
    workers: int,
    lines: Lines,
    cluster: Engine | None,
) -> Record:
    job = task.job
    assert isinstance(job, Job)
    trained = models.get(
        job.trainable,
        lambda report: lines.training(task, report.epoch, report.epochs, report.step, report.steps),
        announce=lines.note,
    )
    measured = run(
        job,
        model=trained.path,
        test=data.test,
        work=work,
        device=device,
        workers=workers,
        progress=lambda text, done, total: lines.measuring(task, text, done, total),
        cluster=cluster,
    )
    return _record(
        task,
        data.test,
        measured,
        model_sha256=trained.sha256,
        training=trained.seconds,
        device=device,
        sha256=sha256,
    )


def _toy(task: Task, job: ToyJob, points: Dataset) -> Record:
    """Train a network of figures 3 and 4; the record holds its weights."""
    net, measured = train_toy(job)
    digest = hashlib.sha256()
    for array in (*net.weights, *net.biases):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return _record(
        task,
        points,
        measured,
        model_sha256=digest.hexdigest(),
        training=None,
        device="cpu",
        sha256=points.sha256(),
    )


def _record(
    task: Task,
    test: Dataset,
    measured: Measured,
    *,
    model_sha256: str,
    training: float | None,
    device: str,
    sha256: str,
) -> Record:
    return Record(
        id=task.job.id(test.name, sha256),
        what=task.job.what(),
        data_name=test.name,
        data_sha256=sha256,
        data_images=len(test),
        values=dict(measured.values),
        model_sha256=model_sha256,
        graph_sha256=measured.graph_sha256,
        training_seconds=training,
        measuring_seconds=round(measured.seconds, 3),
        device=device,
        versions=_versions(),
        machine=_machine(),
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=task.command,
    )


def _versions() -> dict[str, str | None]:
    def of(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "bnnmcu": __version__,
        "torch": of("torch"),
        "numpy": of("numpy"),
        "python": platform.python_version(),
    }


def _machine() -> str:
    """The processor's name; of Linux, where Python does not know it, from the kernel."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()[:200] or platform.machine()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"
