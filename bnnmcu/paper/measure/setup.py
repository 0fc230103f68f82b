"""What every measure is given, and the one way in which it has images crafted and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnnmcu.attack.campaign import Campaign, Progress, campaign_identity
from bnnmcu.attack.config import CLEAN, AttackConfig, CampaignConfig
from bnnmcu.attack.flags import find_flags
from bnnmcu.attack.metrics import Case
from bnnmcu.attack.metrics.measure import measure
from bnnmcu.attack.metrics.planned import Plan, read_plan
from bnnmcu.attack.metrics.votes import right_images
from bnnmcu.attack.oracle import Oracle
from bnnmcu.data import Dataset
from bnnmcu.paper.jobs import JSON, Job, Report
from bnnmcu.paper.measure.floats import FloatRun
from bnnmcu.paper.measure.subject import Subject
from bnnmcu.store import Judged, Store

if TYPE_CHECKING:
    from bnnmcu.cluster.engine import Engine

__all__ = ["Answers", "Setup", "answered", "selected"]

_CLEAN = (CLEAN, 0)


@dataclass(frozen=True, eq=False)
class Setup:
    """What a measure works with.

    Attributes:
        job: what is to be measured.
        subject: of which network.
        test: all test images.
        path: begins the names of this job's own files; they name the model, too.
        device: where gradients are computed.
        workers: chunks crafted side by side.
        report: is told what is being done.
        earlier: seconds of crafting in sittings before this one, or in workers of a cluster,
            added as they are found.
        cluster: crafts what follows the gradients of an integer network; None for this process.
    """

    job: Job
    subject: Subject
    test: Dataset
    path: Path
    device: str
    workers: int
    report: Report
    earlier: list[float] = field(default_factory=list)
    cluster: Engine | None = None

    def setting(self, name: str) -> JSON:
        """One of the job's settings."""
        return self.job.setting(name)


def selected(test: Dataset, images: JSON) -> Dataset:
    """All images for None; else so many, class by class in turn.

    Raises:
        DataError: there are not so many.
    """
    if images is None:
        return test
    assert type(images) is int
    return test.stratified(images)


@dataclass(frozen=True, eq=False)
class Answers:
    """Judged examples of a run.

    Attributes:
        judged: by name and levels of the case, clean first.
        plan: what was to be done.
        store: the results file; None for a float network.
    """

    judged: Mapping[tuple[str, int], Sequence[Judged]]
    plan: Plan
    store: Path | None = None

    def case(self, attack: AttackConfig | None) -> Case:
        """The figures of an attack; of the clean images for None."""
        key = (attack.case, attack.levels) if attack else _CLEAN
        right = right_images(self.judged[_CLEAN])
        return measure(self.judged[key], right, self.plan.find(key))

    def flags(self) -> str:
        """Codes of the warnings about these figures (docs/ATTACKS.md), for a record."""
        right = right_images(self.judged[_CLEAN])
        cases = [measure(group, right, self.plan.find(key)) for key, group in self.judged.items()]
        found = find_flags(
            cases, stochastic=self.plan.stochastic, draws=self.plan.draws, complete=True, audit=None
        )
        return " ".join(sorted({one.code for one in found if one.severity == "warning"}))


def answered(
    setup: Setup,
    attacks: Sequence[AttackConfig],
    data: Dataset,
    *,
    draws: int = 1,
    chunk: int = 25,
    oracle: Oracle | None = None,
) -> Answers:
    """Craft and judge what is not stored yet.

    Args:
        data: the clean images; an attack may take fewer of them.
        draws: that judge an image, none of which an attack has seen.
        chunk: images crafted together.
        oracle: answers instead of the subject's own.

    Raises:
        BnnmcuError: as :class:`bnnmcu.attack.campaign.Campaign` and its store.
    """
    config = CampaignConfig(
        attacks=tuple(attacks), draws=draws, seed=setup.job.whole("seed"), chunk=chunk
    )
    if setup.subject.graph is None:
        run = FloatRun(setup.subject, config, data, setup.path)
        judged = run.run(setup.report)
        # As much of an identity as a plan is read from.
        identity: dict[str, Any] = {
            "config": config.to_dict(),
            "model": {"stochastic": False},
            "data": {"images": len(data)},
        }
        setup.earlier.append(run.earlier)
        return Answers(judged, read_plan(setup.path, identity))
    graph, who = setup.subject.graph, oracle or setup.subject.oracle
    identity = campaign_identity(config, graph, data, who)
    path = setup.path.with_name(f"{setup.path.name}.sqlite")
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store.open(path, identity) as store:
        if store.resumed:
            setup.earlier.append(sum(one.crafting_s or 0.0 for one in store.judged()))
        crafter = None
        if setup.cluster is not None:
            from bnnmcu.cluster.crafting import ClusterCrafter

            crafter = ClusterCrafter(
                setup.cluster, config, graph, data, who, {}, device=setup.device
            )
        campaign = Campaign(
            config,
            graph,
            data,
            who,
            store,
            workers=setup.workers,
            device=setup.device,
            crafter=crafter,
        )
        campaign.run(_told(setup.report))
        if crafter is not None:
            setup.earlier.append(crafter.seconds)
        groups: dict[tuple[str, int], list[Judged]] = {}
        for one in store.judged():
            groups.setdefault((one.attack, one.levels), []).append(one)
    return Answers(groups, read_plan(path, identity), path)


def _told(report: Report) -> Any:
    def tell(progress: Progress) -> None:
        verb = "crafting" if progress.stage == "craft" else "asking"
        name = f"{progress.attack} {progress.levels}/255" if progress.levels else progress.attack
        report(f"{verb} {name}", progress.done, progress.total)

    return tell
