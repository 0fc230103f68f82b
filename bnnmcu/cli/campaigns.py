"""Runs whose answers are stored as they come: of ``evaluate``, ``attack`` and ``replay``."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bnnmcu.cli.interrupt import orderly_interrupts
from bnnmcu.cli.output import note, report_interrupt
from bnnmcu.cli.progress import Display, Lane, show_progress
from bnnmcu.errors import BnnmcuError

if TYPE_CHECKING:
    from bnnmcu.attack.campaign import Progress
    from bnnmcu.attack.config import CampaignConfig
    from bnnmcu.attack.model import GradientModel
    from bnnmcu.attack.oracle import Oracle
    from bnnmcu.backend.project import Project
    from bnnmcu.cluster.engine import Engine
    from bnnmcu.data import Dataset
    from bnnmcu.graph import Graph
    from bnnmcu.store import Store
    from bnnmcu.target import Target

__all__ = ["Work", "campaign_lanes", "do_stored", "oracle_of", "own_file", "run_stored"]

_T = TypeVar("_T")
_Report = Callable[["Progress"], None]


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be done for a results file.

    Attributes:
        identity: of the run.
        graph: the network that answers.
        oracle: who answers.
        cases: how many.
        total: images of all cases.
        begin: with the open store, what does all that is missing in it.
        project, target: of the board, if there is one.
        draws: of an image, at most.
        facts: of whoever else takes part, for the session's provenance.
    """

    identity: dict[str, Any]
    graph: Graph
    oracle: Oracle
    cases: int
    total: int
    begin: Callable[[Store], Callable[[_Report], None]]
    project: Project | None = None
    target: Target | None = None
    draws: int = 1
    facts: Callable[[], dict[str, Any]] = dict


def oracle_of(graph: Graph, target: Target | None) -> Oracle:
    """The board that is open, or the native twin where there is none."""
    from bnnmcu.attack.oracle import DeviceOracle, NativeOracle

    if target is None:
        return NativeOracle(graph)
    return DeviceOracle(target.device, label="emulated" if target.emulated else "hardware")


def run_stored(
    config: CampaignConfig,
    graph: Graph,
    images: Dataset,
    sum_up: Callable[[Store], _T],
    *,
    name: str,
    results: Path | None,
    project: Project | None,
    target: Target | None,
    oracle: Oracle | None = None,
    folder: Path | None = None,
    models: Mapping[str, GradientModel] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    before: Callable[[Store], None] | None = None,
    cluster: Engine | None = None,
) -> tuple[_T, Path]:
    """Do what of a campaign is not stored yet, and sum it up.

    Args:
        sum_up: makes figures of a finished store.
        name: begins the name of a results file that nobody named.
        results: the results file; None for one of this very run's own.
        project: None for a model file, whose results file or folder must be named.
        target: the board that answers; None for the native twin, or ``oracle``.
        oracle: answers where it is neither.
        folder: of results files that nobody named; None for the project's.
        models: others that gradients are taken of, by name.
        workers: images crafted side by side; None for one on each core.
        device: where gradients are computed.
        before: is given the open store before anything is done.
        cluster: crafts instead of threads of this process.

    Returns:
        The figures, and the results file.

    Raises:
        click.exceptions.Exit: Ctrl-C; what is stored and how to go on was said.
        LinkError: the board stopped answering; what it answered is stored.
        StoreError: the file holds another run, or cannot be written.
    """
    from bnnmcu.attack.campaign import Campaign, campaign_identity
    from bnnmcu.attack.pairs import places_of

    who = oracle or oracle_of(graph, target)
    others = dict(models or {})
    identity = campaign_identity(config, graph, images, who, models=others)
    counts = [len(places_of(one, images, graph.classes)) for one in (None, *config.attacks)]

    crafter = None
    if cluster is not None:
        from bnnmcu.cluster.crafting import ClusterCrafter

        crafter = ClusterCrafter(cluster, config, graph, images, who, others, device=device)

    def begin(store: Store) -> Callable[[_Report], None]:
        if before is not None:
            before(store)
        return Campaign(
            config,
            graph,
            images,
            who,
            store,
            models=others,
            workers=workers,
            device=device,
            crafter=crafter,
        ).run

    work = Work(
        identity,
        graph,
        who,
        cases=len(counts),
        total=sum(counts),
        begin=begin,
        project=project,
        target=target,
        draws=config.draws if graph.stochastic else 1,
        facts=lambda: {} if cluster is None else {"cluster": cluster.described()},
    )
    path = results or own_file(folder or _folder(project), name, identity)
    return do_stored(work, path, sum_up), path


