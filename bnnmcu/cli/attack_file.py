"""``bnnmcu attack FILE.toml``: every run of a campaign file, and one report over all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bnnmcu.attack.interrupts import held_interrupts
from bnnmcu.cli.inputs import open_project, warn_if_seen
from bnnmcu.cli.output import note, print_json
from bnnmcu.cli.summary import print_tables
from bnnmcu.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from bnnmcu.attack.campaign_file import BoardEntry, CampaignFile, ModelEntry
    from bnnmcu.attack.config import CampaignConfig
    from bnnmcu.attack.model import GradientModel
    from bnnmcu.attack.oracle import Oracle
    from bnnmcu.backend.project import Project
    from bnnmcu.cli.models import Model
    from bnnmcu.cluster.engine import Engine
    from bnnmcu.data import Dataset
    from bnnmcu.graph import Graph
    from bnnmcu.report.attacks import Run
    from bnnmcu.report.document import Document
    from bnnmcu.store import Store

__all__ = ["run_file"]


def run_file(path: Path, *, as_json: bool, cluster: Engine | None = None) -> None:
    """Do, or finish, all runs of a campaign file; write and print their report.

    Args:
        cluster: crafts instead of threads of this process.

    Raises:
        UsageError: the file says what cannot be.
        BnnmcuError: of the run that failed; those before it are stored, and the
            same command goes on.
    """
    from bnnmcu.attack.campaign_file import read_campaign
    from bnnmcu.data import load_dataset
    from bnnmcu.report.attacks import report
    from bnnmcu.report.markdown import to_markdown

    campaign = read_campaign(path)
    networks = _Networks(campaign)
    networks.check()
    images = load_dataset(campaign.data)
    if campaign.images is not None:
        images = images.stratified(campaign.images)
    # All of them before the first takes long.
    for model, _ in campaign.runs():
        loaded = networks.compiled(model)
        images.check_suits(loaded.graph.name, loaded.graph.input_shape, loaded.graph.classes)
        warn_if_seen(loaded.training, images)
    campaign.results.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for number, (model, board) in enumerate(campaign.runs(), start=1):
        note(f"run {number} of {len(campaign.runs())}: {model.name} on {board.name}")
        earlier = [one.results for one in runs]
        runs.append(_run(campaign, networks, model, board, images, earlier, cluster))
    document = report(campaign, runs)
    base = campaign.results / campaign.name
    files = base.with_name(f"{base.name}.md"), base.with_name(f"{base.name}.json")
    files[0].write_text(to_markdown(document), encoding="utf-8")
    files[1].write_text(json.dumps(document.facts, indent=2, allow_nan=False) + "\n", "utf-8")
    if as_json:
        print_json(document.facts)
    else:
        _print(document)
    note(f"the report is in {files[0]} and {files[1]}")


def _print(document: Document) -> None:
    for section in document.sections:
        print(f"\n{section.title}")
        for text in (*section.paragraphs, *(f"- {point}" for point in section.points)):
            print(text)
        if section.tables:
            print()
            print_tables(section.tables)


class _Networks:
    """The networks of a campaign, each read when it is first needed."""

    def __init__(self, campaign: CampaignFile) -> None:
        self._campaign = campaign
        self._compiled: dict[str, Model] = {}
        self._projects: dict[str, Project] = {}
        self._gradients: dict[str, GradientModel] = {}

    def project(self, entry: ModelEntry) -> Project:
        """An exported folder."""
        assert entry.project is not None
        if entry.name not in self._projects:
            self._projects[entry.name] = open_project(entry.project)
        return self._projects[entry.name]

    def compiled(self, entry: ModelEntry) -> Model:
        """The integer network: the project's, or what its file compiles to."""
        from bnnmcu.cli.models import Model, compile_model

        if entry.name not in self._compiled:
            if entry.project is not None:
                project = self.project(entry)
                found = Model(project.graph, None, project.training, project.choice)
            else:
                assert entry.file is not None
                found = compile_model(entry.file, {})
            self._compiled[entry.name] = found
        return self._compiled[entry.name]

    def check(self) -> None:
        """Raise a UsageError for a model file that is not there, before anything takes long."""
        for entry in self._campaign.models:
            if entry.file is not None and not entry.file.is_file():
                raise UsageError(
                    "there is no such model file",
                    where=f"{self._campaign.path}: [[model]] {entry.name}: {entry.file}",
                    hint="paths are relative to the campaign file",
                )

    def others(self) -> dict[str, GradientModel]:
        """Those that attacks take gradients of by name, on the campaign's device."""
        from bnnmcu.attack.craft import make_twin

        for name in dict.fromkeys(one.model for one in self._campaign.attacks if one.model):
            if name in self._gradients:
                continue
            entry = self._campaign.model(name)
            if entry.is_float:
                self._gradients[name] = self._float(entry)
            else:
                graph = self.compiled(entry).graph
                self._gradients[name] = make_twin(graph, self._campaign.device)
        return self._gradients

    def _float(self, entry: ModelEntry) -> GradientModel:
        assert entry.file is not None
        try:
            with held_interrupts():
                from bnnmcu.attack.device import choose_device
                from bnnmcu.attack.float import load_float_model
        except ImportError as error:
            raise MissingDependencyError(
                "gradients of a float network need torch", hint="pip install 'bnnmcu[attack]'"
            ) from error
        return load_float_model(entry.file).to(choose_device(self._campaign.device))

    def oracle(self, entry: ModelEntry, board: BoardEntry) -> Oracle | None:
        """Who answers where it is no board; None for a board and the native twin."""
        if board.reference:
            from bnnmcu.attack.oracle import ReferenceOracle

            return ReferenceOracle(self.compiled(entry).graph)
        if board.is_float:
            from bnnmcu.attack.oracle import FloatOracle

            return FloatOracle(self._float(replace(entry, is_float=True)))
        return None


