"""A sample on an emulated board, which must answer as the native twin does, bit for bit.

Every figure of a binary network in the tables is the native twin's.  Here clean
and adversarial images (FGSM at epsilon 0.1 as in table 1, or CW-L2 as in table 3)
go through the firmware of a real board, by the serial protocol, on an emulator;
each logit is then compared with the native twin's for the same seed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bnnmcu.attack.config import AttackConfig, FgsmConfig
from bnnmcu.attack.oracle import DeviceOracle, NativeOracle
from bnnmcu.backend.plan import KernelChoice
from bnnmcu.backend.project import Project, load_project, write_project
from bnnmcu.boards import load_board
from bnnmcu.errors import DoesNotFitError, MismatchFoundError, UsageError
from bnnmcu.graph import Graph
from bnnmcu.paper.jobs import JSON, Job, Value
from bnnmcu.paper.measure.cw import attack_of
from bnnmcu.paper.measure.setup import Setup, answered, selected
from bnnmcu.store import Store
from bnnmcu.target import TargetOptions, open_target

__all__ = ["DEFAULTS", "attacks", "compare_stored", "project_of", "run"]

DEFAULTS: dict[str, JSON] = {
    "images": 200,
    "draws": 3,
    "attack": "fgsm",
    "boards": ("nucleo_f446re", "disco_f407vg", "mps2_an386"),
    "emulator": "auto",
    "eot_draws": 1,
}
_CW_ITERATIONS = 100
_AT_ONCE = 64


def attacks(job: Job) -> tuple[AttackConfig, ...]:
    """The attack whose images the board is shown.

    Raises:
        UsageError: it is neither fgsm nor cw.
    """
    kind = job.setting("attack")
    if kind == "fgsm":
        return (
            FgsmConfig(
                epsilon=0.1,
                adversary="paper",
                eot_draws=1,
                estimator="identity",
                label="prediction",
            ),
        )
    if kind == "cw":
        return (attack_of(job, "paper", _CW_ITERATIONS, every=False),)
    raise UsageError(f"no emulated board is shown {kind!r}", hint="use fgsm or cw")


def project_of(graph: Graph, boards: tuple[str, ...], folder: Path) -> Project:
    """The network's firmware for the first board that it fits."""
    for name in boards[:-1]:
        try:
            write_project(graph, load_board(name), folder / name, choice=KernelChoice())
            return load_project(folder / name)
        except DoesNotFitError:
            continue
    name = boards[-1]
    write_project(graph, load_board(name), folder / name, choice=KernelChoice())
    return load_project(folder / name)


def compare_stored(path: Path, graph: Graph) -> tuple[int, int]:
    """Every stored logit against the native twin's for the same pixels and seed.

    Args:
        path: of the results file.

    Returns:
        How many were compared, and how many differ.
    """
    oracle = NativeOracle(graph)
    compared = differing = 0
    with Store.read(path) as store:
        rows = [row for row in store.rows() if row.draws]
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        images = np.stack([row.example(graph.input_shape).pixels for row in part])
        seeds = np.array(
            [[int(draw.seed, 16) for draw in row.draws] for row in part], dtype=np.uint64
        )
        for row, answer in zip(part, oracle.logits(images, seeds), strict=True):
            told = np.array([draw.logits for draw in row.draws], dtype=np.int64)
            compared += told.size
            differing += int((told != answer.logits).sum())
    return compared, differing


def run(setup: Setup) -> dict[str, Value]:
    """What was compared, and that nothing differed.

    Values: ``images`` (each clean and attacked), ``draws``, ``logits`` (compared),
    ``differing_logits`` (0), ``board``, ``emulator``, ``compiler``,
    ``clean_accuracy`` and ``accuracy`` of the sample.

    Raises:
        MismatchFoundError: a logit differs; the results file is kept.
        DoesNotFitError: the network fits none of the boards.
        MissingDependencyError: there is no compiler for the board, or no emulator.
    """
    graph = setup.subject.graph
    if graph is None:
        raise UsageError(f"{setup.subject.name} is full precision, and runs on no board")
    boards, emulator = setup.setting("boards"), setup.setting("emulator")
    assert isinstance(boards, tuple)
    data = selected(setup.test, setup.setting("images"))
    (attack,) = attacks(setup.job)
    project = project_of(graph, tuple(map(str, boards)), setup.path)

    def tell(text: str) -> None:
        setup.report(text, 0, 1)

    with open_target(project, TargetOptions(emulate=str(emulator)), tell) as target:
        answers = answered(
            setup,
            (attack,),
            data,
            draws=setup.job.whole("draws"),
            oracle=DeviceOracle(target.device, label="emulated"),
        )
        label, build = target.label, target.build
    assert answers.store is not None
    assert build is not None
    compared, differing = compare_stored(answers.store, graph)
    if differing:
        raise MismatchFoundError(
            f"{differing} of {compared} logits are not the native twin's",
            where=f"{graph.name} on {label}",
            hint=f"the answers are in {answers.store}: please report this",
        )
    return {
        "images": len(data),
        "draws": answers.plan.draws if setup.subject.stochastic else 1,
        "logits": compared,
        "differing_logits": differing,
        "board": project.board.name,
        "emulator": label,
        "compiler": f"{build.toolchain} {build.version}",
        "clean_accuracy": answers.case(None).mean.value,
        "accuracy": answers.case(attack).mean.value,
    }
