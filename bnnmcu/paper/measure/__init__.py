"""The measures: each is one protocol, in one file, whose text says where it is from.

Needs no torch; a measure imports it where it crafts, or where A answers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnmcu.attack.config import AttackConfig
from bnnmcu.data import Dataset
from bnnmcu.errors import UsageError
from bnnmcu.paper.jobs import JSON, Job, Measured, Report, Value, settings_of
from bnnmcu.paper.measure import clean, cw, emulated, fgsm, logits, pgd_adaptive, substitute
from bnnmcu.paper.measure.setup import Setup
from bnnmcu.paper.measure.subject import load_subject
from bnnmcu.paper.recipes import Trainable
from bnnmcu.passes import Quantization

if TYPE_CHECKING:
    from bnnmcu.cluster.engine import Engine

__all__ = ["MEASURES", "Measure", "job", "run"]

#: What all measures are told: the seed of everything random in them, the bit-planes of
#: S's probabilities (None for an export's usual number), and the number of the protocol,
#: which is raised where a change of the code changes figures.
_COMMON: dict[str, JSON] = {"seed": 1, "planes": None, "protocol": 1}
_MODEL_DIGITS = 12
# Settings of which None says: all of them, or as usual.
_MAY_BE_NONE = ("images", "pairs", "planes")


@dataclass(frozen=True)
class Measure:
    """One protocol.

    Attributes:
        defaults: its settings.
        attacks: what it tries, for a job.
        run: does it.
        kinds: of network that it is for.
        kept: its files are left for an audit; those of ten thousand images are large, and
            soon made again.
    """

    defaults: Mapping[str, JSON]
    attacks: Callable[[Job], tuple[AttackConfig, ...]]
    run: Callable[[Setup], dict[str, Value]]
    kinds: str = "ABCS"
    kept: bool = True


MEASURES: dict[str, Measure] = {
    "clean": Measure(clean.DEFAULTS, clean.attacks, clean.run),
    "fgsm": Measure(fgsm.DEFAULTS, fgsm.attacks, fgsm.run, kept=False),
    "cw": Measure(cw.DEFAULTS, cw.attacks, cw.run),
    "pgd_adaptive": Measure(pgd_adaptive.DEFAULTS, pgd_adaptive.attacks, pgd_adaptive.run),
    "substitute": Measure(substitute.DEFAULTS, substitute.attacks, substitute.run, kept=False),
    "emulated": Measure(emulated.DEFAULTS, emulated.attacks, emulated.run, "BCS"),
    "logits": Measure(logits.DEFAULTS, logits.attacks, logits.run, "ABC"),
}


def _checked(name: str, usual: JSON, value: Any) -> JSON:
    """A setting of the type that it must have; whole numbers for real ones become real."""
    if name in _MAY_BE_NONE and (value is None or (type(value) is int and value > 0)):
        return None if value is None else int(value)
    if isinstance(usual, tuple) and isinstance(value, list | tuple) and value:
        return tuple(_checked(name, usual[0], one) for one in value)
    if isinstance(usual, float) and type(value) is int:
        return float(value)
    if type(value) is not type(usual) or isinstance(value, tuple):
        raise UsageError(f"setting {name!r} cannot be {value!r}", hint=f"a usual one is {usual!r}")
    assert value is None or isinstance(value, bool | int | float | str)
    return value


def job(trainable: Trainable, measure: str, **settings: Any) -> Job:
    """A job with all of its settings: those given, and the measure's own for the others.

    Raises:
        UsageError: no such measure, or setting of it, or the measure is not for the network.
    """
    if measure not in MEASURES:
        raise UsageError(f"unknown measure {measure!r}", hint=f"use {', '.join(MEASURES)}")
    chosen = MEASURES[measure]
    if trainable.kind not in chosen.kinds:
        raise UsageError(f"{measure} is for {', '.join(chosen.kinds)}, not for {trainable.name}")
    known = {**_COMMON, **chosen.defaults}
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UsageError(
            f"{measure} has no setting {unknown[0]!r}", hint=f"use {', '.join(sorted(known))}"
        )
    given = {name: _checked(name, known[name], value) for name, value in settings.items()}
    made = Job(trainable, measure, settings_of({**known, **given}))
    if made.setting("planes") is not None:
        if trainable.kind != "S":
            raise UsageError(f"{trainable.name} draws no weights: it has no bit-planes")
        Quantization(planes=made.whole("planes"))
    # What cannot be attacked shall not wait in a queue for hours.
    chosen.attacks(made)
    return made


def run(
    job: Job,
    *,
    model: Path,
    test: Dataset,
    work: Path,
    device: str = "cpu",
    workers: int = 1,
    keep: bool | None = None,
    progress: Report | None = None,
    cluster: Engine | None = None,
) -> Measured:
    """Measure, or finish what an earlier sitting began.

    Args:
        model: file of the trained network.
        test: all test images; a job may take fewer.
        work: folder of results files, whose names begin with the job's number.
        device: where gradients are computed: ``cpu``, ``cuda`` or ``auto``.
        workers: chunks crafted side by side; changes the time only.
        keep: leave the job's own files when it is done; None for as the measure has it.
        progress: is told what is being done.
        cluster: crafts instead of this process, where it can.

    Raises:
        UsageError: no such measure.
        ModelFileError: the file is unsound, or of another network.
        MissingDependencyError: torch, a compiler or an emulator is missing.
        BnnmcuError: as the measure says.
    """
    if job.measure not in MEASURES:
        raise UsageError(f"unknown measure {job.measure!r}", hint=f"use {', '.join(MEASURES)}")
    before = _seconds()
    planes = job.setting("planes")
    assert planes is None or type(planes) is int
    subject = load_subject(model, job.trainable, planes=planes, device=device)
    # Another training of the same network must not go on with this one's file.
    own = hashlib.sha256(model.read_bytes()).hexdigest()[:_MODEL_DIGITS]
    path = work / f"{job.id_on(test)}-{own}"
    report = progress or (lambda *_: None)
    setup = Setup(job, subject, test, path, device, workers, report, cluster=cluster)
    values = MEASURES[job.measure].run(setup)
    if not (MEASURES[job.measure].kept if keep is None else keep):
        _remove(path)
    return Measured(values, _seconds() - before + sum(setup.earlier), subject.sha256)


def _remove(path: Path) -> None:
    """All files of a job that is done; their names begin alike."""
    for one in path.parent.glob(f"{path.name}*"):
        if one.is_dir():
            shutil.rmtree(one)
        else:
            one.unlink()


def _seconds() -> float:
    """Of all cores, this process's and those of compilers and emulators that have ended."""
    return sum(os.times()[:4])