def _run(
    campaign: CampaignFile,
    networks: _Networks,
    model: ModelEntry,
    board: BoardEntry,
    images: Dataset,
    earlier: Sequence[Path],
    cluster: Engine | None,
) -> Run:
    """One network on one board; ``earlier`` are the results of other ones."""
    from bnnmcu.attack.audit import audit_run
    from bnnmcu.attack.metrics import summarize
    from bnnmcu.cli.campaigns import run_stored
    from bnnmcu.report.attacks import run_of
    from bnnmcu.target import open_target

    graph = networks.compiled(model).graph
    project = networks.project(model) if model.project is not None else None
    config = campaign.config(stochastic=bool(graph.stochastic))
    with ExitStack() as stack:
        target = None
        if board.options is not None:
            assert project is not None
            target = stack.enter_context(open_target(project, board.options, note))
        found, _ = run_stored(
            config,
            graph,
            images,
            lambda store: run_of(
                model.name,
                board.name,
                store.path,
                summarize(store, audit_run(store, graph, images)),
                store.sessions(),
                store.rows(),
            ),
            name=f"{campaign.name}-{model.name}-{board.name}",
            results=None,
            project=project,
            target=target,
            oracle=networks.oracle(model, board),
            folder=campaign.results,
            models=networks.others(),
            workers=campaign.workers,
            device=campaign.device,
            before=lambda store: _share(earlier, store, config, graph),
            cluster=cluster,
        )
    return found


def _share(earlier: Sequence[Path], store: Store, config: CampaignConfig, graph: Graph) -> None:
    """Spare crafting what the same campaign crafted for another board."""
    from bnnmcu.attack.sharing import may_share, share_crafted
    from bnnmcu.store import Store

    for path in earlier:
        with Store.read(path) as source:
            if may_share(source.identity, store.identity):
                count = share_crafted(source, store, config, graph.input_shape)
                if count:
                    note(f"{count:,} images are those of {path.name}: the same network and attacks")
                return