def do_stored(work: Work, path: Path, sum_up: Callable[[Store], _T]) -> _T:
    """Do what is not in the results file yet, and sum it up; see :func:`run_stored`."""
    from bnnmcu.provenance import provenance
    from bnnmcu.store import Store

    target = work.target
    about = provenance(work.graph, work.project, target) | work.facts()
    with Store.open(path, work.identity, provenance=about) as store:
        if store.resumed:
            note(f"going on with the run in {path}")
        run = work.begin(store)
        state = _State(work.total, path)
        try:
            with show_progress() as display, _interruptible(state, display, target):
                lanes = campaign_lanes(
                    display,
                    work.cases,
                    work.oracle.name if target is None else target.label,
                    link=None if target is None else lambda: target.device.stats,
                    expected=None if target is None else target.line_rate(work.draws),
                )
                run(state.watching(lanes))
        except KeyboardInterrupt:
            raise click.exceptions.Exit(state.report()) from None
        except BnnmcuError:
            note(f"{state.text}: the same command goes on")
            raise
        note(f"all answers are in {path}")
        return sum_up(store)


def campaign_lanes(
    display: Display,
    cases: int,
    name: str,
    *,
    link: Callable[[], Any] | None = None,
    expected: float | None = None,
) -> Callable[[Progress], None]:
    """What a campaign reports to: a lane for who answers, and one for crafting.

    Args:
        cases: of the whole run, the clean one included.
        name: who answers.
        link: counters of its line; None where it is no board.
        expected: the most images a second that the line can carry, if known.
    """
    lanes: dict[str, Lane] = {}
    now: dict[str, tuple[str, int]] = {}
    order: list[tuple[str, int]] = []

    def show(progress: Progress) -> None:
        key, stage = (progress.attack, progress.levels), progress.stage
        if key not in order:
            order.append(key)
        clean = progress.attack == "clean"
        if stage == "craft" and (clean or (stage not in lanes and progress.done == progress.total)):
            # Nothing to craft, or nothing left of it by an earlier session.
            return
        if stage not in lanes:
            lanes[stage] = (
                display.lane("crafting")
                if stage == "craft"
                else display.lane(name, board=link is not None, link=link, expected=expected)
            )
        lane = lanes[stage]
        if now.get(stage) == key:
            lane.update(progress.done)
            return
        now[stage] = key
        case = progress.attack + (f" {progress.levels}/255" if progress.levels else "")
        if cases > 1:
            case += f" ({order.index(key) + 1} of {cases})"
        lane.begin(case, progress.total, progress.done)

    return show


class _State:
    """How far a run has come, for whoever interrupts it.

    Args:
        total: images of all cases.
        results: where answers are stored.
    """

    def __init__(self, total: int, results: Path) -> None:
        self.crafting = False
        self._total = total
        self._results = results
        self._answered: dict[tuple[str, int], int] = {}

    def watching(self, show: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Keeps what it is told, and passes it on."""

        def report(progress: Progress) -> None:
            self.crafting = progress.stage == "craft" and progress.done < progress.total
            if progress.stage == "ask":
                self._answered[progress.attack, progress.levels] = progress.done
            show(progress)

        return report

    @property
    def stored(self) -> int:
        """Images of all cases whose answers are on disk."""
        return sum(self._answered.values())

    @property
    def text(self) -> str:
        """What is stored, for people."""
        return f"answers to {self.stored:,} of {self._total:,} images are kept in {self._results}"

    def report(self) -> int:
        """Say what is stored and how to go on, since the run was interrupted; the exit code."""
        return report_interrupt(
            self.text,
            stored=self.stored,
            total=self._total,
            results=str(self._results),
            next=_same_command(),
        )


def _interruptible(
    state: _State, display: Display, target: Target | None
) -> AbstractContextManager[None]:
    def asked() -> None:
        if state.crafting:
            note("stopping as soon as the images at work are crafted; Ctrl-C again: at once")

    def at_once() -> None:
        display.end()
        state.report()
        if target is not None:
            target.device.close()

    return orderly_interrupts(asked, at_once)


def own_file(folder: Path, name: str, identity: dict[str, Any]) -> Path:
    """The results file of this very run: starting it again goes on, another has its own."""
    text = json.dumps(identity, sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.sqlite"


def _folder(project: Project | None) -> Path:
    assert project is not None, "results of a model file are named"
    return project.folder / "results"


def _same_command() -> str:
    """What was typed, to be typed again."""
    words = ["bnnmcu", *sys.argv[1:]]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
