"""Runs whose answers are stored as they come: what ``evaluate`` and ``attack`` share."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
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
    from bnnmcu.attack.oracle import Oracle
    from bnnmcu.backend.project import Project
    from bnnmcu.data import Dataset
    from bnnmcu.graph import Graph
    from bnnmcu.store import Store
    from bnnmcu.target import Target

__all__ = ["campaign_lanes", "run_stored"]

_T = TypeVar("_T")


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
) -> tuple[_T, Path]:
    """Do what of a run is not stored yet, and sum it up.

    Args:
        sum_up: makes figures of a finished store.
        name: of the command; begins the name of a results file that nobody named.
        results: the results file; None for one in the project's folder.
        project: None for a model file, whose results file must be named.
        target: the board that answers; None for the native twin.

    Returns:
        The figures, and the results file.

    Raises:
        click.exceptions.Exit: Ctrl-C; what is stored and how to go on was said.
        LinkError: the board stopped answering; what it answered is stored.
        StoreError: the file holds another run, or cannot be written.
    """
    from bnnmcu.attack.campaign import Campaign, campaign_identity
    from bnnmcu.attack.oracle import DeviceOracle, NativeOracle
    from bnnmcu.provenance import provenance
    from bnnmcu.store import Store

    oracle: Oracle
    if target is None:
        oracle = NativeOracle(graph)
    else:
        oracle = DeviceOracle(target.device, label="emulated" if target.emulated else "hardware")
    identity = campaign_identity(config, graph, images, oracle)
    path = results or _own_file(project, name, identity)
    draws = config.draws if graph.stochastic else 1
    cases = 1 + len(config.attacks)
    with Store.open(path, identity, provenance=provenance(graph, project, target)) as store:
        if store.resumed:
            note(f"going on with the run in {path}")
        campaign = Campaign(config, graph, images, oracle, store)
        state = _State(cases * len(images), path)
        try:
            with show_progress() as display, _interruptible(state, display, target):
                lanes = campaign_lanes(
                    display,
                    cases,
                    oracle.name if target is None else target.label,
                    link=None if target is None else lambda: target.device.stats,
                    expected=None if target is None else target.line_rate(draws),
                )
                campaign.run(state.watching(lanes))
        except KeyboardInterrupt:
            raise click.exceptions.Exit(state.report()) from None
        except BnnmcuError:
            note(f"{state.text}: the same command goes on")
            raise
        note(f"all answers are in {path}")
        return sum_up(store), path


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


def _own_file(project: Project | None, name: str, identity: dict[str, Any]) -> Path:
    """The results file of this very run: starting it again goes on, another has its own."""
    assert project is not None, "results of a model file are named"
    text = json.dumps(identity, sort_keys=True)
    folder = project.folder / "results"
    folder.mkdir(exist_ok=True)
    return folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.sqlite"


def _same_command() -> str:
    """What was typed, to be typed again."""
    words = ["bnnmcu", *sys.argv[1:]]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
